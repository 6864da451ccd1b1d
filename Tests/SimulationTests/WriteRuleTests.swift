// What a write leaves in the kernel and on the device, rule by rule (Docs/KERNEL.md): a kernel that only
// notes what it is told, in front of the production file system on a simulated disk. Seeds of whole
// clusters found these; what a seed does changes with the simulation, and these do not.

import Execution
import SimulatedMachine
import Testing
import Vocabulary

@testable import FileSystem
@testable import SimulatedWorld

/// Notes what is dropped.
private final class NotingKernel: KernelCache {
    let mapsDirectFiles = true
    var dropped: [Range<UInt64>] = []
    /// How often attributes alone were taken back.
    var forgotten = 0

    func invalidateInode(
        _ node: NodeHandle,
        data: (offset: UInt64, length: UInt64?)?,
        mayBegin: (() -> Bool)?
    ) async -> InvalidationEnd {
        if let mayBegin, !mayBegin() { return .notBegun }
        guard let (offset, length) = data else {
            forgotten += 1
            return .done
        }
        dropped.append(offset..<(length.map { offset + $0 } ?? .max))
        return .done
    }

    func timesRun(_ thread: UInt32) -> UInt64? { nil }

    func invalidateEntries(of parent: NodeHandle, names: [[UInt8]]?) async {}
}

@Suite struct WriteRuleTests {
    /// A node with an open file.
    private struct Scene {
        let cluster: SimulatedCluster
        let node: SimulatedNode
        let kernel: NotingKernel
        let file: KernelFile
        var volume: MountedVolume { node.volume }

        func write(
            _ bytes: [UInt8],
            at offset: UInt64,
            isWriteback: Bool = false,
            isDirect: Bool = false,
            dropsPrivileges: Bool = false
        ) async throws -> Int {
            let stable = StableBytes(bytes)
            let flags = WriteFlags(
                appends: false,
                isWriteback: isWriteback,
                isDirect: isDirect,
                dropsPrivileges: dropsPrivileges
            )
            return try await volume.write(
                file.inode.handle,
                file.handle,
                at: offset,
                from: stable.readOnly,
                flags,
                nil
            )
        }

        func change(_ body: (inout AttributeChange) -> Void) async throws {
            var change = AttributeChange()
            body(&change)
            _ = try await volume.setAttributes(
                file.inode.handle,
                nil,
                change,
                Caller(user: 0, group: 0, process: 0),
                nil
            )
        }

        func attributes() async throws -> FileAttributes {
            try await volume.getAttributes(file.inode.handle, asker: nil, nil).attributes
        }

        /// What is dropped without anybody's waiting for it has been dropped.
        func settled() async -> [Range<UInt64>] {
            await node.engine.sleep(nanoseconds: 1_000_000)
            return kernel.dropped
        }
    }

    private func onScene(
        faults: SimulationFaults = [],
        _ body: @escaping (Scene) async throws -> Void
    ) throws {
        let plan = SimulationPlan(seed: 3, steps: 1, nodes: 2, faults: faults)
        try runSimulated(seed: 3) { engine in
            let cluster = try await SimulatedCluster(engine: engine, plan)
            let node = try #require(try await cluster.mount(0))
            let file = try await node.kernel.open(
                [Array("file".utf8)],
                .both,
                creates: 0o644,
                isExclusive: true
            )
            let kernel = NotingKernel()
            node.volume.kernel = kernel
            let scene = Scene(cluster: cluster, node: node, kernel: kernel, file: file)
            let outcome = Outcome<Result<Void, any Error>>()
            node.engine.spawn {
                do {
                    try await body(scene)
                    outcome.deliver(.success(()))
                } catch {
                    outcome.deliver(.failure(error))
                }
            }
            try await outcome.get().get()
        }
    }

    private let page = [UInt8](repeating: 7, count: 4096)

