// Every metadata block begins with the same 64 bytes, which say what it is, where it belongs, to
// whom, how new it is and that all its bytes arrived. A block that is misplaced, stale, torn or of
// another volume is recognised before one field of it is believed.
//
//   0  magic      u32  "LKST"
//   4  kind       u16  `BlockKind`
//   6  revision   u16  format revision of this kind of block
//   8  checksum   u32  CRC32C of the whole block with this field zero
//  12  reserved   u32  zero
//  16  address    u64  where the block belongs
//  24  version    u64  grows with every committed change of the block; replay skips what is not
//  newer
//  32  volume     16 B UUID of the file system
//  48  owner      u64  address of the inode it belongs to; group index, slot or sequence for other
//  kinds
//  56  generation u64  generation of that inode, or 0

import CChecksum
package import Vocabulary

/// What a metadata block is.
package enum BlockKind: UInt16, CaseIterable, Sendable, CustomStringConvertible {
    case superblock = 1
    case slotDescriptor = 2
    case volumeGuard = 3
    case slotHeartbeat = 4
    case resourceGroup = 5
    case inode = 6
    case extentNode = 7
    case directoryIndex = 8
    case directoryLeaf = 9
    case extendedAttributes = 10
    case journalHeader = 11
    case journalDescriptor = 12
    case journalCommit = 13
    case quotaShare = 14
    case quotaTable = 15

    package var description: String {
        switch self {
        case .superblock: "superblock"
        case .slotDescriptor: "slot descriptor"
        case .volumeGuard: "volume guard"
        case .slotHeartbeat: "slot heartbeat"
        case .resourceGroup: "resource group"
        case .inode: "inode"
        case .extentNode: "extent node"
        case .directoryIndex: "directory index"
        case .directoryLeaf: "directory leaf"
        case .extendedAttributes: "extended-attribute block"
        case .journalHeader: "journal header"
        case .journalDescriptor: "journal descriptor"
        case .journalCommit: "journal commit"
        case .quotaShare: "quota share"
        case .quotaTable: "quota table block"
        }
    }
}

/// Why bytes are not the structure they should be.
package enum FormatError: Error, Hashable, Sendable, CustomStringConvertible {
    /// No magic: not a metadata block at all.
    case notMetadata(BlockAddress)
    case wrongKind(BlockAddress, expected: BlockKind, found: UInt16)
    case unknownRevision(BlockAddress, kind: BlockKind, found: UInt16)
    case wrongChecksum(BlockAddress, stored: UInt32, computed: UInt32)
    /// The block says that it belongs elsewhere.
    case misplaced(BlockAddress, claims: BlockAddress)
    /// The block belongs to another file system.
    case foreign(BlockAddress)
    /// The block belongs to another inode, group or slot.
    case wrongOwner(BlockAddress, expected: UInt64, found: UInt64)
    case wrongGeneration(BlockAddress, expected: UInt64, found: UInt64)
    /// A field has a value that no writer of this format produces.
    case invalidField(BlockAddress, field: String, value: UInt64)
    /// The volume uses a feature this version does not know.
    case unsupportedFeatures(incompatible: UInt64)
    /// The volume may only be mounted read-only by this version.
    case readOnlyFeatures(UInt64)
    /// The volume is of another format version.
    case unsupportedVersion(UInt32)
    /// The device ends before the volume does.
    case truncated(needed: UInt64, found: UInt64)

    package var description: String {
        switch self {
        case .notMetadata(let at): "\(at) is not a metadata block"
        case .wrongKind(let at, let expected, let found):
            "\(at) should be a \(expected) but is \(BlockKind(rawValue: found)?.description ?? "of unknown kind \(found)")"
        case .unknownRevision(let at, let kind, let found):
            "\(at), a \(kind), has revision \(found), which this version does not know"
        case .wrongChecksum(let at, let stored, let computed):
            "\(at) fails its checksum (stored \(stored), computed \(computed))"
        case .misplaced(let at, let claims): "\(at) holds what belongs at \(claims)"
        case .foreign(let at): "\(at) belongs to another file system"
        case .wrongOwner(let at, let expected, let found):
            "\(at) belongs to \(found), not to \(expected)"
        case .wrongGeneration(let at, let expected, let found):
            "\(at) is of generation \(found), not \(expected)"
        case .invalidField(let at, let field, let value):
            "\(at): field '\(field)' has the impossible value \(value)"
        case .unsupportedFeatures(let bits):
            "the volume uses features this version does not know (incompatible bits \(bits))"
        case .readOnlyFeatures(let bits):
            "the volume uses features that this version can only read (bits \(bits)); mount it with -o ro"
        case .unsupportedVersion(let version):
            "the volume has format version \(version); this program knows version \(Superblock.formatVersion)"
        case .truncated(let needed, let found):
            "the device has \(found) bytes but the volume needs \(needed): the image is truncated"
        }
    }
}

