// Who waits for whom, on canned pictures.

import LockCache
import LockCore
import LockReports
import Testing
import Vocabulary

struct WaitChainTests {
    private func picture(
        _ reports: [NodeReport],
        silent: [NodeID] = []
    ) -> ClusterPicture {
        ClusterPicture(reports, silent: silent, question: LockQuestion(.locks))
    }

    private func inUse(_ change: (inout HolderActivity) -> Void = { _ in }) -> HolderActivity {
        var activity = HolderActivity()
        activity.exclusive = 1
        change(&activity)
        return activity
    }

    private func kinds(_ chain: WaitChain) -> [WaitChain.Step.Kind] { chain.steps.map(\.kind) }

    @Test("A waiter, whom it waits for, and what that one is doing")
    func simple() {
        var holder = Canned.lock(1, 1, .exclusive, age: 5000, by: 1, isMaster: true)
        holder.activity = inUse {
            $0.toldAge = 3100
            $0.dirtyBytes = 4 << 20
            $0.asked = [NodeID(2), NodeID(3)]
            $0.askedAge = 40
        }
        let waiter = Canned.lock(
            2,
            2,
            nil,
            wants: .protectedRead,
            age: 3200,
            blockers: [Canned.reference(1, 1)],
            by: 1,
            isMaster: true
        )
        let whole = picture([
            Canned.node(1, [Canned.resource(Canned.file, master: 1, by: 1, [holder, waiter])]),
            Canned.node(2),
        ])
        let story = Explanation(of: "/x", [Canned.file], in: whole)
        #expect(kinds(story.chain) == [.waits, .holds])
        #expect(story.chain.steps.map(\.depth) == [0, 1])
        #expect(
            story.text == """
                /x: inode:12.1
                n2 (lab2) waits since 3.2s for inode:12.1 in PR
                  n1 (lab1) holds EX since 5.0s: 1 exclusive holder inside, 4.0 MiB dirty to flush, asks n2, n3 about the file since 40ms, was told 3.1s ago

                """
        )
        #expect(story.json["waits"] == .boolean(true))
        #expect(story.json["steps"]?.elements.count == 2)
    }

    @Test("Nothing waits: said plainly, with who has it")
    func nothing() {
        var holder = Canned.lock(1, 1, .exclusive, age: 200, by: 1, isMaster: true)
        holder.activity = HolderActivity()
        let whole = picture([
            Canned.node(1, [Canned.resource(Canned.file, master: 1, by: 1, [holder])])
        ])
        let text = Explanation(of: "/x", [Canned.file], in: whole).text
        #expect(text.contains("nothing waits for inode:12.1"), "\(text)")
        #expect(text.contains("n1 (lab1) holds EX since 200ms on inode:12.1: idle"), "\(text)")
    }

    @Test("Through what the blocking owner waits for itself, round in a circle (C2, C4)")
    func circle() {
        let one = Canned.resource(
            Canned.file,
            master: 1,
            by: 1,
            [
                Canned.lock(1, 1, .exclusive, owner: 7, by: 1, isMaster: true),
                Canned.lock(
                    2,
                    2,
                    nil,
                    wants: .exclusive,
                    owner: 8,
                    blockers: [Canned.reference(1, 1)],
                    by: 1,
                    isMaster: true
                ),
            ]
        )
        let two = Canned.resource(
            Canned.other,
            master: 2,
            by: 2,
            [
                Canned.lock(2, 3, .exclusive, owner: 8, by: 2, isMaster: true),
                Canned.lock(
                    1,
                    4,
                    nil,
                    wants: .exclusive,
                    owner: 7,
                    blockers: [Canned.reference(2, 3)],
                    by: 2,
                    isMaster: true
                ),
            ]
        )
        let chain = WaitChain(
            of: [Canned.file],
            in: picture([Canned.node(1, [one]), Canned.node(2, [two])])
        )
        #expect(kinds(chain) == [.waits, .holds, .waits, .holds, .waits, .circle])
        #expect(chain.hasCircle && chain.steps.allSatisfy(\.isCertain))
        #expect(chain.steps.map(\.depth) == [0, 1, 2, 3, 4, 5])
    }

    @Test(
        "A cache's holder inside may wait for another lock of its node; an idle one does not (C3)"
    )
    func possible() {
        func wait(_ node: UInt32, _ lock: UInt64, behind blocker: LockReference, _ by: UInt32)
            -> LockReport
        {
            Canned.lock(
                node,
                lock,
                nil,
                wants: .exclusive,
                blockers: [blocker],
                by: by,
                isMaster: true
            )
        }
        var holder = Canned.lock(1, 1, .exclusive, by: 1, isMaster: true)
        let waiter = wait(2, 2, behind: Canned.reference(1, 1), 1)
        let busy = Canned.lock(3, 5, .exclusive, by: 3, isMaster: true)
        let groupWait = wait(1, 6, behind: busy.reference, 3)
        let group = Canned.resource(Canned.group, master: 3, by: 3, [busy, groupWait])
        let renameWait = wait(1, 7, behind: Canned.reference(3, 8), 3)
        let rename = Canned.resource(.rename, master: 3, by: 3, [renameWait])
        func chain() -> WaitChain {
            let file = Canned.resource(Canned.file, master: 1, by: 1, [holder, waiter])
            let reports = [Canned.node(1, [file]), Canned.node(3, [group, rename])]
            return WaitChain(of: [Canned.file], in: picture(reports))
        }
        holder.activity = HolderActivity()
        #expect(kinds(chain()) == [.waits, .holds])
        holder.activity = inUse()
        let possible = chain()
        // The rename lock comes before inodes: who is inside an inode does not wait for it.
        #expect(
            possible.steps.map(\.resource) == [
                Canned.file, Canned.file, Canned.group, Canned.group,
            ]
        )
        #expect(possible.steps.map(\.isCertain) == [true, true, false, true])
    }

    @Test(
        "Nobody in the way: its turn, recovery, replay, a silent master, a message on its way (C1)"
    )
    func reasons() {
        func reason(
            phase: NodeReport.Phase = .running,
            waitsForReplay: Bool = false,
            isKnown: Bool = true,
            isSilent: Bool = false
        ) -> String {
            let waiter = Canned.lock(
                2,
                2,
                nil,
                wants: .exclusive,
                by: isKnown ? 1 : 2,
                isMaster: isKnown
            )
            let resource = Canned.resource(Canned.file, master: 1, by: isKnown ? 1 : 2, [waiter])
            let master = Canned.node(
                1,
                isKnown && !isSilent ? [resource] : [],
                phase: phase,
                waitsForReplay: waitsForReplay
            )
            let whole = picture(
                (isSilent ? [] : [master]) + (isKnown ? [] : [Canned.node(2, [resource])]),
                silent: isSilent ? [NodeID(1)] : []
            )
            let chain = WaitChain(of: [Canned.file], in: whole)
            guard case .reason(let reason)? = chain.steps.last?.kind else {
                return "\(chain.steps)"
            }
            return reason
        }
        #expect(reason().contains("nothing is in its way"))
        #expect(reason(phase: .recovering).contains("recovers its locks"))
        #expect(reason(waitsForReplay: true).contains("journals are replayed"))
        #expect(reason(isKnown: false).contains("has not heard of it yet"))
        #expect(reason(isKnown: false, isSilent: true).contains("is silent"))
    }

    @Test("A turn that has not come, and operations that queue inside a node")
    func turns() {
        var holder = Canned.lock(1, 1, .exclusive, by: 1, isMaster: true)
        holder.activity = inUse { $0.queued = 3 }
        let first = Canned.lock(2, 2, nil, wants: .exclusive, by: 1, isMaster: true)
        let second = Canned.lock(3, 3, nil, wants: .exclusive, by: 1, isMaster: true)
        let resource = Canned.resource(Canned.file, master: 1, by: 1, [holder, first, second])
        let chain = WaitChain(of: [Canned.file], in: picture([Canned.node(1, [resource])]))
        #expect(kinds(chain).suffix(3) == [.waits, .before, .local])
    }

    @Test("A crowd of waits is cut, and said to be")
    func crowd() {
        var holder = Canned.lock(1, 1, .exclusive, by: 1, isMaster: true)
        holder.activity = inUse()
        let waiter = Canned.lock(
            2,
            2,
            nil,
            wants: .protectedRead,
            blockers: [Canned.reference(1, 1)],
            by: 1,
            isMaster: true
        )
        var resources = [Canned.resource(Canned.file, master: 1, by: 1, [holder, waiter])]
        for number in 0..<50 as Range<UInt32> {
            resources.append(
                Canned.resource(
                    .resourceGroup(number),
                    master: 1,
                    by: 1,
                    [
                        Canned.lock(
                            1,
                            100 + UInt64(number),
                            nil,
                            wants: .exclusive,
                            age: UInt64(number),
                            by: 1,
                            isMaster: true
                        )
                    ]
                )
            )
        }
        let chain = WaitChain(of: [Canned.file], in: picture([Canned.node(1, resources)]))
        #expect(chain.omitted == 42)
        #expect(chain.steps[2].resource == .resourceGroup(49))
    }
}

struct WordsTests {
    @Test(arguments: [
        (UInt64(0), "0ms"), (999, "999ms"), (1000, "1.0s"), (3250, "3.2s"), (99_999, "99.9s"),
        (100_000, "1m"), (7_200_000, "2h"), (200_000_000, "2d"),
    ])
    func ages(milliseconds: UInt64, text: String) { #expect(Words.age(milliseconds) == text) }

    @Test(arguments: [
        (UInt64(0), "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (4 << 20, "4.0 MiB"),
        (5 << 30, "5.0 GiB"),
    ])
    func sizes(bytes: UInt64, text: String) { #expect(Words.size(bytes) == text) }

    @Test("Columns are as wide as their widest cell, and lines have no blanks at their ends")
    func table() {
        let lines = Words.table([["A", "B", ""], ["long", "b", "tail"]])
        #expect(lines == ["A     B", "long  b  tail"])
    }
}
