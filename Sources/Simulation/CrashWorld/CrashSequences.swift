// Which workloads there are (K5).

import Vocabulary

extension CrashWorkload {
    /// All sequences of `count` operations of the alphabet that the model accepts, each with all
    /// its ends.
    package static func all(operations count: Int) -> [CrashWorkload] {
        var sequences = [CrashWorkload([])]
        for _ in 0..<count {
            sequences = sequences.flatMap { sequence in
                alphabet.compactMap { operation in
                    let longer = CrashWorkload(sequence.operations + [operation])
                    return CrashHistory(longer) == nil ? nil : longer
                }
            }
        }
        return sequences.flatMap(\.withEnds)
    }

    /// So many sequences of `count` operations by seed, each with one of its ends.
    package static func sample(
        _ number: Int,
        operations count: Int,
        seed: UInt64
    ) -> [CrashWorkload] {
        var dice = SeededGenerator(seed: seed)
        var sample: [CrashWorkload] = []
        while sample.count < number {
            var workload = CrashWorkload([])
            while workload.operations.count < count {
                let next = alphabet[dice.below(alphabet.count)]
                let longer = CrashWorkload(workload.operations + [next])
                if CrashHistory(longer) != nil { workload = longer }
            }
            let ends = workload.withEnds
            sample.append(ends[dice.below(ends.count)])
        }
        return sample
    }

    /// The sequence with each end in turn: an fsync of each object that its operations name, and of
    /// the directories of those that the last one names, a sync, a pause, an unmount.
    package var withEnds: [CrashWorkload] {
        var ends: [CrashOperation] = []
        for path in operations.last?.paths ?? [] {
            ends.append(.synchronize(path))
            ends.append(
                .synchronize(path.split(separator: "/").dropLast().joined(separator: "/"))
            )
        }
        for operation in operations.dropLast() { ends += operation.paths.map { .synchronize($0) } }
        ends += [.synchronizeAll, .pause, .unmount]
        var found: [CrashWorkload] = []
        for end in ends where end != operations.last {
            let workload = CrashWorkload(operations + [end])
            if !found.contains(workload), CrashHistory(workload) != nil { found.append(workload) }
        }
        return found
    }
}
