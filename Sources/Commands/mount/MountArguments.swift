// What mount(8) and people pass: `mount.lockstep DEVICE DIR [-sfnv] [-o OPTS] [--foreground]`.

import FileSystem
import Glibc
import Vocabulary

/// The arguments cannot be used; one line that says why.
struct UsageError: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// What the command line asks for.
struct MountArguments {
    var device = ""
    var directory = ""
    /// `-f`: everything but the mount itself.
    var isFake = false
    /// `-s`: options nobody knows are passed over.
    var isSloppy = false
    var isVerbose = false
    var isForeground = false
    /// Descriptor on which the background process says that the mount answers.
    var readyDescriptor: Int32?

    var isReadOnly = false
    var hasAccessLists = true
    /// Several nodes that write a file lock regions of it.
    var usesRegions = true
    var slot: SlotIndex?
    /// A name for people, shown by `lockstep status`; the slot is what counts.
    var nodeName: String?
    var runDirectory: String?
    var times = TimeRules()
    /// What was said about them, in its order.
    var timeWords: [String] = []
    var commitSeconds: UInt64 = 5
    /// Locks that are kept though nobody uses them, seconds until they go (0: they stay), and memory for
    /// blocks of metadata.
    var cachedLocks = 100_000
    var cacheAgeSeconds: UInt64 = 600
    var cachedMebibytes = 64
    var isDebugging = false
    /// As of any file system that an administrator mounts.
    var allowsOthers = geteuid() == 0
    var allowsBuffered = false
    var takesOver = false
    var treatsKernelAsOld = false
    var panicsOnError = false
    var patienceSeconds: UInt64 = 30
    /// Microseconds; nil for the default.
    var watchMicroseconds: UInt64?
    /// What the flight recorder of the lock manager keeps.
    var recordMebibytes = 8
    /// For mount(2).
    var kernelOptions: [String] = []
    /// What the table of mounts shows instead of the device.
    var shownSource: String?
    /// Other options for a mount that is there, in their order.
    var isRemount = false
    var flags: [String] = []
    /// What is not done as it was asked, for whoever mounts.
    var remarks: [String] = []

    static let usage = """
        usage: mount.lockstep DEVICE DIR [-sfnv] [-o OPTION,...] [--foreground]

        Mounts the Lockstep volume on DEVICE (a block device or an image file) at DIR and returns when
        the mount answers; the daemon stays in the background unless --foreground is given.

          -f            do everything except mounting
          -s            ignore mount options that are not known
          -n            accepted for mount(8); nothing is written to /etc/mtab anyway
          -v            say on standard error when it is mounted
          -r, -w        as -o ro and -o rw
          -t TYPE       accepted for mount(8)
          -o OPTIONS    ro, rw, relatime (the default), noatime, strictatime (every read counts: past the page cache),
                        nodiratime, diratime, lazytime (times alone are stored within a day), nolazytime,
                        acl, noacl, nodev, dev, nosuid, suid, noexec, exec, sync, async,
                        allow_other (as without, for root), noallow_other, default_permissions (always on),
                        remount (of ro, rw, the rules for times and what the kernel does by itself), fsname=NAME, node=NAME,
                        cluster=local, slot=N, run=DIR, commit=SECONDS, patience=SECONDS,
                        errors=withdraw (the others take over, this mount says EIO until it is unmounted),
                        regions (several nodes that write a file lock parts of it: the default), noregions (they hand the whole file over),
                        errors=panic (this daemon also leaves a core), takeover, buffered, kernel=old, watch=MICROSECONDS,
                        record=MIB (of the lock manager's last events; 0: none),
                        cache_locks=N (locks kept, with what they protect, for later use: 1000 to 10000000, default 100000),
                        cache_age=SECONDS (what nobody has used for so long is given back: default 600, to 86400; 0: never),
                        cache_metadata=MIB (memory for blocks of metadata: 1 to 65536, default 64), debug;
                        _netdev, nofail, auto, noauto, user, users, defaults and x-* are accepted

        Exit status: 0 mounted, 1 wrong usage, 2 a system error, 32 the mount failed.
        """

    init(_ arguments: [String]) throws(UsageError) {
        var rest = arguments[...]
        var places: [String] = []
        while let argument = rest.popFirst() {
            switch argument {
            case "--foreground": isForeground = true
            case "--ready":
                guard let text = rest.popFirst(), let number = Int32(text) else {
                    throw UsageError("--ready needs a descriptor")
                }
                readyDescriptor = number
            case "-o":
                guard let list = rest.popFirst() else { throw UsageError("-o needs options") }
                try take(options: list)
            case "--": places += rest; rest = []
            case "-t":
                guard rest.popFirst() != nil else { throw UsageError("-t needs a type") }
            default:
                if argument.hasPrefix("-o"), argument.utf8.count > 2 {
                    try take(options: String(argument.dropFirst(2)))
                } else if argument.hasPrefix("-"), argument.utf8.count > 1 {
                    try take(letters: argument.dropFirst())
                } else {
                    places.append(argument)
                }
            }
        }
        guard places.count == 2 else {
            throw UsageError("a device and a directory are needed")
        }
        device = places[0]
        directory = places[1]
    }

