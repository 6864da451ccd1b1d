import Membership
import Testing
import Vocabulary

@Suite struct MembershipMachineTests {
    private let first = Member(node: NodeID(1), incarnation: 11)
    private let second = Member(node: NodeID(2), incarnation: 12)
    private let third = Member(node: NodeID(3), incarnation: 13)

    private func record(_ members: [Member]) -> ViewRecord {
        var record = ViewRecord(volume: "v")
        for member in members {
            record.join(member, slotCount: 3)
            _ = record.replayed(under: record.epoch)
        }
        return record
    }

    /// A machine of `first` that has read a view.
    private func machine(_ members: [Member], patience: UInt64 = 0) -> MembershipMachine {
        var machine = MembershipMachine(me: first, patience: patience)
        _ = machine.effects(of: .viewRead(record(members)))
        return machine
    }

    @Test func aViewIsAppliedOnceAndNeverBackwards() {
        var machine = MembershipMachine(me: first, patience: 0)
        let old = record([first])
        let new = record([first, second])
        #expect(machine.effects(of: .viewRead(new)) == [.watch(second), .apply(new.view)])
        #expect(machine.effects(of: .viewRead(new)).isEmpty)
        #expect(machine.effects(of: .viewRead(old)).isEmpty)
        #expect(machine.applied == new.epoch)
    }

    @Test func aRevisionWithoutAnEpochIsNotApplied() {
        var machine = MembershipMachine(me: first, patience: 0)
        var record = ViewRecord(volume: "v")
        record.join(first, slotCount: 3)
        _ = machine.effects(of: .viewRead(record))
        _ = record.replayed(under: record.epoch)
        #expect(machine.effects(of: .viewRead(record)).isEmpty)
        #expect(machine.record == record)
    }

    @Test func fromDoubtToBurial() {
        var machine = machine([first, second])
        let doubt = machine.effects(of: .suspected(second, .connectionLost))
        #expect(doubt == [.report("n2 closed its connection; fencing it"), .kill(second)])
        #expect(machine.effects(of: .suspected(second, .asked)).isEmpty)
        #expect(machine.effects(of: .killed(second)).isEmpty)
        #expect(machine.effects(of: .guardianEnded(second)).isEmpty)  // W2: it is not gone yet
        #expect(machine.effects(of: .gone(second)) == [.awaitGuardian(second)])
        #expect(machine.effects(of: .gone(second)).isEmpty)
        #expect(machine.effects(of: .guardianEnded(second)) == [.bury([second])])
        #expect(machine.state(of: second) == .fenced)
    }

    @Test func aSuddenDeathNeedsNoKill() {
        var machine = machine([first, second])
        #expect(machine.effects(of: .gone(second)) == [.awaitGuardian(second)])
    }

    @Test func aRefusedKillIsRetriedAndSaid() {
        var machine = machine([first, second])
        _ = machine.effects(of: .suspected(second, .asked))
        let refused = machine.effects(of: .killRefused(second, 1))
        #expect(refused == [.report("n2 cannot be killed (errno 1): waiting for its end")])
        #expect(machine.effects(of: .passed(MembershipMachine.retryInterval - 1)).isEmpty)
        let again = machine.effects(of: .passed(1))
        #expect(
            again == [.report("n2 is not gone after 2 s: locks wait for its end"), .kill(second)]
        )
        #expect(machine.state(of: second) == .suspected)  // W3
        #expect(machine.effects(of: .gone(second)) == [.awaitGuardian(second)])
        let waiting = machine.effects(of: .passed(MembershipMachine.retryInterval))
        #expect(waiting.last == .awaitGuardian(second))
        _ = machine.effects(of: .guardianEnded(second))
        #expect(machine.effects(of: .passed(MembershipMachine.retryInterval)) == [.bury([second])])
    }

    @Test func standingStillIsCountedFromTheLastBeat() {
        var machine = machine([first, second], patience: 100)
        #expect(machine.effects(of: .passed(99)).isEmpty)
        _ = machine.effects(of: .heartbeat(second, 5))
        #expect(machine.effects(of: .passed(99)).isEmpty)
        _ = machine.effects(of: .heartbeat(second, 5))  // it has not moved
        #expect(machine.effects(of: .passed(1)).contains(.kill(second)))
    }

    @Test func anotherLifeIsNotMeant() {
        var machine = machine([first, second])
        let other = Member(node: second.node, incarnation: 99)
        for event: MembershipEvent in [
            .suspected(other, .asked), .gone(other), .guardianEnded(other),
        ] {
            #expect(machine.effects(of: event).isEmpty)
        }
        #expect(machine.state(of: second) == .watched)
    }

    @Test func whoIsPutOutStops() {
        var machine = machine([first, second])
        var record = record([first, second])
        _ = record.bury([first])
        #expect(
            machine.effects(of: .viewRead(record)) == [.expelled(record.epoch)]
        )
        #expect(machine.effects(of: .gone(second)).isEmpty)
    }

    @Test func theDepartedAreForgotten() {
        var machine = machine([first, second, third])
        var record = record([first, second, third])
        _ = record.leave(second)
        #expect(
            machine.effects(of: .viewRead(record)) == [.unwatch(second), .apply(record.view)]
        )
        #expect(machine.effects(of: .gone(second)).isEmpty)
    }
}

extension MembershipMachine {
    /// What one event leads to.
    mutating func effects(of event: MembershipEvent) -> [MembershipEffect] {
        var effects: [MembershipEffect] = []
        handle(event, effects: &effects)
        return effects
    }
}
