// `lockstep freeze` and `lockstep thaw`.

import ArgumentParser
import CLinux
import Glibc
import LinuxSystem
import Vocabulary

/// `lockstep freeze`
struct FreezeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "freeze",
        abstract: "Makes a volume stand still on all nodes, so that its device can be copied.",
        discussion: """
            When the command returns, everything that any node has changed is on the device, the journals are \
            clean, and nothing on it changes until 'lockstep thaw', whatever happens to the nodes. A copy of \
            the device taken meanwhile is a volume that was unmounted in order. What changes something waits; \
            what reads goes on. A new mount is refused.

            Interrupting the command takes the freeze back. It is an error if the volume is frozen already.

            Exit status: 0 frozen, 1 not.
            """
    )

    @Argument(help: "A directory of a mounted volume.")
    var directory: String
    @Option(help: "Thaw by itself after so many seconds.")
    var timeout: UInt32?

    func validate() throws {
        if timeout == 0 { throw ValidationError("--timeout needs at least one second") }
    }

    func run() throws {
        let daemon = try Daemon(of: directory)
        let interrupted = try interruptions()
        _ = try daemon.demand("freeze start \(timeout ?? 0)")
        var isTakenBack = false
        while true {
            let answer = try parsedAnswer(try daemon.demand("freeze status"))
            switch answer["request"] {
            case .string("done")? where !isTakenBack: return
            case .string("failed")? where !isTakenBack:
                throw AdministrationError(answer.string("error"))
            case .string("running")?: break
            default: throw AdministrationError("interrupted; the volume is thawed again")
            }
            var signal = pollfd(
                fd: isTakenBack ? -1 : interrupted,
                events: Int16(POLLIN),
                revents: 0
            )
            if poll(&signal, 1, freezeInterval) > 0 {
                isTakenBack = true
                if answer["phase"] != .string("running") { _ = try daemon.demand("thaw") }
            }
        }
    }
}

/// `lockstep thaw`
struct ThawCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "thaw",
        abstract: "Lets all nodes change a frozen volume again.",
        discussion: "Any node can thaw. Exit status: 0 thawed, 1 it was not frozen."
    )

    @Argument(help: "A directory of a mounted volume.")
    var directory: String

    func run() throws {
        let daemon = try Daemon(of: directory)
        _ = try daemon.demand("thaw")
        while try parsedAnswer(try daemon.demand("freeze status"))["phase"] != .string("running") {
            _ = poll(nil, 0, freezeInterval)
        }
    }
}

/// Milliseconds between two questions how far it is.
private let freezeInterval: Int32 = 10
