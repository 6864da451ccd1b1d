// Directories: one directory in which every agent makes, moves and removes entries of its own, watched ones and
// storms of others, while all list it and look entries up.
//
// Asserted: a watched entry that is there all the time of a listing appears in it exactly once, one that is not
// there all the time does not appear; a lookup finds what is there, of the right kind.
// Why: POSIX leaves open only what is added or removed while somebody lists. Watched entries have versions, odd
// when they exist; changes are announced before and claimed after (Claims.swift).
// Storms are names that nobody watches: they make the directory grow, shrink and move its entries about.

import CLinux
import Glibc
import StressJudging
import Vocabulary

final class DirectoryWork: StressWork {
    private static let slots = 24
    private static let name = "directory"
    /// Entries of a storm.
    private static let storm = 60

    private unowned let lane: StressLane
    private var directory: Int32 = -1
    private var begun: [UInt64]
    private var raging: [Int] = []
    private var nextStorm = 0

    init(_ lane: StressLane) {
        self.lane = lane
        begun = .init(repeating: 0, count: Self.slots)
    }

    private func key(_ owner: Int, _ slot: Int) -> StressKey {
        StressKey(.directories, owner, slot)
    }
    /// The name under which an entry is made that is moved to its own.
    private var temporary: String { "new-\(lane.me)" }
    private func entry(_ owner: Int, _ slot: Int) -> String { "watched-\(owner)-\(slot)" }

    /// What an entry is in an odd version.
    private func kind(_ key: StressKey, _ version: UInt64) -> mode_t {
        [S_IFREG, S_IFDIR, S_IFLNK][Int(stressMix(key.rawValue, version) % 3)]
    }

    func open() throws(StressFailure) {
        close()
        let folder = lane.folder
        _ = try lane.call("mkdir directory", key(lane.me, 0), allowing: [EEXIST]) {
            Int(mkdirat(folder, Self.name, 0o700))
        }
        directory = try lane.openFile(Self.name, O_RDONLY | O_DIRECTORY, key(lane.me, 0))
        guard lane.epoch > 0 else { return }
        try remove(temporary, key(lane.me, 0), allowing: [ENOENT])
        // What was lost is not known: all own entries go.
        let versions = begun.enumerated().map {
            (key: key(lane.me, $0.offset), version: ($0.element + 2) / 2 * 2)
        }
        for (slot, new) in versions.enumerated() { begun[slot] = new.version }
        try lane.announce(versions)
        for (slot, new) in versions.enumerated() {
            try remove(entry(lane.me, slot), new.key, allowing: [ENOENT])
            lane.claim(new.key, new.version, isFirm: false)
        }
    }

    func step() throws(StressFailure) {
        switch lane.dice.below(10) {
        case 0, 1: try change()
        case 2: try list()
        case 3: try rage()
        default: try look(lane.dice.below(lane.agents), lane.dice.below(Self.slots))
        }
    }

    // MARK: Changes

    private func change() throws(StressFailure) {
        let first = lane.dice.below(Self.slots)
        let slots = (0..<1 + lane.dice.below(5)).map { (first + $0) % Self.slots }
        var versions: [(key: StressKey, version: UInt64)] = []
        for slot in slots {
            begun[slot] += 1
            versions.append((key(lane.me, slot), begun[slot]))
        }
        try lane.announce(versions)
        for (slot, new) in zip(slots, versions) {
            if new.version % 2 == 1 {
                try make(slot, new.key, new.version)
            } else {
                try remove(entry(lane.me, slot), new.key)
            }
            lane.claim(new.key, new.version, isFirm: false)
        }
        if lane.dice.oneIn(10) {
            let directory = directory
            _ = try lane.call("fsync directory", versions[0].key) { Int(fsync(directory)) }
            for (key, version) in versions { lane.claim(key, version, isFirm: true) }
        }
    }

    /// Makes an entry under its name, or under another and moves it there.
    private func make(_ slot: Int, _ key: StressKey, _ version: UInt64) throws(StressFailure) {
        let directory = directory
        let final = entry(lane.me, slot)
        let isMoved = lane.dice.oneIn(3)
        let name = isMoved ? temporary : final
        let kind = kind(key, version)
        _ = try lane.call("make \(name)", key, version) {
            switch kind {
            case S_IFDIR: return Int(mkdirat(directory, name, 0o700))
            case S_IFLNK: return Int(symlinkat("target", directory, name))
            default:
                let file = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
                if file >= 0 { Glibc.close(file) }
                return Int(min(file, 0))
            }
        }
        guard isMoved else { return }
        _ = try lane.call("rename to \(final)", key, version) {
            Int(renameat(directory, name, directory, final))
        }
    }

