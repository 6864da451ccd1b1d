// lockstep: the administrator's command. Most sub-commands ask the daemons of a volume and show
// what they say; `inspect` looks at the device itself.

import ArgumentParser

/// The command itself.
struct Lockstep: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lockstep",
        abstract: "Looks after Lockstep volumes.",
        subcommands: [
            Status.self, Locks.self, Trace.self, Dump.self, Sync.self, ScrubCommand.self,
            FreezeCommand.self, ThawCommand.self, QuotaCommand.self, Inspect.self,
        ]
    )
}

/// In a function, so that the `main` that waits is taken.
private func runLockstep() async { await Lockstep.main() }

await runLockstep()
