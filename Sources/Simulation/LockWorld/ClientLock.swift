// A lock as its client sees it, and what a client demands of every answer: the half of the oracle
// that needs nothing but the conversation between one client and its node. The random world and the
// search use the same.

import LockCore
import Vocabulary

/// A failure of an oracle: one line.
struct WorldFailure: Error, Hashable, CustomStringConvertible {
    var description: String

    init(_ description: String) { self.description = description }
}

/// What a client asked last for a lock.
enum Asked: Hashable, Sendable {
    case nothing
    case request(LockMode)
    case convert(LockMode)
    case unlock

    /// As one word, for comparing states.
    var word: UInt64 {
        switch self {
        case .nothing: 0
        case .request(let mode): 16 + UInt64(mode.rawValue)
        case .convert(let mode): 32 + UInt64(mode.rawValue)
        case .unlock: 48
        }
    }
}

/// A lock and what its client knows of it.
struct ClientLock: Sendable {
    let cookie: UInt64
    let name: ResourceName
    var id = LockID.none
    var held: LockMode?
    var asked: Asked
    var flags: LockFlags
    /// Bit per mode: the wants heard since the last grant or view.
    var heard: UInt8 = 0
    /// A notice came that was not acted upon.
    var mustYield: LockMode?
    var hasCancelled = false
    /// On whose behalf; deadlock searches run from owner to owner.
    var owner = LockOwner.none
    /// Of a lock of a range.
    var bytes: LockedBytes?
    /// Until when the client waits.
    var deadline: UInt64?
    /// The client was told of a circle that this wait is refused for.
    var isCondemned = false
    /// Given up with what stands above it, or with its owner.
    var isDoomed = false
    /// Its owner is gone: nobody hears of it any more.
    var isOrphan = false

    init(cookie: UInt64, name: ResourceName, mode: LockMode, flags: LockFlags) {
        self.cookie = cookie
        self.name = name
        self.asked = .request(mode)
        self.flags = flags
    }

    /// What the client may still rely on. A conversion gives up at once what the new mode lacks.
    var effective: LockMode? {
        guard let held, !isDoomed else { return nil }
        switch asked {
        case .nothing: return held
        case .unlock, .request: return nil
        case .convert(let mode):
            if held.covers(mode) { return mode }
            if flags.contains(.demoteOnDeadlock) { return .null }
            return mode.covers(held) ? held : .concurrentRead
        }
    }

    var isIdle: Bool { held != nil && asked == .nothing }

    /// Whether the client may do something with it.
    var isUsable: Bool { isIdle && !isDoomed && !isOrphan }

    /// Whether the client was told of a want that covers this one.
    func hasHeard(of wanted: LockMode) -> Bool {
        LockMode.allCases.contains { heard & (1 << $0.rawValue) != 0 && $0.covers(wanted) }
    }
}

/// What an answer means for the client.
enum ClientOutcome: Hashable, Sendable {
    /// Granted; `isLess` when it was a demotion.
    case granted(isLess: Bool, isSideways: Bool)
    /// A conversion was refused or withdrawn: the lock is as before.
    case unchanged
    /// The lock is gone. `isUnlock`: because the client gave it up.
    case gone(isUnlock: Bool)
}

extension ClientLock {
    /// Takes an answer, if it is one that may come. `now` is the time of the client's node.
    mutating func take(
        _ completion: LockCompletion,
        hasLeft: Bool,
        now: UInt64 = 0
    ) throws -> ClientOutcome {
        if isOrphan { throw WorldFailure("\(name): an orphan is told: \(completion)") }
        if isDoomed { return try takeLast(completion, hasLeft: hasLeft) }
        if asked == .nothing { throw WorldFailure("\(name): an answer to nothing: \(completion)") }
        if id != .none && completion.lock != id && completion.status != .shutDown {
            throw WorldFailure("\(name): an answer for another lock: \(completion)")
        }
        switch completion.status {
        case .granted: return try takeGrant(completion)
        case .wouldBlock, .cancelled, .deadlock, .timedOut:
            return try takeRefusal(completion, now: now)
        case .unlocked:
            if asked != .unlock { throw WorldFailure("\(name): unlocked without being asked") }
            return .gone(isUnlock: true)
        case .shutDown:
            if !hasLeft { throw WorldFailure("\(name): shut down early") }
            return .gone(isUnlock: false)
        case .stopped where flags.contains(.unlessStopped) && id == .none,
            .notFound where flags.contains(.adoptOrphan):
            return .gone(isUnlock: false)
        case .busy, .stopped, .notFound, .hasSublocks, .parentNotGranted:
            throw WorldFailure("\(name): an answer that cannot be: \(completion)")
        }
    }

