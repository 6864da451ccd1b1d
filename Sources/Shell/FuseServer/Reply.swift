// Replies as bytes.

import CFuse3
import FileSystem
import Glibc
import Vocabulary

/// What a request is answered with.
enum Answer {
    /// Success and nothing more.
    case done
    /// An error number.
    case failure(Int32)
    /// Bytes behind the header in the request's reply area.
    case short(Int)
    /// Bytes at the front of the buffer's data.
    case data(TransferBuffer, Int)
    /// Bytes elsewhere.
    case bytes([UInt8])
}

/// The type bits of `st_mode`, which the C modules in use define more than once.
enum FileKind {
    static let mask: UInt32 = 0o170000
    static let directory: UInt32 = 0o040000
}

/// Writes the structures of the protocol.
enum Encoding {
    static let headerSize = MemoryLayout<fuse_out_header>.size

    /// "For ever", in seconds: what the covering lock permits is taken back by an invalidation, not
    /// by time.
    private static let forever: UInt64 = 1 << 32

    /// Writes a reply's header. `error` is a positive error number or 0, `count` the bytes that
    /// follow.
    static func header(
        at area: UnsafeMutableRawPointer,
        unique: UInt64,
        error: Int32,
        count: Int
    ) {
        area.storeBytes(
            of: fuse_out_header(
                len: UInt32(headerSize + count),
                error: -error,
                unique: unique
            ),
            as: fuse_out_header.self
        )
    }

    /// Puts a structure behind the header; returns its size.
    static func put<Structure: BitwiseCopyable>(
        _ value: Structure,
        at area: UnsafeMutableRawPointer,
        offset: Int = 0
    ) -> Int {
        (area + headerSize + offset).storeBytes(of: value, as: Structure.self)
        return MemoryLayout<Structure>.size
    }

    static func attributes(_ from: FileAttributes) -> fuse_attr {
        var to = fuse_attr()
        to.ino = from.inode.address.rawValue
        to.size = from.size
        to.blocks = from.blocks
        to.atime = UInt64(bitPattern: from.accessed.seconds)
        to.mtime = UInt64(bitPattern: from.modified.seconds)
        to.ctime = UInt64(bitPattern: from.changed.seconds)
        to.atimensec = from.accessed.nanoseconds
        to.mtimensec = from.modified.nanoseconds
        to.ctimensec = from.changed.nanoseconds
        to.mode = from.mode
        to.nlink = from.linkCount
        to.uid = from.user
        to.gid = from.group
        to.rdev = from.device
        to.blksize = from.blockSize
        return to
    }

    static func attributesReply(_ reply: AttributesReply) -> fuse_attr_out {
        var out = fuse_attr_out()
        out.attr_valid = reply.isCacheable ? forever : 0
        out.attr = attributes(reply.attributes)
        return out
    }

    /// - Parameters:
    ///   - keepsEntry: whether this kernel may keep names at all (KERNEL D1).
    ///   - keepsAttributes: false for replies that the kernel does not protect against a crossing
    ///     invalidation (KERNEL S2).
    static func entry(
        _ reply: EntryReply,
        keepsEntry: Bool,
        keepsAttributes: Bool
    ) -> fuse_entry_out {
        var out = fuse_entry_out()
        out.nodeid = reply.node.rawValue
        out.generation = reply.attributes.inode.generation
        out.entry_valid = reply.isEntryCacheable && keepsEntry ? forever : 0
        out.attr_valid = reply.isAttributesCacheable && keepsAttributes ? forever : 0
        out.attr = attributes(reply.attributes)
        return out
    }

    /// A name that does not exist and may be kept as such.
    static func absence() -> fuse_entry_out {
        var out = fuse_entry_out()
        out.entry_valid = forever
        return out
    }

    static func opened(_ reply: OpenReply, isDirectory: Bool) -> fuse_open_out {
        var flags: UInt32 = 0
        if reply.keepsCache {
            flags |= UInt32(FOPEN_KEEP_CACHE)
            if isDirectory { flags |= UInt32(FOPEN_CACHE_DIR) }
        }
        if reply.isDirect && !isDirectory { flags |= UInt32(FOPEN_DIRECT_IO) }
        var out = fuse_open_out()
        out.fh = reply.handle.rawValue
        out.open_flags = flags
        return out
    }

    static func statistics(_ usage: VolumeUsage) -> fuse_statfs_out {
        var out = fuse_statfs_out()
        out.st.blocks = usage.blocks
        out.st.bfree = usage.free
        out.st.bavail = usage.free
        out.st.files = usage.inodes
        out.st.ffree = usage.freeInodes
        out.st.bsize = usage.blockSize
        out.st.frsize = usage.blockSize
        out.st.namelen = usage.longestName
        return out
    }
}

/// Fills a buffer with directory entries.
struct DirectoryFiller {
    private let area: UnsafeMutableRawBufferPointer
    private(set) var count = 0

    init(_ area: UnsafeMutableRawBufferPointer) { self.area = area }

    /// Appends an entry; false, and nothing done, if it does not fit.
    mutating func append(_ entry: DirectoryEntry) -> Bool {
        let bare = MemoryLayout<fuse_dirent>.size + entry.name.count
        let padded = (bare + 7) & ~7
        guard count + padded <= area.count, let base = area.baseAddress else { return false }
        precondition(entry.nextCookie != 0, "a directory cookie of 0 means the start")
        let start = base + count
        start.storeBytes(of: entry.inode.address.rawValue, as: UInt64.self)
        start.storeBytes(of: entry.nextCookie, toByteOffset: 8, as: UInt64.self)
        start.storeBytes(of: UInt32(entry.name.count), toByteOffset: 16, as: UInt32.self)
        start.storeBytes(
            of: (entry.typeBits & FileKind.mask) >> 12,
            toByteOffset: 20,
            as: UInt32.self
        )
        let nameStart = start + MemoryLayout<fuse_dirent>.size
        if let name = entry.name.baseAddress {
            nameStart.copyMemory(from: name, byteCount: entry.name.count)
        }
        memset(start + bare, 0, padded - bare)
        count += padded
        return true
    }
}
