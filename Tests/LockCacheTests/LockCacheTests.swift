import LockCache
import Testing
import Vocabulary

/// One glock, driven by hand.
private struct Bench {
    var machine = GlockMachine()
    var actions: [GlockAction] = []

    mutating func take() -> [GlockAction] {
        defer { actions = [] }
        machine.checkInvariants()
        return actions
    }

    mutating func enter(_ mode: HolderMode, _ ticket: UInt64, _ bytes: Range<UInt64>? = nil)
        -> [GlockAction]
    {
        machine.enter(mode, ticket: ticket, bytes: bytes, &actions)
        return take()
    }

    mutating func leave(_ mode: HolderMode) -> [GlockAction] {
        machine.leave(mode, &actions)
        return take()
    }

    mutating func enterPastWaiters() -> Bool { machine.enterPastWaiters() }

    mutating func granted(_ mode: LockMode) -> [GlockAction] {
        machine.completed(.granted, mode, &actions)
        return take()
    }

    mutating func refused() -> [GlockAction] {
        machine.completed(.wouldBlock, machine.held, &actions)
        return take()
    }

    mutating func blocking(_ mode: LockMode) -> [GlockAction] {
        machine.blocking(mode, &actions)
        return take()
    }

    mutating func finished() -> [GlockAction] {
        machine.demotionFinished(&actions)
        return take()
    }
}

@Suite struct GlockTests {
    @Test func aLockIsKeptUntilAPeerWantsIt() {
        var bench = Bench()
        #expect(bench.enter(.exclusive, 1) == [.request(.exclusive, [])])
        #expect(bench.granted(.exclusive) == [.grant(1)])
        #expect(bench.leave(.exclusive) == [])
        #expect(bench.machine.held == .exclusive)
        #expect(bench.enter(.shared, 2) == [.grant(2)])
        #expect(bench.blocking(.protectedRead) == [.demote(from: .exclusive, to: .protectedRead)])
        #expect(bench.enter(.shared, 3) == [.grant(3)])
        #expect(bench.enter(.exclusive, 4) == [])
        #expect(bench.finished() == [.lower(.protectedRead)])
        #expect(bench.granted(.protectedRead) == [.request(.exclusive, .noQueue)])
    }

    @Test func aRefusedUpgradeGoesThroughNull() {
        var bench = Bench()
        _ = bench.enter(.shared, 1)
        #expect(bench.granted(.protectedRead) == [.grant(1)])
        #expect(bench.enter(.exclusive, 2) == [.request(.exclusive, .noQueue)])
        #expect(bench.refused() == [])  // the reader is still inside
        #expect(bench.leave(.shared) == [.demote(from: .protectedRead, to: .null)])
        #expect(bench.finished() == [.lower(.null)])
        #expect(bench.granted(.null) == [.request(.exclusive, [])])
        #expect(bench.granted(.exclusive) == [.grant(2)])
    }

    @Test func everyGrantDoesSomeWorkBeforeItIsGivenUp() {
        var bench = Bench()
        _ = bench.enter(.exclusive, 1)
        #expect(bench.blocking(.exclusive) == [])
        #expect(bench.granted(.exclusive) == [.grant(1)])
        #expect(bench.enter(.exclusive, 2) == [])
        #expect(bench.leave(.exclusive) == [.demote(from: .exclusive, to: .null)])
        #expect(bench.finished() == [.lower(.null)])
        #expect(bench.granted(.null) == [.request(.exclusive, [])])
    }

