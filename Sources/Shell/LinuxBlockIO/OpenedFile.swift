import CLinux
import Glibc
import LinuxSystem

/// Why a device could not be opened, in one line for the user.
package struct DeviceOpenError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The path that was asked for.
    package var path: String
    /// What went wrong and what to do.
    package var reason: String
    /// The system's error number, or EINVAL where the system had none.
    package var errno: Int32

    package var description: String { "\(path): \(reason)" }
}

/// A file that has been opened and looked at: what `FileBlockDevice` begins with.
struct OpenedFile {
    var descriptor: Int32
    var alignment: Int
    var byteCount: UInt64
    var isDirect: Bool
    var isBlockSpecial: Bool

    init(path: String, options: FileBlockDevice.Options) throws(DeviceOpenError) {
        var kind = Glibc.stat()
        guard stat(path, &kind) == 0 else { throw Self.failure(path, "cannot be opened", errno) }
        let type = kind.st_mode & S_IFMT
        guard type == S_IFREG || type == S_IFBLK else {
            throw DeviceOpenError(
                path: path,
                reason: "is neither a block device nor an image file",
                errno: ENOTBLK
            )
        }
        isBlockSpecial = type == S_IFBLK
        var flags = options.readOnly ? O_RDONLY : O_RDWR
        if options.exclusive && isBlockSpecial { flags |= O_EXCL }
        var opened = lockstep_open(path, flags | lockstep_o_direct, 0)
        isDirect = opened >= 0
        if opened < 0 && errno == EINVAL {
            guard options.allowsBuffered else {
                throw DeviceOpenError(
                    path: path,
                    reason: "its file system does not support direct I/O (O_DIRECT); "
                        + "move the image to a disk file system, or allow buffered I/O for a test",
                    errno: EINVAL
                )
            }
            opened = lockstep_open(path, flags, 0)
        }
        guard opened >= 0 else { throw Self.failure(path, "cannot be opened", errno) }
        descriptor = opened
        do throws(DeviceOpenError) {
            guard let size = sizeOfFile(opened, isBlockSpecial: isBlockSpecial) else {
                throw Self.failure(path, "its size cannot be found", errno)
            }
            byteCount = size
            alignment =
                try isDirect ? Self.directAlignment(opened, path: path, byteCount: size) : 512
        } catch {
            Glibc.close(opened)
            throw error
        }
    }

    /// The smallest unit that direct I/O accepts, by trying: what `statx` would say, on every
    /// kernel.
    private static func directAlignment(
        _ descriptor: Int32,
        path: String,
        byteCount: UInt64
    ) throws(DeviceOpenError) -> Int {
        var sector: Int32 = 0
        if lockstep_sector_size(descriptor, &sector) == 0 && (sector == 512 || sector == 4096) {
            return Int(sector)
        }
        if byteCount < 4096 { return 4096 }  // too short to try; right for every device
        let page = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
        defer { page.deallocate() }
        for unit in [512, 4096] {
            if pread(descriptor, page, unit, 0) == unit { return unit }
            if errno != EINVAL { throw failure(path, "cannot be read", errno) }
        }
        throw DeviceOpenError(
            path: path,
            reason: "needs direct I/O in units above 4096 bytes, which is not supported",
            errno: EINVAL
        )
    }

    private static func failure(
        _ path: String,
        _ what: String,
        _ code: Int32
    ) -> DeviceOpenError {
        let text = code == EBUSY ? "is in use by the kernel" : "\(what): \(errnoText(code))"
        return DeviceOpenError(path: path, reason: text, errno: code)
    }
}

/// The system's word for the size of an open file or device in bytes; nil with `errno` set on
/// failure.
func sizeOfFile(_ descriptor: Int32, isBlockSpecial: Bool) -> UInt64? {
    if isBlockSpecial {
        var size: UInt64 = 0
        return lockstep_device_size(descriptor, &size) == 0 ? size : nil
    }
    var status = Glibc.stat()
    return fstat(descriptor, &status) == 0 ? UInt64(status.st_size) : nil
}
