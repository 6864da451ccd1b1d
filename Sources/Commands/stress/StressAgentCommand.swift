// lockstep-stress agent: works in one directory, for a coordinator.

import ArgumentParser
import Glibc
import LinuxSystem
import StressAgents

/// `lockstep-stress agent`
struct StressAgentCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "agent",
        abstract: "Works in a directory for a coordinator on another host.",
        discussion: """
            Listens until it is ended, and serves one run after the other. The secret is sent as it is, and \
            whoever knows it can make this agent fill and empty a folder of the directory: for networks that \
            are trusted, or through a tunnel.
            """
    )

    @Argument(help: "Where to work: a mount point, or a directory in one.")
    var directory: String

    @Option(help: ArgumentHelp("Where to listen.", valueName: "host:port"))
    var listen: String?

    @Option(help: ArgumentHelp("A file with the secret.", valueName: "file"))
    var secretFile: String?

    /// The coordinator started this program, and is at the other end of a descriptor.
    @Flag(help: .private)
    var connected = false

    func validate() throws {
        if connected { return }
        guard let listen, StressAddress(listen) != nil else {
            throw ValidationError("--listen HOST:PORT is needed")
        }
        guard secretFile != nil else { throw ValidationError("--secret-file is needed") }
    }

    func run() throws {
        ignoreSignalsOfWrites()
        do {
            if connected {
                // The coordinator decides when it ends, also when a terminal interrupts both.
                blockSignals([SIGINT])
                try StressAgent.serve(StressProgram.descriptor, directory: directory)
                // Threads whose calls hang are not waited for.
                _exit(0)
            }
            guard let listen, let address = StressAddress(listen), let secretFile else { return }
            let secret = try readSecret(secretFile)
            var status = stat()
            guard stat(directory, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else {
                throw StressTrouble("\(directory): is no directory")
            }
            try StressProgram.listen(at: address, secret: secret, directory: directory)
        } catch let trouble as StressTrouble {
            fail(trouble)
        } catch let error as SystemError {
            fail(error)
        }
    }
}
