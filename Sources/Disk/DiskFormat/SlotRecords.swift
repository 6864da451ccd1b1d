// What the volume knows about its nodes. The slot descriptor is fixed by mkfs (or when a journal is
// added); the guard and the heartbeats are rewritten in place, outside any journal, by whoever
// mounts.

package import Vocabulary

/// Where a slot's journal and its list of orphans are.
package struct SlotDescriptor: Hashable, Sendable {
    package var slot: SlotIndex
    package var journalStart: BlockAddress
    package var journalLength: UInt32
    /// The hidden directory that lists inodes deleted while open.
    package var orphanDirectory: InodeNumber

    package init(
        slot: SlotIndex,
        journalStart: BlockAddress,
        journalLength: UInt32,
        orphanDirectory: InodeNumber
    ) {
        self.slot = slot
        self.journalStart = journalStart
        self.journalLength = journalLength
        self.orphanDirectory = orphanDirectory
    }

    /// The shortest journal, in blocks.
    package static let minimumJournalLength: UInt32 = 256

    /// Encodes and seals the descriptor that belongs at `address`.
    package func write(
        to block: UnsafeMutableRawBufferPointer,
        at address: BlockAddress,
        volume: VolumeID
    ) {
        block.clear(0, block.count)
        BlockHeader(
            kind: .slotDescriptor,
            address: address,
            version: 1,
            volume: volume,
            owner: UInt64(slot.rawValue),
            generation: 0
        ).write(to: block)
        block.put64(journalStart.rawValue, 64)
        block.put32(journalLength, 72)
        block.put64(orphanDirectory.address.rawValue, 80)
        block.put64(orphanDirectory.generation, 88)
        BlockHeader.seal(block)
    }

    /// The fields as they stand in a block, right or wrong: for looking at damage.
    package init(unchecked block: UnsafeRawBufferPointer) {
        self.init(
            slot: SlotIndex(UInt32(truncatingIfNeeded: StatedHeader(block).owner)),
            journalStart: BlockAddress(block.u64(64)),
            journalLength: block.u32(72),
            orphanDirectory: InodeNumber(
                address: BlockAddress(block.u64(80)),
                generation: block.u64(88)
            )
        )
    }

    /// Verifies and decodes.
    package init(
        verifying block: UnsafeRawBufferPointer,
        at address: BlockAddress,
        in superblock: Superblock
    ) throws(FormatError) {
        let header = try BlockHeader(
            verifying: block,
            at: address,
            volume: superblock.volume,
            kind: .slotDescriptor
        )
        self.init(unchecked: block)
        let expected = address - superblock.slotTable
        guard header.owner == expected else {
            throw .wrongOwner(address, expected: expected, found: header.owner)
        }
        guard journalLength >= Self.minimumJournalLength,
            journalStart > superblock.guardTable + UInt64(superblock.slotCapacity),
            journalStart.rawValue < superblock.blockCount,
            superblock.blockCount - journalStart.rawValue >= UInt64(journalLength)
        else {
            throw .invalidField(address, field: "journal", value: journalStart.rawValue)
        }
        guard superblock.group(of: orphanDirectory.address) != nil else {
            throw .invalidField(
                address,
                field: "orphan directory",
                value: orphanDirectory.address.rawValue
            )
        }
    }
}

/// How the nodes that have the volume mounted find each other.
package enum ClusterMode: UInt8, Sendable {
    /// Nobody has it mounted, and all journals were left clean.
    case free = 0
    case hostLocal = 1
    case corosync = 2
    /// One mount that wants no company.
    case alone = 3
}

