import Fencing
import Testing
import Vocabulary

@Suite struct FenceMachineTests {
    private func plan(_ text: String) throws -> FencePlan {
        try #require(try FencingConfiguration(text: "host h\n\(text)").plan(for: "h"))
    }

    /// What is done, in words; each `run` is answered by the next of `outcomes`.
    private func play(_ plan: FencePlan, _ outcomes: [AgentOutcome]) -> [String] {
        var machine = FenceMachine(plan)
        var effects: [FenceEffect] = []
        var done: [String] = []
        var rest = outcomes[...]
        machine.begin(&effects)
        while !effects.isEmpty {
            let effect = effects.removeFirst()
            switch effect {
            case .run(let device, let action):
                done.append("\(device.agent) \(action)")
                guard let outcome = rest.popFirst() else { return done }
                machine.ended(outcome, &effects)
            case .wait(let time):
                done.append("wait \(time / 1_000_000_000)")
                machine.resume(&effects)
            case .fenced(let level): done.append("fenced by level \(level)")
            case .report(let text): done.append(text)
            }
        }
        return done
    }

    private let off = AgentOutcome.exited(0, "")
    private let isOff = AgentOutcome.exited(2, "Status: OFF")
    private let isOn = AgentOutcome.exited(0, "Status: ON")

    @Test func oneAgentThatWorks() throws {
        #expect(
            play(try plan("level 1 a"), [off, isOff]) == ["a off", "a status", "fenced by level 1"]
        )
        #expect(play(try plan("level 1 a verify=no"), [off]) == ["a off", "fenced by level 1"])
        #expect(
            play(try plan("level 1 a action=reboot"), [off]) == ["a reboot", "fenced by level 1"]
        )
    }

    @Test func bothOutletsMustBeOff() throws {
        let plan = try plan("level 1 a\nlevel 1 b attempts=1\nlevel 2 c")
        #expect(
            play(plan, [off, isOff, off, isOff])
                == ["a off", "a status", "b off", "b status", "fenced by level 1"]
        )
        #expect(
            play(plan, [off, isOff, .tookTooLong, off, isOff]) == [
                "a off", "a status", "b off",
                "fencing h, level 1: b took too long and was ended", "c off", "c status",
                "fenced by level 2",
            ]
        )
    }

    /// An agent that lies, one that fails and says why, and one that is not there; then from the start.
    @Test func whatFailsIsTriedAgainForEver() throws {
        let plan = try plan("level 1 a\nlevel 2 b attempts=1")
        let failures: [AgentOutcome] = [
            off, isOn, .exited(1, "no route"), .failed("no such file"),
        ]
        #expect(
            play(plan, failures + [off, isOff]) == [
                "a off", "a status",
                "fencing h, level 1: a said that h is off, but its status is on", "wait 1",
                "a off", "fencing h, level 1: a failed with exit code 1: no route", "b off",
                "fencing h, level 2: b did not run: no such file",
                "h could not be fenced by any level, 1 times: whatever it may hold waits",
                "wait 5", "a off", "a status", "fenced by level 1",
            ]
        )
    }

    /// A status that cannot be had is no success.
    @Test func anUnknownStatusIsAFailure() throws {
        #expect(
            play(try plan("level 1 a attempts=1"), [off, .exited(1, "timeout"), off, isOff]) == [
                "a off", "a status", "fencing h, level 1: a failed with exit code 1: timeout",
                "h could not be fenced by any level, 1 times: whatever it may hold waits",
                "wait 5", "a off", "a status", "fenced by level 1",
            ]
        )
    }

    @Test func whoeverIsStoppedSaysNothingMore() throws {
        var machine = FenceMachine(try plan("level 1 a"))
        var effects: [FenceEffect] = []
        machine.begin(&effects)
        machine.stop()
        effects = []
        machine.ended(off, &effects)
        machine.resume(&effects)
        #expect(effects.isEmpty)
    }

    /// F1: whatever agents say, fenced is said only after all of one level were off, one after the other.
    @Test(arguments: 1...200 as ClosedRange<UInt64>)
    func fencedIsNeverSaidTooEarly(seed: UInt64) throws {
        var dice = SeededGenerator(seed: seed)
        var text = ""
        for level in 1...(1 + dice.below(3)) {
            for device in 0...dice.below(3) {
                text += "level \(level) l\(level)d\(device) attempts=\(1 + dice.below(3))"
                text += dice.oneIn(4) ? " verify=no\n" : "\n"
            }
        }
        let plan = try plan(text)
        var machine = FenceMachine(plan)
        var effects: [FenceEffect] = []
        var succeeded: [String] = []
        var isFenced = false
        machine.begin(&effects)
        while !isFenced {
            switch effects.removeFirst() {
            case .run(let device, let action):
                #expect(!effects.contains { if case .run = $0 { true } else { false } }, "F3")
                let outcome: AgentOutcome =
                    dice.oneIn(3)
                    ? [.exited(1, ""), .tookTooLong, .failed("x")][dice.below(3)]
                    : .exited(action == "status" && !dice.oneIn(5) ? 2 : 0, "")
                let isOff =
                    action == "status"
                    ? outcome == .exited(2, "") : !device.isVerified && outcome == .exited(0, "")
                if isOff {
                    succeeded.append(device.agent)
                } else if action == "status" || outcome != .exited(0, "") {
                    succeeded.removeAll { $0 == device.agent }
                }
                machine.ended(outcome, &effects)
            case .wait: machine.resume(&effects)
            case .fenced(let level):
                isFenced = true
                let needed = try #require(plan.levels.first { $0.number == level })
                #expect(succeeded.suffix(needed.devices.count) == needed.devices.map(\.agent)[...])
            case .report: break
            }
        }
        #expect(machine.phase == .ended)
    }
}
