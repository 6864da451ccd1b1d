import ArgumentParser

/// `lockstep-lockcheck`: proofs and trials of the lock manager alone.
@main
struct LockCheck: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lockstep-lockcheck",
        abstract:
            "Checks the lock manager alone: random histories, and every state of small clusters.",
        discussion: """
            Exit code 0 when everything passed, 1 when something failed, 64 for wrong arguments.
            """,
        subcommands: [RandomCheck.self, SearchCheck.self, ScenarioCheck.self, ScaleReport.self]
    )
}
