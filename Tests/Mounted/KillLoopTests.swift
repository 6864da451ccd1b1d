// Nodes are killed at random moments of a mixed workload, round after round; each round is verified
// on every node, by a scrub while the survivors work, and by a check.
//
// LOCKSTEP_KILL_ROUNDS says how many rounds; LOCKSTEP_KILL_SEED from where the dice start.

import CLinux
import Glibc
import Synchronization
import Testing
import Vocabulary

extension MountedTests {
    @Suite(.serialized) struct KillLoopTests {
        private func setting(_ name: String, _ standard: UInt64) -> UInt64 {
            getenv(name).flatMap { UInt64(String(cString: $0)) } ?? standard
        }

        @Test func nothingIsLostWhoeverIsKilledWhenever() throws {
            let rounds = Int(setting("LOCKSTEP_KILL_ROUNDS", 6))
            let seed = setting("LOCKSTEP_KILL_SEED", 1)
            let cluster = try TestCluster(size: "1G")
            try Watchdog.guarding(cluster, limit: 120 + 60 * Double(rounds)) {
                var dice = SeededGenerator(seed: seed)
                let workers = cluster.nodes.map {
                    KillWorker($0, seed: seed << 8 + UInt64($0.number))
                }
                try cluster.mountAll()
                try check(mkdir(cluster.nodes[0].root + "/shared", 0o755))
                for round in 0..<rounds {
                    // Mostly one, sometimes two, sometimes all.
                    let count = dice.oneIn(8) ? 3 : dice.oneIn(5) ? 2 : 1
                    let first = dice.below(3)
                    let victims = Set((0..<count).map { (first + $0) % 3 })
                    do {
                        try play(cluster, workers, victims, &dice)
                    } catch {
                        throw Trouble(
                            "seed \(seed), round \(round), killed \(victims.sorted()): \(error)"
                        )
                    }
                }
                try cluster.unmountAll()
            }
        }

        /// A node that is mounted anew while the others are still recovering from its death is let in: what nobody has is not refused
        /// because a journal is being replayed, and who joins meanwhile hears of the end of it.
        @Test func whoComesBackAtOnceIsLetIn() throws {
            let cluster = try TestCluster(size: "1G", format: ["-j", "4"])
            try Watchdog.guarding(cluster, limit: 300) {
                try cluster.mountAll()
                try check(mkdir(cluster.nodes[1].root + "/shared", 0o755))
                let workers = cluster.nodes.dropFirst().map {
                    KillWorker($0, seed: 77 << 8 + UInt64($0.number))
                }
                for worker in workers { worker.start() }
                defer { for worker in workers { worker.stop() } }
                let node = cluster.nodes[0]
                for round in 0..<8 {
                    try cluster.kill(node, waits: false)
                    try cluster.mount(node)
                    _ = try Files.names(node.root)
                    let before = workers.map { $0.completed.load(ordering: .relaxed) }
                    for (worker, count) in zip(workers, before) where !worker.wait(for: count + 5) {
                        let why = worker.failure.map { "\($0)" } ?? "it waits"
                        throw Trouble("round \(round): \(worker.node.name) does not go on: \(why)")
                    }
                }
                for worker in workers { worker.stop() }
                for worker in workers { worker.join() }
                for worker in workers { if let failure = worker.failure { throw failure } }
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        private func play(
            _ cluster: TestCluster,
            _ workers: [KillWorker],
            _ victims: Set<Int>,
            _ dice: inout SeededGenerator
        ) throws {
            for worker in workers { worker.start() }
            defer { for worker in workers { worker.stop() } }
            for worker in workers where !worker.wait(for: 10) {
                throw Trouble(
                    "\(worker.node.name) does not begin: \(worker.failure.map { "\($0)" } ?? "")"
                )
            }
            poll(nil, 0, Int32(dice.below(400)))  // any moment
            for victim in victims { try cluster.kill(cluster.nodes[victim]) }
            let survivors = workers.filter { !victims.contains($0.node.number) }
            let before = survivors.map { $0.completed.load(ordering: .relaxed) }
            for (worker, count) in zip(survivors, before) where !worker.wait(for: count + 10) {
                throw Trouble(
                    "\(worker.node.name) does not go on: \(worker.failure.map { "\($0)" } ?? "it waits")"
                )
            }
            if let survivor = survivors.first {
                let scrub = try Commands.run("lockstep", ["scrub", survivor.node.root], limit: 60)
                guard scrub.exitCode == 0 else { throw Trouble("a scrub: \(scrub)") }
            }
            for worker in workers { worker.stop() }
            for worker in workers { worker.join() }
            for worker in survivors {
                if let failure = worker.failure { throw Trouble("\(worker.node.name): \(failure)") }
            }
            try verify(cluster, workers, victims)
        }

        private func verify(
            _ cluster: TestCluster,
            _ workers: [KillWorker],
            _ victims: Set<Int>
        ) throws {
            // First on those who were there all the time, then on those who come back.
            for viewer in cluster.nodes where !victims.contains(viewer.number) {
                try verify(workers, victims, on: viewer)
            }
            for victim in victims.sorted() {
                try cluster.mount(cluster.nodes[victim])
                try verify(workers, victims, on: cluster.nodes[victim])
            }
            for worker in workers { try worker.tidy() }
            try cluster.unmountAll()
            try cluster.checkClean()
            try cluster.mountAll()
        }

        private func verify(
            _ workers: [KillWorker],
            _ victims: Set<Int>,
            on viewer: TestNode
        ) throws {
            for worker in workers {
                try worker.verify(on: viewer, wasKilled: victims.contains(worker.node.number))
            }
        }
    }
}
