// What nobody uses is given back (FileSystem/CacheShrinking.swift): with it the kernel forgets inodes, and nothing is lost.

import Glibc
import Testing

extension MountedTests {
    @Suite(.serialized) struct CacheShrinkingTests {
        private static let files = 3000

        /// Waits until `isSo`, some seconds at most.
        private static func settled(
            _ what: String,
            _ root: String,
            _ isSo: (Int) -> Bool
        ) throws -> Int {
            let limit = monotonicSeconds() + 40 * Patience.factor
            while true {
                let value = try Counters.value(what, root)
                if isSo(value) { return value }
                guard monotonicSeconds() < limit else { throw Trouble("\(what) stays \(value)") }
                poll(nil, 0, 100)
            }
        }

        private static func path(_ index: Int, _ node: TestNode) -> String {
            "\(node.root)/d\(index % 7)/f\(index)"
        }

        private static func make(_ node: TestNode) throws {
            for directory in 0..<7 { try check(mkdir("\(node.root)/d\(directory)", 0o755)) }
            for index in 0..<files {
                try Files.write(Array("file \(index)".utf8), to: path(index, node))
            }
        }

        private static func compare(_ node: TestNode) throws {
            for index in 0..<files {
                let found = try Files.contents(path(index, node))
                #expect(found == Array("file \(index)".utf8), "\(path(index, node))")
            }
        }

        /// What is open stays; everything else goes, in the kernel too.
        @Test func whatNobodyHasUsedForLongIsGivenBack() throws {
            let cluster = try TestCluster(nodes: 2, size: "128M")
            try Watchdog.guarding(cluster, limit: 180) {
                let (first, second) = (cluster.nodes[0], cluster.nodes[1])
                try cluster.mount(first, options: ["cache_age=2", "commit=1"])
                try Self.make(first)
                let kept = try Files.open(Self.path(5, first), O_RDWR)
                let held = try Self.settled("heldLocks", first.root) { $0 < 60 }
                #expect(held >= 3)
                #expect(try Counters.value("locksGivenBackForAge", first.root) >= Self.files - 60)
                #expect(try Counters.value("locksGivenBackForNumber", first.root) == 0)
                _ = try Self.settled("cachedBlocks", first.root) { $0 < 60 }
                // The kernel drops names that nobody uses from Linux 6.18 on; before, the inodes stay.
                if try Counters.value("reclaimedInodes", first.root) > 0 {
                    _ = try Self.settled("inodes", first.root) { $0 < 60 }
                }
                #expect(try Files.contents(of: kept) == Array("file 5".utf8))
                try check(close(kept))
                try Self.compare(first)
                try cluster.mount(second)
                let demotions = try Counters.value("demotions", first.root)
                _ = try Self.settled("heldLocks", first.root) { $0 < 60 }
                #expect(try Counters.value("demotions", first.root) >= demotions)
                try Self.compare(second)
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        @Test func noMoreLocksAreKeptThanMayBe() throws {
            let cluster = try TestCluster(nodes: 2, size: "128M")
            try Watchdog.guarding(cluster, limit: 180) {
                let (first, second) = (cluster.nodes[0], cluster.nodes[1])
                try cluster.mount(first, options: ["cache_locks=1000", "commit=1"])
                try cluster.mount(second)
                try Self.make(first)
                // An eighth more may stay.
                _ = try Self.settled("heldLocks", first.root) { $0 <= 1125 }
                #expect(
                    try Counters.value("locksGivenBackForNumber", first.root) >= Self.files - 1125
                )
                #expect(try Counters.value("locksGivenBackForAge", first.root) == 0)
                #expect(try Counters.value("heldLocks", first.root) > 400, "what is used stays")
                try Self.compare(first)
                try Self.compare(second)
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        @Test func optionsAreLimited() throws {
            let cluster = try TestCluster(nodes: 1, size: "64M")
            for option in [
                "cache_locks=10", "cache_age=100000", "cache_metadata=0", "cache_age=x",
            ] {
                let result = try Commands.run(
                    "mount.lockstep",
                    cluster.mountArguments(cluster.nodes[0], options: [option])
                )
                #expect(!result.succeeded)
                #expect(result.complaint.contains("expected a number"), "\(result)")
            }
            try cluster.mount(
                cluster.nodes[0],
                options: ["cache_locks=1000", "cache_age=0", "cache_metadata=1"]
            )
            try cluster.unmountAll()
        }
    }
}
