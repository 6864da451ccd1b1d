// A closed process group without corosync: hosts that hear each other or do not, rings that break with messages under way, and
// processes that follow `AgreementMachine`. All from one seed.
//
// What is as bad as it can be: of a ring that breaks, the hosts that stay together hear some of the messages that nobody of them
// has heard yet, and always those that they said themselves; what was said and not sent is sent in the next ring;
// the quorum service speaks late; fence agents take their time, and fail; an expelled node goes on for a while; slots are few.
//
// What must be true at every step
// G1. A view is adopted by nobody who saw a life in it that is left out now and may still write.
// G2. No two processes write in one slot, and nobody begins in a slot whose last life has left something to be replayed, but
//     who is alone, and replays it itself (Membership M5).
// G3. A ring is called quorate only if it is, and only in a quorate ring is anybody fenced.
// G4. Who was always in quorate rings is not expelled, unless somebody asked for its end or its slot was
//     given away twice; and who left in such a ring is not fenced
//     by those who were in it. (By others it may be: who has left may have been the only one who remembered it.)
// G5. Processes that have heard the same of one ring have the same state; who is in and in order has the newest view.

import GroupAgreement
import Membership
import Vocabulary

/// One process of the simulated group.
final class SimulatedProcess {
    let address: GroupProcess
    var machine: AgreementMachine
    /// What it has said and the ring has not taken yet.
    var outbox: [AgreementMessage] = []
    /// Events that come before anything of the ring.
    var inbox: [AgreementEvent] = []
    /// How much of the ring's log it has heard.
    var heard = 0
    var known: [GroupProcess] = []
    /// No thread of it runs any more.
    var isDead = false
    /// It writes nothing any more.
    var isStopped = false
    var isExpelled = false
    var hasBegun = false
    var isLeaving = false
    /// It has left, and these were in its ring.
    var leftAmong: [GroupProcess] = []
    /// It was in a ring without a quorum at some time.
    var wasApart = false
    var life: Member?
    var birth = Epoch(0)
    var view: ClusterView?
    var fencing: [Member: (host: UInt32, isHostHere: Bool)] = [:]

    init(_ address: GroupProcess) {
        self.address = address
        machine = AgreementMachine(me: address, volume: "v")
    }

    var mayWrite: Bool { hasBegun && !isDead && !isStopped && life != nil }
}

/// A ring and all that was said in it.
final class SimulatedRing {
    enum Entry {
        case message(AgreementMessage, GroupProcess)
        case came(GroupProcess, [GroupProcess])
        case went(GroupProcess)
    }

    let id: RingID
    let hosts: [UInt32]
    var log: [Entry] = []
    /// Who is in at the end of the log.
    var members: [GroupProcess]

    init(id: RingID, hosts: [UInt32], members: [GroupProcess]) {
        self.id = id
        self.hosts = hosts
        self.members = members
    }
}

/// What went wrong.
struct GroupViolation: Error, CustomStringConvertible {
    let description: String
}

/// The hosts, the network and the device.
final class SimulatedGroup {
    private(set) var dice: SeededGenerator
    let hostCount: UInt32
    let slotCount: UInt32
    private var rings: [UInt32: SimulatedRing] = [:]
    /// Hosts with the same number hear each other; nil: switched off.
    private var side: [UInt32: Int?] = [:]
    private var sequence: UInt64 = 4
    private(set) var processes: [SimulatedProcess] = []
    private var nextProcess: UInt32 = 100
    /// Lives that the device shows as not ended.
    private var remains: [Member: UInt32] = [:]
    /// Lives of which somebody said that they should end.
    private var suspects: [Member] = []
    private var later: [(at: Int, action: () -> Void)] = []
    private var step = 0
    /// How often each thing came about.
    private(set) var counts: [String: Int] = [:]
    private(set) var history: [String] = []

    init(seed: UInt64, hosts: UInt32) {
        dice = SeededGenerator(seed: seed)
        hostCount = hosts
        slotCount = hosts + 3
        for host in 1...hosts { side[host] = 0 }
        reform()
    }