    private mutating func takeRefusal(
        _ completion: LockCompletion,
        now: UInt64
    ) throws -> ClientOutcome {
        if completion.status == .cancelled && !hasCancelled {
            throw WorldFailure("\(name): cancelled without being asked")
        }
        if completion.status == .wouldBlock && flags.isDisjoint(with: [.noQueue, .adoptOrphan]) {
            throw WorldFailure("\(name): refused although it would have waited")
        }
        if completion.status == .timedOut && (deadline ?? .max) > now {
            throw WorldFailure("\(name): timed out at \(now), before its time")
        }
        if completion.status == .deadlock && !isCondemned {
            if case .request = asked {
                throw WorldFailure("\(name): a request that nobody waits behind is no deadlock")
            }
            if !flags.isDisjoint(with: [.noDeadlockWait, .noDeadlockBlock]) {
                throw WorldFailure("\(name): a deadlock of a lock that takes no part in any")
            }
        }
        if case .request = asked { return .gone(isUnlock: false) }
        try takeDemotion(completion)
        guard case .convert(let mode) = asked, completion.mode == held, held?.covers(mode) != true
        else { throw WorldFailure("\(name): a refusal that cannot be: \(completion)") }
        asked = .nothing
        return .unchanged
    }

    /// The old mode was taken.
    private mutating func takeDemotion(_ completion: LockCompletion) throws {
        if !completion.remarks.contains(.demoted) { return }
        guard flags.contains(.demoteOnDeadlock), held != nil else {
            throw WorldFailure("\(name): demoted without leave: \(completion)")
        }
        held = .null
    }

    /// Takes what may come of a lock that goes as soon as it can.
    private mutating func takeLast(
        _ completion: LockCompletion,
        hasLeft: Bool
    ) throws -> ClientOutcome {
        switch completion.status {
        case .unlocked: return .gone(isUnlock: true)
        case .shutDown where hasLeft: return .gone(isUnlock: false)
        case .granted:
            held = completion.mode
            heard = 0
        case .cancelled, .deadlock, .wouldBlock, .timedOut, .stopped:
            if case .request = asked { return .gone(isUnlock: false) }
            if completion.remarks.contains(.demoted) { held = .null }
        default: throw WorldFailure("\(name): an answer that cannot be: \(completion)")
        }
        asked = .nothing
        return .unchanged
    }

    private mutating func takeGrant(_ completion: LockCompletion) throws -> ClientOutcome {
        let mode: LockMode
        var isLess = false
        try takeDemotion(completion)
        switch asked {
        case .request(let wanted): mode = wanted
        case .convert(let wanted):
            mode = wanted
            isLess = held?.covers(wanted) ?? false
        default: throw WorldFailure("\(name): granted without being asked")
        }
        let isAlternative =
            (completion.mode == .protectedRead && flags.contains(.alternatePR))
            || (completion.mode == .concurrentWrite && flags.contains(.alternateCW))
        if completion.mode != mode && (!isAlternative || isLess) {
            throw WorldFailure("\(name): granted \(completion.mode) instead of \(mode)")
        }
        let isSideways = held.map { !mode.covers($0) } ?? false
        held = completion.mode
        asked = .nothing
        heard = 0
        deadline = nil
        return .granted(isLess: isLess, isSideways: isSideways)
    }

    /// Takes a blocking notice, if it is one that may come: the lock is granted and in the way, and
    /// the same want was not told before since the last grant or view.
    mutating func takeNotice(of wanted: LockMode) throws {
        guard let held else {
            throw WorldFailure("\(name): a notice for a lock that is not granted")
        }
        if held.isCompatible(with: wanted) {
            throw WorldFailure("\(name): a notice of \(wanted) to a holder in \(held)")
        }
        if hasHeard(of: wanted) { throw WorldFailure("\(name): a notice said twice: \(wanted)") }
        heard |= 1 << wanted.rawValue
        mustYield = wanted
    }
}

/// What was written last into a value block, as an observer of all clients knows it.
struct WrittenValue: Hashable, Sendable {
    var value: ValueBlock
    /// Nobody relied on the resource for a moment: it may have been forgotten.
    var mayBeForgotten: Bool

    init(value: ValueBlock, mayBeForgotten: Bool) {
        self.value = value
        self.mayBeForgotten = mayBeForgotten
    }

    /// Whether a demotion of a client in this mode writes what it hands over. `to` is nil for an
    /// unlock.
    static func writes(from held: LockMode, to mode: LockMode?, _ flags: LockFlags) -> Bool {
        guard flags.contains(.valueBlock) else { return false }
        guard let mode else { return held >= .protectedWrite }
        return held == .exclusive || (held == .protectedWrite && mode <= .protectedWrite)
    }

    /// Demands that a value marked valid is the last one. Returns whether there was one to compare.
    @discardableResult
    static func check(
        _ completion: LockCompletion,
        _ name: ResourceName,
        last: WrittenValue?
    ) throws -> Bool {
        // In NL and CR others may be writing.
        guard let value = completion.value, completion.isValueValid,
            completion.mode > .concurrentRead
        else { return false }
        guard let last else {
            if value == .zero { return false }
            throw WorldFailure("\(name): a value nobody wrote")
        }
        if value == last.value || (last.mayBeForgotten && value == .zero) { return true }
        throw WorldFailure("\(name): \(value) is valid, \(last.value) was written last")
    }
}
