// Short concurrent programs, written by hand: a request is held back in the file system while
// something else happens. Gates decide the order on both kernels, no time does.

import Execution
import FileSystem
import FuseServer
import Glibc
import LinuxSystem
import SimulatedMachine
import SimulatedWorld
import Testing
import Vocabulary

/// What is held back.
enum HeldRequest: Sendable {
    /// The next request of a kind.
    case next(OperationKind)
    /// Whatever is about a name.
    case name(String)
}

/// One line of a concurrent program.
enum CrossingStep: Sendable {
    /// Done before the next line.
    case does(KernelStep)
    /// Begun; the number tells it from others.
    case begins(Int, KernelStep)
    case holds(HeldRequest)
    /// The held request is there.
    case arrives
    /// What was begun has not ended, however much else has.
    case waits(Int)
    case releases
    /// Waits for what was begun.
    case ends(Int)
    /// The same; what it led to may be either: whoever was waited for and whoever waited go on at
    /// the same time.
    case endsAnyhow(Int)
}

/// What a concurrent program led to: the result of what ended, and of each wait.
struct CrossingOutcome: Sendable {
    var lines: [String] = []
    var requests: [RecordedRequest] = []
}

extension MemoryFiles {
    fileprivate func hold(_ what: HeldRequest) -> Hold {
        let hold = Hold()
        switch what {
        case .next(let kind): heldNext[kind.rawValue] = hold
        case .name(let name): holds[Array(name.utf8)] = hold
        }
        return hold
    }

    fileprivate func release(_ hold: Hold) {
        holds = holds.filter { $0.value !== hold }
        hold.released.deliver(())
    }
}

// MARK: The model

extension ModelKernelSide {
    /// Runs a concurrent program. No more is read ahead than `real` did.
    static func run(
        _ program: [CrossingStep],
        following real: CrossingOutcome
    ) throws -> CrossingOutcome {
        try runSimulated(seed: 1, stepLimit: 1_000_000) { engine in
            let side = ModelKernelSide(engine: engine, seed: 1)
            return await side.run(program, following: real, engine)
        }
    }

    private func run(
        _ program: [CrossingStep],
        following real: CrossingOutcome,
        _ engine: Engine
    ) async -> CrossingOutcome {
        var outcome = CrossingOutcome()
        memory.time = Timestamp(seconds: 1, nanoseconds: 0)
        memory.plantTree()
        memory.onRequest = { outcome.requests.append($0) }
        reads = real.requests.compactMap(\.filledPages)
        var hold = Hold()
        var begun: [Int: Outcome<String>] = [:]
        for step in program {
            switch step {
            case .does(let step): outcome.lines.append(await carryOut(step))
            case .begins(let number, let step):
                let ended = Outcome<String>()
                begun[number] = ended
                engine.spawn { ended.deliver(await self.carryOut(step)) }
            case .holds(let what): hold = memory.hold(what)
            case .arrives: await hold.arrived.get()
            case .waits(let number):
                await engine.sleep(nanoseconds: 1_000_000_000)
                outcome.lines.append("\(number) waits: \(begun[number]?.value == nil)")
            case .releases: memory.release(hold)
            case .ends(let number): outcome.lines.append(await begun[number]?.get() ?? "")
            case .endsAnyhow(let number): _ = await begun[number]?.get()
            }
        }
        return outcome
    }

    private func carryOut(_ step: KernelStep) async -> String {
        guard step.isCall else {
            await memory.happen(step, kernel)
            return ""
        }
        do throws(FileError) {
            return try await perform(step)
        } catch {
            return "\(error)"
        }
    }
}

// MARK: The real kernel

/// Something begun on a thread of its own.
private final class BegunStep: @unchecked Sendable {
    // Sendable: `value` is used under `latch`.
    private let latch = Latch()
    private var value: String?
    private var call: BackgroundCall?

    init(_ body: @escaping @Sendable () -> String) throws {
        call = try background { [self] in
            let result = body()
            latch.withLock { value = result }
            return 0
        }
    }

