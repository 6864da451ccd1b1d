// A lane: one thread of an agent that does one workload, and what workloads have in common: calls that are
// timed, noted and judged by their errno, claims, announcements, meetings, doubts.

import CLinux
import Glibc
import LinuxSystem
import StressJudging
import Vocabulary

/// Why a step did not come to its end.
enum StressFailure: Error {
    /// A call failed in a way that the workload does not expect.
    case system(call: String, key: StressKey, code: Int32)
    /// The run ends, or the mount has gone away.
    case ended
}

/// What a workload does.
protocol StressWork: AnyObject {
    /// Makes and opens its files. Again when the mount is back.
    func open() throws(StressFailure)
    /// One turn.
    func step() throws(StressFailure)
    /// Looks at everything while nobody changes anything.
    func verify() throws(StressFailure)
    /// Gives locks back: after a step that failed, and after the last one.
    func rest() throws(StressFailure)
    /// Gives descriptors and mappings back. Any number of times.
    func close()
}

extension StressWork {
    func rest() throws(StressFailure) {}
}

/// One thread's part of an agent.
final class StressLane: @unchecked Sendable {
    // Sendable: figures are guarded by `latch`; the rest is the lane's thread's, or the keeper's between
    // two of them.
    let agent: StressAgent
    let workload: StressWorkload
    let number: Int
    private(set) var work: any StressWork = IdleWork()
    var dice: SeededGenerator
    private let latch = Latch()
    private var latencies = StressLatencies()
    private var violations: UInt64 = 0
    private var losses: UInt64 = 0
    private var current: (call: String, key: StressKey, since: Tick)?
    /// The life of the mount in which this thread works.
    private(set) var epoch: UInt64 = 0
    private var isOpen = false
    private var nextTurn = Tick(0)

    init(_ agent: StressAgent, _ workload: StressWorkload, _ number: Int) {
        self.agent = agent
        self.workload = workload
        self.number = number
        let lane = UInt64(agent.plan.agent) << 16 | UInt64(workload.rawValue) << 8 | UInt64(number)
        dice = SeededGenerator(seed: stressMix(agent.plan.seed, lane))
        work = workload.work(self)
    }

    /// The number of this agent.
    var me: Int { agent.plan.agent }
    var agents: Int { agent.plan.agents }
    var folder: Int32 { agent.mount.folder }
    /// Other agents whose writes may be seen half done, as they go through the same page cache.
    func sharesCache(with other: Int) -> Bool {
        guard agent.domains.indices.contains(other) else { return true }
        return agent.domains[other] == agent.domains[me]
    }

    // MARK: The thread

    func runSteps() {
        epoch = agent.latch.withLock { agent.epoch }
        guard lockstep_guard_thread() == 0 else {
            return agent.stop(for: "SIGBUS cannot be caught: \(errnoText(errno))")
        }
        isOpen = false
        _ = guarded { () throws(StressFailure) in
            try work.open()
            isOpen = true
        }
        guard isOpen else { return }
        while pace() {
            guard guarded({ () throws(StressFailure) in try work.step() }) else { break }
        }
        guard agent.latch.withLock({ agent.epoch == epoch }) else { return }
        _ = guarded { () throws(StressFailure) in try work.rest() }
    }

    func verify() {
        _ = lockstep_guard_thread()
        if isOpen {
            _ = guarded { () throws(StressFailure) in try work.verify() }
        } else {
            // Nobody shall wait for this one.
            let place = UInt64(workload.rawValue | Self.atTheEnd)
            agent.channel.send(StressMessage(.meet, [place, 0]))
        }
        work.close()
    }

    /// Runs a part of the work. False when the lane shall end.
    private func guarded(_ body: () throws(StressFailure) -> Void) -> Bool {
        do throws(StressFailure) {
            try body()
            return !mustEnd
        } catch {
            guard case .system(let call, let key, let code) = error else { return false }
            if isFatal(code) {
                latch.withLock { losses += 1 }
                agent.lose(epoch)
                return false
            }
            if code == ENOSPC || code == EDQUOT {
                agent.stop(for: "\(agent.path): no room (\(call))")
                return false
            }
            complain(key, "error: \(call) failed: \(errnoText(code))")
            do throws(StressFailure) {
                try work.rest()
            } catch {
                return false
            }
            return !mustEnd
        }
    }

    /// Whether an error means that the mount has gone away.
    func isFatal(_ code: Int32) -> Bool {
        StressMountPoint.fatal.contains(code) || (code == EIO && agent.mount.isLost)
    }