    func below(_ limit: Int) -> Int { Int.random(in: 0..<limit, using: &dice) }

    private func count(_ what: String) { counts[what, default: 0] += 1 }

    private func note(_ what: @autoclosure () -> String) { history.append("\(step): \(what())") }

    var living: [SimulatedProcess] { processes.filter { !$0.isDead } }

    private func process(_ address: GroupProcess) -> SimulatedProcess? {
        living.first { $0.address == address }
    }

    // MARK: Rings

    private func isBroken(_ ring: SimulatedRing?, _ host: UInt32) -> Bool {
        guard let ring else { return true }
        let together = (1...hostCount).filter { side[$0]! != nil && side[$0]! == side[host]! }
        return ring.hosts != Array(together)
    }

    /// Whether every host is in the ring that the network allows.
    var isFormed: Bool {
        (1...hostCount).allSatisfy { side[$0]! == nil || !isBroken(rings[$0], $0) }
    }

    /// Hosts that hear each other form rings; what was said in the old ones is heard by each side as far as
    /// luck has it.
    func reform() {
        var done: Set<Int> = []
        for host in 1...hostCount {
            guard let number = side[host]!, done.insert(number).inserted else { continue }
            let hosts = (1...hostCount).filter { side[$0]! == number }
            guard hosts.contains(where: { isBroken(rings[$0], $0) }) else { continue }
            let old = hosts.map { rings[$0] }
            let here = living.filter { hosts.contains($0.address.host) }
            for (index, ring) in old.enumerated() {
                guard let ring, old.firstIndex(where: { $0 === ring }) == index else { continue }
                finish(ring, here.filter { rings[$0.address.host] === ring })
            }
            sequence += 4
            let ring = SimulatedRing(
                id: RingID(host: hosts[0], sequence: sequence),
                hosts: hosts,
                members: here.map(\.address).sorted()
            )
            for member in here {
                if !isQuorate(ring) { member.wasApart = true }
                enter(member, ring)
            }
            for host in hosts { rings[host] = ring }
            tellQuorum(ring)
            count("rings")
            note("ring \(ring.id.sequence) of hosts \(hosts)")
        }
    }

    /// Those of a broken ring that stay together hear the same end of it.
    private func finish(_ ring: SimulatedRing, _ together: [SimulatedProcess]) {
        let least = together.map(\.heard).max() ?? 0
        let cut = least + below(ring.log.count - least + 1)
        for member in together {
            while member.heard < cut { hearNext(member, ring) }
        }
        for entry in ring.log[cut...] {
            guard case .message(_, let speaker) = entry,
                together.contains(where: { $0.address == speaker })
            else { continue }
            if cut < ring.log.count { count("last words") }
            for member in together { hear(entry, member) }
        }
    }

    private func enter(_ member: SimulatedProcess, _ ring: SimulatedRing) {
        let staying = member.known.filter { ring.members.contains($0) }
        if staying != member.known {
            member.known = staying
            act(member, .configured(staying, joined: []))
        }
        let joined = ring.members.filter { !staying.contains($0) }
        if !joined.isEmpty {
            member.known = ring.members
            act(member, .configured(ring.members, joined: joined))
        }
        member.heard = 0
        act(member, .ring(ring.id, hosts: ring.hosts))
    }

    private func isQuorate(_ ring: SimulatedRing) -> Bool {
        ring.hosts.count * 2 > Int(hostCount)
    }

    private func tellQuorum(_ ring: SimulatedRing) {
        let isQuorate = isQuorate(ring)
        for member in living where ring.hosts.contains(member.address.host) {
            after(below(30)) {
                guard !member.isDead, self.rings[member.address.host] === ring else { return }
                self.act(member, .quorum(ring.id, isQuorate: isQuorate))
            }
        }
    }

    // MARK: Hearing

    private func hearNext(_ member: SimulatedProcess, _ ring: SimulatedRing) {
        let entry = ring.log[member.heard]
        member.heard += 1
        hear(entry, member)
    }