    var hasEnded: Bool { latch.withLock { value != nil } }

    func result() -> String {
        _ = call?.result()
        return latch.withLock { value ?? "" }
    }
}

extension RealKernelSide {
    /// Runs a concurrent program.
    func run(_ program: [CrossingStep]) throws -> CrossingOutcome {
        nonisolated(unsafe) var recorded: [RecordedRequest] = []  // engine-bound
        mount.inside { files in
            files.time = Timestamp(seconds: 1, nanoseconds: 0)
            files.plantTree()
            files.onRequest = { recorded.append($0) }
        }
        var outcome = CrossingOutcome()
        var hold = EngineBound(Hold())
        var begun: [Int: BegunStep] = [:]
        for step in program {
            switch step {
            case .does(let step): outcome.lines.append(carryOut(step))
            case .begins(let number, let step):
                nonisolated(unsafe) let side = self  // no other step uses the same file
                begun[number] = try BegunStep { side.carryOut(step) }
            case .holds(let what): hold = mount.inside { EngineBound($0.hold(what)) }
            case .arrives: mount.arrival(of: hold)
            case .waits(let number):
                for _ in 0..<50 { settle() }
                outcome.lines.append("\(number) waits: \(begun[number]?.hasEnded == false)")
            case .releases:
                let held = hold
                mount.inside { $0.release(held.value) }
            case .ends(let number): outcome.lines.append(begun[number]?.result() ?? "")
            case .endsAnyhow(let number): _ = begun[number]?.result()
            }
        }
        settle()
        outcome.requests = mount.inside { _ in recorded }
        return outcome
    }

    private func carryOut(_ step: KernelStep) -> String {
        if step.isCall { return perform(step) }
        let cache = EngineBound(mount.server.kernelCache as any KernelCache)
        mount.inside { await $0.happen(step, cache.value) }
        return ""
    }
}

extension MountedTests {
    /// Concurrent programs on the kernel and on the model of it.
    @Suite(.serialized) struct KernelCrossings {
        private func compare(_ program: [CrossingStep]) throws -> [String] {
            var real = CrossingOutcome()
            try withOwnFileTable {
                try withMount(configure: keepsNames) { real = try RealKernelSide($0).run(program) }
            }
            let model = try ModelKernelSide.run(program, following: real)
            #expect(real.lines == model.lines)
            #expect(
                KernelComparison.counts(real.requests) == KernelComparison.counts(model.requests),
                "\(real.requests) on the real kernel, \(model.requests) on the model"
            )
            return real.lines
        }

        /// KERNEL F3: what a READ fills is locked until it is answered.
        @Test func aReadIsHeldWhileItsPageIsInvalidated() throws {
            let lines = try compare([
                .does(.open(0, "a", .read)), .holds(.next(.read)),
                .begins(1, .read(0, offset: 0, count: 10)), .arrives,
                .begins(2, .invalidateData("a", offset: 0, length: 4096)), .waits(2), .waits(1),
                .releases, .ends(1), .ends(2), .does(.read(0, offset: 0, count: 10)),
            ])
            #expect(lines.contains("2 waits: true"))
        }

        /// Attributes alone, and pages that are not being read, are dropped at once.
        @Test func aReadIsHeldWhileOtherThingsAreInvalidated() throws {
            _ = try compare([
                .does(.open(0, "a", .read)), .holds(.next(.read)),
                .begins(1, .read(0, offset: 0, count: 10)), .arrives,
                .does(.invalidateAttributes("a")),
                .does(.invalidateData("a", offset: 40 * 4096, length: 4096)),
                .does(.fileStatus(0)), .waits(1),
                .releases, .ends(1), .does(.fileStatus(0)),
            ])
        }

