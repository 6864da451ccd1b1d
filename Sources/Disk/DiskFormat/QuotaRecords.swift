// What users and groups use, and may use. A volume with the read-only compatible feature "quotas" has,
// between its journals and its first group, one *share* block for each slot and then the *table*.
//
//   quotaStart ..< + slotCount          shares: what the slot's node has charged since its last settlement
//   ... ..< + quotaTableLength          table: usage as settled, and limits
//
// Usage of a principal (a user or a group) is what the table says plus what all shares say. The table is a
// hash table of blocks: a principal stands in the block of its hash or, if that was full, in the next one that
// was not. A block over which somebody went on has `overflowed` set, for ever: a search ends at a block without.
//
// Essay, invariants and lock order: `FileSystem/QuotaBook.swift`. Offsets: `Docs/FORMAT.md`.

package import Vocabulary

/// A user or a group, of whom is counted.
package struct QuotaPrincipal: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// What its number counts.
    package enum Kind: UInt8, CaseIterable, Sendable {
        case user = 1
        case group = 2
    }

    package var kind: Kind
    /// Of the user or group.
    package var identity: UInt32

    /// A user.
    package static func user(_ identity: UInt32) -> QuotaPrincipal {
        QuotaPrincipal(kind: .user, identity: identity)
    }

    /// A group.
    package static func group(_ identity: UInt32) -> QuotaPrincipal {
        QuotaPrincipal(kind: .group, identity: identity)
    }

    package init(kind: Kind, identity: UInt32) {
        self.kind = kind
        self.identity = identity
    }

    /// As it stands on disk; never 0, which stands for nobody.
    package var key: UInt64 { UInt64(kind.rawValue) << 32 | UInt64(identity) }

    /// Nil for what is no key.
    package init?(key: UInt64) {
        guard key >> 32 <= UInt64(UInt8.max), let kind = Kind(rawValue: UInt8(key >> 32)) else {
            return nil
        }
        self.init(kind: kind, identity: UInt32(truncatingIfNeeded: key))
    }

    package static func < (left: QuotaPrincipal, right: QuotaPrincipal) -> Bool {
        left.key < right.key
    }

    package var description: String { "\(kind == .user ? "user" : "group") \(identity)" }

    /// Where its search begins: the finalizer of splitmix64 over the key.
    package var hash: UInt64 {
        var mixed = key &* 0x9E37_79B9_7F4A_7C15
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}

/// An amount of blocks and inodes; differences are negative. Sums wrap: only forged amounts are that large, and they
/// must not end a node.
package struct QuotaAmount: Hashable, Sendable {
    package var blocks: Int64
    package var inodes: Int64

    package static let zero = QuotaAmount(blocks: 0, inodes: 0)

    package init(blocks: Int64, inodes: Int64) {
        self.blocks = blocks
        self.inodes = inodes
    }

    package static func + (left: QuotaAmount, right: QuotaAmount) -> QuotaAmount {
        QuotaAmount(blocks: left.blocks &+ right.blocks, inodes: left.inodes &+ right.inodes)
    }

    package static func - (left: QuotaAmount, right: QuotaAmount) -> QuotaAmount {
        QuotaAmount(blocks: left.blocks &- right.blocks, inodes: left.inodes &- right.inodes)
    }

    package static func += (left: inout QuotaAmount, right: QuotaAmount) { left = left + right }

    package static func -= (left: inout QuotaAmount, right: QuotaAmount) { left = left - right }

    /// Amounts that are read from a volume are never beyond this, so that whoever adds to them need not
    /// think of overflow.
    package static let largest: Int64 = 1 << 61

    fileprivate var isPossible: Bool {
        (-Self.largest...Self.largest).contains(blocks)
            && (-Self.largest...Self.largest).contains(inodes)
    }
}

/// What a principal may use of one thing (blocks or inodes). 0: no limit.
package struct QuotaLimit: Hashable, Sendable {
    /// May be passed for the time of grace.
    package var soft: UInt64
    /// May not be passed.
    package var hard: UInt64

    package static let none = QuotaLimit(soft: 0, hard: 0)

    package init(soft: UInt64, hard: UInt64) {
        self.soft = soft
        self.hard = hard
    }

    /// Whether there is a limit.
    package var isLimited: Bool { soft != 0 || hard != 0 }
}

