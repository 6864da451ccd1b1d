// Putting reports together, and the text forms of questions, reports and names.

import LockCache
import LockCore
import LockReports
import Testing
import Vocabulary

/// Canned descriptions.
enum Canned {
    static let file = ResourceName(kind: .inode, number: 12, generation: 1)
    static let other = ResourceName(kind: .inode, number: 17, generation: 1)
    static let group = ResourceName.resourceGroup(3)

    static func reference(_ node: UInt32, _ lock: UInt64) -> LockReference {
        LockReference(node: NodeID(node), lock: LockID(lock))
    }

    static func lock(
        _ node: UInt32,
        _ lock: UInt64,
        _ granted: LockMode?,
        wants requested: LockMode? = nil,
        owner: UInt32 = 0,
        age: UInt64 = 0,
        blockers: [LockReference] = [],
        by reporter: UInt32,
        isMaster: Bool
    ) -> LockReport {
        var report = LockReport(sample.locks[0], by: NodeID(reporter), isMaster: isMaster)
        report.holder = NodeID(node)
        report.lock = LockID(lock)
        report.granted = granted
        report.requested = requested
        report.state = granted == nil ? .waiting : requested == nil ? .granted : .converting
        report.owner = LockOwner(owner)
        report.age = age
        report.blockers = blockers
        report.isKnownToHolder = node == reporter
        return report
    }

    /// Any resource with a lock of a real lockspace, to change.
    private static let sample: ResourceDescription = {
        var space = Lockspace(node: NodeID(1), incarnation: 1)
        var effects: [LockEffect] = []
        let members = [Member(node: NodeID(1), incarnation: 1)]
        space.viewChanged(
            ClusterView(epoch: Epoch(1), members: members, slotsToReplay: []),
            effects: &effects
        )
        _ = space.request(file, .exclusive, [], cookie: 1, effects: &effects)
        guard let resource = space.describe(file), resource.locks.count == 1 else {
            preconditionFailure("a lockspace that has lost a lock")
        }
        return resource
    }()

    static func resource(
        _ name: ResourceName,
        master: UInt32,
        by reporter: UInt32,
        _ locks: [LockReport]
    ) -> ResourceReport {
        var description = sample
        description.name = name
        description.master = NodeID(master)
        var report = ResourceReport(description, by: NodeID(reporter))
        report.locks = locks
        return report
    }

    static func node(
        _ number: UInt32,
        _ resources: [ResourceReport] = [],
        phase: NodeReport.Phase = .running,
        waitsForReplay: Bool = false,
        epoch: UInt64 = 1
    ) -> NodeReport {
        var report = NodeReport(
            node: NodeID(number),
            name: "lab\(number)",
            epoch: Epoch(epoch),
            phase: phase,
            waitsForReplay: waitsForReplay,
            isReplaying: false,
            time: 1000
        )
        report.resources = resources
        return report
    }
}

struct PictureTests {
    @Test("Names come back from their text, and nothing else does")
    func names() {
        let names: [ResourceName] = [
            Canned.file, Canned.group, .rename, .logBarrier, .live, .journal(SlotIndex(2)),
            .orphanList(SlotIndex(0)), ResourceName(kind: .application, number: 5, generation: 6),
            Canned.file.child(3), Canned.file.child(3).child(4),
        ]
        for name in names { #expect(ResourceName(name.description) == name) }
        for text in [
            "", "inode", "inode:1", "inode:01.2", "inode:1.2/", "x:1", "rename:1", "group:-1",
        ] {
            #expect(ResourceName(text) == nil, "\(text)")
        }
    }

    @Test("A question comes back from its text")
    func question() {
        var question = LockQuestion(.locks)
        question.kinds = [.inode, .open]
        question.number = 12
        question.generation = 3
        question.onlyWaiting = true
        question.node = NodeID(2)
        question.limit = 10
        #expect(LockQuestion(question.json) == question)
        var named = LockQuestion(.locks)
        named.names = [Canned.file.child(1)]
        #expect(LockQuestion(named.json) == named)
        #expect(
            LockQuestion(.object([.init("version", .number(2)), .init("ask", .string("locks"))]))
                == nil
        )
    }