    private func remove(_ name: String, _ key: StressKey, allowing allowed: Set<Int32> = [])
        throws(StressFailure)
    {
        let directory = directory
        let both = allowed.union([EISDIR])
        let result = try lane.call("unlink \(name)", key, allowing: both) {
            Int(unlinkat(directory, name, 0))
        }
        if result == -Int(EISDIR) {
            _ = try lane.call("rmdir \(name)", key) { Int(unlinkat(directory, name, AT_REMOVEDIR)) }
        }
    }

    /// A storm: many entries come, and many of those that came before go.
    private func rage() throws(StressFailure) {
        let directory = directory
        let key = key(lane.me, Self.slots)
        for _ in 0..<Self.storm / 2 {
            let name = "storm-\(lane.me)-\(nextStorm)"
            let file = try lane.call("create", key, UInt64(nextStorm), allowing: [EEXIST]) {
                Int(openat(directory, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600))
            }
            if file >= 0 { Glibc.close(Int32(file)) }
            raging.append(nextStorm)
            nextStorm += 1
        }
        while raging.count > Self.storm {
            let name = "storm-\(lane.me)-\(raging.remove(at: lane.dice.below(raging.count)))"
            // After a loss some of them never were.
            _ = try lane.call("unlink", key, allowing: lane.epoch > 0 ? [ENOENT] : []) {
                Int(unlinkat(directory, name, 0))
            }
        }
    }

    // MARK: Looking

    private func look(_ owner: Int, _ slot: Int) throws(StressFailure) {
        let key = key(owner, slot)
        let directory = directory
        let name = entry(owner, slot)
        let floor = lane.floor(key)
        var status = stat()
        let result = try lane.call("lstat \(name)", key, allowing: [ENOENT]) {
            Int(fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW))
        }
        let ceiling = lane.ceiling(key)
        let exists = result >= 0
        guard judge(key, owner, exists, floor, ceiling, "a lookup") else { return }
        guard exists, floor.value == ceiling else { return }
        let expected = kind(key, ceiling)
        if status.st_mode & S_IFMT != expected {
            let words =
                "kind: mode \(String(status.st_mode, radix: 8)), not that of version \(ceiling)"
            _ = lane.settle(floor.verdictOnOlder, floor, key, words)
        }
    }

    private func judge(
        _ key: StressKey,
        _ owner: Int,
        _ exists: Bool,
        _ floor: StressFloor,
        _ ceiling: UInt64,
        _ how: String
    ) -> Bool {
        let (verdict, version) = floor.judge(exists: exists, ceiling: ceiling)
        let words =
            "\(how) finds it \(exists ? "there" : "absent"), in no version from \(floor.value) to \(ceiling)"
        guard lane.settle(verdict, floor, key, words) else { return false }
        lane.claim(key, version, isFirm: owner != lane.me)
        return true
    }

    private func list() throws(StressFailure) {
        var floors: [[StressFloor]] = []
        for owner in 0..<lane.agents {
            floors.append((0..<Self.slots).map { lane.floor(key(owner, $0)) })
        }
        let names = try entries()
        var counts = [[Int]](repeating: .init(repeating: 0, count: Self.slots), count: lane.agents)
        for name in names {
            let parts = name.split(separator: "-").map(String.init)
            switch parts.first {
            case "watched" where parts.count == 3:
                guard let owner = Int(parts[1]), let slot = Int(parts[2]),
                    (0..<lane.agents).contains(owner), (0..<Self.slots).contains(slot)
                else { fallthrough }
                counts[owner][slot] += 1
            case ".", "..", "storm", "new": continue
            default: lane.complain(key(lane.me, 0), "listing: unknown entry \(name)")
            }
        }
        for owner in 0..<lane.agents {
            for slot in 0..<Self.slots {
                let key = key(owner, slot)
                let ceiling = lane.ceiling(key)
                let floor = floors[owner][slot]
                let count = counts[owner][slot]
                if count > 1, floor.value == ceiling {
                    lane.complain(key, "listing: \(count) times")
                } else {
                    lane.note(key, "listed", floor.value, count)
                    _ = judge(key, owner, count > 0, floor, ceiling, "a listing")
                }
            }
        }
    }

    /// All names of the directory, by a descriptor of its own.
    private func entries() throws(StressFailure) -> [String] {
        let key = key(lane.me, 0)
        let folder = lane.folder
        var names: [String] = []
        _ = try lane.call("list", key) {
            names = []
            let file = openat(folder, Self.name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            guard file >= 0 else { return -1 }
            guard let stream = fdopendir(file) else {
                Glibc.close(file)
                return -1
            }
            defer { closedir(stream) }
            while true {
                errno = 0
                guard let entry = readdir(stream) else { break }
                let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                    pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                names.append(name)
            }
            return errno == 0 ? names.count : -1
        }
        return names
    }

    func verify() throws(StressFailure) {
        try list()
        for owner in 0..<lane.agents {
            for slot in 0..<Self.slots { try look(owner, slot) }
        }
    }

    func close() {
        if directory >= 0 { Glibc.close(directory) }
        directory = -1
    }
}
