/// What a node says of a file that it has exclusively, to one that only looks (FileSystem/Glimpse.swift).
public struct GlimpsedAttributes: Hashable, Sendable {
    /// `st_mode`: type and permission bits.
    public var mode: UInt32
    /// The owner.
    public var user: UInt32
    /// The group.
    public var group: UInt32
    /// Names that it has.
    public var linkCount: UInt32
    /// `st_rdev` as Linux packs it.
    public var device: UInt32
    /// In bytes.
    public var size: UInt64
    /// Blocks of the volume that belong to the file, its inode's own included.
    public var blockCount: UInt64
    /// Time of last access.
    public var accessed: Timestamp
    /// Time of the last change of data.
    public var modified: Timestamp
    /// Time of the last change.
    public var changed: Timestamp
    /// When it was made.
    public var born: Timestamp
    /// The file has extended attributes, access control lists among them.
    public var hasExtendedAttributes: Bool

    /// From its fields.
    public init(
        mode: UInt32,
        user: UInt32,
        group: UInt32,
        linkCount: UInt32,
        device: UInt32,
        size: UInt64,
        blockCount: UInt64,
        accessed: Timestamp,
        modified: Timestamp,
        changed: Timestamp,
        born: Timestamp,
        hasExtendedAttributes: Bool
    ) {
        self.mode = mode
        self.user = user
        self.group = group
        self.linkCount = linkCount
        self.device = device
        self.size = size
        self.blockCount = blockCount
        self.accessed = accessed
        self.modified = modified
        self.changed = changed
        self.born = born
        self.hasExtendedAttributes = hasExtendedAttributes
    }
}
