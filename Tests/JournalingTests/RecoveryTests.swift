import BlockIO
import DiskFormat
import FileSystem
import Journaling
import LockCache
import SimulatedMachine
import Testing
import Vocabulary

/// A lock service by hand: writes down what is asked, and answers as it was told to.
private final class ScriptedLocks: LockService {
    /// In order: what was asked, given up or done to the device.
    var story: [String] = []
    /// Names that survivors hold.
    var refused: Set<ResourceName> = []
    /// How conversions and, if set, all requests end.
    var conversion = LockStatus.granted
    var everything: LockStatus?
    weak var client: (any LockClient)?
    private var cookies: [UInt64: UInt64] = [:]
    private var names: [UInt64: ResourceName] = [:]
    private(set) var held: Set<ResourceName> = []

    func request(
        _ name: ResourceName,
        _ mode: LockMode,
        _ flags: LockFlags,
        cookie: UInt64,
        owner: LockOwner,
        parent: LockID,
        bytes: LockedBytes?
    ) -> LockID {
        let lock = LockID(UInt64(names.count + 1))
        names[lock.rawValue] = name
        cookies[lock.rawValue] = cookie
        let waits = flags.contains(.noQueue) ? "" : ", waits"
        #expect(flags.contains(.recovery), "\(name) would wait for the recovery itself")
        story.append("\(name) \(mode)\(waits)")
        let status = everything ?? (refused.contains(name) ? .wouldBlock : .granted)
        if status == .granted { held.insert(name) }
        answer(lock, status, mode)
        return lock
    }

    func convert(_ lock: LockID, to mode: LockMode, _ flags: LockFlags, value: ValueBlock?) {
        #expect(flags.isSuperset(of: [.recovery, .noOrder]))
        story.append("\(names[lock.rawValue]?.description ?? "-") to \(mode)")
        answer(lock, conversion, mode)
    }

    func unlock(_ lock: LockID, _ flags: LockFlags, value: ValueBlock?) {
        guard let name = names[lock.rawValue] else { return }
        story.append("unlock \(name)")
        held.remove(name)
        answer(lock, .unlocked, .null)
    }

    func cancel(_ lock: LockID) { Issue.record("a recovery cancels nothing") }

    private func answer(_ lock: LockID, _ status: LockStatus, _ mode: LockMode) {
        guard let cookie = cookies[lock.rawValue] else { return }
        client?.completed(
            LockCompletion(
                lock: status == .granted ? lock : .none,
                cookie: cookie,
                status: status,
                mode: mode,
                value: nil,
                isValueValid: false
            )
        )
    }
}

/// V1 to V5 of `JournalRecovery`, each with the lock manager's answers by hand.
@Suite struct RecoveryTests {
    private struct Trial {
        let node: TestNode
        let device: MemoryBlockDevice
        let locks = ScriptedLocks()
        let recovery: JournalRecovery
        let router: LockRouter

        init(_ node: TestNode) {
            self.node = node
            device = MemoryBlockDevice(content: node.disk.visible, alignment: 512)
            recovery = JournalRecovery(
                engine: node.engine,
                device: device,
                superblock: node.volume.superblock,
                service: locks
            )
            router = LockRouter(recovery: recovery)
            locks.client = router
        }

        func run(isCurrent: Bool = true) async throws -> [RecoveredJournal]? {
            try await recovery.recover([SlotIndex(0)], isCurrent: { isCurrent }) {
                #expect(device.writeCount == 0, "V1: the others wait for what is written")
                locks.story.append("covered")
            }
        }

        func value(_ index: Int) -> UInt64 {
            let offset = node.volume.superblock.byteOffset(node.volume.address(index))
            return device.content.bytes(at: offset + 64, count: 8).withUnsafeBytes {
                $0.loadUnaligned(as: UInt64.self)
            }
        }

        func isClean() async throws -> Bool {
            try await JournalReplay.isClean(
                device: device,
                superblock: node.volume.superblock,
                slot: SlotIndex(0)
            )
        }
    }

