// What a CREATE is told that finds its name taken by another node (KERNEL S5).

import Execution
import FileStore
import SimulatedMachine
import Testing
import Vocabulary

@testable import FileSystem
@testable import SimulatedWorld

@Suite struct FoundFileTests {

    /// What the second node answers when user 7 of group 7 asks for a new file where the first has
    /// made something, with `mode` and of the user and group 1. Nil: it is open.
    private func answer(
        _ object: NewObject,
        owner: UInt32 = 1,
        _ intent: OpenIntent = .writing,
        isSticky: Bool = false,
        accessList: AccessControlList? = nil
    ) throws -> FileError? {
        let answer = Outcome<FileError?>()
        try runOnTwoNodes(synchronizes: false) { nodes in
            let folder = [Array("folder".utf8)]
            let path = folder + [Array("taken".utf8)]
            try await nodes.first.kernel.make(
                .directory(mode: isSticky ? 0o1777 : 0o777),
                folder
            )
            try await nodes.first.kernel.make(object, path)
            if let accessList {
                try await nodes.first.kernel.setExtendedAttribute(
                    path,
                    Array(AccessControlList.accessName.utf8),
                    accessList.bytes
                )
            }
            var change = AttributeChange()
            change.user = owner
            change.group = owner
            let made = try await nodes.first.kernel.status(path).inode
            let handle = try #require(nodes.first.volume.inodes[made]).handle
            _ = try await nodes.first.volume.setAttributes(
                handle,
                nil,
                change,
                Caller(user: 0, group: 0, process: 0),
                nil
            )
            let parent = try await nodes.second.kernel.status(folder).inode
            let directory = try #require(nodes.second.volume.inodes[parent]).handle
            answer.deliver(await create(nodes.second.volume, in: directory, intent))
        }
        return try #require(answer.value)
    }

    private func create(
        _ volume: MountedVolume,
        in directory: NodeHandle,
        _ intent: OpenIntent
    ) async -> FileError? {
        let name = StableBytes(Array("taken".utf8))
        do throws(FileError) {
            let (entry, opened) = try await volume.create(
                in: directory,
                named: name.readOnly,
                mode: 0o600,
                isExclusive: false,
                intent,
                Caller(user: 7, group: 7, process: 0),
                nil
            )
            await volume.release(entry.node, opened.handle)
            volume.forget(entry.node, count: 1)
            return nil
        } catch {
            return error
        }
    }

    private func file(_ mode: UInt32) -> NewObject { .node(mode: 0o100000 | mode, device: 0) }

    @Test func whatIsNoFileIsNotOpened() throws {
        #expect(try answer(.directory(mode: 0o777)) == .isDirectory)
        #expect(try answer(.symlink(target: Array("target".utf8))) == .stale)
        #expect(try answer(.node(mode: 0o010666, device: 0)) == .stale)
    }

    @Test func aFileIsOpenedIfThatIsPlainlyPermitted() throws {
        #expect(try answer(file(0o666)) == nil)
        #expect(try answer(file(0o600)) == .stale)
        #expect(try answer(file(0o600), owner: 7) == nil)
        #expect(try answer(file(0o066), owner: 7) == .stale)
        #expect(try answer(file(0o644)) == .stale)
        #expect(try answer(file(0o644), .reading) == nil)
        // The group may be one of the caller's other groups.
        #expect(try answer(file(0o606)) == .stale)
    }

    /// A list may keep out whom the mode lets in.
    @Test func withAListNothingIsPlain() throws {
        let list = try #require(
            AccessControlList([
                .init(.owner, 6), .init(.user, 0, identity: 7), .init(.owningGroup, 6),
                .init(.mask, 6), .init(.others, 6),
            ])
        )
        #expect(try answer(file(0o666), accessList: list) == .stale)
        #expect(try answer(file(0o666), owner: 7, accessList: list) == nil)
    }

    @Test func cuttingNeedsPermissionToWrite() throws {
        let cutting = OpenIntent(reads: true, writes: false, appends: false, truncates: true)
        #expect(try answer(file(0o644), cutting) == .stale)
        #expect(try answer(file(0o666), cutting) == nil)
    }

    @Test func inAStickyDirectoryOnlyOnesOwn() throws {
        #expect(try answer(file(0o666), isSticky: true) == .stale)
        #expect(try answer(file(0o666), owner: 7, isSticky: true) == nil)
    }
}
