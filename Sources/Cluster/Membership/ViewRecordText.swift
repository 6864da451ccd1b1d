// The record as text: small, and an administrator may have to look at it on a bad day.
//
//   lockstep view 1
//   volume 6c1f...
//   slots 3
//   revision 12
//   epoch 7
//   member 1 89abcdef01234567
//   replay 0 7
//   end
//
// `member` names a node and its life (hexadecimal), `replay` a slot and the epoch since which it is
// listed. The last line shows that the file was not cut short.

import Vocabulary

/// A record cannot be read.
package struct ViewRecordError: Error, Hashable, Sendable, CustomStringConvertible {
    /// What is wrong, and where.
    package let description: String

    package init(_ description: String) { self.description = description }
}

extension ViewRecord {
    /// The longest text that is accepted, in bytes.
    package static let maximumTextLength = 64 * 1024

    /// The record as text.
    package var text: String {
        var lines = [
            "lockstep view 1", "volume \(volume)", "slots \(slotCount)", "revision \(revision)",
            "epoch \(epoch.rawValue)",
        ]
        for member in members {
            lines.append(
                "member \(member.node.rawValue) \(String(member.incarnation, radix: 16))"
            )
        }
        for slot in dirty { lines.append("replay \(slot.slot.rawValue) \(slot.since.rawValue)") }
        lines.append("end\n")
        return lines.joined(separator: "\n")
    }

    /// Reads what `text` writes, and nothing else.
    package init(text: String) throws(ViewRecordError) {
        guard text.utf8.count <= Self.maximumTextLength else {
            throw ViewRecordError("the view is too long")
        }
        var lines = LineReader(text)
        guard lines.next() == ["lockstep", "view", "1"] else {
            throw lines.error("not a view of a version that is known")
        }
        let volume = try lines.field("volume")
        let slots = try lines.number("slots", UInt32.self)
        let revision = try lines.number("revision", UInt64.self)
        let epoch = try lines.number("epoch", UInt64.self)
        var members: [Member] = []
        var dirty: [DirtySlot] = []
        while true {
            let words = lines.next()
            if words == ["end"] { break }
            guard words.count == 3 else { throw lines.error("neither a member nor a slot") }
            switch words[0] {
            case "member":
                guard let node = UInt32(words[1]), let life = UInt64(words[2], radix: 16) else {
                    throw lines.error("a member that is not a number")
                }
                members.append(Member(node: NodeID(node), incarnation: life))
            case "replay":
                guard let slot = UInt32(words[1]), let since = UInt64(words[2]) else {
                    throw lines.error("a slot that is not a number")
                }
                dirty.append(DirtySlot(slot: SlotIndex(slot), since: Epoch(since)))
            default: throw lines.error("neither a member nor a slot")
            }
        }
        guard
            let record = ViewRecord(
                volume: volume,
                slotCount: slots,
                revision: revision,
                epoch: Epoch(epoch),
                members: members,
                dirty: dirty
            )
        else { throw ViewRecordError("the view contradicts itself") }
        self = record
    }
}

/// Lines of words.
private struct LineReader {
    private let lines: [Substring]
    private var position = 0

    init(_ text: String) {
        lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    }

    /// The words of the next line; none at the end of the text.
    mutating func next() -> [String] {
        defer { position += 1 }
        return position < lines.count ? lines[position].split(separator: " ").map(String.init) : []
    }

    mutating func field(_ name: String) throws(ViewRecordError) -> String {
        let words = next()
        guard words.count == 2, words[0] == name else { throw error("'\(name)' is missing") }
        return words[1]
    }

    mutating func number<Number: FixedWidthInteger>(
        _ name: String,
        _ type: Number.Type
    ) throws(ViewRecordError) -> Number {
        guard let value = Number(try field(name)) else { throw error("'\(name)' is no number") }
        return value
    }

    func error(_ what: String) -> ViewRecordError {
        ViewRecordError("line \(position) of the view: \(what)")
    }
}
