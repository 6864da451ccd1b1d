// Messages that ask the kernel to drop what it caches. They are written to /dev/fuse, or to a
// duplicate of its descriptor: a guardian process that outlives the daemon writes the same bytes.

import CFuse3
package import FileSystem

/// The bytes of notifications. Each is one write(2): header {length, code, unique = 0} and a
/// structure. The call fails with ENOENT when the kernel knows no such inode.
package enum FuseNotification {
    private enum Code: Int32 {
        case invalidateInode = 2
        case invalidateEntry = 3
        /// Protocol 7.44, Linux 6.16.
        case incrementEpoch = 8
        /// Protocol 7.45, Linux 6.18.
        case prune = 9
    }

    /// The first minor protocol version with epochs.
    package static let epochMinor: UInt32 = 44
    /// The first that lets an inode's unused names be dropped.
    package static let pruneMinor: UInt32 = 45

    /// Drops cached attributes and access lists and, unless `offset` is negative, the pages of the
    /// range (rounded out to pages; to the end of the file if `length` is not positive). Dirty
    /// pages of the range are written back first, and pages that are being read are waited for.
    package static func invalidateInode(
        _ node: NodeHandle,
        offset: Int64,
        length: Int64
    ) -> [UInt8] {
        var body = fuse_notify_inval_inode_out()
        body.ino = node.rawValue
        body.off = offset
        body.len = length
        return message(.invalidateInode) { append(body, to: &$0) }
    }

    /// Drops one name of a directory. Waits for the directory's lock in the kernel, exclusively.
    package static func invalidateEntry(_ parent: NodeHandle, name: [UInt8]) -> [UInt8] {
        var body = fuse_notify_inval_entry_out()
        body.parent = parent.rawValue
        body.namelen = UInt32(name.count)
        return message(.invalidateEntry) {
            append(body, to: &$0)
            $0.append(contentsOf: name)
            $0.append(0)
        }
    }

    /// Makes the kernel ask again for every name at its next use. Takes no lock in the kernel.
    package static func incrementEpoch() -> [UInt8] { message(.incrementEpoch) { _ in } }

    /// Drops the names of an inode that nobody has in use: no open file, no current directory, no name below it. Takes
    /// no lock of a directory.
    package static func prune(_ node: NodeHandle) -> [UInt8] {
        // fuse_notify_prune_out, newer than the header: count, padding, spare; then the numbers.
        message(.prune) {
            append(UInt32(1), to: &$0)
            append(UInt32(0), to: &$0)
            append(UInt64(0), to: &$0)
            append(node.rawValue, to: &$0)
        }
    }

    private static func message(_ code: Code, _ fill: (inout [UInt8]) -> Void) -> [UInt8] {
        var bytes: [UInt8] = []
        append(fuse_out_header(len: 0, error: code.rawValue, unique: 0), to: &bytes)
        fill(&bytes)
        let length = UInt32(bytes.count)
        bytes.withUnsafeMutableBytes { $0.storeBytes(of: length, as: UInt32.self) }
        return bytes
    }

    private static func append<Structure: BitwiseCopyable>(
        _ value: Structure,
        to bytes: inout [UInt8]
    ) {
        withUnsafeBytes(of: value) { bytes.append(contentsOf: $0) }
    }
}
