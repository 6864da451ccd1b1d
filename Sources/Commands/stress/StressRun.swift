// lockstep-stress run: the coordinator.

import ArgumentParser
import Glibc
import LinuxSystem
import StressAgents
import StressJudging
import Vocabulary

/// `lockstep-stress [run]`
struct StressRun: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Runs a test on mount points of this host and agents of others.",
        discussion: """
            Each PLACE is a directory of this host, or tcp:HOST:PORT where 'lockstep-stress agent' listens \
            for another. All must show the same directory: two nodes' mounts of one volume, or one local \
            directory given twice, which must never be found wrong. The files are in a folder of its own \
            that is removed in the end, unless something was wrong.

            Every choice of every agent follows from --seed; in which order their calls meet does not.

            A kill command is run by the shell with the place as $1 every --kill-every seconds, for an agent \
            chosen by the seed; it must take the mount away (SIGKILL of the daemon, unmounting) and may mount \
            it again, for which its agent then waits. What was not synced and nobody else has seen may be \
            lost then, and nothing else.

            Exit code 0: nothing wrong; 1: violations, which are shown with what led to them; 2: the test \
            could not begin or not come to its end; 64: wrong arguments.
            """
    )

    @Argument(
        help: ArgumentHelp("Where agents work: directories, or tcp:HOST:PORT.", valueName: "place")
    )
    var places: [String]

    @Option(help: "How long to work, in seconds, 1 to 604800.")
    var seconds = 60

    @Option(help: "What the agents' choices follow from.")
    var seed: UInt64 = 1

    @Option(
        help: ArgumentHelp(
            "What to do, separated by commas: "
                + StressWorkload.allCases.map(\.name).joined(separator: ", ") + ". (default: all)"
        )
    )
    var workloads: String?

    @Option(help: "Steps of each workload and agent in a second, at most; 1 to 1000000.")
    var rate = 200

    @Flag(help: "Print one JSON object instead of a table.")
    var json = false

    @Flag(help: "Mounts may go away: their agents end, the others go on.")
    var tolerateLoss = false

    @Flag(help: "Wait for mounts that have gone away to come back, and go on there.")
    var rejoin = false

    @Option(
        help: ArgumentHelp("Takes a mount away; implies --tolerate-loss.", valueName: "command")
    )
    var killCommand: String?

    @Option(help: "Seconds between two kills.")
    var killEvery = 20

    @Option(help: "Seconds after which a call hangs, and an agent is missed; 1 to 86400.")
    var patience = 60

    @Option(help: ArgumentHelp("A file with the secret of the agents.", valueName: "file"))
    var secretFile: String?

    @Flag(help: "Leave the files where they are.")
    var keep = false

    @Flag(
        help: """
            Do not ask first whether all places show one directory: every agent then makes what it needs. \
            For testing this test: what should be one and is not must be found wrong.
            """
    )
    var noIdentityCheck = false

    func validate() throws {
        guard places.count <= 64 else { throw ValidationError("at most 64 places") }
        guard (1...604_800).contains(seconds) else {
            throw ValidationError("--seconds is 1 to 604800")
        }
        guard (1...1_000_000).contains(rate) else {
            throw ValidationError("--rate is 1 to 1000000")
        }
        guard (1...86_400).contains(killEvery) else {
            throw ValidationError("--kill-every is 1 to 86400")
        }
        guard (1...86_400).contains(patience) else {
            throw ValidationError("--patience is 1 to 86400")
        }
        let addresses = try places.map(Self.place).contains { place in
            if case .remote = place { true } else { false }
        }
        guard !addresses || secretFile != nil else {
            throw ValidationError("agents of other hosts need --secret-file")
        }
        _ = try chosenWorkloads()
    }

    private static func place(_ text: String) throws -> StressPlace {
        guard text.hasPrefix("tcp:") else { return .directory(text) }
        guard let address = StressAddress(String(text.dropFirst(4))) else {
            throw ValidationError("\(text): tcp:HOST:PORT is needed")
        }
        return .remote(address)
    }

    private func chosenWorkloads() throws -> [StressWorkload] {
        guard let workloads else { return StressWorkload.allCases }
        let chosen = try workloads.split(separator: ",").map { name in
            guard let workload = StressWorkload.named(String(name)) else {
                let names = StressWorkload.allCases.map(\.name).joined(separator: ", ")
                throw ValidationError("no workload is called \(name); there are \(names)")
            }
            return workload
        }
        guard !chosen.isEmpty, Set(chosen).count == chosen.count else {
            throw ValidationError("--workloads names at least one, and none twice")
        }
        return chosen
    }

    func run() throws {
        ignoreSignalsOfWrites()
        blockSignals([SIGINT, SIGTERM])
        var settings = StressSettings(places: try places.map(Self.place))
        settings.seconds = seconds
        settings.seed = seed
        settings.workloads = try chosenWorkloads()
        settings.rate = rate
        settings.killCommand = killCommand
        settings.killEvery = killEvery
        settings.toleratesLoss = tolerateLoss || rejoin || killCommand != nil
        settings.rejoins = rejoin
        settings.patience = patience
        settings.checksIdentity = !noIdentityCheck
        settings.keepsFiles = keep
        do {
            if let secretFile { settings.secret = try readSecret(secretFile) }
            let coordinator = StressCoordinator(settings)
            try handleSignals([SIGINT, SIGTERM]) { _ in
                coordinator.interrupt()
                return true
            }
            let report = try coordinator.run()
            print(json ? report.json.text : report.text)
            fflush(nil)
            if report.violationCount > 0 { throw ExitCode(1) }
            if report.trouble != nil { throw ExitCode(2) }
        } catch let trouble as StressTrouble {
            fail(trouble)
        } catch let error as SystemError {
            fail(error)
        }
    }
}

/// Says in a line why there is no test, and ends with the exit code for it.
func fail(_ reason: some CustomStringConvertible) -> Never {
    StressProgram.complain("lockstep-stress: \(reason)")
    exit(2)
}

/// The first line of a file.
///
/// - Throws: `StressTrouble` when it cannot be read, or has none.
func readSecret(_ path: String) throws -> String {
    guard let file = fopen(path, "r") else {
        throw StressTrouble("\(path): \(errnoText(errno))")
    }
    defer { fclose(file) }
    var buffer = [CChar](repeating: 0, count: 1025)
    guard fgets(&buffer, Int32(buffer.count), file) != nil else {
        throw StressTrouble("\(path): holds no secret")
    }
    let bytes = buffer.prefix { $0 != 0 && $0 != 10 }.map { UInt8(bitPattern: $0) }
    guard bytes.count >= 8, let secret = String(validating: bytes, as: UTF8.self) else {
        throw StressTrouble("\(path): a secret has at least 8 characters on the first line")
    }
    return secret
}
