// A request of the kernel while it is worked on.

import CFuse3
import FileSystem
import Vocabulary

/// A message as it lies in memory: header and arguments. Valid as long as the memory.
struct Message {
    let header: UnsafePointer<fuse_in_header>
    /// Bytes with the header.
    let count: Int

    /// - Precondition: `start` is 8-byte aligned and holds at least a header.
    init(start: UnsafeRawPointer, count: Int) {
        precondition(count >= MemoryLayout<fuse_in_header>.size, "a message without a header")
        header = start.assumingMemoryBound(to: fuse_in_header.self)
        self.count = count
    }

    var opcode: Opcode? { Opcode(rawValue: header.pointee.opcode) }
    var unique: UInt64 { header.pointee.unique }
    var node: NodeHandle { NodeHandle(header.pointee.nodeid) }

    var caller: Caller {
        Caller(
            user: header.pointee.uid,
            group: header.pointee.gid,
            process: Int32(truncatingIfNeeded: header.pointee.pid)
        )
    }

    /// The thread for which the kernel asks, as far as the daemon's name space shows it; else 0.
    var thread: UInt32 { header.pointee.pid }

    /// That thread, and whether it asks for attributes because it reads an open file (rule F6).
    var attributeAsker: AttributeAsker {
        guard let wish = try? argument(fuse_getattr_in.self),
            wish.getattr_flags & UInt32(FUSE_GETATTR_FH) != 0
        else { return .looker(thread) }
        return .reader(thread)
    }

    /// What follows the header.
    var arguments: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(
            start: UnsafeRawPointer(header) + MemoryLayout<fuse_in_header>.size,
            count: count - MemoryLayout<fuse_in_header>.size
        )
    }

    /// The arguments as a structure of the protocol. EIO if the kernel sent less.
    func argument<Structure: BitwiseCopyable>(
        _ type: Structure.Type
    ) throws(FileError) -> Structure {
        guard arguments.count >= MemoryLayout<Structure>.size else { throw .inputOutput }
        return arguments.load(as: type)
    }

    /// What follows the first `offset` bytes of the arguments.
    func rest(after offset: Int) throws(FileError) -> UnsafeRawBufferPointer {
        guard arguments.count >= offset else { throw .inputOutput }
        return UnsafeRawBufferPointer(rebasing: arguments[offset...])
    }

    /// The zero-terminated name that starts `offset` bytes into the arguments, without the zero.
    func name(at offset: Int = 0) throws(FileError) -> UnsafeRawBufferPointer {
        let bytes = try rest(after: offset)
        guard let end = bytes.firstIndex(of: 0) else { throw .inputOutput }
        return UnsafeRawBufferPointer(rebasing: bytes[..<end])
    }
}

/// What a failed reply must take back: the kernel never learned of it.
struct Undo {
    /// A reference that the kernel would have counted.
    var node: NodeHandle?
    /// An open file that nobody will close.
    var file: (node: NodeHandle, handle: OpenHandle)?
    /// An open directory that nobody will close.
    var directory: (node: NodeHandle, handle: OpenHandle)?
}

/// A request that outlives the thread that received it. Used by one thread at a time: the receiver
/// until it is registered, then the engine, then the effect that sends its reply.
final class Request: @unchecked Sendable {
    private enum Memory {
        case copied(UnsafeMutableRawPointer)
        case buffer(TransferBuffer, BufferPool)
    }

    /// Room for every reply without data: header (16), entry (128), open file (16).
    static let replyCapacity = 192

    let message: Message
    let interruption = Interruption()
    /// Room for a reply of up to `replyCapacity` bytes.
    let replyArea: UnsafeMutableRawPointer
    var undo = Undo()
    /// Engine: whether a reply was decided. Exactly one is.
    var isAnswered = false

    private let memory: Memory

    /// Copies a message that stays with its thread.
    init(copying message: Message) {
        replyArea = .allocate(byteCount: Self.replyCapacity + message.count, alignment: 16)
        let start = replyArea + Self.replyCapacity
        start.copyMemory(from: message.header, byteCount: message.count)
        self.message = Message(start: start, count: message.count)
        memory = .copied(replyArea)
    }

    /// Takes over the buffer in which a message was received; it returns to `pool` with the
    /// request's end.
    init(taking buffer: TransferBuffer, from pool: BufferPool, count: Int) {
        replyArea = buffer.base
        message = Message(start: buffer.base + TransferBuffer.receiveOffset, count: count)
        memory = .buffer(buffer, pool)
    }

    deinit {
        switch memory {
        case .copied(let pointer): pointer.deallocate()
        case .buffer(let buffer, let pool): pool.giveBack(buffer)
        }
    }
}