        /// KERNEL D1: the name that is being looked up is not believed.
        @Test func aLookupIsHeldWhileItsNameIsInvalidated() throws {
            _ = try compare([
                .does(.status("a")), .holds(.name("nothing")), .begins(1, .access("nothing")),
                .arrives, .does(.invalidateNames("", ["nothing"])), .waits(1), .releases,
                .ends(1), .does(.access("nothing")), .does(.access("nothing")),
                .does(.status("a")),
            ])
        }

        /// A LOOKUP that only confirms a name holds nothing; its attributes are not believed.
        @Test func aLookupOfAKnownNameIsCrossed() throws {
            _ = try compare([
                .does(.allow(entries: false, attributes: true, pages: true, direct: false)),
                .does(.open(0, "a", .read)), .holds(.name("a")), .begins(1, .status("a")),
                .arrives, .does(.remoteMode("a", 0o600, tells: true)), .waits(1), .releases,
                .ends(1), .does(.fileStatus(0)),
            ])
        }

        /// write(2) into a page that is being read waits for it.
        @Test func aReadIsHeldWhileItsPageIsWritten() throws {
            let lines = try compare([
                .does(.open(0, "a", .read)), .does(.open(1, "a", .write)), .holds(.next(.read)),
                .begins(1, .read(0, offset: 0, count: 10)), .arrives,
                .begins(2, .write(1, offset: 5, count: 10, byte: 7)), .waits(2), .releases,
                .endsAnyhow(1), .ends(2), .does(.read(0, offset: 0, count: 20)),
            ])
            #expect(lines.contains("2 waits: true"))
        }

        /// KERNEL F5: a WRITE that is not carried out yet is seen where its page is cached.
        @Test func aWriteIsHeldWhileItsPageIsRead() throws {
            _ = try compare([
                .does(.open(0, "a", .read)), .does(.open(1, "a", .write)),
                .does(.read(0, offset: 0, count: 10)), .holds(.next(.write)),
                .begins(2, .write(1, offset: 5, count: 10, byte: 7)), .arrives,
                .does(.read(0, offset: 0, count: 20)),
                .does(.invalidateData("a", offset: 0, length: nil)),
                .does(.read(0, offset: 0, count: 20)), .waits(2), .releases, .ends(2),
                .does(.read(0, offset: 0, count: 20)),
            ])
        }

        /// KERNEL F6: the reply to a truncation that was crossed is not believed.
        @Test func aTruncationIsCrossed() throws {
            _ = try compare([
                .does(.open(0, "a", .readWrite)), .holds(.next(.change)),
                .begins(1, .truncate("a", size: 50)), .arrives,
                .does(.invalidateAttributes("a")), .waits(1), .releases, .ends(1),
                .does(.fileStatus(0)), .does(.fileStatus(0)),
            ])
        }

        /// Whoever makes a name waits for whoever lists the directory, whose listing is old then.
        @Test func aListingIsHeldWhileANameIsMade() throws {
            let lines = try compare([
                .does(.access("b")), .holds(.next(.list)), .begins(1, .list("")), .arrives,
                .begins(2, .makeNode("b")), .waits(2), .releases, .endsAnyhow(1), .ends(2),
                .does(.list("")), .does(.list("")),
            ])
            #expect(lines.contains("2 waits: true"))
        }

        /// A listing that is crossed is not kept.
        @Test func aListingIsHeldWhileTheDirectoryIsInvalidated() throws {
            _ = try compare([
                .holds(.next(.list)), .begins(1, .list("")), .arrives,
                .does(.remoteMake("b", tells: true)), .waits(1), .releases, .ends(1),
                .does(.list("")), .does(.list("")),
            ])
        }

        /// A create holds the directory: what others ask there waits, what is cached does not.
        @Test func aCreateIsHeldWhileOthersLook() throws {
            let lines = try compare([
                .does(.status("a")), .holds(.name("b")), .begins(1, .makeNode("b")), .arrives,
                .does(.status("a")), .begins(2, .access("nothing")), .waits(2),
                .releases, .ends(1), .ends(2), .does(.status("b")),
            ])
            #expect(lines.contains("2 waits: true"))
        }
    }
}
