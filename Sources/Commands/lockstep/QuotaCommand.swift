// `lockstep quota`.

import ArgumentParser
import Glibc
import Vocabulary

/// `lockstep quota`
struct QuotaCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "quota",
        abstract: "Shows and limits what users and groups use of a mounted volume.",
        discussion: """
            Volumes count it if they were made with mkfs.lockstep -O quota: all blocks and inodes of each user \
            and each group, on all nodes, exactly. Beyond a hard limit nobody but the superuser gets anything (EDQUOT); \
            a soft limit may be passed for the time of grace. Of an unmounted volume 'lockstep inspect DEVICE quotas' \
            shows the same; fsck.lockstep checks it against the files and repairs it.
            """,
        subcommands: [QuotaReportCommand.self, QuotaSetCommand.self, QuotaGraceCommand.self],
        defaultSubcommand: QuotaReportCommand.self
    )
}

/// `lockstep quota report`
struct QuotaReportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "report",
        abstract: "Shows usage and limits; bytes are whole blocks."
    )

    @Argument(help: "A directory of a mounted volume.")
    var directory: String
    @Flag(help: "As JSON.")
    var json = false
    @Flag(name: .customShort("u"), help: "Only users.")
    var users = false
    @Flag(name: .customShort("g"), help: "Only groups.")
    var groups = false

    func run() throws {
        let answer = try Daemon(of: directory).demand("quota report")
        if json {
            print(answer, terminator: "")
            return
        }
        let report = try parsedAnswer(answer)
        print(Self.line(["", "bytes", "soft", "hard", "grace", "inodes", "soft", "hard", "grace"]))
        let now = UInt64(max(time(nil), 0))
        for principal in report.list("principals") {
            let isUser = principal.string("kind") == "user"
            guard users == groups || isUser == users else { continue }
            let limit = { (name: String) -> String in
                let value = principal.number(name)
                return value == 0 ? "-" : "\(value)"
            }
            let grace = { (name: String) -> String in
                let end = principal.number(name)
                return end == 0 ? "-" : end <= now ? "over" : "\(end - now)s"
            }
            let name = Self.name(UInt32(clamping: principal.number("id")), isUser: isUser)
            print(
                Self.line([
                    "\(isUser ? "user" : "group") \(name)", "\(principal.number("bytes"))",
                    limit("softBytes"), limit("hardBytes"), grace("bytesGraceEnds"),
                    "\(principal.number("inodes"))", limit("softInodes"), limit("hardInodes"),
                    grace("inodesGraceEnds"),
                ])
            )
        }
    }

    private static func line(_ words: [String]) -> String {
        let widths = [20, 14, 14, 14, 8, 10, 10, 10, 8]
        return zip(words, widths).enumerated().map { column, pair in
            let padding = String(repeating: " ", count: max(pair.1 - pair.0.count, 0))
            return column == 0 ? pair.0 + padding : padding + pair.0
        }.joined(separator: " ")
    }

    private static func name(_ identity: UInt32, isUser: Bool) -> String {
        let found =
            isUser ? getpwuid(identity)?.pointee.pw_name : getgrgid(identity)?.pointee.gr_name
        return found.map { String(cString: $0) } ?? "\(identity)"
    }
}

/// `lockstep quota set`
struct QuotaSetCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "set",
        abstract: "Sets limits of a user or a group, on all nodes at once.",
        discussion: """
            A limit is SOFT:HARD, or HARD alone; 0 is none. Bytes may have K, M, G or T behind them and are rounded \
            up to blocks.
            """
    )

    @Argument(help: "A directory of a mounted volume.")
    var directory: String
    @Option(name: .shortAndLong, help: "The user, by name or number.")
    var user: String?
    @Option(name: .shortAndLong, help: "The group, by name or number.")
    var group: String?
    @Option(name: .shortAndLong, help: "Limits of bytes.")
    var bytes: String?
    @Option(name: .shortAndLong, help: "Limits of inodes.")
    var inodes: String?

    func validate() throws {
        guard (user == nil) != (group == nil) else {
            throw ValidationError("give either --user or --group")
        }
        guard bytes != nil || inodes != nil else {
            throw ValidationError("give --bytes, --inodes or both")
        }
    }

    func run() throws {
        let whose: String
        if let user {
            whose = "user \(try Self.identity(user, "user", getpwnam(user)?.pointee.pw_uid))"
        } else if let group {
            whose = "group \(try Self.identity(group, "group", getgrnam(group)?.pointee.gr_gid))"
        } else {
            return
        }
        let byteLimit = try bytes.map { try Self.limit($0, hasSuffixes: true) } ?? "-"
        let inodeLimit = try inodes.map { try Self.limit($0, hasSuffixes: false) } ?? "-"
        _ = try Daemon(of: directory).demand("quota set \(whose) \(byteLimit) \(inodeLimit)")
    }

    private static func identity(_ text: String, _ kind: String, _ known: UInt32?) throws -> UInt32
    {
        if let number = UInt32(text) ?? known { return number }
        throw AdministrationError("there is no \(kind) '\(text)' on this host; give a number")
    }

    private static func limit(_ text: String, hasSuffixes: Bool) throws -> String {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        let amounts = try parts.map { part throws in
            let factors: [Character: UInt64] = [
                "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40,
            ]
            let factor = hasSuffixes ? part.last.flatMap { factors[$0] } : nil
            guard let number = UInt64(factor == nil ? part[...] : part.dropLast()),
                case let (amount, overflows) = number.multipliedReportingOverflow(by: factor ?? 1),
                !overflows
            else { throw AdministrationError("'\(text)' is no limit; give SOFT:HARD or HARD") }
            return amount
        }
        switch amounts.count {
        case 1: return "0:\(amounts[0])"
        case 2: return "\(amounts[0]):\(amounts[1])"
        default: throw AdministrationError("'\(text)' is no limit; give SOFT:HARD or HARD")
        }
    }
}

/// `lockstep quota grace`
struct QuotaGraceCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "grace",
        abstract: "Sets how long soft limits may be passed (a week if it was never set)."
    )

    @Argument(help: "A directory of a mounted volume.")
    var directory: String
    @Option(name: .shortAndLong, help: "Seconds, for bytes.")
    var bytes: UInt64?
    @Option(name: .shortAndLong, help: "Seconds, for inodes.")
    var inodes: UInt64?

    func run() throws {
        guard bytes != nil || inodes != nil else {
            throw ValidationError("give --bytes, --inodes or both")
        }
        let words = [bytes, inodes].map { $0.map { "\($0)" } ?? "-" }.joined(separator: " ")
        _ = try Daemon(of: directory).demand("quota grace \(words)")
    }
}
