// The course of a run: agents are started, work, stop, verify, and are gone.

import CLinux
import Glibc
import LinuxSystem
package import StressJudging
import Vocabulary

/// Where an agent works.
package enum StressPlace: Hashable, Sendable, CustomStringConvertible {
    /// A directory of this host.
    case directory(String)
    /// An agent that listens on another.
    case remote(StressAddress)

    package var description: String {
        switch self {
        case .directory(let path): path
        case .remote(let address): "\(address)"
        }
    }
}

/// What the user has asked for.
package struct StressSettings: Sendable {
    package var places: [StressPlace]
    package var seconds: Int = 60
    package var seed: UInt64 = 1
    package var workloads: [StressWorkload] = StressWorkload.allCases
    package var rate = 200
    package var toleratesLoss = false
    package var rejoins = false
    package var checksIdentity = true
    package var patience = 60
    /// What remote agents demand.
    package var secret = ""
    /// A command of the shell that kills a mount, and seconds between two times.
    package var killCommand: String?
    package var killEvery = 20
    package var keepsFiles = false

    package init(places: [StressPlace]) { self.places = places }
}

extension StressCoordinator {
    /// Bytes that must be free.
    private static let room: UInt64 = 64 << 20

    /// Runs everything.
    ///
    /// - Returns: what was found; with `trouble` if it is not everything.
    /// - Throws: `StressTrouble` when the run cannot begin.
    package func run() throws(StressTrouble) -> StressReport {
        defer { dismiss() }
        try begin()
        let start = LinuxClock.monotonic
        latch.withLock {
            tellAll(StressMessage(.go, peers.map { $0.ready?.number(1) ?? 0 }))
        }
        work(until: start.advanced(milliseconds: UInt64(settings.seconds) * 1000))
        let end = LinuxClock.monotonic
        latch.withLock {
            report.milliseconds = (end.rawValue - start.rawValue) / 1_000_000
            tellAll(StressMessage(.stop))
        }
        waitForAll("stop")
        latch.withLock {
            for number in peers.indices { peers[number].hasStopped = false }
            tellAll(StressMessage(.verify))
        }
        waitForAll("verify")
        return latch.withLock {
            for (number, peer) in peers.enumerated() {
                guard let figures = peer.figures, report.add(figures.numbers, of: number) else {
                    report.trouble =
                        report.trouble ?? "agent \(number) (\(peer.name)) tells no figures"
                    continue
                }
            }
            return report
        }
    }

    // MARK: Beginning

    private func begin() throws(StressTrouble) {
        var plan = StressPlan()
        plan.agents = settings.places.count
        plan.seed = settings.seed
        plan.run = Self.freshNumber()
        plan.folder = "lockstep-stress-" + hexadecimal(plan.run, digits: 16)
        plan.rate = settings.rate
        plan.toleratesLoss = settings.toleratesLoss
        plan.rejoins = settings.rejoins
        plan.checksIdentity = settings.checksIdentity
        plan.patience = settings.patience
        plan.workloads = settings.workloads
        for (number, place) in settings.places.enumerated() {
            try start(number, place)
        }
        // The first makes the folder that the others look for.
        for number in settings.places.indices {
            plan.agent = number
            latch.withLock { peers[number].channel.send(plan.message) }
            try waitForReady(number)
        }
    }

    private static func freshNumber() -> UInt64 {
        var number: UInt64 = 0
        let count = getrandom(&number, 8, 0)
        precondition(count == 8, "getrandom: \(errnoText(errno))")
        return number
    }

    private func start(_ number: Int, _ place: StressPlace) throws(StressTrouble) {
        var process: pid_t?
        let descriptor: Int32
        var directory: String?
        switch place {
        case .directory(let path):
            let (mine, its) = try StressSockets.pair()
            defer { close(its) }
            do throws(SystemError) {
                process = try StressProgram.startAgent(its, directory: path)
            } catch {
                throw StressTrouble("\(error)")
            }
            descriptor = mine
            directory = path
        case .remote(let address):
            descriptor = try StressProgram.call(address, secret: settings.secret)
        }
        do throws(SystemError) {
            let channel = try StressChannel(descriptor)
            latch.withLock {
                peers.append(
                    Peer(
                        name: "\(place)",
                        channel: channel,
                        process: process,
                        directory: directory
                    )
                )
            }
            let thread = try runThread(name: "agent \(number)") { [self] in listen(to: number) }
            thread.detach()
        } catch {
            throw StressTrouble("\(error)")
        }
    }

