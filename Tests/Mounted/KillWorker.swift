// What a node does while nodes are killed, and what of it must be found afterwards.

import CLinux
import Glibc
import Synchronization
import Vocabulary

/// One process on one node: replaces, removes and moves files of its own in a directory that all nodes
/// use, keeps a log with fsync, and makes everything else that leaves something half done.
final class KillWorker: @unchecked Sendable {
    // Sendable: what is not atomic belongs to the worker's thread while that runs, and to the test
    // otherwise.

    /// What a file may hold after a crash, oldest first: from the last state that was made durable to
    /// the one that was being made. Nil: there is no such file.
    private struct Slot {
        var possible: [UInt64?] = [nil]
    }

    let node: TestNode
    private var dice: SeededGenerator
    private var slots = [Slot](repeating: Slot(), count: 12)
    /// The log as far as it was fsynced.
    private var logged: [UInt8] = []
    private var next: UInt64
    private var descriptors: [Int32] = []
    /// Operations that have ended.
    let completed = Atomic<Int>(0)
    private let isStopped = Atomic<Bool>(false)
    /// Why it could not go on.
    private(set) var failure: (any Error)?
    private var thread: TestThread?

    init(_ node: TestNode, seed: UInt64) {
        self.node = node
        dice = SeededGenerator(seed: seed)
        next = UInt64(node.number + 1) << 40
    }

    /// What a file of this version holds: the version, and bytes and a size that follow from it.
    private static func pattern(_ version: UInt64) -> [UInt8] {
        let size = [10, 3_000, 9_000, 70_000][Int(version % 4)] + Int(version % 97)
        return withUnsafeBytes(of: version.littleEndian) { Array($0) }
            + Pattern(seed: version, count: size).bytes
    }