/// Who has the volume: the first mounter writes it, everybody checks it.
package struct GuardRecord: Hashable, Sendable {
    package var mode: ClusterMode
    /// Random identity of the run directory (host-local) or of the cluster; 0 when free.
    package var clusterHigh: UInt64
    package var clusterLow: UInt64
    /// Host name, for messages; up to 63 bytes.
    package var host: String

    package init(mode: ClusterMode, clusterHigh: UInt64, clusterLow: UInt64, host: String) {
        self.mode = mode
        self.clusterHigh = clusterHigh
        self.clusterLow = clusterLow
        self.host = host
    }

    package static let free = GuardRecord(mode: .free, clusterHigh: 0, clusterLow: 0, host: "")

    /// Bytes of a host name.
    package static let longestHost = 63

    /// Encodes and seals. `version` grows with each rewriting. Of a host name that is too long the
    /// last characters are left out.
    package func write(
        to block: UnsafeMutableRawBufferPointer,
        at address: BlockAddress,
        volume: VolumeID,
        version: UInt64
    ) {
        block.clear(0, block.count)
        BlockHeader(
            kind: .volumeGuard,
            address: address,
            version: version,
            volume: volume,
            owner: 0,
            generation: 0
        ).write(to: block)
        block[64] = mode.rawValue
        block.put64(clusterHigh, 72)
        block.put64(clusterLow, 80)
        var place = 88
        for character in host.unicodeScalars {
            let bytes = UTF8.encode(character) ?? UTF8.encodedReplacementCharacter
            guard place + bytes.count <= 88 + Self.longestHost else { break }
            for byte in bytes {
                block[place] = byte
                place += 1
            }
        }
        BlockHeader.seal(block)
    }

    /// Verifies and decodes; the version comes with the header.
    package static func read(
        verifying block: UnsafeRawBufferPointer,
        at address: BlockAddress,
        volume: VolumeID
    ) throws(FormatError) -> (record: GuardRecord, version: UInt64) {
        let header = try BlockHeader(
            verifying: block,
            at: address,
            volume: volume,
            kind: .volumeGuard
        )
        guard let record = GuardRecord(unchecked: block) else {
            throw .invalidField(address, field: "cluster mode", value: UInt64(block[64]))
        }
        // Bytes that are not UTF-8 decode to longer text, which could not be written back.
        guard record.host.utf8.count <= longestHost else {
            throw .invalidField(address, field: "host", value: UInt64(record.host.utf8.count))
        }
        return (record, header.version)
    }

    /// The fields as they stand in a block, right or wrong: for looking at damage. Nil if the mode
    /// is none that is known.
    package init?(unchecked block: UnsafeRawBufferPointer) {
        guard let mode = ClusterMode(rawValue: block[64]) else { return nil }
        self.init(
            mode: mode,
            clusterHigh: block.u64(72),
            clusterLow: block.u64(80),
            host: String(
                decoding: block.window(88, Self.longestHost).prefix { $0 != 0 },
                as: UTF8.self
            )
        )
    }
}

/// One slot's sign of life.
package struct SlotHeartbeat: Hashable, Sendable {
    package var slot: SlotIndex
    /// 0 when nobody is in the slot.
    package var incarnation: UInt64
    /// Moves while the node lives.
    package var beat: UInt64
    /// Of the cluster the node belongs to, as in the guard.
    package var clusterHigh: UInt64
    package var clusterLow: UInt64

    package init(
        slot: SlotIndex,
        incarnation: UInt64,
        beat: UInt64,
        clusterHigh: UInt64,
        clusterLow: UInt64
    ) {
        self.slot = slot
        self.incarnation = incarnation
        self.beat = beat
        self.clusterHigh = clusterHigh
        self.clusterLow = clusterLow
    }

    /// Encodes and seals.
    package func write(
        to block: UnsafeMutableRawBufferPointer,
        at address: BlockAddress,
        volume: VolumeID
    ) {
        block.clear(0, block.count)
        BlockHeader(
            kind: .slotHeartbeat,
            address: address,
            version: beat,
            volume: volume,
            owner: UInt64(slot.rawValue),
            generation: incarnation
        ).write(to: block)
        block.put64(clusterHigh, 64)
        block.put64(clusterLow, 72)
        BlockHeader.seal(block)
    }

    /// Verifies and decodes.
    package init(
        verifying block: UnsafeRawBufferPointer,
        at address: BlockAddress,
        volume: VolumeID
    ) throws(FormatError) {
        let header = try BlockHeader(
            verifying: block,
            at: address,
            volume: volume,
            kind: .slotHeartbeat
        )
        guard header.owner < UInt64(Superblock.maximumSlots) else {
            throw .invalidField(address, field: "slot", value: header.owner)
        }
        self.init(unchecked: block)
    }

    /// The fields as they stand in a block, right or wrong: for looking at damage.
    package init(unchecked block: UnsafeRawBufferPointer) {
        let header = StatedHeader(block)
        self.init(
            slot: SlotIndex(UInt32(truncatingIfNeeded: header.owner)),
            incarnation: header.generation,
            beat: header.version,
            clusterHigh: block.u64(64),
            clusterLow: block.u64(72)
        )
    }
}