    private func hear(_ entry: SimulatedRing.Entry, _ member: SimulatedProcess) {
        if member.isDead { return }
        switch entry {
        case .message(let message, let speaker): act(member, .delivered(message, from: speaker))
        case .came(let newcomer, let all):
            member.known = newcomer == member.address ? all : (member.known + [newcomer]).sorted()
            act(member, .configured(member.known, joined: [newcomer]))
            if newcomer == member.address, let ring = rings[newcomer.host] {
                act(member, .ring(ring.id, hosts: ring.hosts))
            }
        case .went(let gone):
            guard member.known.contains(gone) else { return }
            member.known.removeAll { $0 == gone }
            act(member, .configured(member.known, joined: []))
        }
    }

    func after(_ steps: Int, _ action: @escaping () -> Void) {
        later.append((step + steps, action))
    }

    /// One thing happens.
    func advance() throws {
        step += 1
        let due = later.filter { $0.at <= step }
        later.removeAll { $0.at <= step }
        for item in due { item.action() }
        if !isFormed, below(12) == 0 { reform() }
        guard !living.isEmpty else { return }
        let member = living[below(living.count)]
        guard let ring = rings[member.address.host] else { return }
        if below(2) == 0, !member.outbox.isEmpty {
            ring.log.append(.message(member.outbox.removeFirst(), member.address))
        } else if member.heard < ring.log.count {
            hearNext(member, ring)
        }
        for member in living { begin(member) }
        try checkWriters()
    }

    /// All that is under way has arrived.
    var isQuiet: Bool {
        isFormed && later.isEmpty
            && living.allSatisfy { member in
                member.outbox.isEmpty && member.heard == rings[member.address.host]!.log.count
            }
    }

    // MARK: Acting

    func act(_ member: SimulatedProcess, _ event: AgreementEvent) {
        var effects: [AgreementEffect] = []
        member.machine.handle(event, &effects)
        for effect in effects { carryOut(effect, member) }
    }

    private func carryOut(_ effect: AgreementEffect, _ member: SimulatedProcess) {
        switch effect {
        case .say(let message):
            if case .quorate(let inspection) = message { checkEra(inspection.ring, member) }
            member.outbox.append(message)
        case .apply(let view, _): apply(view, member)
        case .permit: break
        case .joined(let life):
            member.life = life
            count("joined")
            note("\(member.address) is \(life)")
        case .inspect(let ring):
            after(below(40)) {
                guard !member.isDead else { return }
                let found = self.remains.keys.sorted().map {
                    Remains(member: $0, host: self.remains[$0]!)
                }
                self.act(member, .inspected(Inspection(ring: ring, remains: found)))
            }
        case .grace(let ring):
            after(below(80)) { if !member.isDead { self.act(member, .graceOver(ring)) } }
        case .refused: after(below(60)) { self.wish(member) }
        case .left:
            member.isStopped = true
            member.leftAmong = rings[member.address.host]?.members ?? []
            note(
                "\(member.address) has left, \(member.life.map { "\($0) \($0.incarnation % 1000)" } ?? "")"
            )
            count("left")
            after(below(20)) { self.end(member) }
        case .expelled(let why):
            member.isExpelled = true
            count("expelled")
            note("\(member.address) expelled: \(why)")
            // Its slot was given away twice (A5).
            let isSlotTaken = why.hasPrefix("somebody") && !member.hasBegun
            if !member.wasApart, !isSlotTaken, member.life.map(suspects.contains) != true {
                fail("G4: \(member.address) was always with the quorum, and is expelled: \(why)")
            }
            after(below(100)) {
                guard !member.isDead else { return }
                member.isStopped = true
                self.act(member, .withdrew)
                self.after(50 + self.below(200)) { self.end(member) }
            }
        case .fence(let life, let host, let isHostHere):
            checkFence(life, member)
            note("\(member.address) fences \(life) \(life.incarnation % 1000)")
            member.fencing[life] = (host, isHostHere)
            after(below(80)) { self.fence(life, for: member) }
        case .stopFencing(let life): member.fencing[life] = nil
        case .report(let text): note("\(member.address): \(text)")
        }
    }

