// What people and umount(8) pass: `umount.lockstep DIR [-flnrv] [-t TYPE] [--patience SECONDS]`.

/// The arguments cannot be used; one line that says why.
struct UsageError: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// What the command line asks for.
struct Arguments {
    var directory = ""
    /// `-f`: the connection is ended at once, whoever uses it.
    var isForced = false
    /// `-l`: the mount disappears now and ends when its last user has gone.
    var isLazy = false
    var isVerbose = false
    /// How long to wait for the node to leave, in seconds.
    var patience: UInt64 = 120

    static let usage = """
        usage: umount.lockstep DIR [-flv] [--patience SECONDS]

        Unmounts the Lockstep volume at DIR and waits until its node has written everything, has left the
        cluster and has freed its slot (umount(8) and fusermount3 return before that).

          -f                  end the connection at once: whoever uses the mount gets errors (root only)
          -l                  detach now; the node leaves when its last user has gone, which is waited for
          -v                  say what is done
          -n, -r, -t TYPE, -N NAMESPACE
                              accepted for umount(8) and without effect
          --patience SECONDS  how long to wait, 0 to 86400 (default 120)

        Exit status: 0 unmounted and left in order; 1 wrong usage; 2 a system error; 32 not unmounted, or the
        node did not leave in order or in time.
        """

    init(_ arguments: [String]) throws(UsageError) {
        var rest = arguments[...]
        var places: [String] = []
        while let argument = rest.popFirst() {
            switch argument {
            case "--patience":
                guard let text = rest.popFirst(), let number = UInt64(text), number <= 86_400 else {
                    throw UsageError("--patience needs a number of seconds from 0 to 86400")
                }
                patience = number
            case "-t", "-N":
                guard rest.popFirst() != nil else { throw UsageError("\(argument) needs a value") }
            case "--":
                places += rest
                rest = []
            default:
                if argument.hasPrefix("-"), argument.utf8.count > 1 {
                    try take(letters: argument.dropFirst())
                } else {
                    places.append(argument)
                }
            }
        }
        guard places.count == 1 else { throw UsageError("one directory is needed") }
        directory = places[0]
    }

    private mutating func take(letters: Substring) throws(UsageError) {
        for letter in letters {
            switch letter {
            case "f": isForced = true
            case "l": isLazy = true
            case "v": isVerbose = true
            case "n", "r": break
            default: throw UsageError("unknown option -\(letter)")
            }
        }
    }
}
