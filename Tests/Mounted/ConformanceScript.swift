// The scripts of the conformance suite (Tests/Conformance): what they may say. A script is a text of cases, a case is
// a list of steps, a step is one call and what Linux answers to it.
//
//     == the name of a case [one node]
//     mkdir d 0755
//     1001:1001,2000 mkdir d/x 0755 -> EACCES
//     rename2 d e whiteout -> ok !! EINVAL
//     stat d -> *
//
// - A step may begin with who calls: user:group,other groups. Without it, root does.
// - Without `->` the call must succeed, and what it says must be the same on each file system.
// - `-> X` is what it must say on each: an errno by name, or a result. `-> *`: whatever ext4 says.
// - `-> X !! Y` is a difference that is listed in Docs/CAVEATS.md: X on ext4, Y on Lockstep.
// - In a word `{x*255}` is x 255 times; `\s` a space, `\n` a new line, `\\` a backslash, `\xFF` a byte.
// - A path is below the directory of the case; `=` before it leaves it as it is; `''` is the empty one; NULL is an
//   address that is nobody's.

import Glibc

/// Who does a step.
struct ConformanceCaller: Hashable, Sendable {
    var user: UInt32 = 0
    var group: UInt32 = 0
    var others: [UInt32] = []

    /// "user:group,other,other"; nil where that is not what the word is.
    init?(_ word: String) {
        let parts = word.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, let user = UInt32(parts[0]) else { return nil }
        let groups = parts[1].split(separator: ",").map { UInt32($0) }
        guard let group = groups.first ?? nil, !groups.contains(nil) else { return nil }
        self.user = user
        self.group = group
        others = groups.dropFirst().compactMap { $0 }
    }

    private init() {}

    static let root = ConformanceCaller()
}

/// One call and its answer.
struct ConformanceStep: Sendable {
    let line: Int
    let text: String
    let caller: ConformanceCaller
    let command: String
    let arguments: [String]
    /// What ext4 must say; nil: anything but an error. "*": anything.
    let expected: String?
    /// What Lockstep must say, where that is known to be something else.
    let difference: String?

    init?(_ text: String, line: Int) {
        self.line = line
        self.text = text
        var rest = text
        var answer: String?
        if let arrow = Self.range(of: " -> ", in: text) {
            rest = String(text[..<arrow.lowerBound])
            answer = String(text[arrow.upperBound...])
        }
        if let whole = answer, let mark = Self.range(of: " !! ", in: whole) {
            difference = String(whole[mark.upperBound...])
            answer = String(whole[..<mark.lowerBound])
        } else {
            difference = nil
        }
        expected = answer
        var words = rest.split(separator: " ").map(String.init)
        if let first = words.first, let caller = ConformanceCaller(first) {
            self.caller = caller
            words.removeFirst()
        } else {
            caller = .root
        }
        guard let command = words.first else { return nil }
        self.command = command
        arguments = Array(words.dropFirst())
    }

    private static func range(of needle: String, in text: String) -> Range<String.Index>? {
        text.firstRange(of: needle)
    }
}

/// Steps that belong together, in a directory of their own.
struct ConformanceCase: Sendable {
    let name: String
    /// What cannot be done by two nodes in turn, as its reason is one machine: a current directory, a pipe.
    let isForOneNode: Bool
    var steps: [ConformanceStep] = []

    /// The cases of a script; throws `Trouble` for a line that says nothing.
    static func parse(_ script: String, file: String) throws -> [ConformanceCase] {
        var cases: [ConformanceCase] = []
        let lines = script.split(separator: "\n", omittingEmptySubsequences: false)
        for (index, line) in lines.enumerated() {
            var text = String(line)
            while text.last == " " { text.removeLast() }
            if text.isEmpty || text.hasPrefix("#") { continue }
            if text.hasPrefix("== ") {
                var name = String(text.dropFirst(3))
                let isForOneNode = name.hasSuffix(" [one node]")
                if isForOneNode { name = String(name.dropLast(" [one node]".count)) }
                cases.append(ConformanceCase(name: "\(file): \(name)", isForOneNode: isForOneNode))
            } else if let step = ConformanceStep(text, line: index + 1), !cases.isEmpty {
                cases[cases.count - 1].steps.append(step)
            } else {
                throw Trouble("\(file):\(index + 1): no step of a case: \(text)")
            }
        }
        return cases
    }
}

