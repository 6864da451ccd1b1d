// What must be the same on a real kernel and on the model of it, and what need not.

import Vocabulary

/// Two runs of one program.
struct KernelComparison {
    private let program: [KernelStep]
    private let real: [StepOutcome]
    private let model: [StepOutcome]

    init(_ program: [KernelStep], _ real: [StepOutcome], _ model: [StepOutcome]) {
        self.program = program
        self.real = real
        self.model = model
    }

    /// The first difference, with all that led to it; nil if there is none.
    func report(seed: UInt64) -> String? {
        for number in program.indices {
            guard let complaint = complaint(number) else { continue }
            var lines = ["seed \(seed), step \(number): \(complaint)"]
            for earlier in 0...number {
                lines.append("  \(earlier) \(program[earlier])")
                lines.append("      real  \(describe(real[earlier]))")
                lines.append("      model \(describe(model[earlier]))")
            }
            return lines.joined(separator: "\n")
        }
        return nil
    }

    private func describe(_ outcome: StepOutcome) -> String {
        outcome.result + " | "
            + outcome.requests.map { "\($0.kind)(\($0.node) \($0.what))" }.joined(separator: " ")
    }

    private func complaint(_ number: Int) -> String? {
        if real[number].result != model[number].result { return "the results differ" }
        let realCounts = Self.counts(real[number].requests)
        let modelCounts = Self.counts(model[number].requests)
        let modelOnly = modelCounts.filter { $0.value > realCounts[$0.key] ?? 0 }
        if !modelOnly.isEmpty {
            return "the model must ask, the real kernel need not: \(texts(modelOnly))"
        }
        let realOnly = realCounts.filter { $0.value > modelCounts[$0.key] ?? 0 }
        if !realOnly.isEmpty {
            return "the real kernel asks, the model does not: \(texts(realOnly))"
        }
        return nil
    }

    private func texts(_ counts: [RecordedRequest: Int]) -> [String] {
        counts.map { "\($0.key.kind)(\($0.key.node) \($0.key.what)) \($0.value)" }.sorted()
    }

    /// Requests that mean the same count as the same.
    static func counts(_ requests: [RecordedRequest]) -> [RecordedRequest: Int] {
        var counts: [RecordedRequest: Int] = [:]
        for request in requests {
            switch request.kind {
            case .getExtended where request.what == "security.capability":
                // Asked before a truncation, kept by nobody: it changes nothing that is cached.
                continue
            case .fill, .writeBack:
                // How pages are gathered into requests is the kernel's choice.
                for page in request.pages ?? 0..<0 {
                    var one = request
                    one.what = "page \(page)"
                    counts[one] = 1
                }
            case .readDirectory:
                // So is how many names fit into one.
                counts[request] = 1
            default: counts[request, default: 0] += 1
            }
        }
        return counts
    }
}