    var mustEnd: Bool {
        agent.latch.withLock { agent.isStopping || agent.epoch != epoch }
    }

    /// Waits for the next turn. False when the lane shall end.
    private func pace() -> Bool {
        let now = LinuxClock.monotonic
        let step = UInt64(1_000_000_000 / agent.plan.rate)
        let turn = max(nextTurn, now)
        nextTurn = turn.advanced(nanoseconds: step)
        return agent.latch.withLock {
            while !agent.isStopping, agent.epoch == epoch {
                if LinuxClock.monotonic >= turn { return true }
                _ = agent.pause.wait(agent.latch, until: turn)
            }
            return false
        }
    }

    // MARK: Calls

    /// Makes a call that returns a negative number and errno when it fails, and notes it.
    ///
    /// - Parameter allowed: errors that the workload expects; they are returned below zero.
    func call(
        _ what: String,
        _ key: StressKey,
        _ value: UInt64 = 0,
        allowing allowed: Set<Int32> = [],
        _ body: () -> Int
    ) throws(StressFailure) -> Int {
        let begin = LinuxClock.monotonic
        latch.withLock { current = (what, key, begin) }
        var result = body()
        var code = errno
        while result < 0, code == EINTR {
            result = body()
            code = errno
        }
        if result < 0 { result = -Int(code) }
        let end = LinuxClock.monotonic
        latch.withLock {
            current = nil
            latencies.note(nanoseconds: end.rawValue - begin.rawValue)
        }
        note(key, what, value, result)
        if result < 0, !allowed.contains(code) {
            throw .system(call: what, key: key, code: code)
        }
        return result
    }

    /// Notes something for those who want to understand a violation.
    func note(_ key: StressKey, _ what: String, _ value: UInt64, _ result: Int) {
        let time = LinuxClock.monotonic.rawValue - agent.began.rawValue
        let event = StressEvent(time: time, key: key, what: what, value: value, result: result)
        agent.latch.withLock { agent.histories[workload, default: StressHistory()].note(event) }
    }

    /// For the report: the numbers of `Keeper.tellEnd`, and the call that has not returned.
    func figures() -> ([UInt64], String?) {
        latch.withLock {
            let times = latencies.numbers
            let numbers =
                [
                    UInt64(workload.rawValue), latencies.count, violations, losses,
                    UInt64(times.count),
                ]
                + times
            let call = current.map { call in
                let seconds = (LinuxClock.monotonic.rawValue - call.since.rawValue) / 1_000_000_000
                return "\(call.call) of \(call.key) has not returned for \(seconds) s"
            }
            return (numbers, call)
        }
    }

    // MARK: Judging

    /// Tells of something that must not be (A3).
    func complain(_ key: StressKey, _ words: String) {
        note(key, "VIOLATION", 0, 0)
        guard agent.epochNow() == epoch else { return }
        latch.withLock { violations += 1 }
        agent.channel.send(StressMessage(.violation, [key.rawValue], texts: [words]))
    }

    func floor(_ key: StressKey) -> StressFloor {
        agent.latch.withLock { agent.claims.floor(key) }
    }

    func ceiling(_ key: StressKey) -> UInt64 {
        agent.latch.withLock { agent.claims.ceiling(key) }
    }

    /// Tells a version: one's own (soft until it is synced), or one of somebody else that was seen (firm).
    func claim(_ key: StressKey, _ version: UInt64, isFirm: Bool) {
        agent.latch.withLock {
            let isNews = agent.claims.note(key, version, by: me, isFirm: isFirm, epoch: epoch)
            guard isNews, agent.epoch == epoch || isFirm else { return }
            agent.channel.send(
                StressMessage(.claims, [key.rawValue, version, UInt64(me), isFirm ? 1 : 0, epoch])
            )
        }
    }

    /// Whether a version that was seen is late enough; complains if not, and claims it if it is.
    ///
    /// - Parameter claims: false if what was seen may be of a write that is under way.
    func judge(
        _ key: StressKey,
        _ version: UInt64,
        writer: Int,
        _ floor: StressFloor,
        _ how: String,
        claims: Bool = true
    ) {
        let verdict = floor.judge(version)
        note(key, how, floor.value, Int(truncatingIfNeeded: version))
        let words = "stale: \(how) saw version \(version) after \(floor.value)"
        if settle(verdict, floor, key, words), claims {
            claim(key, version, isFirm: writer != me)
        }
    }

