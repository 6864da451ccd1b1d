// `lockstep locks`.

import ArgumentParser
import Glibc
import HostCluster
import LockReports
import Vocabulary

/// `lockstep locks`
struct Locks: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Shows the locks of a volume's nodes: holders, waiters, and who waits for whom.",
        discussion: """
            The daemon of DIRECTORY asks all nodes of its cluster, wherever they run, and shows \
            each resource once, as its master has it, with what the holders do with it. A node \
            that does not answer in time is named as silent.

            Modes: NL CR CW PR PW EX; PR>EX is a conversion, >EX a new request that waits. \
            MASTER: who decides; 'n1?' when it did not say so itself. VALUE: the number of the \
            last write of the value block. Kinds: inode, group, journal, open, rename, \
            log-barrier, orphans, live, application, flock, byte-locks.

            Looking a path up takes shared locks of its directories; a name (inode:6291.1) or a \
            number takes none.

            Examples:
              lockstep locks /mnt --waiting
              lockstep locks --why /mnt/some/file
              lockstep locks /mnt --why inode:6291.1
              lockstep locks /mnt --counters --interval 5
            """
    )

    @OptionGroup var place: Place
    @Option(
        help:
            "Who waits for whom for the locks of this file or directory, or this resource of DIRECTORY's volume."
    )
    var why: String?
    @Option(help: "Only the locks of this file or directory.")
    var path: String?
    @Option(help: "Only the inode with this number (as stat shows it); its open lock too.")
    var inode: UInt64?
    @Option(name: .customLong("type"), help: "Only resources of this kind.")
    var kind: String?
    @Flag(help: "Only where somebody waits.")
    var waiting = false
    @Option(help: "Only where this node has a lock (its number).")
    var node: UInt32?
    @Option(help: "The most resources to show; 0: as many as nodes tell, 20000 each.")
    var limit = 1000
    @Flag(help: "What each node's lock manager has counted since it began.")
    var counters = false
    @Option(help: "With --counters: look twice, so many seconds apart, and show rates per second.")
    var interval: Double?
    @Option(help: "Seconds to wait for a node that does not answer.")
    var timeout = 2.0
    @Flag(help: "As JSON.")
    var json = false

    func validate() throws {
        if let kind, ResourceKind(word: kind) == nil {
            let words = ResourceKind.allCases.map(\.word).joined(separator: ", ")
            throw ValidationError("no kind is called \(kind); there are \(words)")
        }
        guard limit >= 0 else { throw ValidationError("--limit is not negative") }
        guard timeout > 0, timeout <= 60 else { throw ValidationError("--timeout is up to 60 s") }
        let subjects = [why != nil, path != nil, inode != nil, counters].filter { $0 }.count
        guard subjects <= 1 else {
            throw ValidationError("only one of --why, --path, --inode and --counters")
        }
        if let interval {
            guard counters else { throw ValidationError("--interval goes with --counters") }
            guard interval > 0, interval <= 3600 else {
                throw ValidationError("--interval is up to 3600 s")
            }
        }
    }

    func run() throws {
        if counters { return try showCounters() }
        if let path = why ?? path, askedName == nil {
            let mounted = try MountedPath(path)
            let daemon = try Daemon(of: mounted.mountPoint)
            print(
                try daemon.demand("locks " + request(mounted, path).text, within: answerTime),
                terminator: ""
            )
            return
        }
        for daemon in try daemonsToAsk() {
            print(
                try daemon.demand("locks " + request(nil, nil).text, within: answerTime),
                terminator: ""
            )
        }
    }

    /// The resource that `--why` names, if it names one.
    private var askedName: ResourceName? {
        place.directory == nil ? nil : why.flatMap { ResourceName($0) }
    }

    /// One daemon of each volume that is meant; that of the directory, if there is one.
    private func daemonsToAsk() throws -> [Daemon] {
        if let directory = place.directory {
            return [try Daemon(of: MountedPath(directory).mountPoint)]
        }
        var found: [Daemon] = []
        for daemon in try place.daemons()
        where !found.contains(where: { $0.folder == daemon.folder }) {
            if daemon.answers { found.append(daemon) }
        }
        if found.isEmpty { throw AdministrationError("no Lockstep volume is mounted here") }
        return found
    }

    /// Three rounds of asking at most (a path, all nodes, holders once more), and some to spare.
    private var answerTime: Double { 3 * timeout + 5 }

    private func request(_ mounted: MountedPath?, _ path: String?) -> JSONText {
        var question = LockQuestion(.locks)
        if let kind = kind.flatMap({ ResourceKind(word: $0) }) { question.kinds = [kind] }
        if let inode {
            question.number = inode
            if kind == nil { question.kinds = [.inode, .open, .flock, .byteLocks] }
        }
        if let name = askedName {
            (question.kinds, question.number) = ([name.kind], name.number)
            question.generation = name.generation
        }
        question.onlyWaiting = waiting
        question.node = node.map { NodeID($0) }
        question.limit = limit
        var members: [JSONText.Member] = [
            .init("question", question.json), .init("patience", .count(Int(timeout * 1000))),
        ]
        if let mounted {
            members.append(.init("path", .array(mounted.names.map { .string($0) })))
            members.append(.init("subject", .string(path ?? "")))
        }
        if let name = askedName { members.append(.init("subject", .string("\(name.root)"))) }
        if why != nil { members.append(.init("why", .boolean(true))) }
        if json { members.append(.init("format", .string("json"))) }
        return .object(members)
    }

    // MARK: Counters

    private func showCounters() throws {
        for daemon in try daemonsToAsk() {
            let first = try look(daemon)
            guard let interval else {
                print(json ? first.json.text + "\n" : first.table, terminator: "")
                continue
            }
            pause(seconds: interval)
            let second = try look(daemon)
            let text = json ? second.json(since: first).text + "\n" : second.rates(since: first)
            print(text, terminator: "")
        }
    }

    private func look(_ daemon: Daemon) throws -> CounterTable {
        let request = JSONText.object([.init("patience", .count(Int(timeout * 1000)))])
        let answer = try daemon.demand("counters " + request.text, within: answerTime)
        guard let table = CounterTable(try parsedAnswer(answer)) else {
            throw AdministrationError(
                "a daemon's answer is not understood; is it of another version?"
            )
        }
        return table
    }

    private func pause(seconds: Double) {
        var rest = timespec(
            tv_sec: Int(seconds),
            tv_nsec: Int((seconds - seconds.rounded(.down)) * 1_000_000_000)
        )
        var left = timespec()
        while clock_nanosleep(CLOCK_MONOTONIC, 0, &rest, &left) == EINTR { rest = left }
    }
}

/// What a daemon said, as JSON.
func parsedAnswer(_ answer: String) throws -> JSONText {
    do throws(JSONError) {
        return try JSONText(parsing: answer)
    } catch {
        throw AdministrationError("a daemon's answer is \(error); is it of another version?")
    }
}
