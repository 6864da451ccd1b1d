// `lockstep inspect`: what the user may ask.

import ArgumentParser

/// `lockstep inspect`
struct Inspect: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Looks at the structures of a volume, sound or damaged; writes nothing to it.",
        usage: """
            lockstep inspect DEVICE QUESTION [ARGUMENT] [OPTIONS]
            lockstep inspect restore FILE IMAGE
            """,
        discussion: """
            Questions:
              superblock [--copy N]       the superblock and its copies, even if nothing else is left
              slots                       guard, slots, journals, heartbeats
              groups, group N             resource groups; one with the runs of its blocks
              quotas                      what users and groups use and may use
              journal SLOT [--blocks]     every transaction of a log, and why it ends where it does
              inode N|PATH                all fields, body and attributes
              extents N|PATH              the tree of extents, with its nodes and holes
              list PATH|N [--long]        the entries of a directory
              tree N|PATH                 the nodes of a directory's tree
              attributes N|PATH           extended attributes
              block N [--hex]             whatever stands in a block; or its bytes
              owner BLOCK                 which inodes have a block
              path N                      all names of an inode
              cat PATH|N                  the content of a file, what cannot be read as zeros
              save FILE                   all metadata into a file, without file data
            N is the number of an inode, as ls -i shows it, or NUMBER.GENERATION. Paths begin at the \
            root of the volume; symbolic links are not followed.
            'inspect restore FILE IMAGE' makes a sparse image of a file that 'save' made.

            What journals that are not clean know better is shown with --replayed only. A mounted \
            volume can be looked at; what is shown may be changing then.
            Exit codes: 0 all that was shown is sound, 1 something is wrong, 2 the question cannot be \
            answered, 64 wrong usage. Docs/INSPECTION.md tells more.
            """
    )

    @Argument(help: ArgumentHelp("Block device or image file.", valueName: "DEVICE"))
    var device: String
    @Argument(help: ArgumentHelp("What to show.", valueName: "QUESTION"))
    var question: String
    @Argument(help: ArgumentHelp("Of what.", valueName: "ARGUMENT"))
    var arguments: [String] = []
    @Option(help: "With superblock: copy N, from 1.")
    var copy: UInt32?
    @Flag(help: "With journal: every block of every transaction.")
    var blocks = false
    @Flag(help: "With list: what the inodes say.")
    var long = false
    @Flag(help: "With block: the bytes.")
    var hex = false
    @Flag(help: "Show what a replay of the journals would leave. Needs memory for what they hold.")
    var replayed = false
    @Flag(help: "As JSON (all but cat and --hex).")
    var json = false

    /// What was asked, with its argument.
    enum Request {
        case superblock, slots, groups, quotas
        case group(UInt32), journal(UInt32)
        case block(UInt64), owner(UInt64)
        /// With the word of the question.
        case inode(String, String)
        case cat(String)
        case save(String)
        case restore(file: String, image: String)
    }

    /// The words of questions about an inode.
    static let inodeQuestions = ["inode", "extents", "list", "tree", "attributes", "path"]

    /// Takes the words apart.
    func request() throws -> Request {
        if device == "restore" {
            guard arguments.count == 1 else {
                throw ValidationError(
                    "restore needs FILE and IMAGE (a device of that name: ./restore)"
                )
            }
            return .restore(file: question, image: arguments[0])
        }
        switch question {
        case "superblock", "slots", "groups", "quotas":
            guard arguments.isEmpty else {
                throw ValidationError("\(question) takes no argument, not '\(arguments[0])'")
            }
            switch question {
            case "slots": return .slots
            case "groups": return .groups
            case "quotas": return .quotas
            default: return .superblock
            }
        case "group": return .group(UInt32(clamping: try number()))
        case "journal": return .journal(UInt32(clamping: try number()))
        case "block": return .block(try number())
        case "owner": return .owner(try number())
        case "cat": return .cat(try argument("a path or the number of an inode"))
        case "save": return .save(try argument("a file to write"))
        case _ where Self.inodeQuestions.contains(question):
            return .inode(question, try argument("a path or the number of an inode"))
        default: throw ValidationError("'\(question)' is no question")
        }
    }

    private func argument(_ what: String) throws -> String {
        guard arguments.count == 1, !arguments[0].isEmpty else {
            throw ValidationError("\(question) needs \(what), and nothing else")
        }
        return arguments[0]
    }

    private func number() throws -> UInt64 {
        let text = try argument("a number")
        guard let number = UInt64(text) else {
            throw ValidationError("\(question) needs a number, not '\(text)'")
        }
        return number
    }

    func validate() throws {
        _ = try request()
        func allow(_ isGiven: Bool, _ option: String, _ questions: String...) throws {
            if isGiven, device == "restore" || !questions.contains(question) {
                throw ValidationError("\(option) goes with \(questions.joined(separator: ", "))")
            }
        }
        try allow(copy != nil, "--copy", "superblock")
        try allow(blocks, "--blocks", "journal")
        try allow(long, "--long", "list")
        try allow(hex, "--hex", "block")
        if replayed, device == "restore" || question == "save" || question == "superblock" {
            throw ValidationError("--replayed does not go with superblock, save and restore")
        }
        if json, question == "cat" || hex {
            throw ValidationError("--json does not go with cat and --hex")
        }
    }

    func run() async throws {
        let code = await Inspection(self).run()
        if code != 0 { throw ExitCode(code) }
    }
}