    /// Follows a verdict through: true if all is well.
    func settle(_ verdict: StressVerdict, _ floor: StressFloor, _ key: StressKey, _ words: String)
        -> Bool
    {
        switch verdict {
        case .sound: return true
        case .stale: break
        case .staleUnless(let agents):
            if agent.plan.toleratesLoss, agents.allSatisfy({ hasLost($0, since: floor) }) {
                note(key, "excused by the loss of agent", UInt64(agents.first ?? 0), 0)
                return false
            }
        }
        complain(key, words)
        return false
    }

    /// Whether an agent has lost its mount since a floor was noted: it is asked itself.
    private func hasLost(_ other: Int, since floor: StressFloor) -> Bool {
        let before = floor.epochs[other]
        if other == me { return agent.epochNow() > before }
        let ticket = takeTicket()
        agent.channel.send(StressMessage(.doubt, [ticket, UInt64(other)]))
        let answer = waitFor(ignoringStop: true) { agent.answers.removeValue(forKey: ticket) }
        // The end of everything comes before the answer: nothing can be said.
        return answer.map { $0 > before } ?? true
    }

    private func takeTicket() -> UInt64 {
        agent.latch.withLock {
            defer { agent.nextTicket += 1 }
            return agent.nextTicket
        }
    }

    /// Waits for something that the receiver brings; nil when the run ends or the mount has gone away first.
    private func waitFor<Answer>(ignoringStop: Bool = false, _ body: () -> Answer?) -> Answer? {
        agent.latch.withLock {
            while !agent.hasEnded, ignoringStop || (!agent.isStopping && agent.epoch == epoch) {
                if let found = body() { return found }
                agent.answered.wait(agent.latch)
            }
            return nil
        }
    }

    // MARK: With the others

    /// Announces versions and waits until every agent has heard of them.
    func announce(_ versions: [(key: StressKey, version: UInt64)]) throws(StressFailure) {
        let ticket = takeTicket()
        agent.latch.withLock {
            for (key, version) in versions { agent.claims.announce(key, version) }
        }
        for (key, version) in versions { note(key, "announce", version, 0) }
        let numbers = versions.flatMap { [$0.key.rawValue, $0.version] }
        agent.channel.send(StressMessage(.announce, [ticket] + numbers))
        guard waitFor({ agent.agreed.remove(ticket) }) != nil else { throw .ended }
    }

    /// Comes to a meeting of all agents, waits for the others, and returns what each has brought.
    ///
    /// - Parameter place: the workload, or another number below 256.
    func meet(_ place: UInt8, _ round: UInt64, _ numbers: [UInt64]) throws(StressFailure)
        -> [(agent: Int, numbers: [UInt64])]
    {
        agent.channel.send(StressMessage(.meet, [UInt64(place), round] + numbers))
        let meeting = StressAgent.Meeting(place: place, round: round)
        guard let met = waitFor({ agent.meetings.removeValue(forKey: meeting) }) else {
            throw .ended
        }
        var found: [(agent: Int, numbers: [UInt64])] = []
        var at = 2
        while at + 1 < met.numbers.count {
            let count = Int(met.numbers[at + 1])
            guard at + 2 + count <= met.numbers.count else { break }
            found.append((Int(met.numbers[at]), Array(met.numbers[at + 2..<at + 2 + count])))
            at += 2 + count
        }
        return found
    }

    /// Asks in which round of a place this agent may come back to the meetings.
    func join(_ place: UInt8) throws(StressFailure) -> UInt64 {
        agent.channel.send(StressMessage(.join, [UInt64(place)]))
        guard let round = waitFor({ agent.joined.removeValue(forKey: place) }) else { throw .ended }
        return round
    }
}

/// What a lane has before it has work.
private final class IdleWork: StressWork {
    func open() throws(StressFailure) {}
    func step() throws(StressFailure) {}
    func verify() throws(StressFailure) {}
    func close() {}
}

extension StressWorkload {
    /// Threads of an agent that do it.
    var lanes: Int { self == .registers ? 2 : 1 }

    func work(_ lane: StressLane) -> any StressWork {
        switch self {
        case .registers: RegisterWork(lane)
        case .logs: LogWork(lane)
        case .names: NameWork(lane)
        case .mmap: MappingWork(lane)
        case .flock: FlockWork(lane)
        case .ranges: RangeWork(lane)
        case .sizes: SizeWork(lane)
        case .directories: DirectoryWork(lane)
        case .pingpong: PingPongWork(lane)
        }
    }
}
