// What a run has found.

package import Vocabulary

/// Something that a coherent file system does not do.
package struct StressViolation: Hashable, Sendable {
    /// The agent that noticed it.
    package var agent: Int
    package var key: StressKey
    package var words: String
    /// Of each agent, what it did to the object lately.
    package var history: [[String]]

    package init(agent: Int, key: StressKey, words: String, agents: Int) {
        self.agent = agent
        self.key = key
        self.words = words
        history = .init(repeating: [], count: agents)
    }
}

/// What a run has found.
package struct StressReport: Hashable, Sendable {
    /// What one agent did of one workload, in all its lanes.
    package struct Line: Hashable, Sendable {
        package var workload: StressWorkload
        package var agent: Int
        package var operations: UInt64 = 0
        package var violations: UInt64 = 0
        /// Calls that failed with their mount.
        package var losses: UInt64 = 0
        package var latencies = StressLatencies()

        package init(workload: StressWorkload, agent: Int) {
            self.workload = workload
            self.agent = agent
        }
    }

    package var seed: UInt64
    package var milliseconds: UInt64 = 0
    /// Where each agent works.
    package var agents: [String]
    package var lines: [Line] = []
    /// The first ones.
    package var violations: [StressViolation] = []
    package var violationCount: UInt64 = 0
    /// How often each agent has lost its mount.
    package var losses: [UInt64]
    /// Why the run ended before its time, or could not be judged.
    package var trouble: String?

    package init(seed: UInt64, agents: [String]) {
        self.seed = seed
        self.agents = agents
        losses = .init(repeating: 0, count: agents.count)
    }

    /// Adds what an agent tells of its lanes: `Keeper.tellEnd`.
    ///
    /// - Returns: whether it was understood.
    package mutating func add(_ numbers: [UInt64], of agent: Int) -> Bool {
        var at = 0
        while at < numbers.count {
            guard numbers.count - at >= 5, let code = UInt8(exactly: numbers[at]),
                let workload = StressWorkload(rawValue: code), numbers[at + 4] < 1000,
                numbers.count - at - 5 >= Int(numbers[at + 4])
            else { return false }
            let end = at + 5 + Int(numbers[at + 4])
            guard let times = StressLatencies(numbers: numbers[at + 5..<end]) else { return false }
            var line = Line(workload: workload, agent: agent)
            let place = lines.firstIndex { $0.workload == workload && $0.agent == agent }
            if let place { line = lines[place] }
            line.operations += numbers[at + 1]
            line.violations += numbers[at + 2]
            line.losses += numbers[at + 3]
            line.latencies.add(times)
            if let place { lines[place] = line } else { lines.append(line) }
            at = end
        }
        return true
    }

    /// All operations of all agents.
    package var operations: UInt64 { lines.reduce(0) { $0 + $1.operations } }

    private func rate(_ count: UInt64) -> UInt64 { count * 1000 / max(1, milliseconds) }

    private static func milliseconds(_ nanoseconds: UInt64) -> String {
        let hundredths = (nanoseconds + 5000) / 10_000
        let part = String(hundredths % 100)
        return "\(hundredths / 100)." + (part.count < 2 ? "0" : "") + part
    }

    private static func pad(_ text: String, _ width: Int, left: Bool = false) -> String {
        let blanks = String(repeating: " ", count: max(0, width - text.count))
        return left ? text + blanks : blanks + text
    }

    // MARK: For people

    /// The report in lines.
    package var text: String {
        var text = agents.enumerated().map { number, name in
            "agent \(number): \(name)"
                + (losses[number] > 0 ? ", lost its mount \(losses[number]) times" : "")
        }
        let titles = ["operations", "per s", "p50 ms", "p99 ms", "max ms", "violations"]
        text.append(
            Self.pad("workload", 12, left: true) + Self.pad("agent", 5)
                + titles.map { Self.pad($0, 12) }.joined()
        )
        for line in lines.sorted(by: Self.isBefore) {
            let cells = [
                String(line.operations), String(rate(line.operations)),
                Self.milliseconds(line.latencies.within(500)),
                Self.milliseconds(line.latencies.within(990)),
                Self.milliseconds(line.latencies.longest), String(line.violations),
            ]
            text.append(
                Self.pad(line.workload.name, 12, left: true) + Self.pad(String(line.agent), 5)
                    + cells.map { Self.pad($0, 12) }.joined()
            )
        }
        for violation in violations { text += Self.lines(of: violation) }
        if UInt64(violations.count) < violationCount {
            text.append(
                "\(violationCount - UInt64(violations.count)) more violations are not shown"
            )
        }
        if let trouble { text.append("the run did not come to its end: \(trouble)") }
        text.append(
            "seed \(seed): \(violationCount) violations in \(operations) operations of \(agents.count) "
                + "agents in \(milliseconds / 1000) s (\(rate(operations)) per s)"
        )
        return text.joined(separator: "\n")
    }

    private static func isBefore(_ left: Line, _ right: Line) -> Bool {
        (left.workload.rawValue, left.agent) < (right.workload.rawValue, right.agent)
    }

    private static func lines(of violation: StressViolation) -> [String] {
        var lines = [
            "VIOLATION \(violation.key), seen by agent \(violation.agent): \(violation.words)"
        ]
        for (agent, history) in violation.history.enumerated() where !history.isEmpty {
            lines.append("  agent \(agent) lately (its own clock):")
            lines += history.map { "    \($0)" }
        }
        return lines
    }

    // MARK: For scripts

    /// The report as one object.
    package var json: JSONText {
        .object([
            .init("seed", .number(seed)),
            .init("milliseconds", .number(milliseconds)),
            .init("operations", .number(operations)),
            .init("violationCount", .number(violationCount)),
            .init("trouble", trouble.map { .string($0) } ?? .null),
            .init(
                "agents",
                .array(
                    agents.enumerated().map { number, name in
                        .object([
                            .init("name", .string(name)), .init("losses", .number(losses[number])),
                        ])
                    }
                )
            ),
            .init("workloads", .array(lines.sorted(by: Self.isBefore).map(json))),
            .init("violations", .array(violations.map(Self.json))),
        ])
    }

    private func json(_ line: Line) -> JSONText {
        .object([
            .init("workload", .string(line.workload.name)),
            .init("agent", .number(UInt64(line.agent))),
            .init("operations", .number(line.operations)),
            .init("perSecond", .number(rate(line.operations))),
            .init("violations", .number(line.violations)),
            .init("failedWithMount", .number(line.losses)),
            .init("p50Nanoseconds", .number(line.latencies.within(500))),
            .init("p99Nanoseconds", .number(line.latencies.within(990))),
            .init("maxNanoseconds", .number(line.latencies.longest)),
        ])
    }

    private static func json(_ violation: StressViolation) -> JSONText {
        .object([
            .init("workload", .string(violation.key.workload?.name ?? "run")),
            .init("object", .string(violation.key.description)),
            .init("agent", .number(UInt64(violation.agent))),
            .init("what", .string(violation.words)),
            .init("history", .array(violation.history.map { .array($0.map { .string($0) }) })),
        ])
    }
}
