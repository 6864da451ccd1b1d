import CLinux
import Glibc
import LinuxSystem

/// 64 random bits, never 0.
func randomWord() throws(SystemError) -> UInt64 {
    var word: UInt64 = 0
    repeat {
        guard getrandom(&word, 8, 0) == 8 else { throw .last("getrandom") }
    } while word == 0
    return word
}

/// The PID namespace of this process: a number two processes share if their process numbers mean
/// the same.
func ownPidNamespace() throws(SystemError) -> UInt64 {
    var status = Glibc.stat()
    guard stat("/proc/self/ns/pid", &status) == 0 else { throw .last("stat", "/proc/self/ns/pid") }
    return UInt64(status.st_ino)
}

/// The whole of a text file of at most 64 KiB; nil if there is none.
func readSmallFile(_ path: String) throws(SystemError) -> String? {
    let descriptor = lockstep_open(path, O_RDONLY | O_NOFOLLOW, 0)
    guard descriptor >= 0 else {
        if errno == ENOENT { return nil }
        throw .last("open", path)
    }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: 64 * 1024 + 1)
    var count = 0
    while count < bytes.count {
        let got = bytes.withUnsafeMutableBytes { buffer in
            read(descriptor, buffer.baseAddress.map { $0 + count }, buffer.count - count)
        }
        if got == 0 { break }
        if got < 0 {
            if errno == EINTR { continue }
            throw .last("read", path)
        }
        count += got
    }
    guard count < bytes.count else { throw SystemError("read", path, code: EFBIG) }
    return String(decoding: bytes[..<count], as: UTF8.self)
}

/// Writes a file anew, of this user alone.
func writeSmallFile(_ path: String, _ text: String, durably: Bool) throws(SystemError) {
    let descriptor = lockstep_open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0o600)
    guard descriptor >= 0 else { throw .last("open", path) }
    defer { close(descriptor) }
    let bytes = Array(text.utf8)
    var done = 0
    while done < bytes.count {
        let put = bytes.withUnsafeBytes { buffer in
            write(descriptor, buffer.baseAddress.map { $0 + done }, buffer.count - done)
        }
        if put < 0 {
            if errno == EINTR { continue }
            throw .last("write", path)
        }
        done += put
    }
    if durably && fsync(descriptor) != 0 { throw .last("fsync", path) }
}

/// Another process, held by a descriptor, so that its number cannot come to mean somebody else.
final class ProcessHandle: Sendable {
    let descriptor: Int32

    /// Nil, with `errno`, if there is no such process.
    init?(_ process: Int32) {
        guard process > 0 else { return nil }
        descriptor = lockstep_pidfd_open(process)
        if descriptor < 0 { return nil }
    }

    deinit { close(descriptor) }

    /// Sends SIGKILL. Returns 0 or an errno; ESRCH when it has ended already.
    func kill() -> Int32 { lockstep_pidfd_send_signal(descriptor, SIGKILL) == 0 ? 0 : errno }

    /// Whether its last thread is gone: no system call of it, and so no write to a disk, is under
    /// way.
    var hasEnded: Bool {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return poll(&entry, 1, 0) == 1 && entry.revents & Int16(POLLIN) != 0
    }
}

/// Something that happens in a folder, or to one file.
final class FolderWatch: Sendable {
    let descriptor: Int32

    /// Watches `path` for the inotify events of the mask.
    init(_ path: String, events: UInt32) throws(SystemError) {
        descriptor = inotify_init1(Int32(IN_NONBLOCK | IN_CLOEXEC))
        guard descriptor >= 0 else { throw .last("inotify_init") }
        guard inotify_add_watch(descriptor, path, events) >= 0 else {
            let failure = SystemError.last("inotify_add_watch", path)
            close(descriptor)
            throw failure
        }
    }

    deinit { close(descriptor) }

    /// Waits for an event, at most so long, and takes all that have come. Returns the names of the
    /// files they concern ("" when a single file is watched; also when events were lost).
    func wait(milliseconds: Int32) throws(SystemError) -> [String] {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        if poll(&entry, 1, milliseconds) < 0 && errno != EINTR { throw .last("poll") }
        return try take()
    }

    /// Takes the events that have come.
    func take() throws(SystemError) -> [String] {
        var names: [String] = []
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 16_384, alignment: 8)
        defer { buffer.deallocate() }
        while true {
            let count = read(descriptor, buffer.baseAddress, buffer.count)
            if count < 0 {
                if errno == EAGAIN { return names }
                if errno == EINTR { continue }
                throw .last("read", "inotify")
            }
            var offset = 0
            while offset + MemoryLayout<inotify_event>.size <= count {
                let event = buffer.loadUnaligned(fromByteOffset: offset, as: inotify_event.self)
                let start = offset + MemoryLayout<inotify_event>.size
                let field = buffer[start..<start + Int(event.len)]
                names.append(String(decoding: field.prefix { $0 != 0 }, as: UTF8.self))
                offset = start + Int(event.len)
            }
        }
    }
}
