// The sub-commands.

import ArgumentParser
import Glibc
import HostCluster
import Vocabulary

/// `lockstep status`
struct Status: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Shows the nodes that have a volume mounted, and how they are doing."
    )

    @OptionGroup var place: Place
    @Flag(help: "As JSON: of the directory's own node, or a list of all.")
    var json = false

    func run() throws {
        if json, let directory = place.directory {
            guard let answer = try Daemon(of: directory).ask("status") else {
                throw AdministrationError("the daemon of \(directory) does not answer")
            }
            print(answer, terminator: "")
            return
        }
        let answers = try place.daemons().compactMap { try $0.ask("status") }
        let clusters = try place.volumes().compactMap { root, volume in
            try HostClusterStatus.read(volume, in: root)
        }
        let withdrawn = clusters.flatMap(\.withdrawn)
        if json {
            print(JSONText.array(try answers.map(parsedAnswer) + withdrawn.map(farewell)).text)
            return
        }
        if answers.isEmpty { print("no Lockstep volume is mounted here") }
        for answer in answers { show(try parsedAnswer(answer)) }
        for slot in clusters.flatMap(\.slots) where !slot.isAlive && slot.isGuarded {
            print(
                "\(name(slot)) has died; the others wait for its guardian, which is taking back what "
                    + "its kernel has cached"
            )
        }
        for slot in withdrawn {
            print("\(name(slot)) has WITHDRAWN: \(slot.content?.lastWords ?? "?")")
        }
    }

    private func name(_ slot: HostClusterStatus.Slot) -> String {
        "node \(slot.slot.rawValue + 1) at \(slot.content?.mountPoint ?? "?")"
    }

    /// What is left to say of a node that has withdrawn.
    private func farewell(_ slot: HostClusterStatus.Slot) -> JSONText {
        .object([
            .init("node", .number(UInt64(slot.slot.rawValue) + 1)),
            .init("mountPoint", .string(slot.content?.mountPoint ?? "")),
            .init("withdrawn", .boolean(true)),
            .init("reason", .string(slot.content?.lastWords ?? "")),
        ])
    }

    private func show(_ status: JSONText) {
        func field(_ names: String...) -> String {
            let found = names.reduce(status as JSONText?) { $0?[$1] }
            switch found {
            case .string(let text)?: return text
            case .array(let values)?: return values.map(\.text).joined(separator: " ")
            case let value?: return value.text
            case nil: return "?"
            }
        }
        print(
            "\(field("nodeName")) at \(field("mountPoint")) on \(field("device")): "
                + "epoch \(field("epoch")), members \(field("members")), pid \(field("pid"))"
        )
        print(
            "  \(field("requests")) requests, \(field("glocks")) locks cached, "
                + "\(field("inodes")) inodes, \(field("dirtyBytes")) bytes dirty, "
                + "\(field("counters", "demotions")) locks given way"
                + (status["replaying"] == .boolean(true) ? ", REPLAYING JOURNALS" : "")
        )
        if let line = freezeLine(status) { print("  \(line)") }
        for recovery in status.list("recoveries").suffix(Self.recoveriesShown) {
            print("  \(line(recovery))")
        }
    }

    /// What a node tells of a freeze; nil if the volume is not frozen.
    private func freezeLine(_ status: JSONText) -> String? {
        guard let freeze = status["freeze"], case .string(let phase)? = freeze["phase"] else {
            return nil
        }
        let state: String
        switch phase {
        case "running": return nil
        case "quiet": state = "FROZEN"
        case "resuming": state = "being thawed"
        default: state = "being frozen"
        }
        guard case .string(let since)? = freeze["since"] else { return state }
        let seconds = freeze.number("seconds")
        return "\(state) by node \(freeze.number("by")) since \(since)"
            + (seconds > 0 ? ", for \(seconds) s at most" : "")
    }

    /// Recoveries of each node that are shown, the newest last.
    private static let recoveriesShown = 3

    /// What a node tells of a journal that it has replayed.
    private func line(_ recovery: JSONText) -> String {
        let count = recovery.number
        return "replayed the journal of slot \(count("slot")) in epoch \(count("epoch")): "
            + "\(count("transactions")) transactions, \(count("written")) blocks; others went on after "
            + "\(count("microsecondsUntilOthersGoOn") / 1000) ms but for "
            + "\(count("names") - min(count("names"), count("namesSettled"))) names, and those after "
            + "\(count("microseconds") / 1000) ms"
    }
}

/// `lockstep trace`
struct Trace: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Tells the last events of a volume's locks, of all nodes in order of time."
    )

    @Argument(help: "A directory of a mounted volume, or a file in one.")
    var path: String
    @Option(help: "Only this resource, as 'lockstep locks' names it (inode:ADDRESS.GENERATION).")
    var resource: String?
    @Flag(help: "Only the resource of PATH itself.")
    var inode = false

    func run() throws {
        var wanted = resource
        if inode { wanted = try Self.inodePrefix(path) }
        var lines: [Substring] = []
        for daemon in try Daemon(of: path).companions() {
            lines += try daemon.ask("trace")?.split(separator: "\n") ?? []
        }
        for line in lines.sorted() {
            let words = line.split(separator: " ", maxSplits: 3)
            if let wanted, words.count > 2 {
                let isMatch = words[2] == wanted || words[2].hasPrefix(wanted + ".")
                if !isMatch { continue }
            }
            print(line)
        }
    }

    /// The resource of a file's inode without its generation, which only its node knows.
    private static func inodePrefix(_ path: String) throws -> String {
        var status = stat()
        guard stat(path, &status) == 0 else {
            throw AdministrationError("\(path): cannot be read")
        }
        return "inode:\(status.st_ino)"
    }
}

/// `lockstep sync`
struct Sync: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Makes everything durable that the node of DIRECTORY has changed."
    )

    @Argument(help: "A directory of a mounted volume.")
    var directory: String

    func run() throws {
        guard try Daemon(of: directory).ask("sync") != nil else {
            throw AdministrationError("the daemon of \(directory) does not answer")
        }
    }
}
