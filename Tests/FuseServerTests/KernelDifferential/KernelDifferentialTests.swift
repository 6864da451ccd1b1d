import FileSystem
import Glibc
import LinuxSystem
import Testing
import Vocabulary

extension MountedTests {
    /// The model of the kernel against the kernel: the same programs on a real mount and on the
    /// model, in front of the same file system (Docs/SIMULATION.md, "The kernel model").
    @Suite(.serialized) struct KernelDifferential {
        /// Of all seeds that run in a normal test run.
        private var seeds: ClosedRange<UInt64> {
            let text = getenv("LOCKSTEP_KERNEL_SEEDS").map { String(cString: $0) } ?? ""
            let parts = text.split(separator: ".", omittingEmptySubsequences: true)
                .compactMap { UInt64($0) }
            switch parts.count {
            case 1: return 1...max(parts[0], 1)
            case 2 where parts[0] <= parts[1]: return parts[0]...parts[1]
            default: return 1...150
            }
        }

        @Test func programsLeadToTheSame() throws {
            var failures = 0
            var reached = ProgramsReached()
            for seed in seeds where failures < 5 {
                let program = ProgramWriter.program(seed: seed)
                let real = try onMount(program)
                reached.add(program, real)
                let model = try ModelKernelSide.run(program, seed: seed, following: real)
                if let report = KernelComparison(program, real, model).report(seed: seed) {
                    failures += 1
                    Issue.record("\(report)")
                }
            }
            if seeds.count >= 100, failures == 0 { expectVariety(reached) }
        }

        /// What other tests start inherits no file of these programs.
        @Test func programsAreAloneWhileProcessesStart() throws {
            nonisolated(unsafe) var isOver = false
            nonisolated(unsafe) var started = 0
            let latch = Latch()
            let starting = try runThread(name: "starting") {
                while !latch.withLock({ isOver }) {
                    var child = pid_t()
                    let name = strdup("true")
                    defer { free(name) }
                    guard posix_spawn(&child, "/bin/true", nil, nil, [name, nil], environ) == 0
                    else { continue }
                    waitpid(child, nil, 0)
                    latch.withLock { started += 1 }
                }
            }
            defer { starting.join() }
            defer { latch.withLock { isOver = true } }
            for seed in UInt64(1)...20 {
                let program = ProgramWriter.program(seed: seed)
                let real = try onMount(program)
                let model = try ModelKernelSide.run(program, seed: seed, following: real)
                if let report = KernelComparison(program, real, model).report(seed: seed) {
                    Issue.record("\(report)")
                }
            }
            #expect(latch.withLock { started } > 20)
        }

        /// What never happens is not compared.
        private func expectVariety(_ reached: ProgramsReached) {
            let missing = RecordedRequest.Kind.allCases.filter { !reached.requests.contains($0) }
            #expect(missing.isEmpty, "no program led to these requests: \(missing)")
            let failing = reached.steps.subtracting(reached.successes)
            #expect(failing.isEmpty, "no program did these with success: \(failing)")
            #expect(reached.unasked > 100, "hardly anything is answered from a cache")
        }

        private func onMount(_ program: [KernelStep]) throws -> [StepOutcome] {
            var outcomes: [StepOutcome] = []
            try withOwnFileTable {
                try withMount(limit: 300, configure: keepsNames) { mount in
                    outcomes = try RealKernelSide(mount).run(program)
                }
            }
            return outcomes
        }
    }
}

/// What programs have met.
struct ProgramsReached {
    private(set) var requests: Set<RecordedRequest.Kind> = []
    /// Kinds of steps, and those that did what they are for.
    private(set) var steps: Set<String> = []
    private(set) var successes: Set<String> = []
    /// Calls that no request answered.
    private(set) var unasked = 0

    /// A program that was run.
    mutating func add(_ program: [KernelStep], _ outcomes: [StepOutcome]) {
        for (step, outcome) in zip(program, outcomes) {
            requests.formUnion(outcome.requests.map(\.kind))
            guard step.isCall, outcome.result != "-" else { continue }
            let name = String("\(step)".prefix { $0 != "(" })
            steps.insert(name)
            let failures = ["notFound", "exists", "notEmpty", "invalid", "isDirectory", "error"]
            if failures.contains(where: { outcome.result.hasPrefix($0) }) { continue }
            successes.insert(name)
            if outcome.requests.isEmpty { unasked += 1 }
        }
    }
}
