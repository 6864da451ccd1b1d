// The volume that all workloads begin with, and the run of a workload on it.

import DiskFormat
import Execution
import FileSystem
package import SimulatedMachine
import Vocabulary
package import VolumeMaking

/// A small volume with a few files.
package struct PreparedVolume: Sendable {
    package let plan: VolumePlan
    /// What the disk holds after an unmount in order.
    package let base: DiskContent

    /// Makes and prepares a volume with two journals and three groups, for one node.
    package init(seed: UInt64, blockSize: UInt32) throws {
        var options = Self.options(seed, blockSize, blocks: 1024)
        options.journalCount = 2
        options.blocksPerGroup = 128
        try self.init(options, CrashWorkload.preparation, seed: seed)
    }

    /// Makes and prepares a volume for `nodes` nodes, as small as it may be, in groups of 16 blocks:
    /// what is freed is soon used again.
    package init(seed: UInt64, nodes: Int) throws {
        var options = Self.options(seed, 4096, blocks: 0)
        options.journalCount = UInt32(nodes)
        options.blocksPerGroup = 16
        do throws(PlanError) {
            _ = try VolumePlan(options)
        } catch {
            guard case .tooSmall(let needed, _) = error else { throw error }
            options.deviceSize = needed
        }
        try self.init(options, CrashWorkload.clusterPreparation, seed: seed)
    }

    private static func options(
        _ seed: UInt64,
        _ blockSize: UInt32,
        blocks: UInt64
    ) -> VolumeOptions {
        var options = VolumeOptions(
            deviceSize: UInt64(blockSize) * blocks,
            volume: VolumeID(high: 0xC4A5, low: seed),
            created: Timestamp(seconds: SimulatedClock.epoch, nanoseconds: 0)
        )
        options.blockSize = blockSize
        options.journalSize = UInt64(blockSize) * 256
        return options
    }

    private init(
        _ options: VolumeOptions,
        _ preparation: [(number: Int, operation: CrashOperation)],
        seed: UInt64
    ) throws {
        let plan = try VolumePlan(options)
        self.plan = plan
        base = try runSimulated(seed: seed) { engine in
            let device = MemoryBlockDevice(
                byteCount: options.deviceSize,
                alignment: CrashImage.sector
            )
            try await VolumeMaker.make(on: device, plan: plan)
            let node = try await CrashNode.mount(device, plan.superblock, plan.slots[0], engine)
            for (number, operation) in preparation {
                try await node.perform(operation, number: number)
            }
            try await node.volume.stop()
            return device.content
        }
    }

    /// Runs a workload and returns what happened at the device. The steps of the history are filled
    /// in.
    package func record(
        _ history: inout CrashHistory,
        seed: UInt64,
        defect: DeviceDefect?
    ) throws -> [DeviceEvent] {
        let (base, plan, workload) = (base, plan, history.workload)
        let (events, steps) = try runSimulated(seed: seed) { engine in
            let device = RecordingDevice(
                content: base,
                executor: engine.seededExecutor,
                defect: defect
            )
            let node = try await CrashNode.mount(device, plan.superblock, plan.slots[0], engine)
            var steps: [CrashStep] = []
            for (number, operation) in workload.operations.enumerated() {
                let begun = device.events.count
                do {
                    try await node.perform(operation, number: number)
                } catch {
                    throw CrashComplaint("\(workload): \(operation.text) failed: \(error)")
                }
                steps.append(
                    CrashStep(
                        operation: operation,
                        begunAt: begun,
                        returnedAt: device.events.count
                    )
                )
            }
            // In order, so that nothing is left that waits for ever.
            device.endRecord()
            if workload.operations.last != .unmount { try await node.volume.stop() }
            if let complaint = node.complaints.first {
                throw CrashComplaint("\(workload): \(complaint)")
            }
            return (device.events, steps)
        }
        history.steps = steps
        return events
    }
}
