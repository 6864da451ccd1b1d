// The folder in which the nodes of one host meet, and its one lock.
//
//   RUN/UUID/id            random identity of this folder, 32 hexadecimal digits, for the guard on
//   disk
//   RUN/UUID/view.lock     held around every change of the view and around every kill
//   RUN/UUID/view          the shared record (Membership), replaced by rename
//   RUN/UUID/slot-N        who lives in slot N (SlotFile.swift)
//   RUN/UUID/slot-N.sock   where that node listens
//   RUN/UUID/guardian-N    locked while the guardian of slot N runs
//   RUN/UUID/offline       locked while a tool works on the unmounted volume
//
// If somebody removes the folder under running nodes, the next mount makes another with another
// identity, and the guard on disk keeps the two apart.
//
// All of it belongs to one user and is closed to others (mode 0700).

import CLinux
package import DiskFormat
import Glibc
import LinuxSystem
import Membership
package import Vocabulary

/// Why the nodes of this host cannot work together, in one line for the user.
package struct HostClusterError: Error, Hashable, Sendable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }
}

/// The folder of one volume in the run directory.
package struct RunDirectory: Sendable {
    /// The run directory itself.
    package let root: String
    /// The folder of the volume.
    package let folder: String
    /// The volume.
    package let volume: VolumeID

    /// The default: `/run/lockstep` for root, `$XDG_RUNTIME_DIR/lockstep` for others, or
    /// `/tmp/lockstep-UID` where that is not set. Wherever it is, it must belong to the user alone.
    package static func defaultRoot() -> String {
        if geteuid() == 0 { return "/run/lockstep" }
        guard let base = getenv("XDG_RUNTIME_DIR"), base.pointee != 0 else {
            return "/tmp/lockstep-\(geteuid())"
        }
        return String(cString: base) + "/lockstep"
    }

    /// The folder of `volume` below `root` (nil for the default); nothing is made.
    /// - Throws: `HostClusterError` when `root` is not an absolute path: a daemon leaves its
    /// working directory.
    package init(root: String?, volume: VolumeID) throws {
        self.root = root ?? Self.defaultRoot()
        guard self.root.hasPrefix("/") else {
            throw HostClusterError("the run directory '\(self.root)' must be an absolute path")
        }
        self.volume = volume
        folder = self.root + "/" + volume.description
    }

    /// Makes what is missing and checks whose it is.
    func make() throws {
        try Self.makePrivateFolder(root)
        try Self.makePrivateFolder(folder)
    }

    private static func makePrivateFolder(_ path: String) throws {
        if mkdir(path, 0o700) != 0 && errno != EEXIST { throw SystemError.last("mkdir", path) }
        var status = Glibc.stat()
        guard lstat(path, &status) == 0 else { throw SystemError.last("stat", path) }
        guard status.st_mode & S_IFMT == S_IFDIR, status.st_uid == geteuid(),
            status.st_mode & 0o077 == 0
        else {
            throw HostClusterError(
                "\(path) must be a folder of this user, closed to all others (mode 0700)"
            )
        }
    }

    func slot(_ slot: SlotIndex) -> String { folder + "/slot-\(slot.rawValue)" }
    func guardian(_ slot: SlotIndex) -> String { folder + "/guardian-\(slot.rawValue)" }
    var offline: String { folder + "/offline" }
    private var viewLock: String { folder + "/" + Self.viewLockName }
    private var view: String { folder + "/view" }
    static let viewLockName = "view.lock"

    /// Where the node in `slot` listens.
    package func socket(_ slot: SlotIndex) -> String { folder + "/slot-\(slot.rawValue).sock" }

    // MARK: Identity

    /// The random identity of the folder, made at first use.
    func identity() throws -> (high: UInt64, low: UInt64) {
        let path = folder + "/id"
        if let text = try readSmallFile(path) { return try parseIdentity(text, path) }
        let halves = (try randomWord(), try randomWord())
        let text = [halves.0, halves.1].map { word in
            let digits = String(word, radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }.joined()
        let draft = path + ".\(getpid()).\(String(halves.0, radix: 16))"
        try writeSmallFile(draft, text + "\n", durably: true)
        defer { unlink(draft) }
        // A link fails if somebody was faster; then his is the identity.
        if link(draft, path) != 0 && errno != EEXIST { throw SystemError.last("link", path) }
        return try parseIdentity(try readSmallFile(path) ?? "", path)
    }

    private func parseIdentity(_ text: String, _ path: String) throws -> (high: UInt64, low: UInt64)
    {
        let digits = text.prefix(32)
        guard digits.utf8.count == 32, text.dropFirst(32) == "\n",
            let high = UInt64(digits.prefix(16), radix: 16),
            let low = UInt64(digits.dropFirst(16), radix: 16)
        else {
            throw HostClusterError(
                "\(path) is damaged; remove it when nothing of this run directory is mounted"
            )
        }
        return (high, low)
    }

    // MARK: The record

    /// The shared record; nil if there is none yet.
    func readView() throws -> ViewRecord? {
        guard let text = try readSmallFile(view) else { return nil }
        let record = try ViewRecord(text: text)
        guard record.volume == volume.description else {
            throw ViewRecordError("the view is of volume \(record.volume)")
        }
        return record
    }

    /// Replaces the record; everybody sees the old one or the new one. Under the lock.
    func writeView(_ record: ViewRecord) throws {
        let draft = view + ".tmp"
        try writeSmallFile(draft, record.text, durably: false)
        guard rename(draft, view) == 0 else { throw SystemError.last("rename", view) }
    }

    /// Runs `body` under the lock of the volume.
    ///
    /// A process that stands still inside (stopped, or its disk hangs) would stop everybody for
    /// ever, so the lock file names its holder, and who has waited for `patience` nanoseconds kills
    /// it.
    /// - Throws: what `body` throws, or `HostClusterError` when the holder can be neither waited
    /// for nor
    ///   killed within `patience` and 10 seconds.
    package func withLock<Result>(
        patience: UInt64 = 60_000_000_000,
        _ body: () throws -> Result
    ) throws -> Result {
        let descriptor = lockstep_open(viewLock, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw SystemError.last("open", viewLock) }
        // The end of `close` is what others wait for; the lock is free before it.
        defer { close(descriptor) }
        try waitForLock(descriptor, patience)
        defer {
            ftruncate(descriptor, 0)
            lockstep_unlock(descriptor)
        }
        let name = Array("\(getpid())\n".utf8)
        // A holder that was killed has left its name.
        guard ftruncate(descriptor, 0) == 0, pwrite(descriptor, name, name.count, 0) == name.count
        else {
            throw SystemError.last("write", viewLock)
        }
        return try body()
    }

    private func waitForLock(_ descriptor: Int32, _ patience: UInt64) throws {
        if try takeLock(descriptor) { return }
        let closings = try FolderWatch(viewLock, events: UInt32(IN_CLOSE_WRITE))
        let begin = monotonicNow()
        var killed = false
        while try !takeLock(descriptor) {
            let waited = monotonicNow() - begin
            if waited >= patience && !killed {
                killed = true
                killHolder(descriptor)
            }
            if waited >= patience + 10_000_000_000 {
                throw HostClusterError(
                    "\(viewLock) is held by process \(holder(descriptor).map(String.init) ?? "?"), "
                        + "which neither goes on nor ends"
                )
            }
            // When a process ends, its closing is told a moment before its lock is free: look again
            // soon.
            _ = try closings.wait(milliseconds: 20)
        }
    }

    private func takeLock(_ descriptor: Int32) throws -> Bool {
        if lockstep_try_lock(descriptor) == 0 { return true }
        if errno == EAGAIN || errno == EACCES { return false }
        throw SystemError.last("lock", viewLock)
    }

    private func holder(_ descriptor: Int32) -> Int32? {
        var bytes = [UInt8](repeating: 0, count: 16)
        let count = pread(descriptor, &bytes, bytes.count, 0)
        guard count > 1, bytes[count - 1] == 10 else { return nil }
        return Int32(String(decoding: bytes[..<(count - 1)], as: UTF8.self))
    }

    /// As with slots: the process handle is taken before the lock is seen to be still its own.
    private func killHolder(_ descriptor: Int32) {
        guard let process = holder(descriptor), process != getpid(),
            let handle = ProcessHandle(process)
        else { return }
        if lockstep_is_locked(descriptor) == 1 && holder(descriptor) == process {
            _ = handle.kill()
        }
    }
}
