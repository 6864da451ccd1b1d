// A number that stands for what a lockspace knows: two that agree have, but for chance, the same
// locks in the same queues. For holding a replay against the original.

import Vocabulary

/// FNV-1a over 64-bit words.
private struct WordHash {
    var state: UInt64 = 0xCBF2_9CE4_8422_2325

    mutating func add(_ word: UInt64) {
        state = (state ^ word) &* 0x0000_0100_0000_01B3
        state ^= state >> 32
    }

    mutating func add(_ name: ResourceName) {
        add(UInt64(name.kind.rawValue))
        add(name.number)
        add(name.generation)
        add(UInt64(name.depth))
        add(name.part)
        add(name.subpart)
    }

    mutating func add(_ value: SequencedValue?) {
        guard let value else { return add(0) }
        add(value.isValid ? 2 : 1)
        add(value.sequence)
        for word in [value.value.word0, value.value.word1, value.value.word2, value.value.word3] {
            add(word)
        }
    }
}

extension Lockspace {
    /// Stands for resources, locks, queues, value blocks, view and counts; not for ages.
    package var digest: UInt64 {
        var hash = WordHash()
        hash.add(epoch.rawValue)
        hash.add(UInt64(status.rawValue))
        hash.add(isReplayPending ? 1 : 0)
        for counter in counters.members { hash.add(counter.count) }
        // The order of places is the same for the same history.
        for resource in 1..<resources.bound where resources[resource].mastery != .free {
            let record = resources[resource]
            hash.add(name(of: resource))
            hash.add(UInt64(record.mastery.rawValue))
            hash.add(UInt64(record.master.rawValue))
            hash.add(UInt64(record.directoryMaster.rawValue))
            hash.add(UInt64(record.marks.rawValue))
            hash.add(sequencedValue(resource))
            for queue in [Queue.granted, .converting, .waiting] {
                hash.add(0xFF)
                let first = head(resource, queue)
                var lock = first
                while lock != 0 {
                    addLock(lock, to: &hash)
                    lock = following(lock, head: first)
                }
            }
        }
        return hash.state
    }

    private func addLock(_ lock: UInt32, to hash: inout WordHash) {
        let record = locks[lock]
        hash.add(record.identity)
        hash.add(UInt64(record.holder.rawValue))
        hash.add(UInt64(record.owner.rawValue))
        hash.add(UInt64(record.flags.rawValue))
        hash.add(UInt64(record.marks.rawValue))
        hash.add(UInt64(record.granted.rawValue))
        hash.add(UInt64(record.requested.rawValue))
        hash.add(UInt64(record.state.rawValue))
        hash.add(UInt64(record.told))
        hash.add(UInt64(record.changes))
        hash.add(UInt64(record.parent))
        if let bytes = bytes(of: lock) {
            hash.add(bytes.first)
            hash.add(bytes.last)
            hash.add(UInt64(bytes.process))
        }
    }
}