    private func waitForReady(_ number: Int) throws(StressTrouble) {
        let deadline = LinuxClock.monotonic.advanced(milliseconds: UInt64(settings.patience) * 1000)
        let (ready, isGone) = latch.withLock {
            while peers[number].ready == nil, !peers[number].isGone,
                changed.wait(latch, until: deadline)
            {}
            return (peers[number].ready, peers[number].isGone)
        }
        let name = settings.places[number]
        guard let ready else {
            throw StressTrouble("\(name): the agent \(isGone ? "has ended" : "does not answer")")
        }
        guard ready.number(0) == 1 else { throw StressTrouble(ready.text(0)) }
        guard ready.number(2) >= Self.room else {
            throw StressTrouble(
                "\(name): \(ready.number(2) >> 20) MiB are free, \(Self.room >> 20) are needed"
            )
        }
    }

    // MARK: Working

    /// Until the time is over, or somebody interrupts, or something makes it useless to go on.
    private func work(until deadline: Tick) {
        var dice = SeededGenerator(seed: stressMix(settings.seed, 0x4B49_4C4C))
        let interval = UInt64(settings.killEvery) * 1000
        var nextKill = LinuxClock.monotonic.advanced(milliseconds: interval)
        while true {
            let next = settings.killCommand == nil ? deadline : min(deadline, nextKill)
            let isOver = latch.withLock { () -> Bool in
                while report.trouble == nil, !isInterrupted, !peers.contains(where: \.isGone),
                    LinuxClock.monotonic < next
                {
                    _ = changed.wait(latch, until: next)
                }
                if let gone = peers.firstIndex(where: \.isGone), report.trouble == nil {
                    report.trouble = "agent \(gone) (\(peers[gone].name)) has gone away"
                }
                return report.trouble != nil || isInterrupted || LinuxClock.monotonic >= deadline
            }
            guard !isOver, let command = settings.killCommand else { return }
            kill(dice.below(settings.places.count), command)
            nextKill = LinuxClock.monotonic.advanced(milliseconds: interval)
        }
    }

    /// Runs the command that kills a mount, and waits until its agent works again.
    private func kill(_ agent: Int, _ command: String) {
        let words = ["-c", command, "lockstep-stress", settings.places[agent].description]
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO)
        let code: Int32
        do throws(SystemError) {
            code = waitForProgram(try startProgram("/bin/sh", words, &actions))
        } catch {
            return trouble("the kill command: \(error)")
        }
        guard code == 0 else {
            return trouble("the kill command for \(settings.places[agent]) ended with \(code)")
        }
        guard settings.rejoins else { return }
        let deadline = LinuxClock.monotonic.advanced(milliseconds: UInt64(settings.patience) * 1000)
        let isBack = latch.withLock {
            while report.trouble == nil, !isInterrupted, peers[agent].isLost,
                changed.wait(latch, until: deadline)
            {}
            return !peers[agent].isLost || isInterrupted || report.trouble != nil
        }
        if !isBack { trouble("\(settings.places[agent]) has not come back after the kill command") }
    }

    // MARK: Ending

    /// Waits until every agent has told its figures. What hangs is a violation: calls come back.
    private func waitForAll(_ what: String) {
        let patience = UInt64(settings.patience) * 1000 + 20_000
        let deadline = LinuxClock.monotonic.advanced(milliseconds: patience)
        latch.withLock {
            while peers.contains(where: { !$0.hasStopped && !$0.isGone }),
                changed.wait(latch, until: deadline)
            {}
            for (number, peer) in peers.enumerated() {
                if !peer.hasStopped, report.trouble == nil {
                    report.trouble = "agent \(number) (\(peer.name)) did not \(what)"
                }
                // What hung when it should stop hangs on, and is told once.
                if peer.hasHung { continue }
                peers[number].hasHung = !peer.hanging.isEmpty
                for call in peer.hanging {
                    report.violationCount += 1
                    report.violations.append(
                        StressViolation(
                            agent: number,
                            key: StressKey(rawValue: 0),
                            words: "hangs: \(call)",
                            agents: peers.count
                        )
                    )
                }
            }
        }
    }

    /// Lets all agents go; one removes the files, unless they are needed to look at.
    private func dismiss() {
        let (all, removes) = latch.withLock {
            (peers, !settings.keepsFiles && report.violationCount == 0)
        }
        var hasRemover = false
        for peer in all where !peer.isGone {
            let isRemover = removes && !peer.isLost && (!hasRemover || !settings.checksIdentity)
            if isRemover { hasRemover = true }
            peer.channel.send(StressMessage(.bye, [isRemover ? 1 : 0]))
        }
        let deadline = LinuxClock.monotonic.advanced(milliseconds: 30_000)
        latch.withLock {
            while peers.contains(where: { !$0.isGone }), changed.wait(latch, until: deadline) {}
        }
        for peer in all {
            peer.channel.close()
            guard let process = peer.process else { continue }
            StressProgram.end(process)
        }
    }
}
