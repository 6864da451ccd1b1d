import NIOCore
import Vocabulary

/// The first frame of each side of a connection.
///
///      0  magic        u64  "LKSTWIRE"
///      8  protocol     u32
///     12  node         u32
///     16  incarnation  u64
///     24  volume       u64 x 2
///
/// Little-endian, 40 bytes, longer in later versions.
struct Hello: Hashable {
    static let magic: UInt64 = 0x4552_4957_5453_4B4C  // "LKSTWIRE"
    static let version: UInt32 = 1
    static let byteCount = 40

    var identity: TransportIdentity

    func write(to buffer: inout ByteBuffer) {
        buffer.writeInteger(Self.magic, endianness: .little)
        buffer.writeInteger(Self.version, endianness: .little)
        buffer.writeInteger(identity.member.node.rawValue, endianness: .little)
        buffer.writeInteger(identity.member.incarnation, endianness: .little)
        buffer.writeInteger(identity.volumeHigh, endianness: .little)
        buffer.writeInteger(identity.volumeLow, endianness: .little)
    }

    /// Reads a hello; says what is wrong with it.
    static func read(_ frame: ByteBuffer) -> Result<Hello, TransportError> {
        var buffer = frame
        guard let magic = buffer.readInteger(endianness: .little, as: UInt64.self),
            magic == Self.magic
        else { return .failure(TransportError(description: "no hello")) }
        guard let version = buffer.readInteger(endianness: .little, as: UInt32.self),
            version == Self.version
        else { return .failure(TransportError(description: "another version of the protocol")) }
        guard let node = buffer.readInteger(endianness: .little, as: UInt32.self),
            let incarnation = buffer.readInteger(endianness: .little, as: UInt64.self),
            let high = buffer.readInteger(endianness: .little, as: UInt64.self),
            let low = buffer.readInteger(endianness: .little, as: UInt64.self),
            node != 0, incarnation != 0
        else { return .failure(TransportError(description: "a hello without a name")) }
        let member = Member(node: NodeID(node), incarnation: incarnation)
        return .success(
            Hello(
                identity: TransportIdentity(volumeHigh: high, volumeLow: low, member: member)
            )
        )
    }
}

/// Cuts the stream into frames: length (u32, little-endian, 1 ... `maximumFrame`), bytes.
struct FrameDecoder: ByteToMessageDecoder {
    typealias InboundOut = ByteBuffer

    mutating func decode(
        context: ChannelHandlerContext,
        buffer: inout ByteBuffer
    ) throws -> DecodingState {
        guard
            let length = buffer.getInteger(
                at: buffer.readerIndex,
                endianness: .little,
                as: UInt32.self
            )
        else { return .needMoreData }
        guard length > 0, length <= UInt32(UnixTransport.maximumFrame) else {
            throw TransportError(description: "a frame of \(length) bytes")
        }
        guard buffer.readableBytes >= 4 + Int(length) else { return .needMoreData }
        buffer.moveReaderIndex(forwardBy: 4)
        guard let frame = buffer.readSlice(length: Int(length)) else { return .needMoreData }
        context.fireChannelRead(wrapInboundOut(frame))
        return .continue
    }

    mutating func decodeLast(
        context: ChannelHandlerContext,
        buffer: inout ByteBuffer,
        seenEOF: Bool
    ) throws -> DecodingState {
        // What is left is the beginning of a frame whose sender has died.
        while try decode(context: context, buffer: &buffer) == .continue {}
        return .needMoreData
    }
}
