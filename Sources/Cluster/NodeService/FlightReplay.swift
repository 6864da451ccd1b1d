// Doing again what a recording says, on a fresh lockspace; and telling it.

package import LockCore
package import Vocabulary

/// How a replay ended.
package enum FlightOutcome: Hashable, Sendable {
    /// The same effects, record by record, and the same lockspace at the end.
    case same
    /// The recording does not begin with the node: there is nothing to begin from.
    case notWhole
    /// The record with this index had another number of effects.
    case otherEffects(record: Int, recorded: Int, replayed: Int)
    /// All effects were as many, but the lockspace is another.
    case otherState
}

extension FlightRecording {
    /// Plays the records into a fresh lockspace. `look` is told each record with its effects.
    package func replay(_ look: (FlightRecord, [LockEffect]) -> Void = { _, _ in }) -> FlightOutcome
    {
        if !isWhole { return .notWhole }
        var space = Lockspace(node: node, incarnation: incarnation)
        space.settings = settings
        var effects: [LockEffect] = []
        for (index, record) in records.enumerated() {
            effects.removeAll(keepingCapacity: true)
            Self.play(record, into: &space, &effects)
            look(record, effects)
            let count = min(effects.count, Int(UInt16.max))
            if count != record.effects {
                return .otherEffects(record: index, recorded: record.effects, replayed: count)
            }
        }
        return space.digest == digest ? .same : .otherState
    }

    private static func play(
        _ record: FlightRecord,
        into space: inout Lockspace,
        _ effects: inout [LockEffect]
    ) {
        let time = record.tick / 1_000_000
        space.setTime(time)
        switch record.event {
        case .request(
            let name,
            let mode,
            let flags,
            let cookie,
            let owner,
            let parent,
            let patience,
            let bytes
        ):
            _ = space.request(
                name,
                mode,
                flags,
                cookie: cookie,
                owner: owner,
                parent: parent,
                patience: patience,
                bytes: bytes,
                effects: &effects
            )
            if flags.contains(.synchronous) { _ = space.takeSynchronous() }
        case .convert(let lock, let mode, let flags, let value):
            space.convert(lock, to: mode, flags, value: value, effects: &effects)
        case .unlock(let lock, let flags, let value):
            space.unlock(lock, flags, value: value, effects: &effects)
        case .cancel(let lock): space.cancel(lock, effects: &effects)
        case .ownerIsGone(let owner): space.ownerIsGone(owner, effects: &effects)
        case .purgeOrphans(let peer, let owner):
            space.purgeOrphans(of: peer, owner: owner, effects: &effects)
        case .message(let message, let peer, let epoch):
            space.receive(message, from: peer, epoch: epoch, effects: &effects)
        case .journalsReplayed(let epoch, _): space.journalsReplayed(epoch, effects: &effects)
        case .view(let view): space.viewChanged(view, effects: &effects)
        case .leave: space.leave(effects: &effects)
        case .tick: space.tick(time, effects: &effects)
        case .malformed: break
        }
    }

    // MARK: The story

    /// When something was, in seconds since 1970 with six digits.
    package func moment(_ tick: UInt64) -> String {
        let now = civilTime.seconds * 1_000_000 + Int64(civilTime.nanoseconds / 1000)
        let past = now - (Int64(self.tick / 1000) - Int64(tick / 1000))
        let fraction = String(past % 1_000_000)
        return "\(past / 1_000_000)."
            + String(repeating: "0", count: max(0, 6 - fraction.utf8.count)) + fraction
    }

    /// A value as the compiler prints it, without the names of modules.
    package static func plain(_ text: String) -> String {
        var text = text
        for module in ["Vocabulary.", "LockCore."] {
            text = text.split(separator: module, omittingEmptySubsequences: false).joined()
        }
        return text
    }

    /// One line about a record: when, and what went in.
    package func line(_ record: FlightRecord) -> String {
        "\(moment(record.tick)) \(node) \(record.event.words)"
    }
}

extension FlightEvent {
    /// The resource it speaks of, if it names one.
    package var name: ResourceName? {
        switch self {
        case .request(let name, _, _, _, _, _, _, _): name
        case .message(let message, _, _): message.lockedName
        default: nil
        }
    }

    /// What went in, for people.
    package var words: String {
        switch self {
        case .request(
            let name,
            let mode,
            let flags,
            let cookie,
            let owner,
            let parent,
            let patience,
            let bytes
        ):
            "asks for \(name) \(mode) (cookie \(cookie)"
                + (owner == .none ? "" : ", \(owner)")
                + (parent == .none ? "" : ", below \(parent)")
                + (bytes.map { ", \($0)" } ?? "")
                + (patience == 0 ? "" : ", for \(patience) ms") + Self.words(flags) + ")"
        case .convert(let lock, let mode, let flags, _):
            "converts \(lock) to \(mode)\(Self.words(flags))"
        case .unlock(let lock, let flags, _): "unlocks \(lock)\(Self.words(flags))"
        case .cancel(let lock): "cancels \(lock)"
        case .ownerIsGone(let owner): "\(owner) is gone"
        case .purgeOrphans(let peer, let owner): "purges orphans of \(peer), \(owner)"
        case .message(let message, let peer, let epoch):
            "from \(peer), \(epoch): \(FlightRecording.plain("\(message)"))"
        case .journalsReplayed(let epoch, let peer):
            "\(peer) says that journals of \(epoch) are replayed"
        case .view(let view): "view \(view)"
        case .leave: "leaves"
        case .tick: "tick"
        case .malformed(let peer): "\(peer) sent what is no message"
        }
    }

    private static func words(_ flags: LockFlags) -> String {
        flags.isEmpty ? "" : ", flags \(String(flags.rawValue, radix: 16))"
    }
}
