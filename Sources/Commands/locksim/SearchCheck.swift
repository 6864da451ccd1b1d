import ArgumentParser
import LockWorld

/// `lockstep-lockcheck search`: every state of a small cluster.
struct SearchCheck: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "search",
        abstract: "Checks every state that a small cluster of lock managers can reach.",
        discussion: """
            The configurations:

            \(SearchPlan.all.map { "  \($0.name): \($0.summary)" }.joined(separator: "\n"))
            """
    )

    @Option(help: "The configuration by name, or all.")
    var config: String

    @Option(help: "Stop after about so many states.")
    var limit: Int?

    @Option(help: "The number of the first resource: moves the directory entries.")
    var firstName: UInt64?

    @Option(help: "Operations of each client, instead of what the configuration says; 0: any.")
    var operations: Int?

    @Flag(help: "Tell how far the search is.")
    var progress = false

    func validate() throws {
        guard config == "all" || SearchPlan.all.contains(where: { $0.name == config }) else {
            let names = SearchPlan.all.map(\.name).joined(separator: ", ")
            throw ValidationError("--config is all or one of \(names)")
        }
    }

    func run() throws {
        var hasFailed = false
        for var plan in SearchPlan.all where config == "all" || plan.name == config {
            if let firstName { plan.firstName = firstName }
            if let operations { plan.operationsPerNode = operations == 0 ? nil : operations }
            print("\(plan.name): \(plan.bounds)")
            var search = Search(plan, stateLimit: limit ?? .max)
            let report = search.run(progress: progress ? { print("  \($0.summary)") } : nil)
            if let violation = report.violation {
                hasFailed = true
                print("\(plan.name): FAILED after \(report.summary): \(violation)")
                print(report.story.joined(separator: "\n"))
            } else {
                let end = report.isComplete ? "ok, complete" : "stopped by the limit"
                print("\(plan.name): \(end), \(report.summary)")
            }
        }
        if hasFailed { throw ExitCode(1) }
    }
}
