// `lockstep scrub` on real mounts.

import Glibc
import Testing
import Vocabulary

extension MountedTests {
    @Suite(.serialized) struct ScrubTests {
        private func scrub(_ node: TestNode, _ options: [String] = []) throws -> CommandResult {
            try Commands.run("lockstep", ["scrub", node.root] + options, limit: 120)
        }

        private func report(_ result: CommandResult) throws -> JSONText {
            try JSONText(parsing: result.output)
        }

        private func fill(_ root: String, files: Int) throws {
            try check(mkdir(root + "/many", 0o755))
            for number in 0..<files { try Files.write([1], to: "\(root)/many/\(number)") }
        }

        /// A volume that others use is sound; then an inode is damaged under it, and is named.
        @Test func damageIsNamedAndNothingElse() throws {
            let cluster = try TestCluster(nodes: 2)
            try Watchdog.guarding(cluster, limit: 240) {
                let (one, two) = (cluster.nodes[0], cluster.nodes[1])
                try cluster.mount(one)
                try Files.write([1], to: one.root + "/damaged")
                let block = try Files.status(one.root + "/damaged").inode
                try cluster.unmount(one)
                try cluster.mountAll()
                try fill(two.root, files: 300)
                #expect(try scrub(one, ["--status"]).output.contains("has not scrubbed"))
                let sound = try scrub(one, ["--json"])
                #expect(sound.exitCode == 0, "\(sound)")
                let figures = try report(sound)
                #expect(figures.string("state") == "finished" && figures.list("findings").isEmpty)
                // The root, the directory, what is in it, and an orphan directory for each node.
                #expect(figures.number("inodes") == 305 && figures.number("directories") == 4)
                #expect(figures.number("entries") == 302)
                try Files.withOpen(cluster.image, O_RDWR) {
                    var byte: UInt8 = 0
                    try check(pread($0, &byte, 1, off_t(block) * 4096 + 100))
                    try Files.write([byte ^ 4], to: $0, at: Int(block) * 4096 + 100)
                }
                let found = try scrub(two)
                #expect(found.exitCode == 4, "\(found)")
                #expect(
                    found.output.contains("inode-damaged")
                        && found.output.contains("block \(block)")
                )
                // Who scrubs does not withdraw, and remembers.
                #expect(try Files.names(two.root).contains("many"))
                let remembered = try scrub(two, ["--status"])
                #expect(remembered.exitCode == 4 && remembered.output.contains("inode-damaged"))
                try cluster.unmountAll()
                let repaired = try Commands.run("fsck.lockstep", ["-y", "-f", cluster.image])
                #expect(repaired.exitCode == 1, "\(repaired)")
                try cluster.checkClean()
            }
        }

        /// One at a time; it can be stopped, and ends when its node unmounts.
        @Test func oneAtATimeUntilItIsStopped() throws {
            let cluster = try TestCluster(nodes: 1)
            try Watchdog.guarding(cluster, limit: 240) {
                let node = cluster.nodes[0]
                try cluster.mount(node)
                try fill(node.root, files: 6_000)
                #expect(try scrub(node, ["--background"]).exitCode == 0)
                let second = try scrub(node)
                #expect(
                    second.exitCode != 0 && second.complaint.contains("running already"),
                    "\(second)"
                )
                #expect(try scrub(node, ["--stop"]).exitCode == 0)
                let stopped = try scrub(node, ["--status", "--json"])
                #expect(stopped.exitCode == 8, "\(stopped)")
                #expect(try report(stopped).string("state") == "stopped")
                #expect(try scrub(node, ["--background"]).exitCode == 0)
                try cluster.unmount(node)
                try cluster.checkClean()
            }
        }
    }
}
