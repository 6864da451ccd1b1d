import CLinux
import Glibc
package import LinuxSystem
import Synchronization

/// The list of the inodes that the kernel may have cached, in memory that a daemon shares with its
/// guardian and that outlives the daemon.
///
///      0  magic       u64
///      8  farewell    u64  1 when the daemon ends in order
///     16  connection  u64  number of the FUSE connection plus 1; 0 while unknown
///     24  used        u64  entries below this index may be in use
///     32  capacity    u64
///     40  withdrawn   u64  1 when the daemon ends because its view can no longer be trusted
///   4096  entries     u64 each: the kernel's number of an inode, or 0
///
/// An inode is entered before the reply that names it is sent, and taken out when the kernel has
/// forgotten it.
package final class AnsweredInodes: @unchecked Sendable {
    // Sendable: words of the shared memory are atomic, the free list is guarded by the latch.

    static let magic: UInt64 = 0x4F4E_495F_5453_4B4C
    static let headerLength = 4096

    let descriptor: Int32
    private let memory: UnsafeMutableRawBufferPointer
    private let latch = Latch()
    private var free: [UInt32] = []
    private var used: UInt32 = 0

    /// How many inodes fit.
    package let capacity: Int

    /// Makes an empty list. Memory is used only as far as entries are: 8 bytes each.
    package init(capacity: Int = 1 << 22) throws(SystemError) {
        precondition((1...1 << 28).contains(capacity), "between 1 and 2^28 inodes")
        let made = lockstep_memory_file("lockstep-inodes")
        guard made >= 0 else { throw .last("memfd_create") }
        let byteCount = Self.headerLength + capacity * 8
        guard ftruncate(made, byteCount) == 0, let mapped = Self.map(made, byteCount) else {
            let failure = SystemError.last("mmap")
            close(made)
            throw failure
        }
        descriptor = made
        memory = mapped
        self.capacity = capacity
        word(32).store(UInt64(capacity), ordering: .relaxed)
        word(0).store(Self.magic, ordering: .releasing)
    }

    /// The list behind a descriptor that was inherited.
    init(inherited: Int32) throws(SystemError) {
        var status = Glibc.stat()
        guard fstat(inherited, &status) == 0 else { throw .last("stat", "list of inodes") }
        let byteCount = Int(status.st_size)
        guard byteCount > Self.headerLength, let mapped = Self.map(inherited, byteCount) else {
            throw .last("mmap", "list of inodes")
        }
        descriptor = inherited
        memory = mapped
        capacity = (byteCount - Self.headerLength) / 8
        guard word(0).load(ordering: .acquiring) == Self.magic else {
            throw SystemError("read", "list of inodes", code: EINVAL)
        }
    }

    deinit {
        munmap(memory.baseAddress, memory.count)
        close(descriptor)
    }

    private static func map(_ descriptor: Int32, _ count: Int) -> UnsafeMutableRawBufferPointer? {
        let start = mmap(nil, count, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
        guard let start, start != MAP_FAILED else { return nil }
        _ = start.bindMemory(to: Atomic<UInt64>.self, capacity: count / 8)
        return UnsafeMutableRawBufferPointer(start: start, count: count)
    }

    /// The word at a byte offset.
    private func word(_ offset: Int) -> AtomicWord {
        AtomicWord(
            place: memory.baseAddress.unsafelyUnwrapped.advanced(by: offset).assumingMemoryBound(
                to: Atomic<UInt64>.self
            )
        )
    }

    /// Enters an inode before the first reply that names it. The result names the entry; nil when
    /// the list is full, and then that inode must not be given to the kernel with any time to cache
    /// it.
    package func add(_ inode: UInt64) -> UInt32? {
        precondition(inode != 0, "inode 0 is no inode")
        let index: UInt32? = latch.withLock {
            if let index = free.popLast() { return index }
            guard used < capacity else { return nil }
            used += 1
            word(24).store(UInt64(used), ordering: .relaxed)
            return used - 1
        }
        guard let index else { return nil }
        word(Self.headerLength + Int(index) * 8).store(inode, ordering: .releasing)
        return index
    }

    /// Takes an entry out, when the kernel has forgotten the inode.
    package func remove(_ index: UInt32) {
        latch.withLock {
            precondition(index < used, "an entry that was never made")
            word(Self.headerLength + Int(index) * 8).store(0, ordering: .relaxed)
            free.append(index)
        }
    }

    /// Says which FUSE connection it is. `device` is `st_dev` of the mount, whose minor number is
    /// the connection's.
    package func setConnection(device: UInt64) {
        let minor = device & 0xFF | device >> 12 & 0xFFFF_FF00
        word(16).store(minor + 1, ordering: .releasing)
    }

    /// Says that the daemon ends in order: the file system is unmounted, nothing needs to be taken
    /// back.
    package func sayFarewell() { word(8).store(1, ordering: .releasing) }

    /// Says that the daemon ends because this node withdraws: the guardian stays and answers in its
    /// place.
    package func sayWithdrawn() { word(40).store(1, ordering: .releasing) }

    // MARK: What the guardian reads

    var saidFarewell: Bool { word(8).load(ordering: .acquiring) == 1 }

    var saidWithdrawn: Bool { word(40).load(ordering: .acquiring) == 1 }

    var connection: UInt32? {
        let stored = word(16).load(ordering: .acquiring)
        return stored == 0 ? nil : UInt32(truncatingIfNeeded: stored - 1)
    }

    /// Calls `body` with every inode in the list.
    package func forEach(_ body: (UInt64) -> Void) {
        let count = min(Int(clamping: word(24).load(ordering: .acquiring)), capacity)
        for index in 0..<count {
            let inode = word(Self.headerLength + index * 8).load(ordering: .acquiring)
            if inode != 0 { body(inode) }
        }
    }
}

/// A word of shared memory.
private struct AtomicWord {
    let place: UnsafeMutablePointer<Atomic<UInt64>>

    func load(ordering: AtomicLoadOrdering) -> UInt64 {
        ordering == .relaxed
            ? place.pointee.load(ordering: .relaxed) : place.pointee.load(ordering: .acquiring)
    }

    func store(_ value: UInt64, ordering: AtomicStoreOrdering) {
        if ordering == .relaxed {
            place.pointee.store(value, ordering: .relaxed)
        } else {
            place.pointee.store(value, ordering: .releasing)
        }
    }
}
