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
            for seed in seeds where failures < 5 {
                let program = ProgramWriter.program(seed: seed)
                let real = try onMount(program)
                let model = try ModelKernelSide.run(program, seed: seed, following: real)
                if let report = KernelComparison(program, real, model).report(seed: seed) {
                    failures += 1
                    Issue.record("\(report)")
                }
            }
        }

        private func onMount(_ program: [KernelStep]) throws -> [StepOutcome] {
            var outcomes: [StepOutcome] = []
            try withMount { mount in
                outcomes = try RealKernelSide(mount).run(program)
            }
            return outcomes
        }
    }
}
