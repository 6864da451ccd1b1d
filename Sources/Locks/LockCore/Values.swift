// Value blocks: which way they travel, and the order of writes.
//
// A node that holds PW or EX is the only one that can write, so it can number its write itself: one
// more than the number its grant brought. The master takes a write only if its number is higher
// than its own; saying it twice, as recovery does, changes nothing. An invalidation counts as a
// write, so that the highest number always tells the truth.

import Vocabulary

/// Which way the value block travels in an operation.
enum ValueDirection: Sendable {
    /// From the resource to the caller.
    case read
    /// From the caller to the resource.
    case write
    case none
}

/// The direction for a lock that goes from one mode (nil: a new request) to another. (Linux
/// `fs/dlm/lock.c`, the LVB table; OpenVMS $ENQ.)
@inline(__always)
func valueDirection(from: LockMode?, to: LockMode) -> ValueDirection {
    guard let from else { return .read }
    switch from {
    case .exclusive: return .write
    case .protectedWrite: return to == .exclusive ? .read : .write
    default: return to >= from ? .read : .none
    }
}

/// Whether giving a lock up in this mode may write.
@inline(__always)
func unlockWrites(from mode: LockMode) -> Bool { mode >= .protectedWrite }

extension Lockspace {
    /// The value block as it stands in messages; nil when it was never written.
    func sequencedValue(_ resource: UInt32) -> SequencedValue? {
        let index = resources[resource].value
        if index == 0 { return nil }
        let record = values[index]
        return SequencedValue(
            value: record.value,
            sequence: record.sequence,
            isValid: record.isValid
        )
    }

    /// The value record of a resource, made when missing.
    mutating func valueRecord(_ resource: UInt32) -> UInt32 {
        let existing = resources[resource].value
        if existing != 0 { return existing }
        let index = values.take()
        values[index] = ValueRecord()
        resources[resource].value = index
        return index
    }

    /// Forgets what is known.
    mutating func dropValue(_ resource: UInt32) {
        let index = resources[resource].value
        if index == 0 { return }
        resources[resource].value = 0
        values.release(index)
    }

    /// Writes or invalidates as the flags of a demotion ask. Returns whether anything was written.
    mutating func writeValue(_ resource: UInt32, _ flags: LockFlags, _ value: ValueBlock?) -> Bool {
        let invalidates = flags.contains(.invalidateValueBlock)
        let writes = flags.contains(.valueBlock) && value != nil
        if !invalidates && !writes { return false }
        let index = valueRecord(resource)
        values[index].sequence += 1
        if writes, let value { values[index].value = value }
        values[index].isValid = !invalidates
        return true
    }

    /// Takes what another node says, if it is newer.
    mutating func absorb(_ resource: UInt32, _ other: SequencedValue?) {
        guard let other, other.sequence > 0 else { return }
        let index = valueRecord(resource)
        if other.sequence <= values[index].sequence { return }
        values[index].value = other.value
        values[index].sequence = other.sequence
        values[index].isValid = other.isValid
    }

    /// Marks the value as lost with its writer.
    mutating func invalidateValue(_ resource: UInt32) {
        let index = valueRecord(resource)
        values[index].sequence += 1
        values[index].isValid = false
    }
}
