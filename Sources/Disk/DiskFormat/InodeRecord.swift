// One block per inode. After the header come the fields, then, from byte `bodyOffset` on, the body:
// inline data, the root of the extent tree, or the root of a directory, as `layout` says; at the
// very end of the block the inline extended attributes grow towards the front.

package import Vocabulary

/// What the body of an inode holds.
package enum InodeLayout: UInt8, CaseIterable, Sendable {
    /// The data itself (`size` bytes); also the target of a symbolic link.
    case inlineData = 0
    /// The root of a tree of extents.
    case extents = 1
    /// Entries of a small directory, in the form of a directory leaf.
    case inlineDirectory = 2
    /// The root of a directory's index.
    case directoryIndex = 3
    /// Nothing: devices, FIFOs, sockets.
    case none = 4
}

/// Flags of an inode.
package struct InodeFlags: OptionSet, Hashable, Sendable {
    package var rawValue: UInt32

    package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Belongs to the file system itself (orphan directories): not reachable from the root.
    package static let system = InodeFlags(rawValue: 1 << 0)
    /// Deleted, kept because somebody has it open; listed in the orphan directory of `orphanSlot`.
    package static let orphan = InodeFlags(rawValue: 1 << 1)
    /// Nodes may be writing, or have written, to the file without changing its times here: whoever is in the
    /// cluster has to be asked for them. Of no meaning when nobody is.
    package static let sharedWriters = InodeFlags(rawValue: 1 << 8)
    /// Nothing about it changes: neither data nor attributes nor, of a directory, its entries.
    package static let immutable = InodeFlags(rawValue: 1 << 2)
    /// Data is only added at the end; of a directory, entries are only added.
    package static let appendOnly = InodeFlags(rawValue: 1 << 3)
    /// Reading leaves the time of last access alone.
    package static let noAccessTime = InodeFlags(rawValue: 1 << 4)
    /// For backup programs: left out by dump(8).
    package static let noDump = InodeFlags(rawValue: 1 << 5)

    /// What chattr(1) sets: of files and directories only, on volumes with `VolumeFeatures.fileFlags`.
    package static let ofFiles: InodeFlags = [.immutable, .appendOnly, .noAccessTime, .noDump]
    /// What of these a new file or directory gets from its directory.
    package static let inherited: InodeFlags = [.noAccessTime, .noDump]
}

