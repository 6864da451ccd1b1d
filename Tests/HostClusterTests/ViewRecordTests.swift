import Membership
import Testing
import Vocabulary

@Suite struct ViewRecordTests {
    private func life(_ slot: UInt32, _ incarnation: UInt64 = 1) -> Member {
        Member(node: NodeID(slot: SlotIndex(slot)), incarnation: incarnation)
    }

    private func any(_: SlotIndex) -> Bool { true }

    @Test func theFirstListsAllAndTheNextMovesInWhenTheyAreReplayed() throws {
        var record = ViewRecord(volume: "v")
        #expect(try record.slotToJoin(wanted: nil, slotCount: 2, isUsable: any) == SlotIndex(0))
        record.join(life(0), slotCount: 2)
        #expect(record.epoch == Epoch(1) && record.revision == 1)
        #expect(record.view.slotsToReplay == [SlotIndex(0), SlotIndex(1)])
        #expect(throws: JoinRefusal.recovering) {
            try record.slotToJoin(wanted: nil, slotCount: 2, isUsable: any)
        }
        #expect(throws: JoinRefusal.recovering) {
            try record.slotToJoin(wanted: SlotIndex(1), slotCount: 2, isUsable: any)
        }
        #expect(record.replayed(under: Epoch(1)) == true)
        #expect(record.epoch == Epoch(1) && record.revision == 2)
        #expect(try record.slotToJoin(wanted: nil, slotCount: 2, isUsable: any) == SlotIndex(1))
        record.join(life(1), slotCount: 2)
        #expect(throws: JoinRefusal.noFreeSlot(slotCount: 2)) {
            try record.slotToJoin(wanted: nil, slotCount: 2, isUsable: any)
        }
        #expect(throws: JoinRefusal.slotCountDiffers(known: 2, offered: 3)) {
            try record.slotToJoin(wanted: nil, slotCount: 3, isUsable: any)
        }
        #expect(throws: JoinRefusal.noSuchSlot(SlotIndex(2), slotCount: 2)) {
            try record.slotToJoin(wanted: SlotIndex(2), slotCount: 2, isUsable: any)
        }
    }

    @Test func goodbyeLeavesNothingToReplayAndDeathDoes() {
        var record = ViewRecord(volume: "v")
        record.join(life(0), slotCount: 3)
        _ = record.replayed(under: record.epoch)
        record.join(life(1), slotCount: 3)
        record.join(life(2), slotCount: 3)
        #expect(record.leave(life(1)) == true)
        #expect(record.view.slotsToReplay.isEmpty)
        #expect(record.bury([life(2), life(1)]) == true)
        #expect(record.view.slotsToReplay == [SlotIndex(2)])
        #expect(record.members == [life(0)])
        #expect(record.bury([life(2)]) == false)
        #expect(record.leave(life(2)) == false)
    }

    @Test func anotherLifeIsAnotherMember() {
        var record = ViewRecord(volume: "v")
        record.join(life(0, 7), slotCount: 1)
        let before = record
        #expect(record.leave(life(0, 8)) == false)
        #expect(record.bury([life(0, 8)]) == false)
        #expect(record == before)
    }

    @Test func whatDiedAfterTheReplayBeganStaysListed() {
        var record = ViewRecord(volume: "v")
        record.join(life(0), slotCount: 3)
        _ = record.replayed(under: record.epoch)
        record.join(life(1), slotCount: 3)
        record.join(life(2), slotCount: 3)
        _ = record.bury([life(1)])
        let began = record.epoch
        _ = record.bury([life(2)])
        #expect(record.replayed(under: began) == false)
        #expect(record.view.slotsToReplay == [SlotIndex(1), SlotIndex(2)])
        #expect(record.replayed(under: record.epoch) == true)
        #expect(record.view.slotsToReplay == [])
        #expect(record.replayed(under: record.epoch) == false)
        // A slot that is still listed and dies again counts from its last death.
        var first = ViewRecord(volume: "v")
        first.join(life(0), slotCount: 2)
        let start = first.epoch
        _ = first.replayed(under: Epoch(0))
        _ = first.bury([life(0)])
        _ = first.replayed(under: start)
        #expect(first.view.slotsToReplay == [SlotIndex(0), SlotIndex(1)])
    }

    /// M4: who has joined meanwhile, and has read what is to be replayed, hears of its end by the coordinator of that view.
    @Test func aViewSaysTheSameToAll() {
        var record = ViewRecord(volume: "v")
        record.join(life(0), slotCount: 4)
        _ = record.replayed(under: record.epoch)
        record.join(life(1), slotCount: 4)
        _ = record.bury([life(1)])
        let began = record.epoch
        record.join(life(2), slotCount: 4)
        let seen = record.view
        #expect(record.replayed(under: began) == false)
        #expect(record.view == seen && seen.slotsToReplay == [SlotIndex(1)])
        #expect(record.replayed(under: seen.epoch) == true)
        #expect(record.view.slotsToReplay == [])
    }

    /// M4: the slot of somebody whom nobody knows.
    @Test func theSlotOfAStrangerIsListed() {
        var record = ViewRecord(volume: "v")
        #expect(record.list(SlotIndex(0)) == false)
        record.join(life(0), slotCount: 3)
        _ = record.replayed(under: record.epoch)
        let before = record
        #expect(record.list(SlotIndex(0)) == false)
        #expect(record.list(SlotIndex(3)) == false)
        #expect(record == before)
        #expect(record.list(SlotIndex(2)) == true)
        #expect(record.view.slotsToReplay == [SlotIndex(2)])
        #expect(record.epoch > before.epoch && record.members == before.members)
    }

    @Test func theTextIsReadBack() throws {
        var record = ViewRecord(volume: "6c1f0000-0000-0000-0000-000000000001")
        record.join(life(2, .max), slotCount: 3)
        #expect(try ViewRecord(text: record.text) == record)
        #expect(
            record.text.hasSuffix(
                "member 3 ffffffffffffffff\nreplay 0 1\nreplay 1 1\nreplay 2 1\nend\n"
            )
        )
    }

    @Test func nonsenseIsRefused() {
        var record = ViewRecord(volume: "v")
        record.join(life(0), slotCount: 2)
        let text = record.text
        for length in 0..<text.utf8.count - 1 {
            let cut = String(text.prefix(length))
            #expect(throws: ViewRecordError.self) { try ViewRecord(text: cut) }
        }
        for (from, to) in [
            ("view 1", "view 2"), ("slots 2", "slots -2"), ("slots 2", "slots 0"),
            ("member 1 1", "member 0 1"), ("member 1 1", "member 1 0"),
            ("member 1 1", "member 1 1\nmember 1 2"), ("member 1 1", "member 9 1"),
            ("replay 0 1", "replay 0 2"), ("replay 1 1", "replay 0 1"),
            ("epoch 1", "epoch 2"), ("member 1 1", "memory 1 1"), ("volume v", "volume"),
        ] {
            let parts = text.split(separator: from, maxSplits: 1, omittingEmptySubsequences: false)
            let changed = parts.joined(separator: to)
            #expect(changed != text)
            #expect(throws: ViewRecordError.self, "\(to)") { try ViewRecord(text: changed) }
        }
    }

    @Test func brokenRulesStopTheProgram() async {
        await #expect(processExitsWith: .failure) {
            var record = ViewRecord(volume: "v")
            record.join(Member(node: NodeID(1), incarnation: 1), slotCount: 2)
            record.join(Member(node: NodeID(1), incarnation: 2), slotCount: 2)  // M3
        }
        await #expect(processExitsWith: .failure) {
            var record = ViewRecord(volume: "v")
            record.join(Member(node: NodeID(1), incarnation: 1), slotCount: 2)
            record.join(Member(node: NodeID(2), incarnation: 1), slotCount: 2)  // M5: not replayed
        }
    }
}