/// Who and where a metadata block is.
package struct BlockHeader: Hashable, Sendable {
    package var kind: BlockKind
    package var address: BlockAddress
    package var version: UInt64
    package var volume: VolumeID
    package var owner: UInt64
    package var generation: UInt64

    /// Bytes at the front of every metadata block.
    package static let byteCount = 64
    package static let magic: UInt32 = 0x5453_4B4C  // "LKST"
    package static let revision: UInt16 = 1
    /// Versions, generations and sequence numbers that are read from a volume are never above this,
    /// so that whoever adds to them need not think of overflow. No volume lives long enough to get
    /// there. It is no end that forged numbers are likely to have: what counts on from the end itself
    /// could not be read any more.
    package static let largestNumber: UInt64 = 0x6000_0000_0000_0000

    package init(
        kind: BlockKind,
        address: BlockAddress,
        version: UInt64,
        volume: VolumeID,
        owner: UInt64,
        generation: UInt64
    ) {
        self.kind = kind
        self.address = address
        self.version = version
        self.volume = volume
        self.owner = owner
        self.generation = generation
    }

    /// Reads and verifies the header and the checksum of a whole block that was read from
    /// `address`.
    ///
    /// - Throws: the first of `FormatError`'s first six cases that applies.
    package init(
        verifying block: UnsafeRawBufferPointer,
        at address: BlockAddress,
        volume: VolumeID
    ) throws(FormatError) {
        guard block.u32(0) == Self.magic else { throw .notMetadata(address) }
        try Self.checkSum(of: block, at: address)
        guard let kind = BlockKind(rawValue: block.u16(4)) else {
            throw .invalidField(address, field: "kind", value: UInt64(block.u16(4)))
        }
        guard block.u16(6) == Self.revision else {
            throw .unknownRevision(address, kind: kind, found: block.u16(6))
        }
        guard VolumeID(block.window(32, 16)) == volume else { throw .foreign(address) }
        guard block.u64(16) == address.rawValue else {
            throw .misplaced(address, claims: BlockAddress(block.u64(16)))
        }
        guard block.u64(24) <= Self.largestNumber else {
            throw .invalidField(address, field: "version", value: block.u64(24))
        }
        self.init(
            kind: kind,
            address: address,
            version: block.u64(24),
            volume: volume,
            owner: block.u64(48),
            generation: block.u64(56)
        )
    }

    /// Verifies the checksum of a whole block alone.
    ///
    /// - Throws: `wrongChecksum`.
    static func checkSum(
        of block: UnsafeRawBufferPointer,
        at address: BlockAddress
    ) throws(FormatError) {
        let stored = block.u32(8)
        let computed = Self.checksum(block)
        guard stored == computed else {
            throw .wrongChecksum(address, stored: stored, computed: computed)
        }
    }

    /// As above, and of the kind that is expected.
    package init(
        verifying block: UnsafeRawBufferPointer,
        at address: BlockAddress,
        volume: VolumeID,
        kind: BlockKind
    ) throws(FormatError) {
        try self.init(verifying: block, at: address, volume: volume)
        guard self.kind == kind else {
            throw .wrongKind(address, expected: kind, found: self.kind.rawValue)
        }
    }

    /// What is wrong with a block that should be of this kind and belong to this owner; nil if nothing
    /// is.
    package static func error(
        in block: UnsafeRawBufferPointer,
        at address: BlockAddress,
        volume: VolumeID,
        kind: BlockKind,
        owner: UInt64,
        generation: UInt64
    ) -> FormatError? {
        do throws(FormatError) {
            let header = try BlockHeader(verifying: block, at: address, volume: volume, kind: kind)
            guard header.owner == owner else {
                return .wrongOwner(address, expected: owner, found: header.owner)
            }
            guard header.generation == generation else {
                return .wrongGeneration(address, expected: generation, found: header.generation)
            }
            return nil
        } catch {
            return error
        }
    }

    /// Writes all fields but the checksum, which `seal` adds last.
    package func write(to block: UnsafeMutableRawBufferPointer) {
        block.put32(Self.magic, 0)
        block.put16(kind.rawValue, 4)
        block.put16(Self.revision, 6)
        block.put32(0, 8)
        block.put32(0, 12)
        block.put64(address.rawValue, 16)
        block.put64(version, 24)
        volume.write(to: block.window(32, 16))
        block.put64(owner, 48)
        block.put64(generation, 56)
    }

    /// Sets the version of a block in memory.
    package static func setVersion(_ version: UInt64, of block: UnsafeMutableRawBufferPointer) {
        block.put64(version, 24)
    }

    /// The version that a block in memory carries.
    package static func version(of block: UnsafeRawBufferPointer) -> UInt64 { block.u64(24) }

    /// The generation that a block in memory carries: of the inode that it belongs to, or 0.
    package static func generation(of block: UnsafeRawBufferPointer) -> UInt64 { block.u64(56) }

    /// Computes and stores the checksum: the last thing before a block is written anywhere.
    package static func seal(_ block: UnsafeMutableRawBufferPointer) {
        block.put32(checksum(block.readOnly), 8)
    }

    /// CRC32C of a block as if its checksum field were zero.
    package static func checksum(_ block: UnsafeRawBufferPointer) -> UInt32 {
        let base = block.baseAddress.unsafelyUnwrapped
        var zero: UInt32 = 0
        var crc = lockstep_crc32c(0, base, 8)
        crc = lockstep_crc32c(crc, &zero, 4)
        return lockstep_crc32c(crc, base + 12, block.count - 12)
    }
}

