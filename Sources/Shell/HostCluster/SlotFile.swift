// A slot file says who lives in a slot. The lock on it (of the open file description: it lasts
// until the process's last thread is past closing its files) says that somebody does; the content
// says who:
//
//      0  magic        u64  "LKSTSLOT"
//      8  version      u32  1
//     12  process      u32  process number
//     16  incarnation  u64  the life; 0 while the file is being written
//     24  beat         u64  moved by the daemon's engine as long as it makes progress
//     32  namespace    u64  PID namespace in which `process` means something
//    256  mount point       up to 1,023 bytes and a zero
//   1280  device            up to 1,023 bytes and a zero
//   2304  last words        why this life withdrew, up to 1,023 bytes and a zero; empty otherwise
//
// Little-endian, 4,096 bytes. Only who holds the lock writes. The file is never removed, so that a
// lock on it always means this slot.

import CLinux
import Glibc
import LinuxSystem
import Synchronization
import Vocabulary

/// What a slot file says.
package struct SlotContent: Hashable, Sendable {
    package var process: Int32
    package var incarnation: UInt64
    package var beat: UInt64
    package var pidNamespace: UInt64
    package var mountPoint: String
    package var device: String
    /// Why it has withdrawn, if it did: one line.
    package var lastWords = ""

    static let byteCount = 4096
    static let magic: UInt64 = 0x544F_4C53_5453_4B4C  // "LKSTSLOT"
    static let version: UInt32 = 1
    static let beatOffset = 24
    static let longestText = 1023
    static let lastWordsOffset = 2304

    /// Nil if the bytes are not a finished slot file.
    init?(_ bytes: UnsafeRawBufferPointer) {
        func word(_ offset: Int) -> UInt64 {
            UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
        }
        func text(_ offset: Int) -> String {
            let field = bytes[offset..<offset + Self.longestText + 1]
            return String(decoding: field.prefix { $0 != 0 }, as: UTF8.self)
        }
        let versionAndProcess = word(8)
        guard bytes.count >= Self.byteCount, word(0) == Self.magic,
            UInt32(truncatingIfNeeded: versionAndProcess) == Self.version, word(16) != 0
        else { return nil }
        process = Int32(truncatingIfNeeded: versionAndProcess >> 32)
        incarnation = word(16)
        beat = word(Self.beatOffset)
        pidNamespace = word(32)
        mountPoint = text(256)
        device = text(1280)
        lastWords = text(Self.lastWordsOffset)
    }

    init(
        process: Int32,
        incarnation: UInt64,
        pidNamespace: UInt64,
        mountPoint: String,
        device: String
    ) {
        self.process = process
        self.incarnation = incarnation
        beat = 0
        self.pidNamespace = pidNamespace
        self.mountPoint = mountPoint
        self.device = device
    }

    /// Writes all fields into mapped memory; the incarnation last.
    fileprivate func write(to bytes: UnsafeMutableRawBufferPointer) {
        bytes.initializeMemory(as: UInt8.self, repeating: 0)
        func put(_ value: UInt64, _ offset: Int) {
            bytes.storeBytes(of: value.littleEndian, toByteOffset: offset, as: UInt64.self)
        }
        func put(_ text: String, _ offset: Int) {
            for (index, byte) in text.utf8.prefix(Self.longestText).enumerated() {
                bytes[offset + index] = byte
            }
        }
        put(Self.magic, 0)
        put(UInt64(Self.version) | UInt64(UInt32(bitPattern: process)) << 32, 8)
        put(beat, Self.beatOffset)
        put(pidNamespace, 32)
        put(mountPoint, 256)
        put(device, 1280)
        atomicMemoryFence(ordering: .releasing)
        put(incarnation, 16)
    }
}

/// One's own slot: the lock, and the mapped page with the heartbeat.
final class OwnSlot: @unchecked Sendable {
    // Sendable: the constants are; the beat is atomic.
    private let descriptor: Int32
    private let page: UnsafeMutableRawBufferPointer
    private let beat: UnsafeMutablePointer<Atomic<UInt64>>

