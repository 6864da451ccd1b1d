// What travels between two nodes, and its header.
//
// Purpose: messages to bytes and back, on raw memory, without a trap on any input.
//
//   offset size  field (little-endian)
//        0    4  magic "LKSM"
//        4    1  version
//        5    1  kind
//        6    2  zero
//        8    4  length of the payload in bytes, at most `maximumPayload`
//       12    8  epoch of the sender's view
//       20    -  payload
//
// Invariants
// W1. Encoding and decoding are inverse: every message survives, and every accepted byte sequence
// is the
//     one encoding of its message.
// W2. Whatever the bytes are, decoding returns a message or throws a `WireError`; it reads nothing
//     outside the buffer and allocates no more than the payload's length justifies.
// W3. Numbers of kinds, modes, flags and statuses never change within a version. `Docs/PROTOCOL.md`
// lists
//     them, and a test compares golden bytes.

package import LockCore
package import Vocabulary

/// One message from node to node.
package enum NodeMessage: Hashable, Sendable {
    case lock(LockMessage)
    /// From the coordinator: the journals that the view of this epoch listed are replayed.
    case replayed(Epoch)
    /// The sender has left: it holds nothing and will say nothing more in this life.
    case goodbye
    /// An administrator asks something of this node; the number names the question in the answer.
    /// What the bytes say is LockReports' affair. At most `WireFormat.largestInquiry`.
    case inquiry(UInt32, [UInt8])
    /// A part of the answer, counted from zero; at most `WireFormat.largestPart` bytes.
    case report(UInt32, part: UInt32, isLast: Bool, [UInt8])
    /// When did the receiver last write to this file under locks of regions? The number names the question in the
    /// answer; `takes`: the sender stores the answer, and the receiver forgets it.
    case askLastWrite(UInt32, InodeNumber, takes: Bool)
    /// The answer; nil: not since the inode's times were stored.
    case lastWrite(UInt32, Timestamp?)
    /// What are the attributes of this file, if the receiver has it exclusively and is changing it?
    case askAttributes(UInt32, InodeNumber)
    /// The answer; nil: ask for the lock.
    case attributes(UInt32, GlimpsedAttributes?)
    /// Somebody has read this file on the sender's node, at that time.
    case accessed(InodeNumber, Timestamp)
    /// The volume is being frozen, and by whom.
    case freezes(FreezeNotice)
}

/// Why bytes are no message.
package enum WireError: Error, Hashable, Sendable {
    /// Fewer bytes than the header or the payload needs.
    case truncated(needed: Int, found: Int)
    case badMagic(UInt32)
    /// A version that this build does not speak.
    case unsupportedVersion(UInt8)
    case unknownKind(UInt8)
    /// A payload longer than any message, or not as long as its message.
    case badLength(Int)
    /// A field with a value that means nothing.
    case badValue(WireField)
}

/// The field that an error speaks of.
package enum WireField: UInt8, Hashable, Sendable {
    case reserved, resourceKind, depth, range, mode, flags, remarks, status, node, boolean, phase,
        state
    case thing, count, time
}

/// Numbers of the format.
package enum WireFormat {
    /// "LKSM".
    package static let magic: UInt32 = 0x4D53_4B4C
    package static let version: UInt8 = 6
    /// Bytes before the payload.
    package static let headerLength = 20
    /// The longest payload in bytes.
    package static let maximumPayload = 8192
    /// The most bytes of an inquiry, and of one part of a report.
    package static let largestInquiry = maximumPayload - 6
    package static let largestPart = maximumPayload - 11
}

/// A message with what its header says.
package struct DecodedMessage: Hashable, Sendable {
    package var message: NodeMessage
    /// Of the sender's view.
    package var epoch: Epoch
    /// Bytes the message took, header included: where the next one of a batch begins.
    package var byteCount: Int
}

/// The kinds of messages on the wire. Never renumbered.
enum WireKind: UInt8, CaseIterable {
    case lookup = 1
    case lookupReply = 2
    case claim = 3
    case claimReply = 4
    case confirm = 5
    case confirmReply = 6
    case remove = 7
    case entry = 8
    case entryIs = 9
    case disclaim = 10
    case request = 16
    case convert = 17
    case unlock = 18
    case cancel = 19
    case granted = 32
    case refused = 33
    case unlocked = 34
    case notMaster = 35
    case blocking = 36
    case handover = 37
    case purge = 38
    case masters = 48
    case rebuild = 49
    case sent = 50
    case reached = 51
    case proceed = 52
    case stagedMasters = 53
    case expect = 54
    case claimedMasters = 55
    case replayed = 64
    case goodbye = 65
    case inquiry = 66
    case report = 67
    case askLastWrite = 68
    case lastWrite = 69
    case askAttributes = 70
    case attributes = 71
    case freezes = 72
    case accessed = 73
    case seek = 80
    case chase = 81
    case cycle = 82
    case verify = 83
    case verified = 84
    case condemn = 85
    case condemned = 86
    case deadlocked = 87
    case moving = 96
    case movingSeen = 97
    case transfer = 98
    case taken = 99
    case moved = 100
}