/// The fields of an inode; who it is stands in the block's header.
package struct InodeRecord: Hashable, Sendable {
    /// `st_mode`: type and permission bits.
    package var mode: UInt32
    package var user: UInt32
    package var group: UInt32
    package var linkCount: UInt32
    package var size: UInt64
    /// Blocks that belong to the inode, the inode's own included.
    package var blockCount: UInt64
    package var accessed: Timestamp
    package var modified: Timestamp
    package var changed: Timestamp
    package var born: Timestamp
    package var flags: InodeFlags
    package var device: UInt32
    package var layout: InodeLayout
    /// Levels of tree nodes below the root in the body; 0 when the root holds the records
    /// themselves.
    package var height: UInt8
    /// Bytes at the end of the block taken by inline extended attributes.
    package var inlineAttributeLength: UInt16
    /// Records in the root (extents, child pointers, directory entries).
    package var rootCount: UInt16
    /// Bytes used by an inline directory's entries.
    package var rootLength: UInt16
    /// The first block of extended attributes, or none.
    package var attributeBlock: BlockAddress
    /// Entries of a directory, "." and ".." not counted.
    package var entryCount: UInt64
    /// The parent of a directory ("..").
    package var parent: InodeNumber
    /// The slot whose orphan directory lists the inode; meaningful with `InodeFlags.orphan`.
    package var orphanSlot: SlotIndex

    package static let bodyOffset = 256
    /// Bytes of the target of a symbolic link; it has at least one.
    package static let longestTarget = 4095

    /// A new inode with no content.
    package init(mode: UInt32, user: UInt32, group: UInt32, linkCount: UInt32, born: Timestamp) {
        self.mode = mode
        self.user = user
        self.group = group
        self.linkCount = linkCount
        size = 0
        blockCount = 1
        accessed = born
        modified = born
        changed = born
        self.born = born
        flags = []
        device = 0
        layout = .none
        height = 0
        inlineAttributeLength = 0
        rootCount = 0
        rootLength = 0
        attributeBlock = .none
        entryCount = 0
        parent = InodeNumber(address: .none, generation: 0)
        orphanSlot = SlotIndex(0)
    }

    /// Decodes the fields of a block whose header was verified, refusing values that would lead
    /// outside the block.
    package init(fields block: UnsafeRawBufferPointer, at address: BlockAddress)
        throws(FormatError)
    {
        guard InodeLayout(rawValue: block[152]) != nil else {
            throw .invalidField(address, field: "layout", value: UInt64(block[152]))
        }
        self.init(unchecked: block)
        try checkFields(address, blockSize: block.count)
    }

    /// The fields as they stand in a block, right or wrong: for looking at damage. A layout that is
    /// not known is taken for one without a body.
    package init(unchecked block: UnsafeRawBufferPointer) {
        self.init(
            mode: block.u32(64),
            user: block.u32(68),
            group: block.u32(72),
            linkCount: block.u32(76),
            born: Self.time(block, 132)
        )
        size = block.u64(80)
        blockCount = block.u64(88)
        accessed = Self.time(block, 96)
        modified = Self.time(block, 108)
        changed = Self.time(block, 120)
        flags = InodeFlags(rawValue: block.u32(144))
        device = block.u32(148)
        layout = InodeLayout(rawValue: block[152]) ?? .none
        height = block[153]
        inlineAttributeLength = block.u16(154)
        rootCount = block.u16(156)
        rootLength = block.u16(158)
        attributeBlock = BlockAddress(block.u64(160))
        entryCount = block.u64(168)
        parent = InodeNumber(
            address: BlockAddress(block.u64(176)),
            generation: block.u64(184)
        )
        orphanSlot = SlotIndex(block.u32(192))
    }

    private func checkFields(_ address: BlockAddress, blockSize: Int) throws(FormatError) {
        let body = blockSize - Self.bodyOffset
        guard Int(inlineAttributeLength) <= body else {
            throw .invalidField(
                address,
                field: "inline attribute length",
                value: UInt64(inlineAttributeLength)
            )
        }
        let room = body - Int(inlineAttributeLength)
        let used: Int
        switch layout {
        case .inlineData: used = size > UInt64(body) ? Int.max : Int(size)
        case .extents where height == 0: used = Int(rootCount) * Extent.byteCount
        case .extents, .directoryIndex: used = Int(rootCount) * TreePointer.byteCount
        case .inlineDirectory: used = Int(rootLength)
        case .none: used = 0
        }
        guard used <= room else {
            throw .invalidField(address, field: "root", value: UInt64(clamping: used))
        }
        guard height <= Self.maximumHeight else {
            throw .invalidField(address, field: "height", value: UInt64(height))
        }
        guard !flags.contains(.orphan) || orphanSlot.rawValue < Superblock.maximumSlots else {
            throw .invalidField(
                address,
                field: "orphan slot",
                value: UInt64(orphanSlot.rawValue)
            )
        }
        for time in [accessed, modified, changed, born] where time.nanoseconds >= 1_000_000_000 {
            throw .invalidField(address, field: "time", value: UInt64(time.nanoseconds))
        }
    }

    /// No tree is ever higher: with the smallest block 5 levels hold more than 2⁶⁰ blocks.
    package static let maximumHeight: UInt8 = 8

    /// Writes the fields; header, body and checksum are left alone.
    package func writeFields(to block: UnsafeMutableRawBufferPointer) {
        block.put32(mode, 64)
        block.put32(user, 68)
        block.put32(group, 72)
        block.put32(linkCount, 76)
        block.put64(size, 80)
        block.put64(blockCount, 88)
        Self.put(accessed, block, 96)
        Self.put(modified, block, 108)
        Self.put(changed, block, 120)
        Self.put(born, block, 132)
        block.put32(flags.rawValue, 144)
        block.put32(device, 148)
        block[152] = layout.rawValue
        block[153] = height
        block.put16(inlineAttributeLength, 154)
        block.put16(rootCount, 156)
        block.put16(rootLength, 158)
        block.put64(attributeBlock.rawValue, 160)
        block.put64(entryCount, 168)
        block.put64(parent.address.rawValue, 176)
        block.put64(parent.generation, 184)
        block.put32(orphanSlot.rawValue, 192)
    }

    /// Bytes of the body that are not taken by inline extended attributes.
    package func bodyLength(blockSize: Int) -> Int {
        blockSize - Self.bodyOffset - Int(inlineAttributeLength)
    }

    /// The type bits of `mode`.
    package var typeBits: UInt32 { mode & 0o170000 }
    package var isDirectory: Bool { typeBits == 0o040000 }
    package var isRegular: Bool { typeBits == 0o100000 }
    package var isSymbolicLink: Bool { typeBits == 0o120000 }
    /// Whether an inode of this type can have the flags that chattr(1) sets.
    package var canHaveFileFlags: Bool { isRegular || isDirectory }

    private static func time(_ block: UnsafeRawBufferPointer, _ offset: Int) -> Timestamp {
        Timestamp(
            seconds: Int64(bitPattern: block.u64(offset)),
            nanoseconds: block.u32(offset + 8)
        )
    }

    private static func put(
        _ time: Timestamp,
        _ block: UnsafeMutableRawBufferPointer,
        _ offset: Int
    ) {
        block.put64(UInt64(bitPattern: time.seconds), offset)
        block.put32(time.nanoseconds, offset + 8)
    }
}
