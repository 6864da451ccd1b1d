// lockstep: the administrator's command. Each sub-command asks the daemons of a volume and shows
// what they say.

import ArgumentParser

/// The command itself.
struct Lockstep: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lockstep",
        abstract: "Looks after mounted Lockstep volumes.",
        subcommands: [Status.self, Locks.self, Trace.self, Dump.self, Sync.self, ScrubCommand.self]
    )
}

Lockstep.main()
