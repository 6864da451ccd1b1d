// Tests with real mounts: the commands as they are shipped, the kernel, three nodes of one cluster
// on this machine. One at a time, each with a watchdog: see `Watchdog` and `TestCluster`.

import Glibc
import Testing

@Suite(.serialized) struct MountedTests {
    /// Fails, rather than skips, where the rest cannot run.
    @Test func theCommandsAreBuilt() {
        #expect(
            Commands.missing.isEmpty,
            "not in \(Commands.folder): \(Commands.missing); run tools/test, or set LOCKSTEP_BIN"
        )
        #expect(access("/dev/fuse", R_OK | W_OK) == 0, "/dev/fuse cannot be opened")
    }
}
