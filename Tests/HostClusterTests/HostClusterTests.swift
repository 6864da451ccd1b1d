// HostClusterTests
