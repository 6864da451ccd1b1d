// What the file system makes of an image: the checker's findings, and the tree that the first mount
// after the crash shows. Images that are the same are looked at once.

import BlockIO
import DiskFormat
import Execution
import FileSystem
import Journaling
import SimulatedMachine
import Vocabulary
import VolumeChecking
import VolumeMaking

/// Looks at images that were made from one base.
final class CrashJudge {
    /// What came of an image.
    enum Verdict {
        /// Nothing wrong with the volume; the number of the tree.
        case tree(Int)
        /// What is wrong with the volume.
        case broken(String)
    }

    /// Every replay is interrupted, too (K6).
    var interruptsReplays = false

    private let plan: VolumePlan
    private let seed: UInt64
    private var verdicts: [UInt64: Verdict] = [:]
    private var numbers: [ObservedTree: Int] = [:]
    /// Trees that were found, each once.
    private(set) var trees: [ObservedTree] = []

    init(_ plan: VolumePlan, seed: UInt64) {
        self.plan = plan
        self.seed = seed
    }

    /// Images that were looked at.
    var imageCount: Int { verdicts.count }

    /// What the volume in an image is like.
    func look(at image: CrashImage) -> Verdict {
        if let known = verdicts[image.fingerprint] { return known }
        let (found, replay) = recovered(image)
        var verdict = found
        if interruptsReplays, case .tree(let number) = found,
            let complaint = complaintOfInterruption(image, replay, number)
        {
            verdict = .broken(complaint)
        }
        verdicts[image.fingerprint] = verdict
        return verdict
    }

    /// K6: the power fails once more, at every event of a replay.
    private func complaintOfInterruption(
        _ image: CrashImage,
        _ replay: [DeviceEvent],
        _ wanted: Int
    ) -> String? {
        var point = CrashPoint(base: image, events: replay, seed: seed, randomImages: 2)
        while !point.isLast {
            point.advance()
            for variant in 0..<point.variantCount {
                let second = point.image(variant)
                let verdict = verdicts[second.fingerprint] ?? recovered(second).verdict
                verdicts[second.fingerprint] = verdict
                let place = "a replay interrupted after \(point.index) events, image \(variant):"
                switch verdict {
                case .tree(wanted): continue
                case .tree: return "\(place) another tree than without the interruption"
                case .broken(let complaint): return "\(place) \(complaint)"
                }
            }
        }
        return nil
    }

    /// What the volume is like, and what the replay of its journals did.
    private func recovered(_ image: CrashImage) -> (verdict: Verdict, replay: [DeviceEvent]) {
        do {
            let (plan, content, isReversed) = (plan, image.content, image.fingerprint % 2 == 1)
            let (tree, replay) = try runSimulated(seed: seed) { engine in
                try await Self.recover(content, plan, engine, isReversed: isReversed)
            }
            return (.tree(number(of: tree)), replay)
        } catch {
            return (.broken("\(error)"), [])
        }
    }

    private func number(of tree: ObservedTree) -> Int {
        if let number = numbers[tree] { return number }
        trees.append(tree)
        numbers[tree] = trees.count - 1
        return trees.count - 1
    }

    /// K4: a check that writes nothing, a replay of all journals, a mount; and, when it has gone in
    /// order, another check.
    private static func recover(
        _ content: DiskContent,
        _ plan: VolumePlan,
        _ engine: Engine,
        isReversed: Bool
    ) async throws -> (ObservedTree, [DeviceEvent]) {
        let device = RecordingDevice(content: content, executor: engine.seededExecutor)
        device.isImmediate = true
        try await check(device, "after the crash")
        // Any order will do (R2).
        let slots = isReversed ? plan.slots.reversed() : plan.slots
        for slot in slots {
            _ = try await JournalReplay.replay(
                device: device,
                superblock: plan.superblock,
                slot: slot.slot
            )
        }
        device.endRecord()
        let node = try await CrashNode.mount(device, plan.superblock, plan.slots[0], engine)
        // The slots that nobody is in are the business of whoever comes first.
        for slot in plan.slots.dropFirst() { await node.volume.freeOrphans(of: slot.slot) }
        let tree = try await node.observe()
        try await node.volume.stop()
        if let complaint = node.complaints.first {
            throw CrashComplaint("the next mount complains: \(complaint)")
        }
        let orphans = try await check(device, "after the next mount").orphans
        if orphans > 0 { throw CrashComplaint("\(orphans) orphans left by the next mount") }
        return (tree, device.events)
    }

    @discardableResult
    private static func check(
        _ device: any BlockDevice,
        _ when: String
    ) async throws -> CheckReport {
        let report = try await VolumeChecker.check(device)
        if let finding = report.findings.first {
            throw CrashComplaint("\(report.findingCount) findings \(when): \(finding)")
        }
        return report
    }
}
