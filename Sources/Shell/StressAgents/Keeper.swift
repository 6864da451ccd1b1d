// The thread of an agent that looks after its lanes: starts them, waits for their end, for the mount to come
// back, for the word to verify, and tells the end.

import CLinux
import Glibc
import LinuxSystem
import StressJudging
import Vocabulary

extension StressAgent {
    func keepLanes() {
        latch.withLock {
            while domains.isEmpty, !hasEnded { pause.wait(latch) }
            lanes = plan.workloads.flatMap { workload in
                (0..<workload.lanes).map { StressLane(self, workload, $0) }
            }
        }
        while !isOver() {
            guard runLanes() else { break }
            if latch.withLock({ isLost }), !isOver() {
                for lane in lanes { lane.work.close() }
                guard plan.rejoins, comeBack() else {
                    waitForStop()
                    break
                }
            }
        }
        waitForStop()
        tellEnd(.stopped)
        let mayVerify = latch.withLock { () -> Bool in
            while !isVerifying, !hasEnded { answered.wait(latch) }
            isStopping = hasEnded
            return !hasEnded
        }
        guard mayVerify else { return }
        if latch.withLock({ activeLanes == 0 && !isLost }) { verify() }
        tellEnd(.report)
    }

    private func isOver() -> Bool { latch.withLock { isStopping } }

    private func waitForStop() {
        latch.withLock { while !isStopping { pause.wait(latch) } }
    }

    /// Runs all lanes until each has ended. False when that is not in sight.
    private func runLanes() -> Bool {
        run { $0.runSteps() }
    }

    private func verify() { _ = run { $0.verify() } }

    private func run(_ body: @escaping @Sendable (StressLane) -> Void) -> Bool {
        for lane in lanes {
            latch.withLock { activeLanes += 1 }
            do {
                let thread = try runThread(name: lane.workload.name) { [self] in
                    body(lane)
                    latch.withLock {
                        activeLanes -= 1
                        pause.broadcast()
                    }
                }
                thread.detach()
            } catch {
                latch.withLock { activeLanes -= 1 }
                stop(for: "\(path): \(error)")
            }
        }
        return waitForLanes()
    }

    /// Waits for all lanes; after the word to stop, or a loss, not longer than the run's patience.
    private func waitForLanes() -> Bool {
        latch.withLock {
            var deadline: Tick?
            while activeLanes > 0 {
                guard isStopping || isLost || isVerifying else {
                    pause.wait(latch)
                    continue
                }
                let limit =
                    deadline
                    ?? LinuxClock.monotonic.advanced(milliseconds: UInt64(plan.patience) * 1000)
                deadline = limit
                if !pause.wait(latch, until: limit), activeLanes > 0 { return false }
            }
            return true
        }
    }

    /// Waits until the mount point shows the run's folder on another mount than before.
    private func comeBack() -> Bool {
        let table = lockstep_open("/proc/self/mountinfo", O_RDONLY, 0)
        defer { if table >= 0 { close(table) } }
        let old = latch.withLock { mount }
        while !isOver() {
            if let new = try? StressMountPoint(path, plan: plan, creates: false) {
                if new.device != old.device, !new.isLost {
                    old.close()
                    latch.withLock {
                        mount = new
                        isLost = false
                        channel.send(StressMessage(.back, [epoch]))
                    }
                    return true
                }
                new.close()
            }
            // The table of mounts is "readable" when it has changed; a daemon may answer later than that.
            var change = pollfd(fd: table, events: Int16(POLLPRI), revents: 0)
            poll(&change, 1, 500)
        }
        return false
    }

    /// Tells the figures of each lane: workload, operations, violations, calls that failed with the mount; then
    /// the count of latency numbers and these. The texts are calls that have not returned.
    private func tellEnd(_ kind: StressMessage.Kind) {
        var numbers: [UInt64] = []
        var hanging: [String] = []
        for lane in latch.withLock({ lanes }) {
            let (part, call) = lane.figures()
            numbers += part
            if let call { hanging.append(call) }
        }
        channel.send(StressMessage(kind, numbers, texts: hanging))
    }
}