    /// Who looks and will soon change asks for what the change needs: no second request follows.
    @Test func whoLooksMayAskForMore() {
        var bench = Bench()
        var actions: [GlockAction] = []
        bench.machine.enter(.shared, ticket: 1, asks: .exclusive, &actions)
        #expect(actions == [.request(.exclusive, [])])
        #expect(bench.granted(.exclusive) == [.grant(1)])
        #expect(bench.machine.sharedCount == 1 && !bench.machine.isExclusive)
        #expect(bench.leave(.shared) == [])
        #expect(bench.enter(.exclusive, 2) == [.grant(2)])
        // What is held already is asked for upwards as far as is needed, no further.
        var reader = Bench()
        _ = reader.enter(.shared, 1)
        #expect(reader.granted(.protectedRead) == [.grant(1)])
        actions = []
        reader.machine.enter(.shared, ticket: 2, asks: .exclusive, &actions)
        #expect(actions == [.grant(2)])
    }

    @Test func urgentHoldersEnterWhileTheOwnerInvalidates() {
        var bench = Bench()
        _ = bench.enter(.exclusive, 1)
        _ = bench.granted(.exclusive)
        _ = bench.leave(.exclusive)
        #expect(bench.blocking(.exclusive) == [.demote(from: .exclusive, to: .null)])
        #expect(bench.enter(.shared, 2, 0..<10) == [])
        #expect(bench.enter(.shared, 3, 10..<20) == [])
        bench.machine.admitUsers(of: [0..<5, 30..<40], &bench.actions)
        #expect(bench.take() == [.grant(2)])
        #expect(bench.machine.urgentAdmissions == 1)
        #expect(bench.enter(.shared, 4) == [])
        // Past those who came before, because the kernel holds the page for it.
        #expect(bench.enter(.shared, 5, 35..<36) == [.grant(5)])
        bench.machine.admitUsers(of: [], &bench.actions)
        #expect(bench.enter(.shared, 6, 0..<10) == [])
        #expect(bench.leave(.shared) == [])
        #expect(bench.leave(.shared) == [])
        #expect(bench.finished() == [.lower(.null)])
        #expect(bench.granted(.null) == [.request(.protectedRead, [])])
    }

    /// Whoever writes with others gives way to who wants all, and to who reads all, and comes back.
    @Test func concurrentHolders() {
        var bench = Bench()
        #expect(bench.enter(.concurrent, 1) == [.request(.concurrentWrite, [])])
        #expect(bench.granted(.concurrentWrite) == [.grant(1)])
        #expect(bench.enter(.concurrent, 2) == [.grant(2)])
        #expect(bench.blocking(.concurrentWrite) == [])  // nothing in the way
        #expect(bench.blocking(.protectedRead) == [])
        #expect(bench.enter(.concurrent, 3) == [])
        #expect(bench.leave(.concurrent) == [])
        // For what gives a part up, past those that wait.
        let isInside = bench.enterPastWaiters()
        #expect(isInside)
        #expect(bench.leave(.concurrent) == [])
        #expect(bench.leave(.concurrent) == [.demote(from: .concurrentWrite, to: .null)])
        let isInsideAgain = bench.enterPastWaiters()
        #expect(!isInsideAgain)
        #expect(bench.finished() == [.lower(.null)])
        #expect(bench.granted(.null) == [.request(.concurrentWrite, [])])
    }

