// What a run is: all of it follows from the seed, unless somebody says otherwise.

import DiskFormat
import SimulatedMachine
import Vocabulary
import VolumeMaking

/// What shall happen to the nodes besides work.
package struct SimulationFaults: OptionSet, Hashable, Sendable {
    package var rawValue: Int

    package init(rawValue: Int) { self.rawValue = rawValue }

    /// Nodes leave in order and come back.
    package static let remount = SimulationFaults(rawValue: 1)
    /// Nodes die and are recovered by the others.
    package static let kill = SimulationFaults(rawValue: 2)
    /// The power fails for all.
    package static let crash = SimulationFaults(rawValue: 4)
    /// A node's way to the disk fails: it withdraws, and is recovered by the others.
    package static let inputOutput = SimulationFaults(rawValue: 8)
    /// Not a fault: the volume is scrubbed meanwhile.
    package static let scrub = SimulationFaults(rawValue: 16)
    /// A node stands still for a while: too short to be noticed, or so long that it is fenced.
    package static let pause = SimulationFaults(rawValue: 32)
    /// Messages of two nodes are held up in one direction or both, or their connection breaks.
    package static let partition = SimulationFaults(rawValue: 64)
    /// The volume is so small that it is full now and then.
    package static let full = SimulationFaults(rawValue: 128)
    /// The nodes do not agree what time of day it is.
    package static let skew = SimulationFaults(rawValue: 256)
    /// In the end one bit of the volume's metadata turns over.
    package static let rot = SimulationFaults(rawValue: 512)

    /// Not a fault: the volume stands still now and then.
    package static let freeze = SimulationFaults(rawValue: 1024)

    /// Not a fault: the volume has quotas, and limits that are reached.
    package static let quota = SimulationFaults(rawValue: 2048)

    /// Not a fault: memory is short now and then, and little of what nobody uses may stay, and not for long.
    package static let pressure = SimulationFaults(rawValue: 4096)

    /// By the names of the command line.
    package static let byName: [(name: String, fault: SimulationFaults)] = [
        ("remount", .remount), ("kill", .kill), ("crash", .crash), ("io", .inputOutput),
        ("scrub", .scrub), ("pause", .pause), ("partition", .partition), ("full", .full),
        ("skew", .skew), ("rot", .rot), ("freeze", .freeze), ("quota", .quota),
        ("pressure", .pressure),
    ]

    /// As on the command line: names with commas between; `none` for none.
    package var text: String {
        let names = Self.byName.filter { contains($0.fault) }.map(\.name)
        return names.isEmpty ? "none" : names.joined(separator: ",")
    }

    /// Faults that a node may not live through.
    static let deadly: SimulationFaults = [.kill, .crash, .inputOutput, .pause, .partition]
}

/// A run to be made.
package struct SimulationPlan: Hashable, Sendable {
    package var seed: UInt64
    /// Operations.
    package var steps: Int
    package var nodes: Int
    package var faults: SimulationFaults
    package var locks = SimulatedLocks.distributed
    /// Several processes per node at the same time, instead of one operation at a time.
    package var isConcurrent = false
    /// What the processes do, one operation at a time.
    package var workload = WorkloadMix.mixed

    package init(seed: UInt64, steps: Int, nodes: Int, faults: SimulationFaults) {
        self.seed = seed
        self.steps = steps
        self.nodes = nodes
        self.faults = faults
    }

    /// The run that a seed means when nothing else is said.
    package static func drawn(seed: UInt64) -> SimulationPlan {
        var dice = SeededGenerator(seed: seed ^ 0x5EED_0FA1)
        let nodes = [2, 2, 3, 3, 3, 4, 4, 5, 6, 8][dice.below(10)]
        var faults: SimulationFaults = []
        // A quarter of the runs without trouble: what fails there is easy to understand.
        if !dice.oneIn(4) {
            for (_, fault) in SimulationFaults.byName
            where ![.freeze, .quota, .pressure].contains(fault) && dice.oneIn(3) {
                faults.insert(fault)
            }
        }
        // By dice of its own, so that what older seeds mean is otherwise what it was.
        var quotaDice = SeededGenerator(seed: seed ^ 0x5EED_0407)
        if quotaDice.oneIn(4) { faults.insert(.quota) }
        // Likewise.
        var pressureDice = SeededGenerator(seed: seed ^ 0x5EED_0CAC)
        if pressureDice.oneIn(4) { faults.insert(.pressure) }
        var plan = SimulationPlan(
            seed: seed,
            steps: (40 + dice.below(200)) * 3 / max(3, nodes),
            nodes: nodes,
            faults: faults
        )
        plan.isConcurrent = dice.oneIn(2)
        if plan.isConcurrent { plan.steps *= 2 }
        plan.workload = WorkloadMix.all[dice.below(WorkloadMix.all.count)]
        // What is deleted has to make room for data: that needs many small files.
        if faults.contains(.full), dice.oneIn(3),
            let churn = WorkloadMix.all.first(where: { $0.name == "churn" })
        {
            plan.workload = churn
        }
        if dice.oneIn(3) { plan.faults.insert(.freeze) }
        return plan
    }

    /// The arguments of `lockstep-simulate` that make this run.
    package var arguments: String {
        "--seed \(seed) --nodes \(nodes) --steps \(steps) --faults \(faults.text)"
            + (isConcurrent ? " --concurrent" : " --sequential --workload \(workload.name)")
            + (locks == .distributed ? "" : " --locks \(locks.rawValue)")
    }
}

