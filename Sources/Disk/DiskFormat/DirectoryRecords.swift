// A directory entry in a leaf (or in the body of a small directory's inode):
//
//   0 key u64 · 8 inode address u64 · 16 inode generation u64 · 24 type u8 · 25 name length u8 · 26
//   name
//
// Entries stand packed, sorted by key. The key is made of a hash of the name and a number that
// tells names of the same hash apart; it is also the cookie of readdir, and stays the same as long
// as the entry lives. Bit 63 is 0, bits 62...8 are the hash, bits 7...0 the number; keys below
// `firstKey` are never used, so that cookies 0, 1 and 2 are free for the start, "." and "..".

package import Vocabulary

/// One name, as it stands in a leaf.
package struct DirectoryEntryRecord: Hashable, Sendable {
    package var key: UInt64
    package var inode: InodeNumber
    /// `st_mode >> 12`: what kind of object it is, so that readdir need not look.
    package var type: UInt8
    package var nameLength: UInt8

    /// Bytes before the name.
    package static let fixedByteCount = 26
    package static let longestName = 255
    package static let firstKey: UInt64 = 256
    /// Names of one hash that can live in one directory.
    package static let maximumCollisions: UInt64 = 256

    package init(key: UInt64, inode: InodeNumber, type: UInt8, nameLength: UInt8) {
        self.key = key
        self.inode = inode
        self.type = type
        self.nameLength = nameLength
    }

    /// Decodes the entry at `offset`; nil if it would reach beyond `end`.
    package init?(_ bytes: UnsafeRawBufferPointer, at offset: Int, end: Int) {
        guard offset + Self.fixedByteCount <= end else { return nil }
        self.init(
            key: bytes.u64(offset),
            inode: InodeNumber(
                address: BlockAddress(bytes.u64(offset + 8)),
                generation: bytes.u64(offset + 16)
            ),
            type: bytes[offset + 24],
            nameLength: bytes[offset + 25]
        )
        guard offset + byteCount <= end else { return nil }
    }

    /// Encodes the entry at `offset`, its name included.
    package func write(
        to bytes: UnsafeMutableRawBufferPointer,
        at offset: Int,
        name: UnsafeRawBufferPointer
    ) {
        precondition(name.count == Int(nameLength), "the name's length is the entry's")
        bytes.put64(key, offset)
        bytes.put64(inode.address.rawValue, offset + 8)
        bytes.put64(inode.generation, offset + 16)
        bytes[offset + 24] = type
        bytes[offset + 25] = nameLength
        bytes.put(name, offset + Self.fixedByteCount)
    }

    /// Bytes of the entry, its name included.
    package var byteCount: Int { Self.fixedByteCount + Int(nameLength) }

    /// The lowest key a name may get. (FNV-1a, then the finalizer of splitmix64; part of the
    /// format.)
    package static func firstKey(forName name: UnsafeRawBufferPointer) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in name { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01B3 }
        hash = (hash ^ (hash >> 30)) &* 0xBF58_476D_1CE4_E5B9
        hash = (hash ^ (hash >> 27)) &* 0x94D0_49BB_1331_11EB
        hash ^= hash >> 31
        return max((hash & 0x7FFF_FFFF_FFFF_FF00), firstKey)
    }
}

/// Why a name is not one.
package enum NameError: Error, Hashable, Sendable {
    case empty
    case tooLong
    /// Holds a slash or a zero byte, or is "." or "..".
    case invalid
}

/// Checks that bytes can be the name of a directory entry.
package func checkName(_ name: UnsafeRawBufferPointer) throws(NameError) {
    guard name.count > 0 else { throw .empty }
    guard name.count <= DirectoryEntryRecord.longestName else { throw .tooLong }
    for byte in name where byte == 0 || byte == UInt8(ascii: "/") { throw .invalid }
    if name[0] == UInt8(ascii: "."), name.count == 1 || (name.count == 2 && name[1] == name[0]) {
        throw .invalid
    }
}
