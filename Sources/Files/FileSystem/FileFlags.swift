// Flags of files and directories: immutable, append-only, without time of access, not to be dumped (chattr(1),
// lsattr(1)). They stand in the inode and are covered by its lock, so that they hold on every node from the moment in
// which they are set.
//
// Linux obeys them in its VFS, by flags of its own inodes, which FUSE never sets. So we obey them, in the place in which
// each operation has the locks of what it changes:
//
//   of the thing itself    immutable                         append-only
//   open to write          EPERM                             EPERM without O_APPEND, or with O_TRUNC
//   write(2)               EPERM, also of who had it open    at the end; elsewhere only for who had it open
//                                                            before without O_APPEND
//   stores in a mapping    lost, as far as made afterwards   as write(2)
//   truncate, punch, zero  EPERM                             EPERM
//   fallocate              EPERM                             permitted
//   chmod, chown, xattr    EPERM                             EPERM
//   utimes                 EPERM                             EPERM, unless both times become now
//   link, rename, unlink   EPERM                             EPERM
//
//   of its directory       immutable                         append-only
//   create, mkdir, link    EPERM                             permitted
//   rename into it         EPERM                             permitted, unless a name is replaced
//   rename away, unlink    EPERM                             EPERM
//
// Invariants
// A1. What is looked at is the record of an inode whose lock is held in the mode that the operation needs. Nothing is
//     remembered of it.
// A2. Before the first two flags are set, what is dirty in mappings of this node is written back (other nodes do so
//     when they give up their locks). What is stored later comes as a write-back, is refused and dropped: the kernel
//     asks nobody when a page of a writable mapping is first stored to (KERNEL M1).
// A3. Only who has CAP_LINUX_IMMUTABLE changes the first two. The kernel has compared the wish with flags that may be
//     old by now, as another node may have changed them; so it is decided here once more.
// A4. What stays immutable keeps all its flags.
// A5. Only files and directories of a volume with `VolumeFeatures.fileFlags` have flags.
//
// Sources: `may_open`, `may_delete`, `may_create`, `may_setattr`, `vfs_link`, `xattr_permission`, `vfs_fallocate` of
// Linux; ext4 for descriptors that were open before, for A4, and for what is inherited (`EXT4_FL_INHERITED`).

import BlockIO
import DiskFormat
import Execution
import FileStore
import Journaling
import LockCache
package import Vocabulary

/// The flags of a file that programs can set.
package struct FileFlags: OptionSet, Hashable, Sendable {
    package var rawValue: UInt32

    package init(rawValue: UInt32) { self.rawValue = rawValue }

    package static let immutable = FileFlags(rawValue: 1 << 0)
    package static let appendOnly = FileFlags(rawValue: 1 << 1)
    package static let noAccessTime = FileFlags(rawValue: 1 << 2)
    package static let noDump = FileFlags(rawValue: 1 << 3)

    /// Those that only CAP_LINUX_IMMUTABLE may change.
    static let protecting: FileFlags = [.immutable, .appendOnly]

    private static let stored: [(FileFlags, InodeFlags)] = [
        (.immutable, .immutable), (.appendOnly, .appendOnly), (.noAccessTime, .noAccessTime),
        (.noDump, .noDump),
    ]

    /// What an inode says.
    init(_ flags: InodeFlags) {
        self = []
        for (ours, theirs) in Self.stored where flags.contains(theirs) { insert(ours) }
    }

    /// As an inode says it.
    var inInode: InodeFlags {
        Self.stored.reduce([]) { contains($1.0) ? $0.union($1.1) : $0 }
    }
}

/// What a caller may do whatever his user number is.
package enum Privilege: Sendable {
    /// CAP_FOWNER: what the owner may.
    case fileOwner
    /// CAP_LINUX_IMMUTABLE: change the flags that protect.
    case protection
}

extension InodeRecord {
    fileprivate var isImmutable: Bool { flags.contains(.immutable) }
    fileprivate var isAppendOnly: Bool { flags.contains(.appendOnly) }
}

// MARK: Reading and setting them

extension MountedVolume {
    package func fileFlags(
        _ node: NodeHandle,
        _ interruption: Interruption?
    ) async throws(FileError) -> FileFlags {
        let inode = try inode(node)
        let stored = try await hold(inode, .shared, interruption)
        defer { release(inode, .shared) }
        guard stored.record.canHaveFileFlags else { throw .notSupported }
        return FileFlags(stored.record.flags)
    }

