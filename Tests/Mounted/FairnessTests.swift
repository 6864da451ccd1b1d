// Two mounts that fight for one directory: both get on (LockCache/MinimumHold.swift).

import Glibc
import Synchronization
import Testing

extension MountedTests {
    @Suite(.serialized) struct FairnessTests {
        private static let seconds = 4.0

        /// Makes files in a directory until `end`; how many.
        private static func work(_ folder: String, _ name: String, until end: Double) -> Int {
            var made = 0
            while monotonicSeconds() < end {
                let path = "\(folder)/\(name)-\(made)"
                let file = open(path, O_CREAT | O_EXCL | O_WRONLY, 0o644)
                guard file >= 0 else {
                    Issue.record("\(path): \(errno)")
                    return made
                }
                close(file)
                made += 1
            }
            return made
        }

        @Test func bothGetOn() throws {
            let cluster = try TestCluster(nodes: 2, size: "256M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                try check(mkdir(cluster.nodes[0].root + "/arena", 0o755))
                let tallies = cluster.nodes.map { _ in Counter() }
                let end = monotonicSeconds() + Self.seconds
                let threads = zip(cluster.nodes, tallies).enumerated().map { index, pair in
                    let (folder, tally) = (pair.0.root + "/arena", pair.1)
                    return TestThread {
                        tally.made.store(
                            Self.work(folder, "n\(index)", until: end),
                            ordering: .relaxed
                        )
                    }
                }
                for thread in threads { thread.join() }
                let made = tallies.map { $0.made.load(ordering: .relaxed) }
                let (least, most) = (made.min() ?? 0, made.max() ?? 0)
                #expect(least >= 10 && 10 * least >= most, "\(made) made")
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

        private final class Counter: Sendable {
            let made = Atomic(0)
        }
    }
}