    /// F8: bytes that a mapping stored behind an end that somebody has cut since are not in the file, and the page
    /// does not show them when the file grows again.
    @Test func storesBehindTheEndAreDropped() throws {
        try onScene { scene in
            _ = try await scene.write(page + page, at: 0)
            try await scene.change { $0.size = 100 }
            scene.kernel.dropped = []
            _ = try await scene.write(page, at: 4096, isWriteback: true)
            #expect(await scene.settled().contains(4096..<8192))
            #expect(try await scene.attributes().size == 100)
        }
    }

    /// F5: somebody else had the file while it was open here for writing, and so a write(2) that was on its way then
    /// may have left anything in its pages.
    @Test func pagesOfAContestedFileAreDropped() throws {
        try onScene { scene in
            let other = try #require(try await scene.cluster.mount(1))
            _ = try await scene.write(page + page, at: 0)
            #expect(await scene.settled() == [])
            _ = try await other.perform(.read([Array("file".utf8)], 0, count: 10))
            _ = try await scene.write(Array(page[..<100]), at: 0)
            scene.kernel.dropped = []
            // The lock is here, and nobody wants it.
            _ = try await scene.write(Array(page[..<100]), at: 5_000)
            #expect(await scene.settled().contains(4096..<8192))
        }
    }

    /// What a write(2) that waits has put into pages has to be invalidated, whoever gets the lock meanwhile.
    @Test func aWriteThatWaitsHasPages() throws {
        try onScene { scene in
            let other = try #require(try await scene.cluster.mount(1))
            _ = try await other.perform(
                .write([Array("file".utf8)], 0, count: 5000, pattern: 1, synchronizes: false)
            )
            let inode = try scene.volume.inode(scene.file.inode.handle)
            try #require(inode.glock.held == .null)
            inode.kernelMayCache = false
            let written = Outcome<Void>()
            scene.node.engine.spawn {
                _ = try? await scene.write(page, at: 0)
                written.deliver(())
            }
            await scene.node.engine.sleep(nanoseconds: 1_000)
            #expect(inode.kernelMayCache && written.value == nil)
            await written.get()
        }
    }