    @Test("The longest question fits into an inquiry")
    func longestQuestion() {
        let longest = ResourceName(kind: .application, number: .max, generation: .max)
            .child(.max).child(.max)
        var question = LockQuestion(.locks)
        question.names = [ResourceName](repeating: longest, count: LockQuestion.namesPerQuestion)
        #expect(question.json.text.utf8.count <= 8186)
    }

    @Test("A report comes back from its text")
    func report() throws {
        var activity = HolderActivity()
        activity.exclusive = 1
        activity.phase = .demoting
        activity.target = .null
        activity.phaseAge = 2900
        activity.step = .writing
        activity.toldAge = 3100
        activity.asked = [NodeID(3), NodeID(4)]
        activity.askedAge = 90
        activity.dirtyBytes = 4 << 20
        activity.hasUnsettledMetadata = true
        activity.isCommitting = true
        var lock = Canned.lock(
            2,
            7,
            .protectedRead,
            wants: .exclusive,
            owner: 4,
            age: 50,
            blockers: [Canned.reference(1, 9)],
            by: 2,
            isMaster: true
        )
        lock.activity = activity
        lock.isOrphan = true
        lock.parent = LockID(5)
        var resource = Canned.resource(Canned.file, master: 2, by: 2, [lock])
        resource.value = SequencedValue(
            value: ValueBlock(1, 2, 3, .max),
            sequence: 8,
            isValid: false
        )
        var node = Canned.node(2, [resource], phase: .recovering, waitsForReplay: true)
        node.omitted = 3
        node.counters = [NamedCount("grants", 12)]
        let text = node.json.text
        #expect(NodeReport(try JSONText(parsing: text)) == node)
        #expect(NodeReport(.object([])) == nil)
    }

    @Test("Each resource once, from its master, with what holders know (P1)")
    func merging() {
        let master = Canned.resource(
            Canned.file,
            master: 1,
            by: 1,
            [
                Canned.lock(1, 1, .exclusive, by: 1, isMaster: true),
                Canned.lock(
                    2,
                    2,
                    nil,
                    wants: .protectedRead,
                    blockers: [Canned.reference(1, 1)],
                    by: 1,
                    isMaster: true
                ),
            ]
        )
        var own = Canned.lock(2, 2, nil, wants: .protectedRead, by: 2, isMaster: false)
        own.parent = LockID(4)
        own.activity = HolderActivity()
        let unsent = Canned.lock(2, 3, nil, wants: .exclusive, by: 2, isMaster: false)
        let holder = Canned.resource(Canned.file, master: 1, by: 2, [own, unsent])
        let picture = ClusterPicture(
            [Canned.node(2, [holder]), Canned.node(1, [master])],
            question: LockQuestion(.locks)
        )
        #expect(picture.resources.count == 1)
        let locks = picture.resources[0].locks
        #expect(locks.map(\.reference) == [(1, 1), (2, 2), (2, 3)].map(Canned.reference))
        #expect(locks[1].parent == LockID(4) && locks[1].activity != nil)
        #expect(locks[1].blockers == [Canned.reference(1, 1)])
        #expect(locks.map(\.isKnownToMaster) == [true, true, false])
        #expect(picture.resources[0].isFromMaster && picture.unasked.isEmpty)
        #expect(picture.table.contains(">PR") && picture.table.contains("waits for n1"))
    }

    @Test("What the master is silent about is told by the holders")
    func silentMaster() {
        let own = Canned.lock(2, 2, .protectedRead, by: 2, isMaster: false)
        let report = Canned.node(2, [Canned.resource(Canned.file, master: 1, by: 2, [own])])
        let picture = ClusterPicture([report], silent: [NodeID(1)], question: LockQuestion(.locks))
        #expect(picture.resources[0].master == NodeID(1) && !picture.resources[0].isFromMaster)
        #expect(picture.remarks.contains { $0.hasPrefix("n1 is silent") })
        #expect(picture.table.contains("n1?"))
    }

