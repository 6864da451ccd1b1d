import CLinux
import Glibc
import Testing

/// A folder of one test, on a disk file system, removed with everything in it when the test ends.
final class TemporaryFolder: Sendable {
    let path: String

    /// In `/dev/shm` (a tmpfs) when `inMemory`, else in `/var/tmp`.
    init(inMemory: Bool = false) throws {
        var template = Array(
            "\(inMemory ? "/dev/shm" : "/var/tmp")/lockstep-test-XXXXXX".utf8CString
        )
        guard mkdtemp(&template) != nil else { throw Trouble("mkdtemp: errno \(errno)") }
        path = template.withUnsafeBufferPointer { buffer in
            buffer.baseAddress.map { String(cString: $0) } ?? ""
        }
    }

    deinit { Self.removeTree(path) }

    private static func removeTree(_ path: String) {
        if let folder = opendir(path) {
            while let entry = readdir(folder) {
                let name = withUnsafePointer(to: &entry.pointee.d_name) { field in
                    field.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                if name != "." && name != ".." { removeTree(path + "/" + name) }
            }
            closedir(folder)
        }
        remove(path)
    }

    /// Makes a file of `byteCount` zero bytes and returns its path.
    func file(_ name: String, byteCount: Int) throws -> String {
        let full = path + "/" + name
        let descriptor = lockstep_open(full, O_RDWR | O_CREAT, 0o600)
        guard descriptor >= 0 else { throw Trouble("open: errno \(errno)") }
        defer { close(descriptor) }
        guard ftruncate(descriptor, byteCount) == 0 else { throw Trouble("size: errno \(errno)") }
        return full
    }
}

/// A test cannot be set up.
struct Trouble: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}
