// The file calls of the workloads, relative to the run's folder.

import CLinux
import Glibc
import LinuxSystem
import StressJudging

extension StressLane {
    /// Opens a file of the run's folder.
    func openFile(
        _ name: String,
        _ flags: Int32,
        _ key: StressKey,
        allowing allowed: Set<Int32> = []
    ) throws(StressFailure) -> Int32 {
        let folder = folder
        return Int32(
            try call("open \(name)", key, allowing: allowed) {
                Int(openat(folder, name, flags | O_CLOEXEC, 0o600))
            }
        )
    }

    /// Opens a file and makes it at least so long. All agents do so, in any order.
    func openSized(_ name: String, _ size: Int, _ key: StressKey) throws(StressFailure) -> Int32 {
        let file = try openFile(name, O_RDWR | O_CREAT, key)
        if try self.size(file, key) < size {
            // Nobody writes beyond it, so that nobody cuts anything off.
            _ = try call("ftruncate", key, UInt64(size)) { Int(ftruncate(file, size)) }
        }
        return file
    }

    func size(_ file: Int32, _ key: StressKey) throws(StressFailure) -> Int {
        var status = stat()
        _ = try call("fstat", key) { Int(fstat(file, &status)) }
        note(key, "size", UInt64(status.st_size), 0)
        return Int(status.st_size)
    }

    func write(_ bytes: [UInt8], _ file: Int32, at offset: Int, _ key: StressKey, _ version: UInt64)
        throws(StressFailure)
    {
        let count = try call("pwrite", key, version) { pwrite(file, bytes, bytes.count, offset) }
        if count != bytes.count { complain(key, "short write: \(count) of \(bytes.count) bytes") }
    }

    func read(_ count: Int, _ file: Int32, at offset: Int, _ key: StressKey) throws(StressFailure)
        -> [UInt8]
    {
        var bytes = [UInt8](repeating: 0, count: count)
        let got = try call("pread", key, UInt64(offset)) { pread(file, &bytes, count, offset) }
        if got < count { bytes.removeLast(count - got) }
        return bytes
    }

    func sync(_ file: Int32, _ key: StressKey, data: Bool = false) throws(StressFailure) {
        _ = try call(data ? "fdatasync" : "fsync", key) {
            Int(data ? fdatasync(file) : fsync(file))
        }
    }

    /// Takes or gives back a lock of bytes.
    ///
    /// - Returns: whether it was granted; only F_SETLK and its like refuse.
    func lockBytes(
        _ file: Int32,
        _ command: Int32,
        _ type: Int32,
        _ start: Int,
        _ count: Int,
        _ key: StressKey
    ) throws(StressFailure) -> Bool {
        var wish = flock()
        wish.l_type = Int16(type)
        wish.l_whence = Int16(SEEK_SET)
        wish.l_start = start
        wish.l_len = count
        let name = type == F_UNLCK ? "unlock" : type == F_RDLCK ? "lock shared" : "lock"
        return try call(name, key, UInt64(start), allowing: [EAGAIN, EACCES]) {
            Int(fcntl(file, command, &wish))
        } >= 0
    }
}

/// Closes descriptors and forgets them.
func closeFiles(_ files: inout [Int32]) {
    for file in files where file >= 0 { close(file) }
    files = []
}

/// Memory whose address suits O_DIRECT.
final class AlignedMemory {
    let raw: UnsafeMutableRawBufferPointer

    init(bytes: Int) {
        raw = .allocate(byteCount: bytes, alignment: 4096)
    }

    deinit { raw.deallocate() }
}
