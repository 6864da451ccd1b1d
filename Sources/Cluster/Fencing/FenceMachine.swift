// Fencing one host: which agents run, one after the other, until it is certain that the host is off. Values only; the
// shell runs the agents and tells how they ended.
//
//   level 1: agent, agent ─▶ all off? ─▶ fenced
//                │ one has failed too often
//                ▼
//   level 2 ... the last level has failed ─▶ a pause, and level 1 again, for ever
//
// Invariants
// F1. Fenced is said once, and only after every agent of one level has succeeded in one go through it, each verified if
//     that is asked for; or after an administrator has vouched for it.
// F2. An agent that was ended because it took too long has failed, whatever it said.
// F3. At most one agent runs at a time for one host: two that switch the same outlet could undo each other.
// F4. What has failed is said, with the agent's last line, and tried again; fencing never gives up, and nothing goes on without it.
//
// Source: fence-agents' convention (FenceAgentAPI.md): exit code 0 is success, and of `status` 0 is on and 2 is off.

import Vocabulary

/// How an agent ended.
package enum AgentOutcome: Hashable, Sendable {
    /// With an exit code, and the last line it wrote.
    case exited(Int32, String)
    /// It was ended after its time (F2).
    case tookTooLong
    /// It could not be started, or was ended by a signal.
    case failed(String)
}

/// One thing to do.
package enum FenceEffect: Hashable, Sendable {
    /// Run an agent with an action (`off`, `reboot`, `status`); tell how it ended.
    case run(FenceDevice, action: String)
    /// Call `resume` after so many nanoseconds.
    case wait(UInt64)
    /// The host is off (F1).
    case fenced(level: UInt32)
    /// Say it to the administrator.
    case report(String)
}

/// The fencing of one host. See the head of this file.
package struct FenceMachine: Sendable {
    /// What is being waited for.
    package enum Phase: Hashable, Sendable {
        /// Nothing was begun.
        case idle
        /// An agent runs.
        case acting
        /// Its `status` runs.
        case verifying
        /// Everything has failed, or one agent is tried again soon.
        case pausing
        /// Done, or given up by whoever asked for it.
        case ended
    }

    /// The ways there are.
    package let plan: FencePlan
    /// What is being waited for.
    package private(set) var phase = Phase.idle
    /// Nanoseconds between two attempts of one agent.
    package static let shortPause: UInt64 = 1_000_000_000
    /// Nanoseconds after the last level has failed.
    package static let longPause: UInt64 = 5_000_000_000

    private var level = 0
    private var device = 0
    private var attempt: UInt32 = 1
    private var rounds = 0

    /// Fencing by a plan.
    package init(_ plan: FencePlan) {
        precondition(
            !plan.levels.isEmpty && plan.levels.allSatisfy { !$0.devices.isEmpty },
            "Fencing: a plan without an agent"
        )
        self.plan = plan
    }

    private var current: FenceDevice { plan.levels[level].devices[device] }

    /// Begins.
    package mutating func begin(_ effects: inout [FenceEffect]) {
        precondition(phase == .idle, "Fencing F1: begun twice")
        act(&effects)
    }

    /// A pause is over.
    package mutating func resume(_ effects: inout [FenceEffect]) {
        if phase == .pausing { act(&effects) }
    }

    /// Nobody asks any more, or an administrator has vouched for it. An agent that runs may end by itself.
    package mutating func stop() { phase = .ended }

    /// The agent that runs has ended.
    package mutating func ended(_ outcome: AgentOutcome, _ effects: inout [FenceEffect]) {
        switch (phase, outcome) {
        case (.ended, _): return
        case (.acting, .exited(0, _)):
            if current.action == .off, current.isVerified {
                phase = .verifying
                effects.append(.run(current, action: "status"))
            } else {
                succeed(&effects)
            }
        case (.verifying, .exited(2, _)): succeed(&effects)
        case (.verifying, .exited(0, _)):
            fail("said that \(plan.host) is off, but its status is on", &effects)
        case (.acting, _), (.verifying, _): fail(Self.text(outcome), &effects)
        case (.idle, _), (.pausing, _):
            preconditionFailure("Fencing F3: an agent ended that was not running")
        }
    }

    private static func text(_ outcome: AgentOutcome) -> String {
        switch outcome {
        case .exited(let code, let line):
            "failed with exit code \(code)" + (line.isEmpty ? "" : ": \(line)")
        case .tookTooLong: "took too long and was ended"
        case .failed(let why): "did not run: \(why)"
        }
    }

    private mutating func act(_ effects: inout [FenceEffect]) {
        phase = .acting
        effects.append(.run(current, action: current.action.rawValue))
    }

    private mutating func succeed(_ effects: inout [FenceEffect]) {
        attempt = 1
        device += 1
        if device < plan.levels[level].devices.count { return act(&effects) }
        phase = .ended
        effects.append(.fenced(level: plan.levels[level].number))
    }

    private mutating func fail(_ why: String, _ effects: inout [FenceEffect]) {
        let number = plan.levels[level].number
        effects.append(.report("fencing \(plan.host), level \(number): \(current.agent) \(why)"))
        phase = .pausing
        if attempt < current.attempts {
            attempt += 1
            return effects.append(.wait(Self.shortPause))
        }
        // The whole of the next level, or of the first (F1).
        attempt = 1
        device = 0
        level += 1
        if level < plan.levels.count { return act(&effects) }
        level = 0
        rounds += 1
        effects.append(
            .report(
                "\(plan.host) could not be fenced by any level, \(rounds) times: whatever it may hold waits"
            )
        )
        effects.append(.wait(Self.longPause))
    }
}
