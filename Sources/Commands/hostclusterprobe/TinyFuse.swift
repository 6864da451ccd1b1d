// The smallest FUSE file system whose pages and attributes the kernel caches for ever: a folder
// with one file `a` of 64 KiB that says "OLD!" throughout. It exists to be killed.
//
// A MKDIR it never answers, and begins to invalidate an entry of that directory instead, as another
// node's change would have it: the kernel has the directory locked for the one and wants the lock for
// the other.

import CLinux
import Glibc
import HostCluster
import LinuxSystem
import Vocabulary

/// A mount with its guardian.
final class TinyFuse: Sendable {
    private static let fileSize: UInt64 = 65_536
    private let device: Int32
    private let path: String
    private let list: AnsweredInodes
    private let guardian: Guardian

    init(at path: String, slot: SlotIndex, directory: RunDirectory, mayAbort: Bool, isOld: Bool)
        throws
    {
        self.path = path
        device = lockstep_open("/dev/fuse", O_RDWR, 0)
        guard device >= 0 else { throw SystemError.last("open", "/dev/fuse") }
        let options = "fd=\(device),rootmode=40000,user_id=0,group_id=0"
        guard mount("tiny", path, "fuse", 0, options) == 0 else {
            throw SystemError.last("mount", path)
        }
        list = try AnsweredInodes(capacity: 16)
        for inode: UInt64 in [1, 2] { _ = list.add(inode) }
        let device = device
        try runThread(name: "fuse") { Self.serve(device) }.detach()
        var status = Glibc.stat()
        guard stat(path, &status) == 0 else { throw SystemError.last("stat", path) }
        if mayAbort { list.setConnection(device: UInt64(status.st_dev)) }
        guardian = try Guardian.start(
            slot: slot,
            in: directory,
            fuseDescriptor: device,
            list: list,
            keepsStandardError: true,
            watchesThread: !isOld
        )
    }

    func unmount() throws {
        guard umount2(path, 0) == 0 else { throw SystemError.last("umount", path) }
        list.sayFarewell()
        guard guardian.isRunning else { throw SystemError("guardian", code: ESRCH) }
    }

    private static func serve(_ device: Int32) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        while true {
            let count = read(device, buffer.baseAddress, buffer.count)
            if count < 0 && (errno == EINTR || errno == ENOENT) { continue }
            guard count >= 40 else { return }
            answer(device, UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        }
    }

    private static func jam(_ device: Int32, _ directory: UInt64) {
        do {
            try runThread(name: "jammed") {
                var message = Reply()
                message.put(UInt32(16 + 16 + 2))
                message.put(Int32(3))  // FUSE_NOTIFY_INVAL_ENTRY
                message.put(UInt64(0))
                message.put(directory)
                message.put(UInt64(1))
                message.bytes += [UInt8(ascii: "a"), 0]
                _ = write(device, message.bytes, message.bytes.count)
            }.detach()
        } catch {
            print("no thread: \(error)")
        }
    }

    private static func answer(_ device: Int32, _ request: UnsafeRawBufferPointer) {
        func number<Number: FixedWidthInteger>(_ offset: Int, _ type: Number.Type) -> Number {
            request.loadUnaligned(fromByteOffset: offset, as: type)
        }
        let node = number(16, UInt64.self)
        var reply = Reply()
        var error: Int32 = 0
        switch number(4, UInt32.self) {
        case 26:  // INIT: 7.31, small requests, no flags
            for word in [7, 31, 131_072, 0] as [UInt32] { reply.put(word) }
            for word in [12, 9] as [UInt16] { reply.put(word) }
            for word in [65_536, 1] as [UInt32] { reply.put(word) }
            reply.zeros(64 - reply.bytes.count)
        case 1:  // LOOKUP
            if request[40...].elementsEqual([97, 0]) {
                for word in [2, 1, 1 << 30, 1 << 30, 0] as [UInt64] { reply.put(word) }
                reply.attributes(2, fileSize)
            } else {
                error = ENOENT
            }
        case 3:  // GETATTR
            reply.put(UInt64(1 << 30))
            reply.put(UInt64(0))
            reply.attributes(node, fileSize)
        case 14, 27:  // OPEN, OPENDIR: keep the cache
            for word in [1, 2] as [UInt64] { reply.put(word) }
        case 15:  // READ
            let offset = number(48, UInt64.self)
            let length = min(UInt64(number(56, UInt32.self)), fileSize - min(offset, fileSize))
            for _ in 0..<(length / 4) { reply.bytes += [79, 76, 68, 33] }
        case 18, 25, 29: break  // RELEASE, FLUSH, RELEASEDIR
        case 2, 42: return  // FORGET
        case 9:  // MKDIR
            jam(device, node)
            return
        default: error = ENOSYS
        }
        reply.send(device, unique: number(8, UInt64.self), error: error)
    }
}

private struct Reply {
    var bytes: [UInt8] = []

    mutating func put<Number: FixedWidthInteger>(_ value: Number) {
        withUnsafeBytes(of: value) { bytes.append(contentsOf: $0) }
    }

    mutating func zeros(_ count: Int) {
        bytes.append(contentsOf: [UInt8](repeating: 0, count: count))
    }

    /// `struct fuse_attr`
    mutating func attributes(_ inode: UInt64, _ fileSize: UInt64) {
        for word in [inode, inode == 1 ? 0 : fileSize, 8, 0, 0, 0] as [UInt64] { put(word) }
        let mode: UInt32 = inode == 1 ? 0o40755 : 0o100_644
        for word in [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0] as [UInt32] { put(word) }
    }

    func send(_ device: Int32, unique: UInt64, error: Int32) {
        var message = Reply()
        let payload = error == 0 ? bytes : []
        message.put(UInt32(16 + payload.count))
        message.put(-error)
        message.put(unique)
        message.bytes += payload
        _ = write(device, message.bytes, message.bytes.count)  // fails if the asker was killed
    }
}
