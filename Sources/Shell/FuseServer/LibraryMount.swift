// The mount itself: made by libfuse, ended by umount(2) or fusermount3.

import CFuse3
import CLinux
import Glibc
import LinuxSystem

/// A mount point with our connection on it.
final class LibraryMount: @unchecked Sendable {
    // Sendable: `session` is given up once, under `latch`; `device` is set by `init`; the rest is
    // constant.

    /// Of /dev/fuse.
    let descriptor: Int32
    /// The mount point as an absolute path without symbolic links.
    let path: String

    private let latch = Latch()
    private var session: OpaquePointer?
    /// Which mount it is: another may come to lie over it, or take its place.
    private var device: String?

    init(_ options: FuseOptions) throws(FuseServerError) {
        guard let resolved = realpath(options.mountPoint, nil) else {
            throw .system(SystemError.last("mount point", options.mountPoint))
        }
        path = String(cString: resolved)
        free(resolved)

        lockstep_fuse_start_keeping_lines()
        let words = ["lockstep", "-o", options.optionList]
        var vector = words.map { strdup($0) } + [nil]
        defer { for word in vector { free(word) } }
        let made = vector.withUnsafeMutableBufferPointer { buffer -> OpaquePointer? in
            var arguments = fuse_args(
                argc: Int32(words.count),
                argv: buffer.baseAddress,
                allocated: 0
            )
            var nothing = fuse_lowlevel_ops()
            defer { fuse_opt_free_args(&arguments) }
            return fuse_session_new(
                &arguments,
                &nothing,
                MemoryLayout<fuse_lowlevel_ops>.size,
                nil
            )
        }
        guard let made else { throw .mount(Self.reason("bad mount options")) }
        guard fuse_session_mount(made, path) == 0 else {
            let reason = Self.reason("\(path) could not be mounted")
            fuse_session_destroy(made)
            throw .mount(reason)
        }
        session = made
        descriptor = fuse_session_fd(made)
        device = deviceNumber()
    }

    /// What libfuse said, without its prefix and line end.
    private static func reason(_ fallback: String) -> String {
        var line = String(cString: lockstep_fuse_last_line())
        while line.last == "\n" { line.removeLast() }
        if line.hasPrefix("fuse: ") { line.removeFirst(6) }
        return line.isEmpty ? fallback : line
    }

    /// "0:42": the device number that the kernel gave to the mount.
    func deviceNumber() -> String? {
        for line in Self.mountTable() {
            let fields = line.split(separator: " ")
            // 36 35 0:42 / /mnt rw,nodev - fuse.lockstep disk.img rw
            if fields.count > 4, Self.unescaped(fields[4]) == path { return String(fields[2]) }
        }
        return nil
    }

    /// The mounts of this process, the newest first.
    private static func mountTable() -> [Substring] {
        let file = lockstep_open("/proc/self/mountinfo", O_RDONLY, 0)
        guard file >= 0 else { return [] }
        defer { close(file) }
        var text: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16 << 10)
        while true {
            let count = chunk.withUnsafeMutableBytes { read(file, $0.baseAddress, $0.count) }
            if count <= 0 { break }
            text.append(contentsOf: chunk[..<count])
        }
        return String(decoding: text, as: UTF8.self).split(separator: "\n").reversed()
    }

    /// mountinfo writes blanks and backslashes as three octal digits.
    private static func unescaped(_ field: Substring) -> String {
        var bytes: [UInt8] = []
        var rest = Array(field.utf8)[...]
        while let first = rest.first {
            if first == UInt8(ascii: "\\"), rest.count >= 4,
                let code = UInt8(
                    String(decoding: rest.dropFirst().prefix(3), as: UTF8.self),
                    radix: 8
                )
            {
                bytes.append(code)
                rest = rest.dropFirst(4)
            } else {
                bytes.append(first)
                rest = rest.dropFirst()
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    // MARK: Ending

    func unmount(_ mode: FuseServer.UnmountMode) throws(FuseServerError) {
        // Detached already, and its last user has not gone.
        guard isStillMounted() else { return }
        if geteuid() == 0 {
            let flags: Int32 =
                switch mode {
                case .orderly: 0
                case .lazy: Int32(MNT_DETACH)
                case .abort: Int32(MNT_FORCE | MNT_DETACH)
                }
            guard umount2(path, flags | Int32(UMOUNT_NOFOLLOW)) == 0 else {
                throw .system(SystemError.last("umount", path))
            }
            return
        }
        if mode == .abort { throw .system(SystemError("abort", path, code: EPERM)) }
        let code = Self.fusermount(path, isLazy: mode == .lazy)
        if code != 0 {
            throw .mount("fusermount3 -u \(path) failed with exit status \(code)")
        }
    }

    /// Exit status of fusermount3, or 127.
    private static func fusermount(_ path: String, isLazy: Bool) -> Int32 {
        let words = ["fusermount3", "-u", "-q"] + (isLazy ? ["-z"] : []) + ["--", path]
        var vector = words.map { strdup($0) } + [nil]
        defer { for word in vector { free(word) } }
        var process: pid_t = 0
        guard posix_spawnp(&process, "fusermount3", nil, nil, &vector, environ) == 0 else {
            return 127
        }
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0 && errno == EINTR {}
        return status & 0x7f == 0 ? (status >> 8) & 0xff : 127
    }

    /// Closes the descriptor and leaves no dead mount behind. After the connection has ended, or to
    /// undo a mount that was not taken into service. Does nothing the second time.
    func detach() {
        let made = latch.withLock { () -> OpaquePointer? in
            defer { session = nil }
            return session
        }
        guard let made else { return }
        // After an abort the mount is still there; after an unmount another may be in its place.
        let isOurs = isStillMounted()
        // Closes the descriptor, and unmounts unless the connection has ended.
        fuse_session_unmount(made)
        fuse_session_destroy(made)
        if isOurs && isDead() {
            if geteuid() == 0 {
                umount2(path, Int32(MNT_DETACH | UMOUNT_NOFOLLOW))
            } else {
                _ = Self.fusermount(path, isLazy: true)
            }
        }
    }

    private func isStillMounted() -> Bool { device != nil && deviceNumber() == device }

    /// A mount whose connection has ended answers ENOTCONN.
    private func isDead() -> Bool {
        var status = stat()
        return lstat(path, &status) != 0 && errno == ENOTCONN
    }
}
