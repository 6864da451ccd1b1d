// The sub-commands.

import ArgumentParser
import Glibc

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
        if json {
            let joined = answers.map { String($0.dropLast()) }.joined(separator: ",")
            print("[\(joined)]")
            return
        }
        if answers.isEmpty { print("no Lockstep volume is mounted here") }
        for answer in answers { show(Fields(json: answer)) }
    }

    private func show(_ fields: Fields) {
        print(
            "node \(fields["node"]) at \(fields["mountPoint"]) on \(fields["device"]): "
                + "epoch \(fields["epoch"]), members \(fields["members"]), pid \(fields["pid"])"
        )
        print(
            "  \(fields["requests"]) requests, \(fields["glocks"]) locks cached, "
                + "\(fields["inodes"]) inodes, \(fields["dirtyBytes"]) bytes dirty, "
                + "\(fields["demotions"]) locks given way"
                + (fields["withdrawn"] == "true" ? ", WITHDRAWN" : "")
        )
    }
}

/// `lockstep locks`
struct Locks: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Lists the lock manager's resources: holders, waiters, masters.",
        discussion: "Each node lists the resources that it masters and its own locks on others."
    )

    @OptionGroup var place: Place
    @Flag(help: "As JSON: a list of lines per node.")
    var json = false

    func run() throws {
        var parts: [String] = []
        for daemon in try place.daemons() {
            guard let answer = try daemon.ask("locks") else { continue }
            if json {
                let lines = answer.split(separator: "\n").map { JSONQuoting.quoted(String($0)) }
                parts.append("[" + lines.joined(separator: ",") + "]")
            } else {
                print(answer, terminator: "")
            }
        }
        if json { print("[" + parts.joined(separator: ",") + "]") }
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

/// Text as JSON has it.
enum JSONQuoting {
    static func quoted(_ value: String) -> String {
        var result = "\""
        for scalar in value.unicodeScalars {
            if scalar == "\"" || scalar == "\\" { result += "\\" }
            result.unicodeScalars.append(scalar.value < 32 ? " " : scalar)
        }
        return result + "\""
    }
}

/// Scalar fields and flat lists of a status answer, by name, wherever they stand: names are unique
/// in it.
struct Fields {
    private var values: [String: String] = [:]

    init(json: String) {
        var name = ""
        var value = ""
        var isInText = false
        var isValue = false
        var depth = 0
        for character in json {
            if character == "\"" {
                isInText.toggle()
            } else if isInText {
                if isValue { value.append(character) } else { name.append(character) }
            } else if character == ":" {
                isValue = true
            } else if character == "[" {
                depth += 1
            } else if character == "]" {
                depth -= 1
            } else if character == "{" || ((character == "," || character == "}") && depth == 0) {
                if isValue { values[name] = value }
                name = ""
                value = ""
                isValue = false
            } else if isValue {
                value.append(character == "," ? " " : character)
            }
        }
    }

    subscript(name: String) -> String { values[name] ?? "?" }
}
