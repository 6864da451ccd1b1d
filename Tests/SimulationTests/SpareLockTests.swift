import Execution
import LockCache
import SimulatedMachine
import Testing
import Vocabulary

@testable import FileSystem
@testable import SimulatedWorld

/// What is given back of what a node keeps (CacheShrinking.swift, S4 and S5): what no workload would miss.
@Suite struct SpareLockTests {
    private let path = [Array("file".utf8)]

    private func inode(_ two: TwoNodes) throws -> Inode {
        let volume = two.first.volume
        return try volume.inode(try #require(volume.memory(under: two.file).node))
    }

    /// Where an expectation that fails would describe the whole node.
    private func expect(
        _ glock: Glock,
        isSpare expected: Bool,
        _ location: SourceLocation = #_sourceLocation
    ) {
        let found = glock.isSpare
        #expect(found == expected, sourceLocation: location)
    }

    /// S4: locks of what is open, dirty, or the file system's own root stay, however short memory is.
    @Test func whatIsInUseIsKept() throws {
        try runOnTwoNodes(synchronizes: true) { two in
            let volume = two.first.volume
            let inode = try inode(two)
            func relieve() async {
                for _ in 0..<12 {
                    volume.relieve()
                    await two.engine.sleep(nanoseconds: 20_000_000)
                }
            }
            let file = try await two.first.kernel.open(path, .reading)
            await relieve()
            #expect(inode.glock.held == .protectedRead)
            expect(inode.glock, isSpare: false)
            #expect(inode.openGlock?.held == .protectedRead)
            try await two.first.kernel.close(file)
            await two.engine.sleep(nanoseconds: 1_000_000)
            expect(inode.glock, isSpare: true)
            await relieve()
            #expect(inode.glock.held == .null && inode.openGlock?.held == .null)
            let root = try volume.inode(.root)
            #expect(root.glock.held != .null)
            expect(root.glock, isSpare: false)
        }
    }

    @Test func dirtyFilesAndPinnedOnesAreKept() throws {
        try runOnTwoNodes(synchronizes: true) { two in
            // About which the nodes have never fought, and too large for its inode.
            let path = [Array("quiet".utf8)]
            _ = try await two.first.perform(.create(path, isExclusive: true))
            _ = try await two.first.perform(
                .write(path, 0, count: 200_000, pattern: 2, synchronizes: false)
            )
            let found = try await two.first.kernel.walk(path)
            let inode = try two.first.volume.inode(found.handle)
            two.first.kernel.unpin(found)
            await two.engine.sleep(nanoseconds: 1_000_000)
            let isDirty = inode.dirty?.isEmpty == false
            try #require(isDirty && inode.opens == 0)
            expect(inode.glock, isSpare: false)
            try await two.first.volume.writeBackAll()
            expect(inode.glock, isSpare: true)
            two.first.volume.pin(inode)
            expect(inode.glock, isSpare: false)
            two.first.volume.unpin(inode)
            expect(inode.glock, isSpare: true)
        }
    }

    /// S5: what was used lately is known to have been.
    @Test func usesAreNoted() throws {
        try runOnTwoNodes(synchronizes: true) { two in
            let inode = try inode(two)
            await two.engine.sleep(nanoseconds: 1_000_000_000)
            let before = two.engine.clock.now
            let interval = two.first.volume.options.commitInterval
            #expect(inode.glock.usedAt < before)
            _ = try await two.first.volume.getAttributes(inode.handle, asker: nil, nil)
            #expect(inode.glock.usedAt.rawValue + interval >= before.rawValue)
            #expect(inode.glock.usedAt <= two.engine.clock.now)
        }
    }
}