/// One principal's place in the table.
package struct QuotaRecord: Hashable, Sendable {
    package var principal: QuotaPrincipal
    /// As settled.
    package var usage = QuotaAmount.zero
    package var blockLimit = QuotaLimit.none
    package var inodeLimit = QuotaLimit.none
    /// When grace ends, in seconds since 1970 UTC; 0 while the soft limit is kept.
    package var blockDeadline: UInt64 = 0
    package var inodeDeadline: UInt64 = 0

    package init(_ principal: QuotaPrincipal) { self.principal = principal }

    /// Says nothing: its place may be another's.
    package var isVoid: Bool {
        usage == .zero && !blockLimit.isLimited && !inodeLimit.isLimited
    }

    package static let byteCount = 72

    fileprivate init?(_ bytes: UnsafeRawBufferPointer, at place: Int) {
        guard let principal = QuotaPrincipal(key: bytes.u64(place)) else { return nil }
        self.init(principal)
        usage = QuotaAmount(
            blocks: Int64(bitPattern: bytes.u64(place + 8)),
            inodes: Int64(bitPattern: bytes.u64(place + 16))
        )
        blockLimit = QuotaLimit(soft: bytes.u64(place + 24), hard: bytes.u64(place + 32))
        inodeLimit = QuotaLimit(soft: bytes.u64(place + 40), hard: bytes.u64(place + 48))
        blockDeadline = bytes.u64(place + 56)
        inodeDeadline = bytes.u64(place + 64)
        let limits = [blockLimit.soft, blockLimit.hard, inodeLimit.soft, inodeLimit.hard]
        guard usage.isPossible, limits.allSatisfy({ $0 <= UInt64(QuotaAmount.largest) }) else {
            return nil
        }
    }

    fileprivate func write(to bytes: UnsafeMutableRawBufferPointer, at place: Int) {
        bytes.put64(principal.key, place)
        bytes.put64(UInt64(bitPattern: usage.blocks), place + 8)
        bytes.put64(UInt64(bitPattern: usage.inodes), place + 16)
        bytes.put64(blockLimit.soft, place + 24)
        bytes.put64(blockLimit.hard, place + 32)
        bytes.put64(inodeLimit.soft, place + 40)
        bytes.put64(inodeLimit.hard, place + 48)
        bytes.put64(blockDeadline, place + 56)
        bytes.put64(inodeDeadline, place + 64)
    }
}

/// A block of the table. The bytes are the caller's.
package struct QuotaTableBlock {
    private let bytes: UnsafeMutableRawBufferPointer

    private static let firstRecord = 88

    package init(_ bytes: UnsafeMutableRawBufferPointer) { self.bytes = bytes }

    /// Records that fit into a block.
    package static func capacity(blockSize: Int) -> Int {
        (blockSize - firstRecord) / QuotaRecord.byteCount
    }

    /// Records that fit here.
    package var capacity: Int { Self.capacity(blockSize: bytes.count) }

    /// Somebody whose search came here stands in a block behind.
    package var hasOverflowed: Bool {
        get { bytes.readOnly.u32(64) != 0 }
        nonmutating set { bytes.put32(newValue ? 1 : 0, 64) }
    }

    /// Seconds of grace for blocks and inodes; every block of the table has them, the first one's count.
    package var grace: (blocks: UInt64, inodes: UInt64) {
        get { (bytes.readOnly.u64(72), bytes.readOnly.u64(80)) }
        nonmutating set {
            bytes.put64(newValue.blocks, 72)
            bytes.put64(newValue.inodes, 80)
        }
    }

    /// A week.
    package static let usualGrace: UInt64 = 604_800

    /// The record at a place; nil if nobody stands there.
    ///
    /// - Throws: `invalidField` for what no writer leaves there.
    package func record(at index: Int) throws(FormatError) -> QuotaRecord? {
        let place = Self.firstRecord + index * QuotaRecord.byteCount
        let key = bytes.readOnly.u64(place)
        if key == 0 { return nil }
        guard let record = QuotaRecord(bytes.readOnly, at: place) else {
            throw .invalidField(
                BlockAddress(bytes.readOnly.u64(16)),
                field: "quota record",
                value: key
            )
        }
        return record
    }

    /// Puts a record into a place, or nobody.
    package func set(_ record: QuotaRecord?, at index: Int) {
        let place = Self.firstRecord + index * QuotaRecord.byteCount
        if let record {
            record.write(to: bytes, at: place)
        } else {
            bytes.clear(place, QuotaRecord.byteCount)
        }
    }

    /// Encodes an empty block of the table; without a checksum.
    package func format(_ superblock: Superblock, index: UInt32, version: UInt64) {
        bytes.clear(0, bytes.count)
        BlockHeader(
            kind: .quotaTable,
            address: superblock.quotaTable(index),
            version: version,
            volume: superblock.volume,
            owner: UInt64(index),
            generation: 0
        ).write(to: bytes)
        grace = (Self.usualGrace, Self.usualGrace)
    }
}

