// Locks that go round: each process holds a byte until it has the next one, as in Samba's ping_pong, so that with several
// processes every step of one needs a step of the others. With reads and writes of the byte every process must see that
// each of the others has added one since it was here last: a lost write is a number that is too small.

import ArgumentParser
import CLinux
import Glibc
import LinuxSystem
import Vocabulary

/// How locks are passed.
enum PassedLock: String, CaseIterable, ExpressibleByArgument, Sendable {
    case bytes, bytesReadWrite, bytesMapped, flock
}

struct Pass: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "One process of the ring of locks; 'sharing' starts them.",
        shouldDisplay: false
    )

    @Argument var file: String
    @Option var kind: PassedLock
    /// Processes in the ring: there is a byte more than these.
    @Option var processes: Int
    @Option var seconds: Double

    func run() throws {
        let file = lockstep_open(file, O_RDWR | O_CREAT, 0o644)
        guard file >= 0 else { throw BenchFailure.last("open", self.file) }
        var ring = LockRing(file: file, kind: kind, count: processes + 1)
        try ring.begin()
        // All are there: the one that starts them says go.
        print("ready")
        fflush(nil)
        guard readLine() != nil else { throw BenchFailure("nobody said go") }
        try ring.run(seconds: seconds, processes: processes)
        print(ring.result.text)
        fflush(nil)
    }
}

/// The bytes of one process's ring.
private struct LockRing {
    let file: Int32
    let kind: PassedLock
    let count: Int
    private var steps = 0
    private var wrongSteps = 0
    private var seconds = 0.0
    private var seen: [UInt8]
    private var mapped: UnsafeMutablePointer<UInt8>?

    init(file: Int32, kind: PassedLock, count: Int) {
        self.file = file
        self.kind = kind
        self.count = count
        seen = [UInt8](repeating: 0, count: count)
    }

    var result: JSONText {
        let perSecond = Double(steps) / max(seconds, 1e-9)
        let members: [JSONText.Member] = [
            .init("steps", .number(UInt64(steps))), .init("wrong", .number(UInt64(wrongSteps))),
            .init("perSecond", .number(UInt64(perSecond))),
        ]
        return .object(members)
    }

