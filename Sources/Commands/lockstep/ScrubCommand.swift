// `lockstep scrub`.

import ArgumentParser
import CLinux
import Glibc
import LinuxSystem
import Vocabulary

/// `lockstep scrub`
struct ScrubCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "scrub",
        abstract: "Checks all metadata of a mounted volume while it is used.",
        discussion: """
            The node behind DIRECTORY looks at every structure under its lock, verifies checksums \
            and everything that fsck.lockstep verifies of it by itself, and compares what inodes, \
            directories and groups say of each other. Nothing is changed and nobody is stopped. \
            What is reported is certain; what changed too fast to be judged is counted. Findings \
            are those of fsck.lockstep (Docs/CHECKS.md), which repairs them when the volume is \
            unmounted.

            It runs in the background of the mount: interrupting this command stops it, --background \
            does not wait for it.

            Exit status: 0 nothing found, 4 something is wrong, 8 it could not be finished.
            """
    )

    @Argument(help: "A directory of a mounted volume.")
    var directory: String
    @Flag(help: "As JSON.")
    var json = false
    @Flag(name: .customShort("C"), help: "Show progress.")
    var progress = false
    @Flag(help: "Begin it and do not wait for its end.")
    var background = false
    @Flag(help: "Show how far the last one of this node is, and what it has found.")
    var status = false
    @Flag(help: "Stop the one that this node is running.")
    var stop = false

    func validate() throws {
        guard [background, status, stop].count(where: { $0 }) <= 1 else {
            throw ValidationError("--background, --status and --stop exclude each other")
        }
    }

    func run() throws {
        let daemon = try Daemon(of: directory)
        if stop {
            _ = try daemon.demand("scrub stop")
            return
        }
        if status {
            try finish(try parsedAnswer(try daemon.demand("scrub status")))
            return
        }
        _ = try daemon.demand("scrub start")
        if background { return }
        try finish(try wait(daemon))
    }

    /// Milliseconds between two questions how far it is.
    private static let interval: Int32 = 100

    private func wait(_ daemon: Daemon) throws -> JSONText {
        let interrupted = try interruptions()
        while true {
            let answer = try parsedAnswer(try daemon.demand("scrub status"))
            if progress { show(answer) }
            guard answer["state"] == .string("running") else {
                if progress { writeError("\n") }
                return answer
            }
            var signal = pollfd(fd: interrupted, events: Int16(POLLIN), revents: 0)
            if poll(&signal, 1, Self.interval) > 0 { _ = try daemon.demand("scrub stop") }
        }
    }

    private func show(_ answer: JSONText) {
        let (done, total) = (answer.number("done"), answer.number("total"))
        let percent = total == 0 ? 0 : min(done * 100 / total, 100)
        writeError(
            "\rstage \(answer.number("stageNumber")) of \(answer.number("stages")): "
                + "\(answer.string("stage")), \(percent)%, \(answer.number("inodes")) inodes   "
        )
    }

    /// Says how it ended; exits with the code for it.
    private func finish(_ answer: JSONText) throws {
        if json { print(answer.text) } else { tell(answer) }
        if case .string("failed")? = answer["state"] { throw ExitCode(8) }
        if answer.list("unreadable").count > 0 { throw ExitCode(8) }
        if answer.number("findingCount") > 0 { throw ExitCode(4) }
        if case .string("stopped")? = answer["state"] { throw ExitCode(8) }
    }

    private func tell(_ answer: JSONText) {
        if answer["state"] == .string("none") {
            print("this node has not scrubbed the volume since it was mounted")
            return
        }
        for finding in answer.list("findings") { print(finding.string("text")) }
        for line in answer.list("unreadable") {
            if case .string(let text) = line { print(text) }
        }
        print(
            "\(answer.string("state")): \(answer.number("inodes")) inodes, "
                + "\(answer.number("directories")) directories with \(answer.number("entries")) entries, "
                + "\(answer.number("metadataBlocks")) blocks of metadata in "
                + "\(answer.number("milliseconds")) ms; "
                + (answer.number("findingCount") == 0
                    ? "nothing is wrong" : "\(answer.number("findingCount")) findings")
        )
        let (groups, inodes) = (answer.number("changedGroups"), answer.number("changedInodes"))
        if groups > 0 {
            print("\(groups) groups changed meanwhile and were not searched for lost blocks")
        }
        if inodes > 0 { print("\(inodes) inodes changed while their links were counted") }
    }
}

/// A descriptor that becomes readable when the user interrupts.
func interruptions() throws -> Int32 {
    let descriptor = eventfd(0, Int32(EFD_CLOEXEC))
    guard descriptor >= 0 else { throw SystemError.last("eventfd") }
    blockSignals([SIGINT, SIGTERM])
    try handleSignals([SIGINT, SIGTERM]) { _ in eventfd_write(descriptor, 1) == 0 }
    return descriptor
}

/// Writes to standard error as it is.
private func writeError(_ text: String) {
    let bytes = Array(text.utf8)
    _ = write(2, bytes, bytes.count)  // progress: if nobody can see it, nothing is lost
}
