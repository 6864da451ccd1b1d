// Flags of files, where no kernel stands between: who is in which place when another node changes them.

import Execution
import SimulatedMachine
import Testing
import Vocabulary

@testable import FileSystem
@testable import SimulatedWorld

@Suite struct FileFlagTests {
    private let path = [Array("file".utf8)]
    private let root = Caller(user: 0, group: 0, process: 0)

    private func set(
        _ flags: FileFlags,
        _ node: SimulatedNode,
        caller: Caller? = nil,
        has privileges: [Privilege] = [.fileOwner, .protection]
    ) async throws(FileError) {
        let number = try await node.kernel.status(path).inode
        let handle = try node.volume.inode(
            NodeHandle(node.volume.inodes[number]?.handle.rawValue ?? 0)
        ).handle
        try await node.volume.setFileFlags(handle, flags, caller ?? root, nil) { wanted in
            privileges.contains(wanted)
        }
    }

    private func flags(_ node: SimulatedNode) async throws(FileError) -> FileFlags {
        let number = try await node.kernel.status(path).inode
        return try await node.volume.fileFlags(
            NodeHandle(node.volume.inodes[number]?.handle.rawValue ?? 0),
            nil
        )
    }

    /// A3: the kernel has permitted it, as it had read flags that another node has changed since.
    @Test func theKernelIsNotBelieved() throws {
        try runOnTwoNodes(synchronizes: true) { two in
            try await set([.immutable], two.first)
            await #expect(throws: FileError.notPermitted) {
                try await set([.noDump], two.second, has: [.fileOwner])
            }
            #expect(try await flags(two.second) == [.immutable])
            // Nothing protecting changes: the owner may.
            try await set([], two.second)
            let owner = try await two.first.kernel.status(path)
            let caller = Caller(user: owner.user, group: owner.group, process: 0)
            try await set([.noDump], two.first, caller: caller, has: [])
            #expect(try await flags(two.second) == [.noDump])
            let other = Caller(user: owner.user + 1, group: 7, process: 0)
            await #expect(throws: FileError.notPermitted) {
                try await set([], two.first, caller: other, has: [])
            }
            try await set([], two.first, caller: other, has: [.fileOwner])
            #expect(try await flags(two.second) == [])
        }
    }

    /// A4
    @Test func whatStaysImmutableKeepsItsFlags() throws {
        try runOnTwoNodes(synchronizes: true) { two in
            try await set([.immutable, .noDump], two.first)
            await #expect(throws: FileError.notPermitted) {
                try await set([.immutable, .appendOnly], two.second)
            }
            try await set([.immutable, .noDump], two.second)
            try await set([.appendOnly], two.second)
            #expect(try await flags(two.first) == [.appendOnly])
        }
    }

    /// A write that waits for the lock while another node makes the file immutable is refused (A1).
    @Test func aWriteThatWaits() throws {
        try runOnTwoNodes(synchronizes: true) { two in
            let file = try await two.second.kernel.open(path, .writing)
            try await set([.immutable], two.first)
            await #expect(throws: FileError.notPermitted) {
                _ = try await two.second.kernel.write(file, at: 0, [1, 2, 3])
            }
            try await two.second.kernel.close(file)
            await #expect(throws: FileError.notPermitted) {
                _ = try await two.second.kernel.open(path, .writing)
            }
            try await set([], two.second)
        }
    }
}
