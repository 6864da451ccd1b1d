// HostCluster
