// The directory that an agent works in. Everything is reached from its open descriptor, so that no path leads
// into the empty directory below a mount that is gone.

import CLinux
import Glibc
import LinuxSystem
import StressJudging

/// The run's folder below a mount point, and what tells whether the mount lives.
final class StressMountPoint: Sendable {
    let path: String
    /// The mount point and the run's folder in it.
    let root: Int32
    let folder: Int32
    /// The number of the mounted file system (st_dev).
    let device: UInt64

    /// Errors of a file system that is gone.
    static let fatal: Set<Int32> = [ENOTCONN, ECONNABORTED, ESHUTDOWN, ENODEV, ESTALE, ENXIO]

    /// Opens the folder, which must be there.
    ///
    /// - Throws: `StressTrouble` in a line.
    init(_ path: String, plan: StressPlan, creates: Bool) throws(StressTrouble) {
        self.path = path
        let root = lockstep_open(path, O_RDONLY | O_DIRECTORY, 0)
        guard root >= 0 else { throw StressTrouble("\(path): \(errnoText(errno))") }
        var status = stat()
        guard fstat(root, &status) == 0 else {
            let code = errno
            Glibc.close(root)
            throw StressTrouble("\(path): \(errnoText(code))")
        }
        device = UInt64(status.st_dev)
        do throws(StressTrouble) {
            folder = try Self.openFolder(root, path, plan, creates: creates)
        } catch {
            Glibc.close(root)
            throw error
        }
        self.root = root
    }

    private static func openFolder(
        _ root: Int32,
        _ path: String,
        _ plan: StressPlan,
        creates: Bool
    ) throws(StressTrouble) -> Int32 {
        if creates, mkdirat(root, plan.folder, 0o700) != 0, errno != EEXIST {
            throw StressTrouble("\(path): no folder can be made: \(errnoText(errno))")
        }
        let folder = openat(root, plan.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard folder >= 0 else {
            throw StressTrouble(
                errno == ENOENT
                    ? "\(path) does not show the same directory as the first mount point"
                    : "\(path)/\(plan.folder): \(errnoText(errno))"
            )
        }
        do throws(StressTrouble) {
            try check(folder, path, plan, creates: creates)
        } catch {
            Glibc.close(folder)
            throw error
        }
        return folder
    }

    /// The file that only this run's folder has.
    private static func check(
        _ folder: Int32,
        _ path: String,
        _ plan: StressPlan,
        creates: Bool
    ) throws(StressTrouble) {
        let name = "marker"
        let key = StressKey(rawValue: 0)
        let marker = StressBlock(run: plan.run, key: key, version: 1, writer: 0).bytes(size: 64)
        let flags = (creates ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC
        let file = openat(folder, name, flags, 0o600)
        guard file >= 0 else { throw StressTrouble("\(path): no marker: \(errnoText(errno))") }
        defer { Glibc.close(file) }
        if creates {
            guard pwrite(file, marker, marker.count, 0) == marker.count, fsync(file) == 0,
                fsync(folder) == 0
            else { throw StressTrouble("\(path): \(errnoText(errno))") }
        }
        var found = [UInt8](repeating: 0, count: marker.count)
        guard pread(file, &found, found.count, 0) == marker.count, found == marker else {
            throw StressTrouble("\(path) shows the folder of another run")
        }
    }

    /// Whether the file system has gone away.
    var isLost: Bool {
        var status = statfs()
        if fstatfs(root, &status) == 0 { return false }
        return Self.fatal.contains(errno) || errno == EIO
    }

    /// Bytes that are free.
    var free: UInt64 {
        var status = statvfs()
        return fstatvfs(root, &status) == 0
            ? UInt64(status.f_bavail) * UInt64(status.f_frsize) : .max
    }

    /// Gives the descriptors back. Once.
    func close() {
        Glibc.close(folder)
        Glibc.close(root)
    }

    /// Two agents of one domain share a page cache: a number of the host and of the file system.
    var domain: UInt64 {
        var host: UInt64 = 14_695_981_039_346_656_037
        let file = lockstep_open("/proc/sys/kernel/random/boot_id", O_RDONLY, 0)
        if file >= 0 {
            var bytes = [UInt8](repeating: 0, count: 64)
            let count = read(file, &bytes, bytes.count)
            for byte in bytes.prefix(max(0, count)) {
                host = (host ^ UInt64(byte)) &* 1_099_511_628_211
            }
            Glibc.close(file)
        }
        return stressMix(host, device)
    }
}
