// Records in one array, named by 32-bit index: no object per lock, no allocation once the array has
// grown, and half the memory of pointers. Place 0 is never used, so that 0 can mean "none".

/// What a slab holds. A free record lends one of its links to the list of free places.
protocol SlabRecord {
    /// The next free place while this one is free.
    var link: UInt32 { get set }

    init()
}

/// A growing array of records with a list of free places. Never shrinks.
struct Slab<Record: SlabRecord & Sendable>: Sendable {
    private var records: ContiguousArray<Record> = [Record()]
    private var firstFree: UInt32 = 0

    /// How many records are in use.
    private(set) var liveCount = 0

    /// One more than the highest index ever used: the bound of a walk over all places.
    var bound: UInt32 {
        @inline(__always) get { UInt32(truncatingIfNeeded: records.count) }
    }

    subscript(index: UInt32) -> Record {
        @inline(__always) get { records[Int(index)] }
        @inline(__always) _modify { yield &records[Int(index)] }
    }

    /// Takes a free place. Its record is as `release` left it: the caller fills every field.
    @inline(__always)
    mutating func take() -> UInt32 {
        liveCount += 1
        if firstFree != 0 {
            let index = firstFree
            firstFree = records[Int(index)].link
            return index
        }
        precondition(records.count < Int(UInt32.max), "LockCore: a slab is full")
        records.append(Record())
        return UInt32(truncatingIfNeeded: records.count - 1)
    }

    /// Gives a place back.
    @inline(__always)
    mutating func release(_ index: UInt32) {
        precondition(index != 0 && liveCount > 0, "LockCore: a slab place released twice")
        liveCount -= 1
        records[Int(index)].link = firstFree
        firstFree = index
    }

    /// Bytes the array occupies.
    var byteCount: Int { records.capacity * MemoryLayout<Record>.stride }
}
