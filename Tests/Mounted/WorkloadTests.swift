// The workloads of the simulation, on real mounts and by many programs at once, with everything
// beside them that happens to a cluster. The simulator has one thread; this is where the threads of
// the daemons meet.
//
// LOCKSTEP_WORKLOAD_OPERATIONS says how many operations each program does; LOCKSTEP_WORKLOAD that only
// this mix runs; LOCKSTEP_SEED where the dice start.

import Glibc
import SimulatedWorld
import Synchronization
import Testing

extension MountedTests {
    @Suite(.serialized) struct WorkloadTests {
        private static let workingNodes = 3

        private static func setting(_ name: String, _ standard: Int) -> Int {
            getenv(name).flatMap { Int(String(cString: $0)) } ?? standard
        }

        /// The mixes to run, by name.
        private static let names: [String] = {
            if let one = getenv("LOCKSTEP_WORKLOAD") { return [String(cString: one)] }
            return WorkloadMix.all.map(\.name)
        }()

        @Test(arguments: names)
        func theMixHoldsOnRealMounts(_ name: String) throws {
            guard let mix = WorkloadMix.all.first(where: { $0.name == name }) else {
                throw Trouble("no mix \(name)")
            }
            let each = Self.setting("LOCKSTEP_WORKLOAD_OPERATIONS", 100)
            let seed = UInt64(Self.setting("LOCKSTEP_SEED", 1))
            let cluster = try TestCluster(nodes: Self.workingNodes + 1, size: "1G")
            let began = monotonicSeconds()
            let tally = WorkloadTally()
            try Watchdog.guarding(cluster, limit: 240 + Double(each)) {
                let nodes = Array(cluster.nodes.prefix(Self.workingNodes))
                for node in nodes { try cluster.mount(node) }
                let run = WorkloadRun(cluster, nodes, mix, seed: seed, tally)
                try run.play(each)
                try compare(cluster, nodes)
                print(
                    "workload \(name), seed \(seed): \(tally.operations.load(ordering: .relaxed)) operations "
                        + "of which \(tally.succeeded.load(ordering: .relaxed)) of fighters succeeded, "
                        + "\(tally.visits.load(ordering: .relaxed)) visits, \(Int(monotonicSeconds() - began)) s"
                )
            }
        }

        /// Everything is the same on all nodes, sound, and the same after mounting again.
        private func compare(_ cluster: TestCluster, _ nodes: [TestNode]) throws {
            let whole = try TreeImage(shownAt: nodes[0].root)
            for node in nodes.dropFirst() {
                try TreeImage(shownAt: node.root).demandSame(as: whole, (node.name, nodes[0].name))
            }
            try cluster.unmountAll()
            try cluster.checkClean()
            try cluster.mount(nodes[1])
            try TreeImage(shownAt: nodes[1].root)
                .demandSame(as: whole, ("mounted again", "before"))
            try cluster.unmountAll()
            try cluster.checkClean()
        }
    }
}