    package func setFileFlags(
        _ node: NodeHandle,
        _ flags: FileFlags,
        _ caller: Caller,
        _ interruption: Interruption?,
        has: (Privilege) -> Bool
    ) async throws(FileError) {
        try checkWritable()
        try await freezer.enter(interruption)
        defer { freezer.leave() }
        let inode = try inode(node)
        if !flags.isDisjoint(with: .protecting), inode.readWriteOpens > 0, inode.kernelMayCache {
            await invalidateWholly(inode, 0..<Self.largestFile)  // A2
        }
        try await setFlagsHeld(inode, flags, caller, interruption, has)
        // The kernel has the old time of change, and does not know that an IOCTL made a new one.
        await takeBack(inode, data: nil)
    }

    private func setFlagsHeld(
        _ inode: Inode,
        _ flags: FileFlags,
        _ caller: Caller,
        _ interruption: Interruption?,
        _ has: (Privilege) -> Bool
    ) async throws(FileError) {
        let stored = try await hold(inode, .exclusive, interruption)
        defer { release(inode, .exclusive) }
        guard stored.record.canHaveFileFlags else { throw .notSupported }
        guard caller.user == stored.record.user || has(.fileOwner) else { throw .notPermitted }
        let changed = FileFlags(stored.record.flags).symmetricDifference(flags)
        if changed.isEmpty { return }
        guard superblock.features.hasFileFlags else { throw .notSupported }  // A5
        guard changed.isDisjoint(with: .protecting) || has(.protection) else {
            throw .notPermitted  // A3
        }
        if stored.record.isImmutable, flags.contains(.immutable) { throw .notPermitted }  // A4
        let transaction = try await begin(blocks: 1)
        defer { transaction.end() }
        stored.record.flags.subtract(.ofFiles)
        stored.record.flags.formUnion(flags.inInode)
        stored.record.changed = now
        stored.store(in: transaction)
        inode.hasChanged(in: transaction.sequence)
    }
}

// MARK: Obeying them (A1)

extension MountedVolume {
    /// Opening, with what comes with it.
    func checkMayOpen(_ record: InodeRecord, _ intent: OpenIntent) throws(FileError) {
        guard intent.writes || intent.truncates else { return }
        if record.isImmutable { throw .notPermitted }
        guard record.isAppendOnly else { return }
        if intent.truncates || (intent.writes && !intent.appends) { throw .notPermitted }
    }

    /// One WRITE. What is refused of a mapping is dropped from the kernel's pages (A2).
    func checkMayWrite(
        _ inode: Inode,
        _ record: InodeRecord,
        _ range: Range<UInt64>,
        _ flags: WriteFlags
    ) throws(FileError) {
        if record.flags.isDisjoint(with: [.immutable, .appendOnly]) { return }
        if !record.isImmutable {
            if flags.isWriteback {
                // Whose mapping it is the kernel does not say.
                let mayOverwrite = openFiles.contains {
                    $0.inode === inode && $0.intent.writes && !$0.intent.appends
                }
                if mayOverwrite { return }
            } else if flags.appends || !flags.isOfAppender {
                return
            }
        }
        if flags.isWriteback { dropUnwritten(inode, pages(around: range)) }
        throw .notPermitted
    }

    /// chmod, chown, truncate, utimes.
    func checkMayChange(_ record: InodeRecord, _ change: AttributeChange) throws(FileError) {
        if record.isImmutable { throw .notPermitted }
        guard record.isAppendOnly else { return }
        if change.mode != nil || change.user != nil || change.group != nil || change.size != nil {
            throw .notPermitted
        }
        switch (change.accessed, change.modified) {
        case (nil, nil), (.now, .now): return
        default: throw .notPermitted
        }
    }

    /// What is never done to something protected: a change of extended attributes, another name.
    func checkMayChangeFully(_ record: InodeRecord) throws(FileError) {
        if record.isImmutable || record.isAppendOnly { throw .notPermitted }
    }

    /// fallocate.
    func checkMayAllocate(_ record: InodeRecord, _ allocation: Allocation) throws(FileError) {
        if record.isImmutable || (record.isAppendOnly && allocation.kind != .allocate) {
            throw .notPermitted
        }
    }

    /// A new name in a directory.
    func checkMayAdd(to directory: InodeRecord) throws(FileError) {
        if directory.isImmutable { throw .notPermitted }
    }

    /// A name that goes, or gets another inode.
    func checkMayRemove(
        _ child: InodeRecord,
        from directory: InodeRecord
    ) throws(FileError) {
        try checkMayChangeFully(directory)
        try checkMayChangeFully(child)
    }
}
