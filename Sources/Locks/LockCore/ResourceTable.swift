// Name to record: a chained hash over `ResourceName.stableHash`. The chain runs through the
// records.

import Vocabulary

extension Lockspace {
    /// The record of a name; 0 when there is none.
    @inline(__always)
    func find(_ name: ResourceName) -> UInt32 {
        if name.depth > 0 { return findPart(name) }
        return find(name.number, name.generation, name.kind, 0, hash: name.rootHash)
    }

    private func findPart(_ name: ResourceName) -> UInt32 {
        guard let above = name.parent else { return 0 }
        let parent = find(above)
        if parent == 0 { return 0 }
        return find(name.lastNumber, UInt64(parent), name.kind, name.depth, hash: name.stableHash)
    }

    @inline(__always)
    private func find(
        _ number: UInt64,
        _ generation: UInt64,
        _ kind: ResourceKind,
        _ depth: UInt8,
        hash: UInt64
    ) -> UInt32 {
        var index = buckets[Int(truncatingIfNeeded: hash) & (buckets.count - 1)]
        while index != 0 {
            if resources[index].number == number && resources[index].kind == kind
                && resources[index].generation == generation && resources[index].depth == depth
            {
                return index
            }
            index = resources[index].link
        }
        return 0
    }

    /// The name of a record.
    @inline(__always)
    func name(of resource: UInt32) -> ResourceName {
        if resources[resource].depth > 0 { return partName(resource) }
        return ResourceName(
            kind: resources[resource].kind,
            number: resources[resource].number,
            generation: resources[resource].generation
        )
    }

    private func partName(_ resource: UInt32) -> ResourceName {
        name(of: resources[resource].parent).child(resources[resource].number)
    }

    /// The record of a name, made when missing.
    mutating func findOrInsert(_ name: ResourceName) -> UInt32 {
        let found = find(name)
        if found != 0 { return found }
        var record = ResourceRecord()
        record.number = name.lastNumber
        record.generation = name.generation
        record.kind = name.kind
        record.depth = name.depth
        record.mastery = .unknown
        if let above = name.parent {
            let parent = findOrInsert(above)
            record.generation = UInt64(parent)
            record.mastery = resources[parent].mastery
            record.master = resources[parent].master
        }
        if resources.liveCount >= buckets.count { growTable() }
        let index = resources.take()
        let bucket = Int(truncatingIfNeeded: name.stableHash) & (buckets.count - 1)
        record.link = buckets[bucket]
        resources[index] = record
        buckets[bucket] = index
        if record.depth > 0 { linkPart(index, below: record.parent) }
        return index
    }

    /// Takes a record out of the table. It has no locks, no parts and no directory entry.
    mutating func removeRecord(_ index: UInt32) {
        precondition(isUnused(index), "LockCore I1: a resource with locks was removed")
        dropValue(index)
        dropActivity(index)
        let bucket =
            Int(truncatingIfNeeded: name(of: index).stableHash) & (buckets.count - 1)
        if buckets[bucket] == index {
            buckets[bucket] = resources[index].link
        } else {
            var previous = buckets[bucket]
            while resources[previous].link != index { previous = resources[previous].link }
            resources[previous].link = resources[index].link
        }
        if resources[index].depth > 0 { unlinkPart(index) }
        resources[index].mastery = .free
        resources.release(index)
    }

    private mutating func growTable() {
        let count = buckets.count * 2
        buckets = ContiguousArray(repeating: 0, count: count)
        for index in 1..<resources.bound where resources[index].mastery != .free {
            let bucket =
                Int(truncatingIfNeeded: name(of: index).stableHash) & (count - 1)
            resources[index].link = buckets[bucket]
            buckets[bucket] = index
        }
    }
}
