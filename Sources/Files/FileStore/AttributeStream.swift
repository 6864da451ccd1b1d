import DiskFormat
import Vocabulary

/// Whether an extended attribute must or must not be there already.
package enum AttributeExpectation: Sendable {
    case any
    case absent
    case present
}

/// The stream of all extended attributes of an inode: records one behind the other.
struct AttributeStream {
    private(set) var bytes: [UInt8]
    /// The block to blame if the stream is damaged.
    private let origin: BlockAddress

    /// Takes a stream apart to see that it is one.
    init(_ bytes: [UInt8], from origin: BlockAddress) throws(StoreError) {
        self.bytes = bytes
        self.origin = origin
        var place = 0
        while let (_, end) = try record(at: place) { place = end }
    }

    /// The record at `place` and where it ends; nil at the end of the stream.
    private func record(at place: Int) throws(StoreError) -> (AttributeRecord, end: Int)? {
        guard place < bytes.count else { return nil }
        let record = bytes.withUnsafeBytes { AttributeRecord($0, at: place) }
        guard let record else { throw .damaged(origin, "attribute record", UInt64(place)) }
        return (record, place + record.byteCount)
    }

    /// Calls `body` with the place and the record of each attribute until it returns false.
    private func forEach(
        _ body: (_ place: Int, AttributeRecord) -> Bool
    ) throws(StoreError) {
        var place = 0
        while let (record, end) = try record(at: place) {
            guard body(place, record) else { return }
            place = end
        }
    }

    private func find(
        _ name: UnsafeRawBufferPointer
    ) throws(StoreError) -> (place: Int, record: AttributeRecord)? {
        var found: (Int, AttributeRecord)?
        try forEach { place, record in
            let start = place + AttributeRecord.fixedByteCount
            guard Int(record.nameLength) == name.count,
                bytes[start..<start + name.count].elementsEqual(name)
            else { return true }
            found = (place, record)
            return false
        }
        return found
    }

    /// The value of an attribute; nil if there is none of this name.
    func value(_ name: UnsafeRawBufferPointer) throws(StoreError) -> [UInt8]? {
        guard let (place, record) = try find(name) else { return nil }
        let start = place + AttributeRecord.fixedByteCount + Int(record.nameLength)
        return Array(bytes[start..<start + Int(record.valueLength)])
    }

    /// All names, each followed by a zero byte.
    func names() throws(StoreError) -> [UInt8] {
        var names: [UInt8] = []
        try forEach { place, record in
            let start = place + AttributeRecord.fixedByteCount
            names += bytes[start..<start + Int(record.nameLength)]
            names.append(0)
            return true
        }
        return names
    }

    /// Sets an attribute. Its record moves to the end.
    mutating func set(
        _ name: UnsafeRawBufferPointer,
        _ value: UnsafeRawBufferPointer,
        _ expectation: AttributeExpectation
    ) throws(StoreError) {
        guard name.count > 0 else { throw .invalidName }
        guard name.count <= AttributeRecord.longestName else { throw .tooLong }
        guard value.count <= AttributeRecord.longestValue else { throw .tooLarge }
        let old = try find(name)
        if expectation == .absent, old != nil { throw .exists }
        if expectation == .present, old == nil { throw .notFound }
        let length = AttributeRecord.fixedByteCount + name.count + value.count
        guard bytes.count - (old?.record.byteCount ?? 0) + length <= AttributeRecord.longestStream
        else { throw .noSpace }
        if let old { bytes.removeSubrange(old.place..<old.place + old.record.byteCount) }
        bytes.reserveCapacity(bytes.count + length)
        bytes.append(UInt8(name.count))
        bytes.append(0)
        bytes.append(UInt8(value.count & 0xFF))
        bytes.append(UInt8(value.count >> 8))
        bytes.append(contentsOf: name)
        bytes.append(contentsOf: value)
    }

    /// Removes an attribute.
    mutating func remove(_ name: UnsafeRawBufferPointer) throws(StoreError) {
        guard let (place, record) = try find(name) else { throw .notFound }
        bytes.removeSubrange(place..<place + record.byteCount)
    }
}
