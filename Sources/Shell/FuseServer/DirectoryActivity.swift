// Which directories the kernel may hold locked for a request that has no reply yet. Dropping a name
// of such a directory (inval_entry) would wait for that reply.
//
// The kernel holds the parent's i_rwsem during LOOKUP, CREATE, MKNOD, MKDIR, SYMLINK, LINK, UNLINK,
// RMDIR, RENAME (both parents), READDIR, and SETATTR of the directory itself, also by the IOCTL that
// sets its flags; not during OPENDIR, GETATTR, OPEN (KERNEL, table of directory locks).

import CFuse3
import FileSystem
import Vocabulary

/// Counts requests without a reply per directory. Inside the engine.
final class DirectoryActivity {
    private var requests: [NodeHandle: Int] = [:]
    /// Called when a directory gains a request.
    var onBegin: ((NodeHandle) -> Void)?

    /// Whether the kernel may hold `directory` for a request without a reply.
    func isHeld(_ directory: NodeHandle) -> Bool { requests[directory] != nil }

    func begin(_ message: Message) {
        for directory in directories(of: message) {
            requests[directory, default: 0] += 1
            onBegin?(directory)
        }
    }

    func end(_ message: Message) {
        for directory in directories(of: message) {
            guard let count = requests[directory] else {
                preconditionFailure("a request left a directory that it never entered")
            }
            requests[directory] = count > 1 ? count - 1 : nil
        }
    }

    /// The directories whose lock the kernel holds during a request.
    private func directories(of message: Message) -> [NodeHandle] {
        switch message.opcode {
        case .lookup, .create, .makeNode, .makeDirectory, .makeSymlink, .link, .unlink,
            .removeDirectory, .readDirectory, .setAttributes, .ioctl:
            return [message.node]
        case .rename, .renameWithFlags:
            // Both structures begin with the new parent.
            guard let target = try? message.argument(fuse_rename_in.self) else {
                return [message.node]
            }
            let other = NodeHandle(target.newdir)
            return other == message.node ? [other] : [message.node, other]
        default:
            return []
        }
    }
}
