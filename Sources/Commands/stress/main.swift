// lockstep-stress: does several mount points show one file system? Agents work in all of them at once and check
// everything that they read.

import ArgumentParser

/// The command itself.
struct Stress: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lockstep-stress",
        abstract:
            "Works in several mount points of one file system at once and checks what it reads.",
        subcommands: [StressRun.self, StressAgentCommand.self],
        defaultSubcommand: StressRun.self
    )
}

Stress.main()
