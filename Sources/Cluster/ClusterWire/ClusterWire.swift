// ClusterWire
