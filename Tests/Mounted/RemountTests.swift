// What test harnesses and administrators pass: remounts, other people's names for the device, rules for times.

import Glibc
import Testing

extension MountedTests {
    @Suite(.serialized) struct RemountTests {
        /// Options, and what the table of mounts calls the device.
        private static func table(_ point: String) throws -> (
            options: [Substring], source: Substring
        ) {
            let text = String(decoding: try Files.contents("/proc/self/mountinfo"), as: UTF8.self)
            for line in text.split(separator: "\n") {
                let fields = line.split(separator: " ")
                guard fields[4] == point, let dash = fields.firstIndex(of: "-") else { continue }
                return (fields[5].split(separator: ","), fields[dash + 2])
            }
            throw Trouble("\(point) is not mounted")
        }

        @Test(.enabled(if: geteuid() == 0)) func readOnlyAndBack() throws {
            let cluster = try TestCluster(nodes: 2, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let (node, other) = (cluster.nodes[0], cluster.nodes[1])
                func remount(_ options: String...) throws -> CommandResult {
                    let arguments = cluster.mountArguments(node, options: ["remount"] + options)
                    return try Commands.run("mount.lockstep", arguments)
                }
                try Files.write([1], to: node.root + "/f")
                // Not while somebody writes.
                try Files.withOpen(node.root + "/f", O_WRONLY) { _ in
                    let refused = try remount("ro")
                    #expect(
                        refused.exitCode == 32 && refused.complaint.contains("open for writing")
                    )
                }
                #expect(try remount("ro", "noexec").succeeded)
                let options = try Self.table(node.root).options
                #expect(options.contains("ro") && options.contains("noexec"))
                #expect(options.contains("nodev"), "what was there stays")
                #expect(throws: SystemFailure(EROFS)) {
                    try Files.write([2], to: node.root + "/g")
                }
                // It sees what others do.
                try Files.write([3, 3], to: other.root + "/f")
                #expect(try Files.contents(node.root + "/f") == [3, 3])
                #expect(try remount("rw", "exec").succeeded)
                #expect(try !Self.table(node.root).options.contains("noexec"))
                try Files.write([2], to: node.root + "/g")
                try cluster.unmountAll()
                // What was mounted read-only the daemon does not write to.
                try cluster.mount(node, options: ["ro", "fsname=somewhere", "lazytime", "noatime"])
                #expect(try Self.table(node.root).source == "somewhere")
                let refused = try remount("rw")
                #expect(refused.exitCode == 32 && refused.complaint.contains("mounted read-only"))
                #expect(try Self.table(node.root).options.contains("ro"))
                try cluster.unmount(node)
                let none = try remount("ro")
                #expect(none.exitCode == 32 && none.complaint.contains("not on a mounted"))
                try cluster.checkClean()
            }
        }
    }
}