/// What the first 64 bytes of a block state, right or wrong: for looking at damage. Whoever wants to
/// rely on it asks `BlockHeader`.
package struct StatedHeader: Hashable, Sendable {
    package var magic: UInt32
    /// The number of the kind, known or not.
    package var kindNumber: UInt16
    package var revision: UInt16
    package var checksum: UInt32
    package var address: BlockAddress
    package var version: UInt64
    package var volume: VolumeID
    package var owner: UInt64
    package var generation: UInt64

    /// Reads the fields of any 64 bytes or more.
    package init(_ block: UnsafeRawBufferPointer) {
        precondition(block.count >= BlockHeader.byteCount, "less than a header")
        magic = block.u32(0)
        kindNumber = block.u16(4)
        revision = block.u16(6)
        checksum = block.u32(8)
        address = BlockAddress(block.u64(16))
        version = block.u64(24)
        volume = VolumeID(block.window(32, 16))
        owner = block.u64(48)
        generation = block.u64(56)
    }

    /// Whether it begins as every metadata block does.
    package var hasMagic: Bool { magic == BlockHeader.magic }
    /// The kind; nil if it is none that is known.
    package var kind: BlockKind? { BlockKind(rawValue: kindNumber) }
}

/// CRC32C of any bytes, continued from `start`.
package func crc32c(_ bytes: UnsafeRawBufferPointer, startingWith start: UInt32 = 0) -> UInt32 {
    guard let base = bytes.baseAddress, bytes.count > 0 else { return start }
    return lockstep_crc32c(start, base, bytes.count)
}

/// The UUID of a file system.
package struct VolumeID: Hashable, Sendable, CustomStringConvertible {
    package var high: UInt64
    package var low: UInt64

    /// From two halves, most significant first.
    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// From 16 bytes in the order in which a UUID is written.
    package init(_ bytes: UnsafeRawBufferPointer) {
        high = UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self))
        low = UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
    }

    /// From the form 8-4-4-4-12 of hexadecimal digits; nil if it is anything else.
    package init?(_ text: String) {
        var digits: [UInt64] = []
        for (index, character) in text.utf8.enumerated() {
            if [8, 13, 18, 23].contains(index) {
                guard character == UInt8(ascii: "-") else { return nil }
                continue
            }
            guard let digit = Character(UnicodeScalar(character)).hexDigitValue else { return nil }
            digits.append(UInt64(digit))
        }
        guard digits.count == 32, text.utf8.count == 36 else { return nil }
        high = digits[..<16].reduce(0) { $0 << 4 | $1 }
        low = digits[16...].reduce(0) { $0 << 4 | $1 }
    }

    /// Writes the 16 bytes.
    package func write(to bytes: UnsafeMutableRawBufferPointer) {
        bytes.storeBytes(of: high.bigEndian, as: UInt64.self)
        bytes.storeBytes(of: low.bigEndian, toByteOffset: 8, as: UInt64.self)
    }

    package var description: String {
        return hexadecimal(high >> 32, digits: 8) + "-"
            + hexadecimal(high >> 16 & 0xFFFF, digits: 4) + "-"
            + hexadecimal(high & 0xFFFF, digits: 4) + "-" + hexadecimal(low >> 48, digits: 4) + "-"
            + hexadecimal(low & 0xFFFF_FFFF_FFFF, digits: 12)
    }
}