    /// Whether these are all the bytes of some version, and no others.
    private static func isWhole(_ bytes: [UInt8]) -> Bool {
        guard bytes.count > 8 else { return false }
        let version = bytes.prefix(8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        return bytes == pattern(version)
    }

    private func path(_ slot: Int) -> String { "\(node.root)/shared/n\(node.number)-\(slot)" }

    private var own: String { "\(node.root)/own\(node.number)" }

    // MARK: Working

    /// Works until `stop`, or until something fails.
    func start() {
        failure = nil
        completed.store(0, ordering: .relaxed)
        isStopped.store(false, ordering: .relaxed)
        thread = TestThread { [self] in
            do {
                if !Files.exists(own) { try check(mkdir(own, 0o755)) }
                while !isStopped.load(ordering: .relaxed) {
                    try work()
                    completed.add(1, ordering: .relaxed)
                }
            } catch {
                failure = error
            }
            for descriptor in descriptors { close(descriptor) }
            descriptors = []
        }
    }

    func stop() { isStopped.store(true, ordering: .relaxed) }

    func join() {
        thread?.join()
        thread = nil
    }

    /// Waits until so many operations have ended; false if it has failed, or after a minute.
    func wait(for count: Int) -> Bool {
        let deadline = monotonicSeconds() + 60 * Patience.factor
        while completed.load(ordering: .relaxed) < count {
            if monotonicSeconds() > deadline { return false }
            poll(nil, 0, 2)
        }
        return true
    }

    private func work() throws {
        let slot = dice.below(slots.count)
        switch dice.below(12) {
        case 0...3: try replace(slot)
        case 4: try remove(slot)
        case 5...6: try log()
        case 7: try directories()
        case 8: try orphan()
        case 9: try growAndShrink()
        case 10: try attributesAndLinks()
        default: try look()
        }
    }

    /// The way editors save: a new file, fsync, rename over the old one.
    private func replace(_ slot: Int) throws {
        next += 1
        let version = next
        let temporary = "\(dice.oneIn(2) ? own : node.root + "/shared")/t\(node.number)-\(slot)"
        try Files.write(Self.pattern(version), to: temporary, sync: true)
        slots[slot].possible.append(version)
        try check(rename(temporary, path(slot)))
        try perhapsDurable(slot)
    }

    private func remove(_ slot: Int) throws {
        guard slots[slot].possible.last != .some(nil) else { return }
        slots[slot].possible.append(nil)
        try check(unlink(path(slot)))
        try perhapsDurable(slot)
    }

    private func perhapsDurable(_ slot: Int) throws {
        guard dice.oneIn(2) else { return }
        try Files.withOpen(node.root + "/shared", O_RDONLY | O_DIRECTORY) { try check(fsync($0)) }
        slots[slot].possible.removeFirst(slots[slot].possible.count - 1)
    }

    private func log() throws {
        next += 1
        let record = Self.pattern(next)
        try Files.withOpen(own + "/log", O_WRONLY | O_CREAT | O_APPEND) {
            try Files.write(record, to: $0, at: nil)
            try check(fsync($0))
        }
        logged += record
    }

    private func directories() throws {
        let path = "\(own)/d\(dice.below(4))"
        if Files.exists(path) {
            for name in try Files.names(path) { try check(unlink(path + "/" + name)) }
            try check(rmdir(path))
        } else {
            try check(mkdir(path, 0o755))
            for number in 0..<dice.below(40) { try Files.write([1], to: "\(path)/\(number)") }
        }
    }

    /// A file that is unlinked and stays open until the node dies or the round ends.
    private func orphan() throws {
        let path = "\(node.root)/shared/o\(node.number)"
        let descriptor = try Files.open(path, O_RDWR | O_CREAT)
        descriptors.append(descriptor)
        try Files.write(Self.pattern(next), to: descriptor, at: 0)
        try check(unlink(path))
        if descriptors.count > 8 { close(descriptors.removeFirst()) }
    }

    private func growAndShrink() throws {
        let path = "\(own)/sparse"
        try Files.withOpen(path, O_RDWR | O_CREAT) { descriptor in
            for _ in 0..<dice.below(30) {
                try Files.write([7], to: descriptor, at: dice.below(4_000) * 16_384)
            }
            try check(ftruncate(descriptor, off_t(dice.below(4_000) * 16_384)))
            if dice.oneIn(3) { try check(fdatasync(descriptor)) }
        }
    }

    private func attributesAndLinks() throws {
        let path = "\(own)/named"
        if !Files.exists(path) { try Files.write([1], to: path) }
        let value = Pattern(seed: next, count: dice.below(3_000)).bytes
        try check(setxattr(path, "user.\(dice.below(6))", value, value.count, 0))
        let link = "\(node.root)/shared/l\(node.number)"
        if Files.exists(link) { try check(unlink(link)) }
        try check(Glibc.link(path, link))
    }

    /// Whatever another node has there is whole.
    private func look() throws {
        let other = dice.below(3)
        let path = "\(node.root)/shared/n\(other)-\(dice.below(slots.count))"
        let bytes: [UInt8]
        do {
            bytes = try Files.contents(path)
        } catch let error as SystemFailure where error.code == ENOENT || error.code == ESTALE {
            return  // just removed or replaced
        }
        guard Self.isWhole(bytes) else {
            throw Trouble("\(path) has \(bytes.count) bytes that nobody wrote together")
        }
    }

    // MARK: Judging

    /// Demands on `viewer` what must be there; what is there counts from then on. Of a node that was
    /// not killed everything must be there.
    func verify(on viewer: TestNode, wasKilled: Bool) throws {
        for slot in slots.indices {
            let name = "shared/n\(node.number)-\(slot)"
            let path = "\(viewer.root)/\(name)"
            let found = Files.exists(path) ? try Files.contents(path) : nil
            let allowed = wasKilled ? slots[slot].possible : [slots[slot].possible.last ?? nil]
            guard let version = allowed.last(where: { $0.map(Self.pattern) == found }) else {
                throw Trouble(
                    "\(viewer.name): \(name) has \(found.map { "\($0.count) bytes" } ?? "gone"), none of "
                        + "the \(allowed.count) states that it may be in"
                )
            }
            slots[slot].possible = [version]
        }
        let log = try logged.isEmpty ? [] : Files.contents("\(viewer.root)/own\(node.number)/log")
        guard log.starts(with: logged), wasKilled || log.count == logged.count else {
            throw Trouble(
                "\(viewer.name): the log of \(node.name) has \(log.count) bytes, which are not the "
                    + "\(logged.count) that were fsynced"
            )
        }
    }

    /// Before the next round: what is behind the last record that was fsynced is cut off.
    func tidy() throws {
        if logged.isEmpty { return }
        try check(truncate(own + "/log", off_t(logged.count)))
        if logged.count > 8 << 20 {
            try check(unlink(own + "/log"))
            logged = []
        }
    }
}