    /// Takes the lock on the slot file at `path`, which nobody may hold, and fills the file.
    /// Nil when somebody holds it.
    init?(path: String, content: SlotContent) throws(SystemError) {
        let opened = lockstep_open(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600)
        guard opened >= 0 else { throw .last("open", path) }
        guard lockstep_try_lock(opened) == 0 else {
            let code = errno
            close(opened)
            if code == EAGAIN || code == EACCES { return nil }
            throw SystemError("lock", path, code: code)
        }
        // Room first: a store into a mapped page without room would be a SIGBUS.
        let code = posix_fallocate(opened, 0, off_t(SlotContent.byteCount))
        if code != 0 {
            close(opened)
            throw SystemError("allocate", path, code: code)
        }
        guard
            let mapped = mmap(
                nil,
                SlotContent.byteCount,
                PROT_READ | PROT_WRITE,
                MAP_SHARED,
                opened,
                0
            ),
            mapped != MAP_FAILED
        else {
            let failure = SystemError.last("map", path)
            close(opened)
            throw failure
        }
        descriptor = opened
        page = UnsafeMutableRawBufferPointer(start: mapped, count: SlotContent.byteCount)
        content.write(to: page)
        beat = (mapped + SlotContent.beatOffset).bindMemory(to: Atomic<UInt64>.self, capacity: 1)
    }

    /// Moves the heartbeat.
    func progress() { beat.pointee.add(1, ordering: .relaxed) }

    /// Says why this life withdraws. The process ends then, and whoever finds the slot without its
    /// lock reads it. The zero behind the text is there already: it is said once.
    func sayLastWords(_ text: String) {
        precondition(page[SlotContent.lastWordsOffset] == 0, "last words are said once")
        for (index, byte) in text.utf8.prefix(SlotContent.longestText).enumerated() {
            page[SlotContent.lastWordsOffset + index] = byte
        }
        atomicMemoryFence(ordering: .releasing)
    }

    /// Says in the file that nobody lives here, and gives the lock up.
    func vacate() {
        page.storeBytes(of: 0, toByteOffset: 16, as: UInt64.self)
        lockstep_unlock(descriptor)  // closing is not enough: the mapping holds the file open
        close(descriptor)
    }

    deinit { munmap(page.baseAddress, page.count) }
}

/// A look at somebody else's slot or guardian file. No lock is taken.
enum SlotProbe {
    /// Whether somebody holds the lock on the file at `path`; false if there is no such file.
    static func isLocked(_ path: String) throws(SystemError) -> Bool {
        let descriptor = lockstep_open(path, O_RDONLY | O_NOFOLLOW, 0)
        guard descriptor >= 0 else {
            if errno == ENOENT { return false }
            throw .last("open", path)
        }
        defer { close(descriptor) }
        return try isLocked(descriptor, path)
    }

    private static func isLocked(_ descriptor: Int32, _ path: String) throws(SystemError) -> Bool {
        let answer = lockstep_is_locked(descriptor)
        guard answer >= 0 else { throw .last("lock query", path) }
        return answer == 1
    }

    /// The content of the file, and whether somebody holds its lock. Nil if the file does not
    /// exist.
    static func read(
        _ path: String
    ) throws(SystemError) -> (content: SlotContent?, isLocked: Bool)? {
        let descriptor = lockstep_open(path, O_RDONLY | O_NOFOLLOW, 0)
        guard descriptor >= 0 else {
            if errno == ENOENT { return nil }
            throw .last("open", path)
        }
        defer { close(descriptor) }
        let locked = try isLocked(descriptor, path)
        return (try content(descriptor, path), locked)
    }

    /// The content of an open slot file; nil if it is not a finished one.
    static func content(
        _ descriptor: Int32,
        _ path: String
    ) throws(SystemError) -> SlotContent? {
        var bytes = [UInt8](repeating: 0, count: SlotContent.byteCount)
        let count = bytes.withUnsafeMutableBytes { pread(descriptor, $0.baseAddress, $0.count, 0) }
        guard count >= 0 else { throw .last("read", path) }
        guard count == SlotContent.byteCount else { return nil }
        return bytes.withUnsafeBytes { SlotContent($0) }
    }
}