    @Test("Holders that said nothing of a lock are to be asked; a name asked for twice counts once")
    func secondRound() {
        let master = Canned.resource(
            Canned.file,
            master: 1,
            by: 1,
            [
                Canned.lock(1, 1, .exclusive, by: 1, isMaster: true),
                Canned.lock(
                    2,
                    2,
                    nil,
                    wants: .protectedRead,
                    blockers: [Canned.reference(1, 1)],
                    by: 1,
                    isMaster: true
                ),
            ]
        )
        var question = LockQuestion(.locks)
        question.onlyWaiting = true
        let draft = ClusterPicture([Canned.node(1, [master]), Canned.node(2)], question: question)
        #expect(draft.unasked.map(\.node) == [NodeID(2)])
        #expect(draft.unasked.first?.names == [Canned.file])
        let own = Canned.lock(2, 2, nil, wants: .protectedRead, by: 2, isMaster: false)
        let more = Canned.node(2, [Canned.resource(Canned.file, master: 1, by: 2, [own])])
        let picture = ClusterPicture(
            [Canned.node(1, [master]), Canned.node(2), more],
            question: question
        )
        #expect(picture.unasked.isEmpty && picture.resources.count == 1 && picture.nodes.count == 2)
    }

    @Test("Filters hold for the whole picture, and the limit cuts by name (P3)")
    func filters() {
        func single(_ number: UInt64, _ node: UInt32) -> ResourceReport {
            let name = ResourceName(kind: .inode, number: number, generation: 1)
            let lock = Canned.lock(node, number, .exclusive, by: node, isMaster: true)
            return Canned.resource(name, master: node, by: node, [lock])
        }
        let first = Canned.node(1, [single(1, 1), single(3, 1)])
        let second = Canned.node(2, [single(2, 2), single(4, 2)])
        var question = LockQuestion(.locks)
        question.limit = 3
        let cut = ClusterPicture([first, second], question: question)
        #expect(cut.resources.map(\.name.number) == [1, 2, 3] && cut.isCut)
        question.node = NodeID(2)
        let ofTwo = ClusterPicture([first, second], question: question)
        #expect(ofTwo.resources.map(\.name.number) == [2, 4] && !ofTwo.isCut)
        question.onlyWaiting = true
        #expect(ClusterPicture([first, second], question: question).resources.isEmpty)
    }

    @Test("Recoveries, replays and different views are said")
    func remarks() {
        let picture = ClusterPicture(
            [
                Canned.node(1, phase: .recovering), Canned.node(2, waitsForReplay: true, epoch: 2),
            ],
            garbled: [NodeID(3)],
            question: LockQuestion(.locks)
        )
        let text = picture.remarks.joined(separator: "\n")
        for word in ["n1 (lab1) recovers", "n2 (lab2) grants no new", "n3 gave", "different views"]
        {
            #expect(text.contains(word), "\(text)")
        }
    }
}

struct CounterTableTests {
    @Test("Every counter of the lock manager has its name, in the order of the fields")
    func members() {
        let counters = LockCounters()
        let fields = Mirror(reflecting: counters).children.compactMap(\.label)
        #expect(counters.members.map(\.name) == fields)
        #expect(MemoryLayout<LockCounters>.size == 8 * counters.members.count)
    }

    @Test("Each name has its own field")
    func values() {
        var space = Lockspace(node: NodeID(1), incarnation: 1)
        var effects: [LockEffect] = []
        space.viewChanged(
            ClusterView(
                epoch: Epoch(1),
                members: [Member(node: NodeID(1), incarnation: 1)],
                slotsToReplay: []
            ),
            effects: &effects
        )
        for cookie in 1...5 as ClosedRange<UInt64> {
            _ = space.request(Canned.file, .protectedRead, [], cookie: cookie, effects: &effects)
        }
        let values = Mirror(reflecting: space.counters).children.compactMap { $0.value as? UInt64 }
        #expect(space.counters.members.map(\.count) == values)
        #expect(space.counters.members.first { $0.name == "requests" }?.count == 5)
    }

    @Test("Rates are by each node's own clock")
    func rates() {
        func look(_ time: UInt64, _ count: UInt64) -> NodeReport {
            var report = Canned.node(1)
            report.time = time
            report.counters = [NamedCount("grants", count), NamedCount("waits", 0)]
            return report
        }
        let earlier = CounterTable([look(1000, 10)], silent: [])
        let later = CounterTable([look(3000, 35)], silent: [NodeID(2)])
        let text = later.rates(since: earlier)
        #expect(text.contains("grants   12.5"), "\(text)")
        #expect(!text.contains("waits") && text.contains("n2 is silent"))
        #expect(CounterTable(later.json) == later)
        #expect(later.json(since: earlier).text.contains("\"grants\": 12500"))
    }
}