    private func onDeadLog(_ body: @escaping (Trial) async throws -> Void) throws {
        try onTestVolume(seed: 12) { node in
            try await node.store(1, in: [1, 2])
            try await node.journal.commit()
            let trial = Trial(node)
            try await body(trial)
        }
    }

    @Test func locksComeBeforeEverythingAndGoLast() throws {
        try onDeadLog { trial in
            let volume = trial.node.volume
            trial.locks.refused = [volume.lock(2)]
            let recovered = try #require(try await trial.run())
            // V4, V3, V1; what is given up last keeps the next recovery out.
            #expect(
                trial.locks.story == [
                    "journal:0 EX, waits", "log-barrier PR, waits", "\(volume.lock(1)) EX",
                    "\(volume.lock(2)) EX", "covered", "unlock \(volume.lock(1))",
                    "unlock log-barrier", "unlock journal:0",
                ]
            )
            // V2: what a survivor holds is left alone.
            #expect(trial.value(1) == 1 && trial.value(2) == 0)
            #expect(try await trial.isClean())
            #expect(recovered.map(\.covered) == [2] && recovered.map(\.settled) == [1])
            #expect(recovered.map(\.report.written) == [1])
        }
    }

    @Test func aNewerViewEndsItBeforeAnybodyGoesOn() throws {
        try onDeadLog { trial in
            let early = try await trial.run(isCurrent: false)
            #expect(early == nil)
            #expect(!trial.locks.story.contains("covered") && trial.locks.held.isEmpty)
            #expect(trial.device.writeCount == 0)
            // It begins anew with the next view.
            _ = try #require(try await trial.run())
            #expect(trial.value(1) == 1 && trial.locks.held.isEmpty)
        }
    }

    @Test(arguments: [LockStatus.granted, .deadlock])
    func whatMayBeInWriteWaitsForTheBarrier(_ answer: LockStatus) throws {
        try onDeadLog { trial in
            let volume = trial.node.volume
            // The place of block 1 claims the version of its image, and is not whole.
            let log = try await JournalReplay.replayed(trial.device.content, volume)
            let offset = volume.superblock.byteOffset(volume.address(1))
            let torn = AlignedBuffer(zeroed: 4096)
            log.read(torn.bytes, at: offset)
            torn.bytes[4000] ^= 1
            trial.device.content.write(torn.readOnly, at: offset)
            trial.locks.conversion = answer
            if answer == .granted {
                _ = try #require(try await trial.run())
                #expect(trial.locks.held.isEmpty)
                #expect(try await trial.isClean())
            } else {
                await #expect(throws: StorageError.stopped) { try await trial.run() }
                // V5: nobody sees what is not whole, and no further attempt is made.
                #expect(trial.locks.held.contains(volume.lock(1)))
                #expect(try await trial.isClean() == false)
                await #expect(throws: StorageError.stopped) { try await trial.run() }
            }
            #expect(trial.locks.story.filter { $0 == "log-barrier to EX" }.count == 1)
            let bytes = trial.device.content.bytes(at: offset + 4000, count: 1)
            #expect((bytes[0] == torn.bytes[4000]) == (answer != .granted))
        }
    }

    @Test func aLockManagerThatHasLeftEndsIt() throws {
        try onDeadLog { trial in
            trial.locks.everything = .shutDown
            await #expect(throws: StorageError.stopped) { try await trial.run() }
            #expect(trial.device.writeCount == 0 && !trial.locks.story.contains("covered"))
        }
    }
}

extension JournalReplay {
    /// What a volume holds when the log of slot 0 was brought home; the content itself is left.
    fileprivate static func replayed(_ content: DiskContent, _ volume: TestVolume) async throws
        -> DiskContent
    {
        let device = MemoryBlockDevice(content: content, alignment: 512)
        _ = try await replay(device: device, superblock: volume.superblock, slot: SlotIndex(0))
        return device.content
    }
}
