// The exhaustive search on configurations that take seconds; `lockstep-lockcheck search` has the
// large ones. The numbers of states are compared because a search that finds fewer has stopped
// looking: change them with the machine, after thinking about why they changed.

import LockWorld
import Testing

struct SearchTests {
    @Test(
        "Every state of a small cluster",
        arguments: [
            ("quick", 3000), ("leave-small", 3000), ("cached", 9000), ("move-small", 30000),
        ]
    )
    func everyState(name: String, atLeast: Int) throws {
        let plan = try #require(SearchPlan.all.first { $0.name == name })
        var search = Search(plan)
        let report = search.run()
        #expect(report.violation == nil, "\(report.story.joined(separator: "\n"))")
        #expect(report.isComplete)
        #expect(report.states >= atLeast && report.quiescent > 50, "\(report.summary)")
    }

    @Test("A limit ends a search")
    func limit() throws {
        let plan = try #require(SearchPlan.all.first { $0.name == "pair" })
        var search = Search(plan, stateLimit: 500)
        let report = search.run()
        #expect(!report.isComplete && report.states >= 500 && report.violation == nil)
    }

    @Test("A path is told as a scenario that can be run")
    func story() throws {
        let plan = try #require(SearchPlan.all.first { $0.name == "quick" })
        for seed in 0..<UInt64(20) {
            let lines = Search.walk(plan, seed: seed, length: 40)
            let commands = lines.filter { !$0.hasPrefix("#") }
            #expect(commands.count > 10)
            _ = try ScenarioWorld().run(commands)
        }
    }
}