    /// From EX to CW, and back when nobody is in the way.
    @Test func sharedWritersComeAndGo() {
        var bench = Bench()
        _ = bench.enter(.exclusive, 1)
        _ = bench.granted(.exclusive)
        _ = bench.leave(.exclusive)
        #expect(
            bench.blocking(.concurrentWrite) == [.demote(from: .exclusive, to: .concurrentWrite)]
        )
        #expect(bench.finished() == [.lower(.concurrentWrite)])
        #expect(bench.enter(.concurrent, 2) == [.grant(2)])
        #expect(bench.granted(.concurrentWrite) == [])
        #expect(bench.leave(.concurrent) == [])
        bench.machine.enterWithoutQueueing(.exclusive, ticket: 3, notifies: false, &bench.actions)
        #expect(bench.take() == [.request(.exclusive, .noQueue)])
        #expect(bench.granted(.exclusive) == [.grant(3)])
        #expect(bench.enter(.concurrent, 4) == [])  // alone
        #expect(bench.leave(.exclusive) == [.grant(4)])
        #expect(bench.enter(.shared, 5) == [])
        #expect(bench.leave(.concurrent) == [.grant(5)])
    }

    /// G9: whoever may wait for a part is not inside while the whole is given up, also when CW stays.
    @Test func nobodyWaitsForAPartWhileTheWholeGoes() {
        var bench = Bench()
        _ = bench.enter(.exclusive, 1)
        _ = bench.granted(.exclusive)
        _ = bench.leave(.exclusive)
        #expect(bench.enter(.concurrent, 2) == [.grant(2)])
        #expect(bench.blocking(.concurrentWrite) == [])
        #expect(bench.enter(.concurrent, 3, 0..<10) == [])
        #expect(
            bench.leave(.concurrent) == [.demote(from: .exclusive, to: .concurrentWrite)]
        )
        #expect(bench.enter(.concurrent, 4) == [])
        // What the invalidation waits for is let in.
        bench.machine.admitUsers(of: [0..<20], &bench.actions)
        #expect(bench.take() == [.grant(3)])
        bench.machine.admitUsers(of: [], &bench.actions)
        #expect(bench.leave(.concurrent) == [])
        #expect(bench.finished() == [.lower(.concurrentWrite)])
        #expect(bench.granted(.concurrentWrite) == [.grant(4)])
    }

    /// G8: PR and CW are not converted into each other.
    @Test func betweenReadingAndWritingTogetherLiesNothing() {
        var bench = Bench()
        _ = bench.enter(.shared, 1)
        _ = bench.granted(.protectedRead)
        #expect(bench.enter(.concurrent, 2) == [])
        #expect(bench.leave(.shared) == [.demote(from: .protectedRead, to: .null)])
        #expect(bench.finished() == [.lower(.null)])
        #expect(bench.granted(.null) == [.request(.concurrentWrite, [])])
        #expect(bench.granted(.concurrentWrite) == [.grant(2)])
        #expect(bench.enter(.shared, 3) == [])
        #expect(bench.leave(.concurrent) == [.demote(from: .concurrentWrite, to: .null)])
    }

    /// Who wants to read all and who wants to write with others do not go together.
    @Test func twoWantsAreOne() {
        var bench = Bench()
        _ = bench.enter(.exclusive, 1)
        _ = bench.granted(.exclusive)
        #expect(bench.blocking(.protectedRead) == [])
        #expect(bench.blocking(.concurrentWrite) == [])
        #expect(bench.leave(.exclusive) == [.demote(from: .exclusive, to: .null)])
    }

    @Test func whoWithdrawsIsNotServed() {
        var bench = Bench()
        #expect(bench.enter(.exclusive, 1) == [.request(.exclusive, [])])
        #expect(bench.granted(.exclusive) == [.grant(1)])
        #expect(bench.enter(.exclusive, 2) == [])
        #expect(bench.enter(.shared, 3) == [])
        #expect(bench.machine.withdraw(ticket: 2, &bench.actions))
        #expect(bench.take() == [])
        #expect(!bench.machine.withdraw(ticket: 2, &bench.actions))
        #expect(bench.leave(.exclusive) == [.grant(3)])
        #expect(bench.leave(.shared) == [])
        #expect(bench.machine.isIdle)
    }

    @Test func aShutDownRefusesEverybody() {
        var bench = Bench()
        _ = bench.enter(.exclusive, 1)
        _ = bench.enter(.shared, 2)
        bench.machine.completed(.shutDown, .null, &bench.actions)
        #expect(bench.take() == [.refuse(1), .refuse(2)])
        #expect(bench.enter(.shared, 3) == [.refuse(3)])
    }

    /// Random events against a small lock manager for three nodes: what is inside anywhere must be
    /// compatible everywhere, and whoever asks gets in.
    @Test(arguments: 0..<200) func threeNodesStayCompatible(seed: Int) {
        var world = GlockWorld(seed: UInt64(seed), nodes: 3)
        for _ in 0..<400 { world.step() }
        world.finish()
        #expect(world.entered == world.asked)
    }
}

