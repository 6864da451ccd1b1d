// Crashes, all of them: short workloads, a loss of power at every moment of each, every kind of
// loss; and for each disk that is left, the question whether it holds what was promised. After
// CrashMonkey and ACE (Mohan and others, OSDI 2018): most crash bugs show with one or two
// operations on a few files, so these are enumerated and not drawn by lot.
//
//   CrashWorkload     a sequence of operations; `alphabet` is what sequences are made of
//   RecordingDevice   the record: every write and flush of a run, in order, with content
//   CrashPoint        goes along the record and makes the images that a crash there may leave
//   CrashImage        a disk's content with a fingerprint, so that equal images are judged once
//   CrashJudge        check, replay, mount, read the tree, unmount, check
//   CrashOracle       is the tree one that the operations so far may leave?
//   ModelTree         the tree as plain values, apart from the file system's code
//
// A run: the volume is made and prepared, and its content is the base. For each workload it is
// mounted by one node, the operations are carried out one after the other, and the record grows.
// Nobody else needs to run again: all crashes of the run are made from the record.
//
// Invariants
//   K1. Everything follows from the workload, the seed and the block size: the line that is printed
//       with a failure repeats exactly that crash.
//   K2. There is a crash point before the first event, and after every write that was asked for and
//       every flush that returned. In between nothing changes what may be on the medium.
//   K3. At a point, writes that a flush has covered are on the medium. Of the others, in order:
//       none, all, all with the last torn (its first sectors; some sectors), every subset if they
//       are at most three, and some more by dice, each whole, torn or missing. Sectors of 512 bytes
//       arrive whole (B3).
//   K4. An image is right if the checker finds nothing on it, a mount shows a tree that the oracle
//       accepts, and the checker finds nothing after that mount has gone in order.
//   K5. Sequences end the ACE way, each in all ways: with an fsync of each object that its
//       operations name, with one of the directories of the last operation, with a sync, with a
//       time in which what is in memory grows too old, with an unmount. A sequence that the model
//       refuses is none.
//   K6. If asked for, the replay of every image is a record, too: the power fails once more at
//       each of its points, and after another replay the tree must be the same.

import SimulatedMachine
import Vocabulary

/// Something wrong, in words.
package struct CrashComplaint: Error, Hashable, Sendable, CustomStringConvertible {
    package var description: String

    package init(_ description: String) { self.description = description }
}

/// A crash that left what it may not leave.
package struct CrashFailure: Hashable, Sendable {
    package var workload: CrashWorkload
    package var seed: UInt64
    package var blockSize: UInt32
    /// Events of the record before the crash.
    package var point: Int
    package var variant: Int
    package var complaint: String
    /// The replay was interrupted, too.
    package var interruptsReplays: Bool

    /// The arguments of `lockstep-simulate` that repeat it.
    package var arguments: String {
        "--crashes --workload \(workload) --seeds \(seed) --block-size \(blockSize) "
            + "--point \(point) --variant \(variant)"
            + (interruptsReplays ? " --interrupt-replays" : "")
    }
}

/// How much was done.
package struct CrashCounts: Hashable, Sendable {
    package var workloads = 0
    package var points = 0
    /// Images that were made and judged, equal ones included.
    package var images = 0
    /// Images that differ.
    package var distinctImages = 0
    /// Trees that differ among those found.
    package var distinctTrees = 0
    package var failures = 0

    package init() {}
}

/// Enumerates the crashes of workloads on one prepared volume.
package final class CrashEnumeration {
    package let seed: UInt64
    package let blockSize: UInt32
    /// Images by dice at each point.
    package var randomImages = 8
    /// Failures that are kept; more are only counted.
    package var failureLimit = 100
    /// A fault of the disk under the workloads.
    package var defect: DeviceDefect?

    /// Every replay is interrupted, too (K6).
    package var interruptsReplays: Bool {
        get { judge.interruptsReplays }
        set { judge.interruptsReplays = newValue }
    }

    package private(set) var counts = CrashCounts()
    package private(set) var failures: [CrashFailure] = []

    private let volume: PreparedVolume
    private let judge: CrashJudge

    /// Makes and prepares the volume.
    package init(seed: UInt64, blockSize: UInt32 = 4096) throws {
        self.seed = seed
        self.blockSize = blockSize
        volume = try PreparedVolume(seed: seed, blockSize: blockSize)
        judge = CrashJudge(volume.plan, seed: seed)
    }

    /// Runs a workload and judges all its crashes, or only one image of one point. A workload that
    /// the model refuses is left out, and the answer is false.
    @discardableResult
    package func run(
        _ workload: CrashWorkload,
        onlyPoint: Int? = nil,
        onlyVariant: Int? = nil
    ) -> Bool {
        guard var history = CrashHistory(workload) else { return false }
        let events: [DeviceEvent]
        do {
            events = try volume.record(&history, seed: seed, defect: defect)
        } catch {
            fail(workload, 0, 0, "the run itself: \(error)")
            return true
        }
        let oracle = CrashOracle(history)
        counts.workloads += 1
        var known: [JudgedTree: String?] = [:]
        var point = CrashPoint(
            base: CrashImage(base: volume.base),
            events: events,
            seed: seed,
            randomImages: randomImages
        )
        while true {
            if onlyPoint == nil || onlyPoint == point.index {
                counts.points += 1
                for variant in 0..<point.variantCount
                where onlyVariant == nil || onlyVariant == variant {
                    let image = point.image(variant)
                    counts.images += 1
                    if let complaint = complaint(image, point.index, oracle, &known) {
                        fail(workload, point.index, variant, complaint)
                    }
                }
            }
            if point.isLast { break }
            point.advance()
        }
        counts.distinctImages = judge.imageCount
        counts.distinctTrees = judge.trees.count
        return true
    }

    /// All that the oracle's answer depends on within one run.
    private struct JudgedTree: Hashable {
        var tree: Int
        var begun: Int
        var returned: Int
    }

    private func complaint(
        _ image: CrashImage,
        _ point: Int,
        _ oracle: CrashOracle,
        _ known: inout [JudgedTree: String?]
    ) -> String? {
        switch judge.look(at: image) {
        case .broken(let complaint): return complaint
        case .tree(let number):
            let key = JudgedTree(
                tree: number,
                begun: oracle.history.begun(after: point),
                returned: oracle.history.returned(after: point)
            )
            if let known = known[key] { return known }
            let complaint = oracle.complaint(about: judge.trees[number], after: point)
            known[key] = .some(complaint)
            return complaint
        }
    }

    /// An operation that the model accepts and the file system refuses is a failure, too.
    private func fail(_ workload: CrashWorkload, _ point: Int, _ variant: Int, _ complaint: String)
    {
        counts.failures += 1
        guard failures.count < failureLimit else { return }
        failures.append(
            CrashFailure(
                workload: workload,
                seed: seed,
                blockSize: blockSize,
                point: point,
                variant: variant,
                complaint: complaint,
                interruptsReplays: interruptsReplays
            )
        )
    }
}