/// A slot's share. The bytes are the caller's.
package struct QuotaShareBlock {
    private let bytes: UnsafeMutableRawBufferPointer

    private static let firstEntry = 72
    private static let entryLength = 24

    package init(_ bytes: UnsafeMutableRawBufferPointer) { self.bytes = bytes }

    /// Principals that fit into a share.
    package var capacity: Int { (bytes.count - Self.firstEntry) / Self.entryLength }

    /// Who stands at a place, and what was charged and not settled; nil if nobody does.
    ///
    /// - Throws: `invalidField` for what no writer leaves there.
    package func entry(
        at index: Int
    ) throws(FormatError) -> (principal: QuotaPrincipal, amount: QuotaAmount)? {
        let place = Self.firstEntry + index * Self.entryLength
        let key = bytes.readOnly.u64(place)
        if key == 0 { return nil }
        let amount = amount(at: index)
        guard let principal = QuotaPrincipal(key: key), amount.isPossible else {
            throw .invalidField(
                BlockAddress(bytes.readOnly.u64(16)),
                field: "quota entry",
                value: key
            )
        }
        return (principal, amount)
    }

    /// The amount at a place.
    package func amount(at index: Int) -> QuotaAmount {
        let place = Self.firstEntry + index * Self.entryLength
        return QuotaAmount(
            blocks: Int64(bitPattern: bytes.readOnly.u64(place + 8)),
            inodes: Int64(bitPattern: bytes.readOnly.u64(place + 16))
        )
    }

    /// Gives a place to a principal with an amount.
    package func set(_ principal: QuotaPrincipal, _ amount: QuotaAmount, at index: Int) {
        let place = Self.firstEntry + index * Self.entryLength
        bytes.put64(principal.key, place)
        bytes.put64(UInt64(bitPattern: amount.blocks), place + 8)
        bytes.put64(UInt64(bitPattern: amount.inodes), place + 16)
    }

    /// Leaves a place to whoever comes.
    package func clear(at index: Int) {
        bytes.clear(Self.firstEntry + index * Self.entryLength, Self.entryLength)
    }

    /// Encodes an empty share; without a checksum.
    package func format(_ superblock: Superblock, _ slot: SlotIndex, version: UInt64) {
        bytes.clear(0, bytes.count)
        BlockHeader(
            kind: .quotaShare,
            address: superblock.quotaShare(slot),
            version: version,
            volume: superblock.volume,
            owner: UInt64(slot.rawValue),
            generation: 0
        ).write(to: bytes)
    }
}

extension Superblock {
    /// The share of a slot. The volume has quotas.
    package func quotaShare(_ slot: SlotIndex) -> BlockAddress {
        quotaStart + UInt64(slot.rawValue)
    }

    /// A block of the table, `index` below `quotaTableLength`.
    package func quotaTable(_ index: UInt32) -> BlockAddress {
        quotaStart + UInt64(slotCount) + UInt64(index)
    }

    /// Where the area of the journals ends.
    package var journalsEnd: BlockAddress { features.hasQuotas ? quotaStart : firstGroup }

    /// Where shares and table stand; empty on a volume without quotas.
    package var quotaBlocks: Range<UInt64> {
        guard features.hasQuotas else { return 0..<0 }
        let start = quotaStart.rawValue
        return start..<start + UInt64(slotCount) + UInt64(quotaTableLength)
    }
}