    private mutating func take(letters: Substring) throws(UsageError) {
        for letter in letters {
            switch letter {
            case "f": isFake = true
            case "s": isSloppy = true
            case "n": break
            case "v": isVerbose = true
            case "r": _ = try take(flag: "ro")
            case "w": _ = try take(flag: "rw")
            default: throw UsageError("unknown option -\(letter)")
            }
        }
    }

    private mutating func take(options list: String) throws(UsageError) {
        for option in list.split(separator: ",") {
            let parts = option.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                .map(String.init)
            let isKnown =
                if parts.count == 2 {
                    try take(parts[0], value: parts[1])
                } else {
                    try take(flag: parts[0])
                }
            if !isKnown, !isSloppy { throw UsageError("unknown mount option '\(option)'") }
        }
    }

    private mutating func take(flag: String) throws(UsageError) -> Bool {
        flags.append(flag)
        if times.take(flag) {
            timeWords.append(flag)
            return true
        }
        switch flag {
        case "ro": isReadOnly = true
        case "rw": isReadOnly = false
        case "nodev", "nosuid", "noexec", "dev", "suid", "exec", "sync", "async":
            kernelOptions.append(flag)
        case "allow_other": allowsOthers = true
        case "noallow_other": allowsOthers = false
        case "acl": hasAccessLists = true
        case "noacl": hasAccessLists = false
        case "regions": usesRegions = true
        case "noregions": usesRegions = false
        case "debug": isDebugging = true
        case "takeover": takesOver = true
        case "buffered": allowsBuffered = true
        case "dirsync":
            throw UsageError("dirsync is not supported: a directory is made durable by fsync")
        case "remount": isRemount = true
        case "default_permissions", "defaults", "_netdev", "nofail", "auto", "noauto", "user",
            "nouser", "users", "owner", "group", "silent", "loud":
            break
        default: return flag.hasPrefix("x-") || flag.hasPrefix("comment")
        }
        return true
    }

    private mutating func take(_ name: String, value: String) throws(UsageError) -> Bool {
        switch name {
        case "cluster":
            guard value == "local" else {
                throw UsageError(
                    "cluster=\(value) is not built into this version; use cluster=local"
                )
            }
        case "slot": slot = SlotIndex(try Self.number(name, value, 0...63))
        case "run":
            guard value.hasPrefix("/") else {
                throw UsageError("run=\(value): a full path is needed")
            }
            runDirectory = value
        case "commit": commitSeconds = UInt64(try Self.number(name, value, 1...300))
        case "patience": patienceSeconds = UInt64(try Self.number(name, value, 0...3600))
        case "watch": watchMicroseconds = UInt64(try Self.number(name, value, 0...10_000))
        case "record": recordMebibytes = Int(try Self.number(name, value, 0...1024))
        case "cache_locks": cachedLocks = Int(try Self.number(name, value, 1000...10_000_000))
        case "cache_age": cacheAgeSeconds = UInt64(try Self.number(name, value, 0...86_400))
        case "cache_metadata": cachedMebibytes = Int(try Self.number(name, value, 1...65_536))
        case "fsname": shownSource = value
        case "node":
            guard (1...64).contains(value.utf8.count),
                value.unicodeScalars.allSatisfy({ $0.value > 32 && $0.value != 127 })
            else { throw UsageError("node=\(value): expected 1 to 64 bytes without blanks") }
            nodeName = value
        case "errors":
            guard ["withdraw", "panic"].contains(value) else {
                throw UsageError("errors=\(value): expected withdraw or panic")
            }
            panicsOnError = value == "panic"
        case "kernel":
            guard value == "old" else { throw UsageError("kernel=\(value): expected old") }
            treatsKernelAsOld = true
        default: return name.hasPrefix("x-") || name == "comment"
        }
        return true
    }

    private static func number(
        _ name: String,
        _ value: String,
        _ range: ClosedRange<UInt32>
    ) throws(UsageError) -> UInt32 {
        guard let number = UInt32(value), range.contains(number) else {
            throw UsageError(
                "\(name)=\(value): expected a number from \(range.lowerBound) to \(range.upperBound)"
            )
        }
        return number
    }
}
