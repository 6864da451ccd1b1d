// Name to record: a chained hash over `ResourceName.stableHash`. The chain runs through the
// records.

import Vocabulary

extension Lockspace {
    /// The record of a name; 0 when there is none.
    @inline(__always)
    func find(_ name: ResourceName) -> UInt32 {
        var index = buckets[Int(truncatingIfNeeded: name.stableHash) & (buckets.count - 1)]
        while index != 0 {
            if resources[index].number == name.number && resources[index].kind == name.kind
                && resources[index].generation == name.generation
            {
                return index
            }
            index = resources[index].link
        }
        return 0
    }

    /// The record of a name, made when missing.
    mutating func findOrInsert(_ name: ResourceName) -> UInt32 {
        let found = find(name)
        if found != 0 { return found }
        if resources.liveCount >= buckets.count { growTable() }
        let index = resources.take()
        var record = ResourceRecord()
        record.number = name.number
        record.generation = name.generation
        record.kind = name.kind
        record.mastery = .unknown
        let bucket = Int(truncatingIfNeeded: name.stableHash) & (buckets.count - 1)
        record.link = buckets[bucket]
        resources[index] = record
        buckets[bucket] = index
        return index
    }

    /// Takes a record out of the table. It has no locks, no value and no directory entry.
    mutating func removeRecord(_ index: UInt32) {
        precondition(resources[index].isEmpty, "LockCore I1: a resource with locks was removed")
        dropValue(index)
        let bucket =
            Int(truncatingIfNeeded: resources[index].name.stableHash) & (buckets.count - 1)
        if buckets[bucket] == index {
            buckets[bucket] = resources[index].link
        } else {
            var previous = buckets[bucket]
            while resources[previous].link != index { previous = resources[previous].link }
            resources[previous].link = resources[index].link
        }
        resources[index].mastery = .free
        resources.release(index)
    }

    private mutating func growTable() {
        let count = buckets.count * 2
        buckets = ContiguousArray(repeating: 0, count: count)
        for index in 1..<resources.bound where resources[index].mastery != .free {
            let bucket =
                Int(truncatingIfNeeded: resources[index].name.stableHash) & (count - 1)
            resources[index].link = buckets[bucket]
            buckets[bucket] = index
        }
    }
}