    /// What is given up half-way has made zeros of some of the range, and the kernel drops nothing then.
    @Test func pagesOfAFailedZeroingAreDropped() throws {
        try onScene { scene in
            _ = try await scene.write(page + page + page + page, at: 0)
            scene.kernel.dropped = []
            let interruption = Interruption()
            interruption.request()
            await #expect(throws: FileError.interrupted) {
                try await scene.volume.allocate(
                    scene.file.inode.handle,
                    scene.file.handle,
                    4096..<12_288,
                    Allocation(.zero, keepsSize: true),
                    Caller(user: 0, group: 0, process: 0),
                    interruption
                )
            }
            #expect(await scene.settled().contains(4096..<12_288))
        }
    }

    /// F9: what a stat was told is taken back when something has changed the times since, except write(2); once,
    /// when its answer has arrived.
    @Test func timesAreTakenBack() throws {
        try onScene { scene in
            let engine = scene.node.engine
            // What the making of the scene has brought.
            await engine.sleep(nanoseconds: 100_000_000)
            scene.kernel.forgotten = 0
            _ = try await scene.write(page, at: 0)
            await engine.sleep(nanoseconds: 100_000_000)
            #expect(scene.kernel.forgotten == 0)
            _ = try await scene.attributes()
            _ = try await scene.write(page, at: 0, isWriteback: true)
            _ = try await scene.write(page, at: 0, isWriteback: true)
            await engine.sleep(nanoseconds: 40_000_000)
            #expect(scene.kernel.forgotten == 0)
            // Asked again in between: the last one counts.
            _ = try await scene.attributes()
            _ = try await scene.write(page, at: 0, isWriteback: true)
            await engine.sleep(nanoseconds: 40_000_000)
            #expect(scene.kernel.forgotten == 0)
            await engine.sleep(nanoseconds: 20_000_000)
            #expect(scene.kernel.forgotten == 1)
            _ = try await scene.write(page, at: 0, isWriteback: true)
            _ = try await scene.attributes()
            _ = try await scene.write(page, at: 0)
            await engine.sleep(nanoseconds: 100_000_000)
            #expect(scene.kernel.forgotten == 1)
        }
    }

    /// F8: zeros behind the end are what everybody else sees there.
    @Test func zerosBehindTheEndAreKept() throws {
        try onScene { scene in
            _ = try await scene.write(page, at: 0)
            try await scene.change { $0.size = 100 }
            scene.kernel.dropped = []
            let bytes = [UInt8](repeating: 7, count: 100) + [UInt8](repeating: 0, count: 3996)
            _ = try await scene.write(bytes, at: 0, isWriteback: true)
            #expect(await scene.settled() == [])
        }
    }

    /// M7: a page whose write-back finds no room does not go on showing what is nowhere else.
    @Test func lostStoresAreDropped() throws {
        try onScene(faults: .full) { scene in
            try await scene.change { $0.size = 1 << 30 }
            try await fill(scene)
            scene.kernel.dropped = []
            await #expect(throws: FileError.noSpace) {
                _ = try await scene.write(page, at: 1 << 29, isWriteback: true)
            }
            #expect(await scene.settled().contains(1 << 29..<1 << 29 + 4096))
        }
    }

    /// M6: a write-back of a page and a write(2) to it may have crossed in the kernel; after the write(2) the page
    /// is dropped, once.
    @Test func pagesThatMayDisagreeAreDropped() throws {
        try onScene { scene in
            _ = try await scene.write(page + page, at: 0)
            scene.kernel.dropped = []
            _ = try await scene.write(page, at: 0)
            #expect(await scene.settled() == [])
            _ = try await scene.write(page, at: 0, isWriteback: true)
            #expect(await scene.settled() == [])
            _ = try await scene.write(page, at: 0)
            #expect(await scene.settled().contains { $0.contains(0) && $0.contains(4095) })
            scene.kernel.dropped = []
            _ = try await scene.write(page, at: 0)
            _ = try await scene.write(page, at: 4096)
            #expect(await scene.settled() == [])
        }
    }

    /// F5: pages that were dropped because somebody opened the file for reading and writing may have been those
    /// of a write that was under way.
    @Test func openingForReadingAndWritingCountsAsAnInvalidation() throws {
        try onScene { scene in
            let inode = try #require(scene.volume.inodes[scene.file.inode.handle])
            // Another node looks: the lock goes to PR. Then this node's kernel fills pages.
            let other = try #require(try await scene.cluster.mount(1))
            _ = try await other.kernel.status([Array("file".utf8)])
            inode.kernelMayCache = true
            inode.fillsAreExclusive = false
            inode.wasInvalidatedWhileWritable = false
            let before = inode.invalidations
            let second = try await scene.volume.open(scene.file.inode.handle, .both, nil)
            #expect(inode.invalidations > before)
            #expect(inode.wasInvalidatedWhileWritable)
            await scene.volume.release(scene.file.inode.handle, second.handle)
        }
    }

    /// A write that finds no room and takes set-user-id away has done so for every node and for good.
    @Test func privilegesGoEverywhere() throws {
        try onScene(faults: .full) { scene in
            try await scene.change { $0.size = 1 << 30 }
            try await scene.change { $0.mode = 0o4755 }
            try await fill(scene)
            await #expect(throws: FileError.noSpace) {
                _ = try await scene.write(page, at: 1 << 29, isDirect: true, dropsPrivileges: true)
            }
            let here = try await scene.attributes().mode
            #expect(here & 0o4000 == 0)
            scene.node.volume.kernel = scene.node.kernel
            let other = try #require(try await scene.cluster.mount(1))
            #expect(try await other.kernel.status([Array("file".utf8)]).mode == here)
        }
    }

    /// Takes all room there is.
    private func fill(_ scene: Scene) async throws {
        let bytes = [UInt8](repeating: 1, count: 64 << 10)
        var offset: UInt64 = 0
        do {
            while true {
                offset += UInt64(try await scene.write(bytes, at: offset, isDirect: true))
            }
        } catch FileError.noSpace {
            // What is left is less than a block, or bound to become metadata.
            while true {
                do {
                    offset += UInt64(try await scene.write(page, at: offset, isDirect: true))
                } catch FileError.noSpace {
                    return
                }
            }
        }
    }
}