/// The shape of a cluster and of its volume.
struct ClusterShape {
    var blockSize: UInt32
    /// Nil for the least that such a volume needs.
    var deviceSize: UInt64?
    /// Bytes above the least, if the volume is to be small.
    var spare: UInt64
    var journalSize: UInt64
    var blocksPerGroup: UInt32
    /// How long a message takes at most, in nanoseconds.
    var slowestMessage: Int
    /// How long the disk takes.
    var latency = DiskLatency()

    /// By dice.
    init(_ plan: SimulationPlan, _ dice: inout SeededGenerator) {
        blockSize = [4096, 4096, 4096, 8192, 16_384][dice.below(5)]
        let least = UInt64(SlotDescriptor.minimumJournalLength) * UInt64(blockSize)
        journalSize = dice.oneIn(2) ? least : 4 << 20
        // The last makes one group of nearly everything: all nodes fight over it.
        blocksPerGroup = [512, 512, 2048, 2048, 15_872][dice.below(5)]
        slowestMessage = dice.oneIn(6) ? 30_000_000 : 2_000_000
        if dice.oneIn(6) {
            latency = DiskLatency(
                read: 20_000...2_000_000,
                write: 20_000...4_000_000,
                flush: 100_000...20_000_000
            )
        }
        // A disk that stops for a moment now and then: longer than others need to use a block again.
        if dice.oneIn(5) { (latency.slowOneIn, latency.slowness) = (40, 200) }
        // One on which some writes take much longer than what is asked later, flushes too.
        if dice.oneIn(4) { latency.longWriteOneIn = dice.oneIn(2) ? 8 : 2 }
        deviceSize = 64 << 20
        spare = UInt64(dice.below(dice.oneIn(3) ? 48 : 8)) << 16
        if plan.faults.contains(.full), !plan.isConcurrent {
            blockSize = 4096
            blocksPerGroup = 512
            journalSize = 1 << 20
            deviceSize = nil
        }
    }

    /// The volume of a run.
    func volume(for run: SimulationPlan, created: Timestamp) throws(PlanError) -> VolumePlan {
        var options = VolumeOptions(
            deviceSize: deviceSize ?? 1 << 20,
            volume: VolumeID(high: 0x5EED, low: 0xC0FFEE),
            created: created
        )
        options.blockSize = blockSize
        options.journalCount = UInt32(run.nodes)
        options.journalSize = journalSize
        options.blocksPerGroup = blocksPerGroup
        // Small, as the files are: one of 20 KiB has several.
        options.regionSize = blockSize << UInt32(run.seed % 3 == 0 ? 1 : 0)
        options.hasFileFlags = true
        options.hasQuotas = run.faults.contains(.quota)
        do {
            return try VolumePlan(options)
        } catch .tooSmall(let needed, _) {
            options.deviceSize = needed + (deviceSize == nil ? spare : 32 << 20)
            return try VolumePlan(options)
        }
    }
}
