// What a disk holds after a crash, with a fingerprint that costs as much as what was changed.

package import SimulatedMachine

/// The content of a disk and its fingerprint: images that were made from one base by writes are
/// the same (but for an accident of one in 2⁶⁴) if their fingerprints are.
package struct CrashImage: Sendable {
    package private(set) var content: DiskContent
    /// The sum, without carry, of the fingerprints of all sectors that differ from the base.
    package private(set) var fingerprint: UInt64 = 0

    /// Bytes that arrive together or not at all (B3).
    package static let sector = 512

    package init(base: DiskContent) { content = base }

    /// Writes whole sectors.
    package mutating func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) {
        precondition(
            offset % UInt64(Self.sector) == 0 && bytes.count % Self.sector == 0,
            "a sector arrives whole"
        )
        let old = content.bytes(at: offset, count: bytes.count)
        old.withUnsafeBytes { fingerprint ^= Self.fingerprint(of: $0, at: offset) }
        fingerprint ^= Self.fingerprint(of: bytes, at: offset)
        content.write(bytes, at: offset)
    }

    /// Writes those sectors of a write for which `arrives` says so; it is asked for each, from the
    /// first on.
    package mutating func land(_ write: RecordedWrite, where arrives: (_ sector: Int) -> Bool) {
        write.bytes.withUnsafeBytes { bytes in
            for sector in 0..<bytes.count / Self.sector where arrives(sector) {
                let start = sector * Self.sector
                self.write(
                    UnsafeRawBufferPointer(rebasing: bytes[start..<start + Self.sector]),
                    at: write.offset + UInt64(start)
                )
            }
        }
    }

    /// Writes all of a write.
    package mutating func land(_ write: RecordedWrite) {
        write.bytes.withUnsafeBytes { self.write($0, at: write.offset) }
    }

    private static func fingerprint(of bytes: UnsafeRawBufferPointer, at offset: UInt64) -> UInt64 {
        var sum: UInt64 = 0
        for start in stride(from: 0, to: bytes.count, by: sector) {
            var mixed = (offset + UInt64(start) + 1) &* 0x9E37_79B9_7F4A_7C15
            for word in stride(from: start, to: start + sector, by: 8) {
                mixed ^= bytes.loadUnaligned(fromByteOffset: word, as: UInt64.self)
                mixed = mixed &* 0xBF58_476D_1CE4_E5B9
                mixed ^= mixed >> 29
            }
            sum ^= mixed
        }
        return sum
    }
}
