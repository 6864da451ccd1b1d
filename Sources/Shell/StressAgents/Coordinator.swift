// The coordinator: starts agents, passes on what they say to each other, collects what they find.
//
// K1  What an agent sends is passed on in the order in which it came; so whoever is told something by one agent
//     is told first what that agent had said before.
// K2  An announcement is agreed when every agent that is connected has heard it. An agent whose mount has gone
//     away hears and answers as before: only its calls fail.
// K3  Whoever doubts is always answered, also when the agent in question is gone.
// K4  When an agent has gone away, the run ends: nobody knows what it did.

import CLinux
import Glibc
import LinuxSystem
import StressJudging
import Vocabulary

/// A run, seen from the coordinator.
package final class StressCoordinator: @unchecked Sendable {
    // Sendable: what changes is guarded by `latch`.

    /// An agent, as the coordinator knows it.
    struct Peer {
        /// What the user calls it.
        var name: String
        var channel: StressChannel
        var process: pid_t?
        /// The mount point, if the coordinator's host has it.
        var directory: String?
        var ready: StressMessage?
        var isLost = false
        var isGone = false
        var hasStopped = false
        var figures: StressMessage?
        /// Calls that have not returned.
        var hanging: [String] = []
        var hasHung = false
    }

    private struct Announcement: Hashable {
        var agent: Int
        var ticket: UInt64
    }

    /// Violations of each workload that are shown with what led to them.
    private static let shown = 20

    let settings: StressSettings
    let latch = Latch()
    let changed = WaitCondition()
    var peers: [Peer] = []
    var report: StressReport
    var isInterrupted = false
    private var unheard: [Announcement: Set<Int>] = [:]
    private var meetings: [UInt8: StressMeeting] = [:]

    package init(_ settings: StressSettings) {
        self.settings = settings
        report = StressReport(seed: settings.seed, agents: settings.places.map(\.description))
    }

    /// Ends the run before its time, in order.
    package func interrupt() {
        latch.withLock {
            isInterrupted = true
            changed.broadcast()
        }
    }

    /// Notes that the run cannot come to its end.
    func trouble(_ words: String) {
        latch.withLock {
            if report.trouble == nil { report.trouble = words }
            changed.broadcast()
        }
    }

    /// Reads what an agent says until it says no more.
    func listen(to agent: Int) {
        let channel = latch.withLock { peers[agent].channel }
        do throws(StressWireError) {
            while let message = try channel.receive() { take(message, from: agent) }
        } catch {
            trouble("agent \(agent) (\(settings.places[agent])): \(error)")
        }
        latch.withLock {
            peers[agent].isGone = true
            for announcement in unheard.keys { hear(announcement, by: agent) }
            leaveMeetings(agent)
            changed.broadcast()
        }
    }

    // MARK: What agents say

    private func take(_ message: StressMessage, from agent: Int) {
        latch.withLock {
            switch message.kind {
            case .ready: peers[agent].ready = message
            case .claims: tellOthers(message, than: agent)
            case .announce: announce(message, from: agent)
            case .heard:
                hear(
                    Announcement(agent: Int(message.number(0)), ticket: message.number(1)),
                    by: agent
                )
            case .lost: lose(agent, message)
            case .back: peers[agent].isLost = false
            case .doubt: doubt(message, of: agent)
            case .probed:
                let asker = Int(message.number(0))
                guard peers.indices.contains(asker) else { break }
                peers[asker].channel.send(
                    StressMessage(.answered, [message.number(1), message.number(2)])
                )
            case .meet: meet(message, agent)
            case .join:
                let place = UInt8(truncatingIfNeeded: message.number(0))
                use(place) { $0.join(agent, place: place) }
            case .violation: noteViolation(message, from: agent)
            case .events:
                let number = Int(message.number(0))
                guard report.violations.indices.contains(number) else { break }
                report.violations[number].history[agent] = message.texts
            case .stopped, .report:
                peers[agent].hasStopped = true
                peers[agent].figures = message
                peers[agent].hanging = message.texts
            case .trouble:
                if report.trouble == nil { report.trouble = message.text(0) }
            default: break
            }
            changed.broadcast()
        }
    }

    func tellAll(_ message: StressMessage) {
        for peer in peers where !peer.isGone { peer.channel.send(message) }
    }

    private func tellOthers(_ message: StressMessage, than agent: Int) {
        for (number, peer) in peers.enumerated() where number != agent && !peer.isGone {
            peer.channel.send(message)
        }
    }

    private func announce(_ message: StressMessage, from agent: Int) {
        let announcement = Announcement(agent: agent, ticket: message.number(0))
        let others = peers.indices.filter { $0 != agent && !peers[$0].isGone }
        unheard[announcement] = Set(others)
        tellOthers(StressMessage(.announced, [UInt64(agent)] + message.numbers), than: agent)
        if others.isEmpty { hear(announcement, by: agent) }
    }

    private func hear(_ announcement: Announcement, by agent: Int) {
        guard unheard[announcement] != nil else { return }
        unheard[announcement]?.remove(agent)
        guard unheard[announcement]?.isEmpty == true else { return }
        unheard[announcement] = nil
        peers[announcement.agent].channel.send(StressMessage(.agreed, [announcement.ticket]))
    }

    private func lose(_ agent: Int, _ message: StressMessage) {
        peers[agent].isLost = true
        report.losses[agent] += 1
        tellOthers(StressMessage(.lostAgent, [UInt64(agent), message.number(0)]), than: agent)
        leaveMeetings(agent)
        if !settings.toleratesLoss, report.trouble == nil {
            report.trouble = "\(settings.places[agent]) has gone away"
        }
    }

    private func doubt(_ message: StressMessage, of agent: Int) {
        let owner = Int(message.number(1))
        guard peers.indices.contains(owner), !peers[owner].isGone else {
            peers[agent].channel.send(StressMessage(.answered, [message.number(0), .max]))
            return
        }
        peers[owner].channel.send(StressMessage(.probe, [UInt64(agent), message.number(0)]))
    }

    private func noteViolation(_ message: StressMessage, from agent: Int) {
        let key = StressKey(rawValue: message.number(0))
        report.violationCount += 1
        let known = report.violations.count { $0.key.workload == key.workload }
        guard known < Self.shown else { return }
        report.violations.append(
            StressViolation(agent: agent, key: key, words: message.text(0), agents: peers.count)
        )
        let number = UInt64(report.violations.count - 1)
        tellAll(StressMessage(.history, [number, key.rawValue]))
    }

    // MARK: Meetings

    private func meet(_ message: StressMessage, _ agent: Int) {
        let place = UInt8(truncatingIfNeeded: message.number(0))
        let numbers = Array(message.numbers.dropFirst(2))
        use(place) { $0.arrive(agent, message.number(1), numbers, place: place) }
    }

    private func leaveMeetings(_ agent: Int) {
        for place in meetings.keys { use(place) { $0.leave(agent, place: place) } }
    }

    /// Does something at a place where agents meet, and tells them what follows.
    private func use(_ place: UInt8, _ body: (inout StressMeeting) -> [StressMeeting.Result]) {
        let present = Set(peers.indices.filter { !peers[$0].isGone && !peers[$0].isLost })
        let parts: UInt64 = place & StressLane.atTheEnd == 0 ? NameWork.meetings : 1
        var meeting = meetings[place] ?? StressMeeting(members: present, parts: parts)
        let results = body(&meeting)
        meetings[place] = meeting
        for result in results {
            switch result {
            case .met(let message, let agents):
                for agent in agents { peers[agent].channel.send(message) }
            case .joined(let round, let agents):
                for agent in agents {
                    peers[agent].channel.send(StressMessage(.joined, [UInt64(place), round]))
                }
            }
        }
    }
}