    mutating func begin() throws {
        if ftruncate(file, off_t(count)) != 0 { throw BenchFailure.last("truncate", "the ring") }
        guard kind == .bytesMapped else { return }
        let address = mmap(nil, count, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
        guard let address, address != MAP_FAILED else { throw BenchFailure.last("map", "the ring") }
        mapped = address.assumingMemoryBound(to: UInt8.self)
    }

    private func lock(_ place: Int, _ type: Int32) throws {
        if kind == .flock {
            guard flock(file, type == F_UNLCK ? LOCK_UN : LOCK_EX) == 0 else {
                throw BenchFailure.last("flock", "the ring")
            }
            return
        }
        var lock = flock()
        lock.l_type = Int16(type)
        lock.l_whence = Int16(SEEK_SET)
        lock.l_start = off_t(place)
        lock.l_len = 1
        while fcntl(file, F_SETLKW, &lock) != 0 {
            guard errno == EINTR else { throw BenchFailure.last("lock", "the ring") }
        }
    }

    /// Reads the byte, checks how far the others have come, and adds one.
    private mutating func turn(_ place: Int, _ processes: Int, isChecked: Bool) throws {
        var value: UInt8 = 0
        if let mapped {
            value = mapped[place]
        } else if pread(file, &value, 1, off_t(place)) != 1 {
            throw BenchFailure.last("read", "the ring")
        }
        // Between two turns of one at a byte each of the others has had one there.
        if isChecked, value &- seen[place] != UInt8(processes) { wrongSteps += 1 }
        seen[place] = value
        value &+= 1
        if let mapped {
            mapped[place] = value
        } else if pwrite(file, &value, 1, off_t(place)) != 1 {
            throw BenchFailure.last("write", "the ring")
        }
    }

    mutating func run(seconds: Double, processes: Int) throws {
        let end = nanoseconds() + UInt64(seconds * 1_000_000_000)
        let isWritten = kind == .bytesReadWrite || kind == .bytesMapped
        let begin = nanoseconds()
        let margin = UInt64(seconds * 200_000_000)
        var place = 0
        if kind != .flock { try lock(0, F_WRLCK) }
        while nanoseconds() < end {
            if kind == .flock {
                try lock(0, F_WRLCK)
                try lock(0, F_UNLCK)
            } else {
                let next = (place + 1) % count
                try lock(next, F_WRLCK)
                if isWritten {
                    // At the two ends not all are there: they come and go one after the other.
                    let now = nanoseconds()
                    let isMiddle = now > begin + margin && now + margin < end
                    try turn(place, processes, isChecked: isMiddle)
                }
                try lock(place, F_UNLCK)
                place = next
            }
            steps += 1
        }
        self.seconds = Double(nanoseconds() - begin) / 1_000_000_000
        if kind != .flock { try lock(place, F_UNLCK) }
    }
}

extension SharingBench {
    /// Passes locks round between processes, one for each path. Returns the steps in a second of the slowest.
    private func pass(_ kind: PassedLock, _ paths: [String]) throws -> (
        perSecond: Double, wrong: Int
    ) {
        let programs = try paths.map {
            try ChildProcess(
                "/proc/self/exe",
                [
                    "pass", $0, "--kind", kind.rawValue, "--processes", "\(paths.count)",
                    "--seconds", "\(seconds)",
                ]
            )
        }
        for program in programs where program.readLine() != "ready" {
            throw BenchFailure("a process that passes locks has not begun")
        }
        for program in programs where !program.write("go") {
            throw BenchFailure("a process that passes locks has ended early")
        }
        var slowest = Double.infinity
        var wrong = 0
        for program in programs {
            guard let line = program.readLine() else {
                throw BenchFailure("a process that passes locks has ended early")
            }
            let result = try JSONText(parsing: line)
            slowest = min(slowest, Double(result.number("perSecond")))
            wrong += Int(result.number("wrong"))
        }
        for program in programs {
            let code = program.end()
            if code != 0 { throw BenchFailure("a process that passes locks: exit code \(code)") }
        }
        return (slowest, wrong)
    }

    func locks(_ round: Int) throws -> [SharingFigure] {
        // A step takes and gives up a lock: two requests.
        let requests = try withNullFuse { root in
            let file = try open(root, O_RDONLY | O_DIRECTORY)
            defer { close(file) }
            var status = statfs()
            return rate { fstatfs(file, &status) }
        }
        let local = cluster.folder + "/ring"
        defer { unlink(local) }
        var figures: [SharingFigure] = []
        for kind in PassedLock.allCases {
            let paths = roots.map { "\($0)/ring-\(kind)-\(round)" }
            let alone = try pass(kind, [paths[0]])
            let two = try pass(kind, paths)
            let localTwo = try pass(kind, [local, local])
            func figure(_ nodes: String, _ result: (perSecond: Double, wrong: Int)) -> SharingFigure
            {
                SharingFigure(
                    name: "\(kind), \(nodes)",
                    value: result.perSecond,
                    unit: "locks/s",
                    yardstick: "/s, half the requests of a null FUSE",
                    beside: requests / 2,
                    remark:
                        "\(result.wrong) wrong; local, two processes: \(rounded(localTwo.perSecond))"
                )
            }
            figures += [figure("one node", alone), figure("two nodes", two)]
            unlink(paths[0])
        }
        return figures
    }

    private func withNullFuse<Result>(_ body: (String) throws -> Result) throws -> Result {
        let root = cluster.folder + "/null"
        guard mkdir(root, 0o755) == 0 else { throw BenchFailure.last("make", root) }
        defer { rmdir(root) }
        let daemon = try NullFuse(bin: bin, at: root)
        defer { daemon.end() }
        return try body(root)
    }
}
