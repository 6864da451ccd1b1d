// Messages of the group as bytes. Members of a group are of one version, which the name of the group says; what cannot be
// read is from a stranger, and dropped.
//
//   0  magic    u32  "LKGA"
//   4  version  u8   1
//   5  kind     u8
//   6  what the kind has, in the order below; numbers little-endian, texts with their length (u16) before them

import Membership
import Vocabulary

/// Bytes that are no message of a group.
package struct AgreementWireError: Error, Hashable, Sendable, CustomStringConvertible {
    /// What is wrong.
    package let description: String
}

extension AgreementMessage {
    /// The longest message, in bytes.
    package static let maximumLength = 256 * 1024
    private static let magic: UInt32 = 0x4147_4B4C  // "LKGA"
    private static let version: UInt8 = 1

    /// The message as bytes.
    package var bytes: [UInt8] {
        var writer = AgreementWriter()
        writer.number(Self.magic)
        writer.number(Self.version)
        switch self {
        case .standing(let state, let life):
            writer.number(UInt8(1))
            writer.optional(state) { $0.state($1) }
            writer.optional(life) { $0.member($1) }
        case .quorate(let inspection):
            writer.number(UInt8(2))
            writer.inspection(inspection)
        case .inquorate(let ring):
            writer.number(UInt8(8))
            writer.ring(ring)
        case .join(let member, let wish):
            writer.number(UInt8(3))
            writer.member(member)
            writer.wish(wish)
        case .leave(let member):
            writer.number(UInt8(4))
            writer.member(member)
        case .replayed(let epoch):
            writer.number(UInt8(5))
            writer.number(epoch.rawValue)
        case .doom(let member, let why):
            writer.number(UInt8(6))
            writer.member(member)
            writer.suspicion(why)
        case .fenced(let member, let proof):
            writer.number(UInt8(7))
            writer.member(member)
            writer.number(proof.rawValue)
        }
        precondition(writer.bytes.count <= Self.maximumLength, "Agreement: a message too long")
        return writer.bytes
    }

    /// Reads what `bytes` writes, and nothing else.
    package init(bytes: UnsafeRawBufferPointer) throws(AgreementWireError) {
        guard bytes.count <= Self.maximumLength else {
            throw AgreementWireError(description: "\(bytes.count) bytes are too many")
        }
        var reader = AgreementReader(bytes)
        guard try reader.number(UInt32.self) == Self.magic else {
            throw AgreementWireError(description: "no message of a group")
        }
        let version = try reader.number(UInt8.self)
        guard version == Self.version else {
            throw AgreementWireError(
                description: "version \(version) of the agreement, not \(Self.version)"
            )
        }
        switch try reader.number(UInt8.self) {
        case 1:
            self = .standing(
                try reader.boolean() ? try reader.state() : nil,
                life: try reader.boolean() ? try reader.member() : nil
            )
        case 2: self = .quorate(try reader.inspection())
        case 3: self = .join(try reader.member(), try reader.wish())
        case 4: self = .leave(try reader.member())
        case 5: self = .replayed(Epoch(try reader.number(UInt64.self)))
        case 6: self = .doom(try reader.member(), try reader.suspicion())
        case 7:
            let member = try reader.member()
            guard let proof = FenceProof(rawValue: try reader.number(UInt8.self)) else {
                throw AgreementWireError(description: "an unknown proof")
            }
            self = .fenced(member, proof)
        case 8: self = .inquorate(try reader.ring())
        case let kind: throw AgreementWireError(description: "kind \(kind) is unknown")
        }
        guard reader.isAtEnd else {
            throw AgreementWireError(description: "bytes after the end")
        }
    }
}