    private func fence(_ life: Member, for member: SimulatedProcess) {
        guard !member.isDead, let order = member.fencing[life] else { return }
        if below(4) == 0 {
            count("agent failed")
            return after(20 + below(80)) { self.fence(life, for: member) }
        }
        if order.isHostHere {
            if let victim = living.first(where: { $0.life == life }) { end(victim) }
        } else {
            switchOff(order.host)
        }
        count("fenced")
        act(member, .fenced(life, order.isHostHere ? .ownHost : .agent))
    }

    // MARK: Coming and going

    func wish(_ member: SimulatedProcess) {
        guard !member.isDead, !member.isExpelled, member.life == nil else { return }
        let wish = JoinWish(
            incarnation: UInt64.random(in: 1...UInt64.max, using: &dice),
            place: MemberPlace(
                process: member.address,
                hostName: "h\(member.address.host)",
                addresses: []
            ),
            slot: nil,
            slotCount: slotCount
        )
        act(member, .wantsToJoin(wish))
    }

    func start(on host: UInt32) {
        guard side[host]! != nil, let ring = rings[host], living.count < slotCount else { return }
        nextProcess += 1
        let member = SimulatedProcess(GroupProcess(host: host, process: nextProcess))
        member.wasApart = !isQuorate(ring)
        processes.append(member)
        ring.members = (ring.members + [member.address]).sorted()
        ring.log.append(.came(member.address, ring.members))
        member.heard = ring.log.count - 1
        let isQuorate = isQuorate(ring)
        after(below(20)) {
            guard !member.isDead, self.rings[host] === ring else { return }
            self.act(member, .quorum(ring.id, isQuorate: isQuorate))
        }
        after(below(40)) { self.wish(member) }
    }

    /// A process ends, whatever it was doing.
    func end(_ member: SimulatedProcess) {
        guard !member.isDead else { return }
        member.isDead = true
        count("ended")
        note("\(member.address) ends")
        guard let ring = rings[member.address.host], side[member.address.host]! != nil else {
            return
        }
        ring.members.removeAll { $0 == member.address }
        ring.log.append(.went(member.address))
    }

    func leave(_ member: SimulatedProcess) {
        guard member.mayWrite, !member.isExpelled, !member.isLeaving else { return }
        // Its last write has returned, and said on the device that its life is over.
        if let life = member.life { remains[life] = nil }
        member.isLeaving = true
        member.isStopped = true
        act(member, .wantsToLeave)
    }

    func switchOff(_ host: UInt32) {
        guard side[host]! != nil else { return }
        for member in living where member.address.host == host {
            member.isDead = true
            note("\(member.address) loses power")
        }
        side[host] = .some(nil)
        rings[host] = nil
        count("switched off")
    }

    func switchOn(_ host: UInt32) {
        guard side[host]! == nil else { return }
        side[host] = .some(below(2) == 0 ? 0 : 1)
    }

    /// The network falls apart, or together.
    func cut(_ parts: Int) {
        for host in 1...hostCount where side[host]! != nil { side[host] = .some(below(parts)) }
        note("network: \((1...hostCount).map { "\($0):\(side[$0]!.map(String.init) ?? "off")" })")
    }

    /// Somebody wants it to end.
    func suspect(_ life: Member, by member: SimulatedProcess) {
        suspects.append(life)
        act(member, .suspected(life, .asked))
    }

    // MARK: What must be true

    private func fail(_ what: @autoclosure () -> String) { violation = violation ?? what() }

    private func checkEra(_ id: RingID, _ member: SimulatedProcess) {
        guard let ring = rings[member.address.host], ring.id == id else { return }
        if !isQuorate(ring) { fail("G3: \(member.address) calls ring \(id.sequence) quorate") }
    }

    private func checkFence(_ life: Member, _ member: SimulatedProcess) {
        guard let ring = rings[member.address.host] else { return }
        if !isQuorate(ring) { fail("G3: \(member.address) fences \(life) without a quorum") }
        let victim = processes.first { $0.life == life }
        if let victim, victim.leftAmong.contains(member.address), !victim.wasApart,
            !member.wasApart,
            !suspects.contains(life)
        {
            fail("G4: \(life) has left, and \(member.address) fences it")
        }
    }

