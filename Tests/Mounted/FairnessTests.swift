// Two mounts that fight for one directory: both get on (LockCache/HandOverCost.swift).

import Glibc
import Synchronization
import Testing

extension MountedTests {
    @Suite(.serialized) struct FairnessTests {
        private static let seconds = 4.0

        /// What one node did.
        private final class Tally: Sendable {
            let made = Atomic(0)
            let looked = Atomic(0)
        }

        /// Makes files in a directory, or looks for some that are not there, until `end`.
        private static func work(
            _ folder: String,
            _ name: String,
            makes: Bool,
            _ tally: Tally,
            until end: Double
        ) {
            var round = 0
            while monotonicSeconds() < end {
                let path = "\(folder)/\(name)-\(round)"
                round += 1
                if makes {
                    let file = open(path, O_CREAT | O_EXCL | O_WRONLY, 0o644)
                    guard file >= 0 else {
                        Issue.record("\(path): \(errno)")
                        return
                    }
                    close(file)
                    tally.made.add(1, ordering: .relaxed)
                } else {
                    var status = stat()
                    #expect(stat(path, &status) == -1 && errno == ENOENT)
                    tally.looked.add(1, ordering: .relaxed)
                }
            }
        }

        @Test func bothGetOnAndWaitForNobodyIdle() throws {
            let cluster = try TestCluster(nodes: 2, size: "256M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                try check(mkdir(cluster.nodes[0].root + "/arena", 0o755))
                let tallies = cluster.nodes.map { _ in Tally() }
                let end = monotonicSeconds() + Self.seconds
                var threads: [TestThread] = []
                for (node, tally) in zip(cluster.nodes, tallies) {
                    for worker in 0..<4 {
                        let folder = node.root + "/arena"
                        let name = "n\(threads.count)"
                        threads.append(
                            TestThread {
                                Self.work(folder, name, makes: worker == 0, tally, until: end)
                            }
                        )
                    }
                }
                for thread in threads { thread.join() }
                let made = tallies.map { $0.made.load(ordering: .relaxed) }
                let looked = tallies.map { $0.looked.load(ordering: .relaxed) }
                let (least, most) = (made.min() ?? 0, made.max() ?? 0)
                // The node that is the lock's master hears of no want while the other's request is under way.
                #expect(least > 0 && 10 * least >= most, "\(made) made, \(looked) looks")
                let holds = try cluster.nodes.map { try Counters.value("minimumHolds", $0.root) }
                #expect(holds.allSatisfy { $0 > 0 }, "\(holds)")
                for node in cluster.nodes {
                    let names = try Files.names(node.root + "/arena")
                    #expect(names.filter { $0 != "." && $0 != ".." }.count == made.reduce(0, +))
                }
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }
    }
}
