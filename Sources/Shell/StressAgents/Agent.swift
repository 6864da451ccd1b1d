// An agent: works in one directory, and tells the coordinator what it knows and what it sees.
//
// Threads: one receives (C1: it never waits for anybody), one looks after the lanes, each lane works. The
// receiver notes what comes under `latch`; lanes wait there for answers.
//
// A1  A version that others announced is noted before they are told that this agent has heard it.
// A2  A loss is told once for each life of the mount, and no lane works before the mount is back.
// A3  What seems wrong on a mount that has gone away is no violation: a kernel may still show what it has
//     cached of it. So a violation is told only when the mount answers after it was seen.

import CLinux
import Glibc
import LinuxSystem
import StressJudging
import Vocabulary

/// One agent of a run, for as long as the run is.
package final class StressAgent: @unchecked Sendable {
    // Sendable: what changes is guarded by `latch`.
    let plan: StressPlan
    let channel: StressChannel
    let path: String
    let began = LinuxClock.monotonic
    let latch = Latch()
    /// An answer has come, or the end.
    let answered = WaitCondition()
    /// Lanes shall not go on, or one has ended.
    let pause = WaitCondition()

    var mount: StressMountPoint
    var claims: StressClaims
    /// The life of this agent's mount.
    var epoch: UInt64 = 0
    var isLost = false
    var isStopping = false
    var isVerifying = false
    var hasEnded = false
    var nextTicket: UInt64 = 1
    var agreed: Set<UInt64> = []
    var answers: [UInt64: UInt64] = [:]
    var meetings: [Meeting: StressMessage] = [:]
    var joined: [UInt8: UInt64] = [:]
    var domains: [UInt64] = []
    var histories: [StressWorkload: StressHistory] = [:]
    var lanes: [StressLane] = []
    var activeLanes = 0

    struct Meeting: Hashable {
        var place: UInt8
        var round: UInt64
    }

    init(_ plan: StressPlan, _ channel: StressChannel, _ mount: StressMountPoint) {
        self.plan = plan
        self.channel = channel
        self.mount = mount
        path = mount.path
        claims = StressClaims(agents: plan.agents)
    }

    /// Serves one run over a connected socket, and returns when it is over.
    package static func serve(_ descriptor: Int32, directory: String) throws {
        let channel = try StressChannel(descriptor)
        guard let first = try channel.receive() else { return }
        guard let plan = StressPlan(first) else {
            throw StressTrouble("the coordinator's plan is not understood")
        }
        guard lockstep_catch_bus_errors() == 0 else { throw SystemError.last("sigaction") }
        let mount: StressMountPoint
        do throws(StressTrouble) {
            let creates = plan.agent == 0 || !plan.checksIdentity
            mount = try StressMountPoint(directory, plan: plan, creates: creates)
        } catch {
            channel.send(StressMessage(.ready, [0], texts: ["\(error)"]))
            channel.finish()
            return
        }
        let agent = StressAgent(plan, channel, mount)
        channel.send(StressMessage(.ready, [1, mount.domain, mount.free]))
        let keeper = try runThread(name: "keeper") { agent.keepLanes() }
        do throws(StressWireError) {
            while let message = try channel.receive() { agent.take(message) }
        } catch {
            complain("lockstep-stress: \(error)")
        }
        agent.end()
        // Lanes whose calls hang are left behind.
        keeper.detach()
    }

    static func complain(_ line: String) {
        let bytes = Array((line + "\n").utf8)
        // Nobody is told when nobody reads.
        _ = Glibc.write(STDERR_FILENO, bytes, bytes.count)
    }

    private func end() {
        latch.withLock {
            hasEnded = true
            isStopping = true
            answered.broadcast()
            pause.broadcast()
        }
    }

    // MARK: What comes

    private func take(_ message: StressMessage) {
        switch message.kind {
        case .claims: noteClaims(message)
        case .announced: noteAnnouncement(message)
        case .agreed: answer { agreed.insert(message.number(0)) }
        case .lostAgent:
            latch.withLock { claims.lose(Int(message.number(0)), epoch: message.number(1)) }
        case .probe: probe(message)
        case .answered: answer { answers[message.number(0)] = message.number(1) }
        case .met:
            let place = UInt8(truncatingIfNeeded: message.number(0))
            answer { meetings[Meeting(place: place, round: message.number(1))] = message }
        case .joined:
            answer { joined[UInt8(truncatingIfNeeded: message.number(0))] = message.number(1) }
        case .history: tellHistory(message)
        case .go:
            latch.withLock {
                domains = message.numbers
                pause.broadcast()
            }
        case .stop:
            answer {
                isStopping = true
                pause.broadcast()
            }
        case .verify: answer { isVerifying = true }
        case .bye:
            if message.number(0) == 1 { removeFiles() }
            channel.close()
        default: Self.complain("lockstep-stress: a message of kind \(message.kind) is ignored")
        }
    }

    private func answer(_ body: () -> Void) {
        latch.withLock {
            body()
            answered.broadcast()
        }
    }

    /// Five numbers each: object, version, agent, whether it is firm, life of the agent's mount.
    private func noteClaims(_ message: StressMessage) {
        latch.withLock {
            for at in stride(from: 0, to: message.numbers.count - 4, by: 5) {
                claims.note(
                    StressKey(rawValue: message.numbers[at]),
                    message.numbers[at + 1],
                    by: Int(message.numbers[at + 2]),
                    isFirm: message.numbers[at + 3] == 1,
                    epoch: message.numbers[at + 4]
                )
            }
        }
    }

    /// Agent, ticket, then object and version each (A1).
    private func noteAnnouncement(_ message: StressMessage) {
        latch.withLock {
            for at in stride(from: 2, to: message.numbers.count - 1, by: 2) {
                claims.announce(StressKey(rawValue: message.numbers[at]), message.numbers[at + 1])
            }
        }
        channel.send(StressMessage(.heard, [message.number(0), message.number(1)]))
    }

    /// Somebody has seen less than we said, and asks whether our mount is still the same. In a thread of its
    /// own, as a mount may take its time to say.
    private func probe(_ message: StressMessage) {
        let answer: @Sendable () -> Void = { [self] in
            let epoch = epochNow()
            channel.send(StressMessage(.probed, [message.number(0), message.number(1), epoch]))
        }
        do throws(SystemError) {
            try runThread(name: "probe", answer).detach()
        } catch {
            // No room for a thread: somebody waits for the answer all the same.
            answer()
        }
    }

    /// The life of this mount; asked of the mount itself.
    func epochNow() -> UInt64 {
        let (mount, epoch, wasLost) = latch.withLock { (self.mount, self.epoch, isLost) }
        if !wasLost, mount.isLost { lose(epoch) }
        return latch.withLock { self.epoch }
    }

    private func tellHistory(_ message: StressMessage) {
        let key = StressKey(rawValue: message.number(1))
        let lines = latch.withLock { () -> [String] in
            guard let workload = key.workload, let history = histories[workload] else { return [] }
            return history.lines(of: key, last: 12)
        }
        channel.send(StressMessage(.events, [message.number(0)], texts: lines))
    }

    /// Removes the run's folder and everything in it; what cannot be removed is left.
    private func removeFiles() {
        let mount = latch.withLock { self.mount }
        StressFolder.remove(plan.folder, in: mount.root)
    }

    // MARK: Loss

    /// Notes that the mount of a life has gone away (A2).
    func lose(_ life: UInt64) {
        latch.withLock {
            guard epoch == life, !isLost else { return }
            isLost = true
            epoch += 1
            claims.lose(plan.agent, epoch: epoch)
            channel.send(StressMessage(.lost, [epoch]))
            answered.broadcast()
            pause.broadcast()
        }
    }

    /// Something outside makes it impossible to go on: ends the run.
    func stop(for trouble: String) {
        channel.send(StressMessage(.trouble, texts: [trouble]))
    }
}