    /// G5
    private func checkAgreement() {
        for (index, one) in living.enumerated() where one.machine.isSettled {
            guard let ring = rings[one.address.host] else { continue }
            for other in living[..<index]
            where other.machine.isSettled && rings[other.address.host] === ring
                && other.heard == one.heard && other.machine.state != one.machine.state
            {
                fail("G5: \(one.address) and \(other.address) have heard the same")
            }
            guard let state = one.machine.state, let life = one.life, one.machine.isActive,
                !one.isExpelled, !one.isStopped, state.record.contains(life),
                !state.isDoomed(life), !state.awaitsStrangers
            else { continue }
            if one.view != nil,
                one.view?.epoch != state.record.epoch || one.view?.members != state.record.members
            {
                fail(
                    "G5: \(one.address) acts on \(one.view.map { "\($0)" } ?? "") in \(state.record.view)"
                )
            }
        }
    }

    private func apply(_ view: ClusterView, _ member: SimulatedProcess) {
        count("views")
        note("\(member.address) applies \(view), \(view.slotsToReplay.count) to replay")
        for other in processes where other !== member {
            guard let life = other.life, other.mayWrite, !view.members.contains(life) else {
                continue
            }
            let wasIn = member.view?.members.contains(life) ?? (other.birth < view.epoch)
            if wasIn { fail("G1: \(member.address) goes on without \(life), which may write") }
        }
        if let before = member.view, view.epoch <= before.epoch {
            fail("\(member.address): a view that is not newer")
        }
        if member.view == nil { member.birth = view.epoch }
        member.view = view
        if view.coordinator == member.life?.node, !view.slotsToReplay.isEmpty {
            after(below(60)) {
                guard !member.isDead, !member.isStopped else { return }
                for gone in self.remains.keys where !view.members.contains(gone) {
                    self.remains[gone] = nil
                }
                self.act(member, .replayed(view.epoch))
            }
        }
    }

    /// A life begins to write when all members have its view, and the network is what it believes it to be.
    private func begin(_ member: SimulatedProcess) {
        guard !member.hasBegun, !member.isExpelled, let view = member.view, let life = member.life,
            member.machine.mayBegin, isFormed
        else { return }
        let others = view.members.filter { $0 != life }
        let haveIt = others.allSatisfy { other in
            living.contains { $0.life == other && $0.view == view }
        }
        guard haveIt else { return }
        member.hasBegun = true
        if let old = remains.keys.first(where: { $0.node == life.node }),
            !view.slotsToReplay.contains(life.node.slot)
        {
            fail("G2: \(life) begins where \(old) has left something")
        }
        remains[life] = member.address.host
        count("begun")
    }

    private var violation: String?

    private func checkWriters() throws {
        checkAgreement()
        if let violation { throw GroupViolation(description: violation) }
        let writers = living.filter(\.mayWrite).compactMap(\.life)
        guard Set(writers.map(\.node)).count == writers.count else {
            throw GroupViolation(description: "G2: two writers in one slot: \(writers)")
        }
    }
}

extension SimulatedGroup {
    /// How everybody stands, for a failure.
    var standing: String {
        living.map { member in
            let machine = member.machine
            return
                "\(member.address): life \(member.life.map(\.description) ?? "none"), expelled \(member.isExpelled), "
                + "stopped \(member.isStopped), settled \(machine.isSettled), active \(machine.isActive), "
                + "permitted \(machine.isPermitted), doomed \(machine.state?.doomed.count ?? -1), "
                + "says \(member.outbox.count)"
        }.joined(separator: "\n") + "\nformed \(isFormed), quiet \(isQuiet)"
    }

    /// Nobody is doomed, expelled and still there, or on the way in.
    var isSettledDown: Bool {
        living.allSatisfy { member in
            !member.isExpelled && !member.isStopped && member.machine.state?.doomed.isEmpty == true
                && (member.life != nil) && member.machine.isActive
        }
    }
}