/// The words of a step, as what they stand for.
enum ConformanceWord {
    /// The bytes of a word, without a final zero.
    static func bytes(_ word: String) throws -> [UInt8] {
        var rest = Array(word.utf8)[...]
        var bytes: [UInt8] = []
        while let byte = rest.popFirst() {
            switch byte {
            case UInt8(ascii: "\\"): bytes.append(try escaped(&rest))
            case UInt8(ascii: "{"): bytes += try repeated(&rest)
            default: bytes.append(byte)
            }
        }
        return bytes
    }

    private static func escaped(_ rest: inout ArraySlice<UInt8>) throws -> UInt8 {
        switch rest.popFirst() {
        case UInt8(ascii: "s"): return 32
        case UInt8(ascii: "n"): return 10
        case UInt8(ascii: "\\"): return UInt8(ascii: "\\")
        case UInt8(ascii: "x"):
            let digits = String(decoding: rest.prefix(2), as: UTF8.self)
            rest = rest.dropFirst(2)
            if let byte = UInt8(digits, radix: 16) { return byte }
        default: break
        }
        throw Trouble("a backslash before what it does not go with")
    }

    private static func repeated(_ rest: inout ArraySlice<UInt8>) throws -> [UInt8] {
        guard let close = rest.firstIndex(of: UInt8(ascii: "}")),
            let star = rest[..<close].lastIndex(of: UInt8(ascii: "*")),
            let count = Int(String(decoding: rest[(star + 1)..<close], as: UTF8.self))
        else { throw Trouble("{…} without a count") }
        let piece = try bytes(String(decoding: rest[rest.startIndex..<star], as: UTF8.self))
        rest = rest[(close + 1)...]
        return Array(repeatElement(piece, count: count).joined())
    }

    /// A number: decimal, or with 0x; with K, M, G or T behind it; with + between several.
    static func number(_ word: String) throws -> Int {
        try word.split(separator: "+").reduce(0) { sum, part in
            var digits = part
            var shift = 0
            for (index, unit) in "KMGT".enumerated() where digits.last == unit {
                digits.removeLast()
                shift = 10 * (index + 1)
            }
            let value =
                digits.hasPrefix("0x") ? Int(digits.dropFirst(2), radix: 16) : Int(digits)
            guard let value else { throw Trouble("'\(word)' is no number") }
            return sum + value << shift
        }
    }

    /// The sum of numbers that words stand for, "a|b|0x10".
    static func flags(_ word: String, _ names: [String: Int]) throws -> Int {
        try word.split(separator: "|").reduce(0) { sum, part in
            if let value = names[String(part)] { return sum | value }
            return sum | (try number(String(part)))
        }
    }

    /// The name of an error number.
    static func errnoName(_ code: Int32) -> String {
        let names: [Int32: String] = [
            EPERM: "EPERM", ENOENT: "ENOENT", EINTR: "EINTR", EIO: "EIO", ENXIO: "ENXIO",
            E2BIG: "E2BIG", EBADF: "EBADF", EAGAIN: "EAGAIN", ENOMEM: "ENOMEM", EACCES: "EACCES",
            EFAULT: "EFAULT", EBUSY: "EBUSY", EEXIST: "EEXIST", EXDEV: "EXDEV", ENODEV: "ENODEV",
            ENOTDIR: "ENOTDIR", EISDIR: "EISDIR", EINVAL: "EINVAL", ENOTTY: "ENOTTY",
            ETXTBSY: "ETXTBSY", EFBIG: "EFBIG", ENOSPC: "ENOSPC", ESPIPE: "ESPIPE",
            EROFS: "EROFS", EMLINK: "EMLINK", EPIPE: "EPIPE", ERANGE: "ERANGE",
            EDEADLK: "EDEADLK", ENAMETOOLONG: "ENAMETOOLONG", ENOLCK: "ENOLCK", ENOSYS: "ENOSYS",
            ENOTEMPTY: "ENOTEMPTY", ELOOP: "ELOOP", ENODATA: "ENODATA", EOVERFLOW: "EOVERFLOW",
            EOPNOTSUPP: "EOPNOTSUPP", ESTALE: "ESTALE", EDQUOT: "EDQUOT", ENOTCONN: "ENOTCONN",
            ECONNREFUSED: "ECONNREFUSED", EADDRINUSE: "EADDRINUSE", ENOEXEC: "ENOEXEC",
        ]
        return names[code] ?? "errno \(code)"
    }
}
