// Many seeds on all cores: a process for each core, so that a run that traps, or never ends, takes nothing
// with it but its own seed.

import Execution
import Glibc
import LinuxSystem
import SimulatedWorld
import Synchronization
import Vocabulary

/// How one run ended, for another process.
struct RunResult {
    var seed: UInt64
    var report = SimulationReport()
    /// Why it failed; nil if it did not.
    var failure: String?
    /// The arguments that make it again.
    var arguments: String

    var json: JSONText {
        .object([
            .init("seed", .number(seed)), .init("report", report.json),
            .init("failure", failure.map { .string($0) } ?? .null),
            .init("arguments", .string(arguments)),
        ])
    }

    init(seed: UInt64, arguments: String) {
        self.seed = seed
        self.arguments = arguments
    }

    /// Nil if it is no such line.
    init?(_ line: String) {
        guard let json = try? JSONText(parsing: line), let report = json["report"],
            case .string(let arguments)? = json["arguments"]
        else { return nil }
        seed = json.number("seed")
        self.report = SimulationReport(report)
        self.arguments = arguments
        if case .string(let text)? = json["failure"] { failure = text }
    }
}

/// Runs the plans of many seeds in worker processes.
final class SeedWorkers: @unchecked Sendable {
    // Sendable: everything that changes is guarded by `latch`.
    private let latch = Latch()
    private var next: UInt64
    private let last: UInt64
    private let plan: @Sendable (UInt64) -> SimulationPlan
    private let arguments: [String]
    private let settings: Settings
    private(set) var total = SimulationReport()
    private(set) var passed = 0
    private(set) var failed = 0
    /// Of each probe: how many runs reached it, and the lowest seed of them.
    private(set) var reaching = Probe.allCases.map { _ in (runs: 0, seed: UInt64.max) }

    /// How seeds are run.
    struct Settings {
        /// Real seconds that one run may take.
        var limit = 300
        /// No seed is begun after one has failed.
        var endsAtFailure = false
    }

    /// What was asked of a node that is dead is never answered, so what such a task holds stays in memory:
    /// some MiB for each run. After so many runs a worker makes room for another.
    private static let runsOfWorker = 32

    /// `arguments`: what makes this program a worker with the same plans.
    init(
        _ seeds: ClosedRange<UInt64>,
        arguments: [String],
        settings: Settings,
        plan: @escaping @Sendable (UInt64) -> SimulationPlan
    ) {
        next = seeds.lowerBound
        last = seeds.upperBound
        self.plan = plan
        self.arguments = arguments
        self.settings = settings
    }

    /// Runs all seeds; returns when the last one has ended.
    func run(processes: Int, showsProgress: Bool) throws {
        let begin = monotonicSeconds()
        let threads = try (0..<processes).map { _ in
            try runThread(name: "worker") { [self] in work() }
        }
        let isDone = Atomic(false)
        let progress = try runThread(name: "progress") { [self] in
            while showsProgress, !isDone.load(ordering: .acquiring) {
                say(begin)
                poll(nil, 0, 1_000)
            }
        }
        for thread in threads { thread.join() }
        isDone.store(true, ordering: .releasing)
        progress.join()
        if showsProgress { Self.tell("\r\u{1B}[K") }
    }

    private func say(_ begin: Double) {
        let (done, failed, time) = latch.withLock {
            (passed + self.failed, self.failed, total.virtualTime)
        }
        let rate = Double(done) / max(0.001, monotonicSeconds() - begin)
        Self.tell(
            "\r\u{1B}[K\(done) seeds, \(failed) failed, \(Int(rate)) a second, "
                + "\(time / 1_000_000_000) s of virtual time"
        )
    }

    /// To standard error.
    private static func tell(_ text: String) {
        let bytes = Array(text.utf8)
        _ = write(STDERR_FILENO, bytes, bytes.count)  // Nobody needs it.
    }

    private func take() -> UInt64? {
        latch.withLock {
            guard next <= last, failed == 0 || !settings.endsAtFailure else { return nil }
            next += 1
            return next - 1
        }
    }

    /// One worker after the other, until there are no seeds.
    private func work() {
        var worker: ChildProcess?
        var runs = 0
        while let seed = take() {
            if runs == Self.runsOfWorker {
                _ = worker?.end()
                worker = nil
            }
            do {
                let current = try worker ?? ChildProcess("\(ownFolder)/\(ownName)", arguments)
                runs = worker == nil ? 1 : runs + 1
                worker = current
                if let failure = ask(current, seed) {
                    worker = nil
                    fail(seed, failure)
                }
            } catch {
                fail(seed, "\(error)")
            }
        }
        _ = worker?.end()
    }

    /// Has a worker run a seed. Returns nil if it told how that ended, else why it did not; it is gone then.
    private func ask(_ worker: ChildProcess, _ seed: UInt64) -> String? {
        let isRunning = worker.write("\(seed)")
        if isRunning, !worker.says(within: Int32(settings.limit) * 1_000) {
            kill(worker.process, SIGKILL)
            _ = worker.end()
            return "no end after \(settings.limit) s"
        }
        if isRunning, let line = worker.readLine(), let result = RunResult(line) {
            record(result)
            return nil
        }
        return "the program ended with \(worker.end()); a broken invariant is told above"
    }

    private func fail(_ seed: UInt64, _ why: String) {
        var result = RunResult(seed: seed, arguments: plan(seed).arguments)
        result.failure = why
        record(result)
    }

    private func record(_ result: RunResult) {
        latch.withLock {
            guard let failure = result.failure else {
                passed += 1
                total.add(result.report)
                for probe in result.report.probes.probes(contained: true) {
                    reaching[probe.rawValue].runs += 1
                    reaching[probe.rawValue].seed = min(reaching[probe.rawValue].seed, result.seed)
                }
                return
            }
            failed += 1
            print("seed \(result.seed): FAILED: \(failure)")
            print("replay: lockstep-simulate \(result.arguments) --explain")
            fflush(nil)
        }
    }

    private var ownName: String {
        CommandLine.arguments[0].split(separator: "/").last.map(String.init) ?? "lockstep-simulate"
    }
}

/// Seconds of a clock that only grows.
func monotonicSeconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1_000_000_000
}