/// Three glocks of one resource and a lock manager of thirty lines.
private struct GlockWorld {
    struct Inside {
        var mode: HolderMode
    }

    var dice: SeededGenerator
    var machines: [GlockMachine]
    var pending: [(node: Int, mode: LockMode, noQueue: Bool)] = []
    var demoting: [Int] = []
    var lowering: [(node: Int, mode: LockMode)] = []
    var inside: [[HolderMode]]
    var modeOf: [UInt64: HolderMode] = [:]
    var asked = 0
    var entered = 0

    init(seed: UInt64, nodes: Int) {
        dice = SeededGenerator(seed: seed)
        machines = Array(repeating: GlockMachine(), count: nodes)
        inside = Array(repeating: [], count: nodes)
    }

    mutating func step() {
        let node = dice.below(machines.count)
        var actions: [GlockAction] = []
        switch dice.below(6) {
        case 0:
            asked += 1
            let mode: HolderMode =
                dice.oneIn(3) ? .exclusive : dice.oneIn(2) ? .concurrent : .shared
            modeOf[UInt64(asked)] = mode
            machines[node].enter(mode, ticket: UInt64(asked), &actions)
        case 1:
            if let mode = inside[node].popLast() { machines[node].leave(mode, &actions) }
        default:
            manage()
        }
        perform(actions, node)
    }

    mutating func finish() {
        for _ in 0..<10_000 {
            for node in machines.indices {
                while let mode = inside[node].popLast() {
                    var actions: [GlockAction] = []
                    machines[node].leave(mode, &actions)
                    perform(actions, node)
                }
            }
            manage()
            if entered == asked { return }
        }
    }

    mutating func manage() {
        if !demoting.isEmpty, dice.oneIn(2) {
            let node = demoting.remove(at: dice.below(demoting.count))
            var actions: [GlockAction] = []
            machines[node].demotionFinished(&actions)
            perform(actions, node)
        }
        if !lowering.isEmpty, dice.oneIn(2) {
            let (node, mode) = lowering.remove(at: dice.below(lowering.count))
            var actions: [GlockAction] = []
            machines[node].completed(.granted, mode, &actions)
            perform(actions, node)
        }
        grantFirst()
    }

    mutating func grantFirst() {
        // Who does not queue is answered before those who wait.
        guard let index = pending.firstIndex(where: { $0.noQueue }) ?? pending.indices.first
        else { return }
        let (node, mode, noQueue) = pending[index]
        var actions: [GlockAction] = []
        let blockers = machines.indices.filter {
            $0 != node && !machines[$0].held.isCompatible(with: mode)
        }
        if blockers.isEmpty {
            pending.remove(at: index)
            machines[node].completed(.granted, mode, &actions)
        } else if noQueue {
            pending.remove(at: index)
            machines[node].completed(.wouldBlock, machines[node].held, &actions)
        } else {
            for blocker in blockers {
                var others: [GlockAction] = []
                machines[blocker].blocking(mode, &others)
                perform(others, blocker)
            }
        }
        perform(actions, node)
    }

    mutating func perform(_ actions: [GlockAction], _ node: Int) {
        for action in actions {
            switch action {
            case .grant(let ticket):
                entered += 1
                inside[node].append(modeOf[ticket] ?? .shared)
                for (other, holders) in inside.enumerated() where other != node {
                    for holder in holders {
                        precondition(
                            holder != .exclusive && modeOf[ticket] == holder,
                            "two nodes inside at once"
                        )
                    }
                }
            case .refuse: preconditionFailure("nobody shuts down here")
            case .request(let mode, let flags):
                pending.append((node, mode, flags.contains(.noQueue)))
            case .demote: demoting.append(node)
            case .lower(let mode): lowering.append((node, mode))
            }
        }
        machines[node].checkInvariants()
    }
}
