// The clients of a random world: what they ask for, and what they make of the answers.

import LockCore
import Vocabulary

extension World {
    // MARK: Answers

    func completed(_ completion: LockCompletion, _ node: WorldNode) throws {
        note("  \(node.id): \(completion)")
        guard let lock = node.lock(cookie: completion.cookie) else {
            throw WorldFailure("an answer for nobody: \(completion)")
        }
        touch(lock.subject)
        if completion.remarks.contains(.adopted) { try adopted(completion, by: lock) }
        if completion.status == .notFound { try notFound(lock) }
        if completion.status == .stopped && node.space.isRunning {
            throw WorldFailure("stopped without a recovery")
        }
        if completion.remarks.contains(.demoted) { statistics.demotions += 1 }
        let outcome = try lock.client.take(
            completion,
            hasLeft: node.space.hasLeft,
            now: UInt64(now)
        )
        switch outcome {
        case .granted(let isLess, let isSideways):
            statistics.grants += 1
            if lock.subject.name.depth > 0 { statistics.parts += 1 }
            if !isLess && !isSideways && !completion.remarks.contains(.adopted) {
                try checkReplayed(lock)
            }
            if isLess { publish(lock) }
            if !completion.isValueValid { statistics.invalidValues += 1 }
            if try WrittenValue.check(completion, lock.subject.name, last: lock.subject.last) {
                statistics.valuesChecked += 1
            }
        case .unchanged: countRefusal(completion)
        case .gone(let isUnlock):
            if isUnlock { publish(lock) } else { countRefusal(completion) }
            node.remove(lock)
        }
    }

    private func countRefusal(_ completion: LockCompletion) {
        if completion.status == .cancelled { statistics.cancelled += 1 }
        if completion.status == .timedOut { statistics.timeouts += 1 }
        if completion.status == .wouldBlock { statistics.refused += 1 }
    }

    private func checkReplayed(_ lock: WorldLock) throws {
        if lock.client.flags.contains(.recovery) || lock.node.view.slotsToReplay.isEmpty { return }
        if replayed.contains(lock.node.view.epoch) { return }
        throw WorldFailure("\(lock.subject.name) granted before the journals were replayed")
    }

    private func publish(_ lock: WorldLock) {
        // A name is used again only in quiet times: strictly, a fresh name never existed before.
        let isQuiet = alive.allSatisfy { $0.space.isRunning && $0.space.epoch == epoch }
        for published in lock.publishes {
            if !published.isFree {
                names.append(published.name)
            } else if isQuiet {
                freeNames.append(published.name)
            }
        }
        lock.publishes = []
    }

    // MARK: Questions

    func actSomewhere() throws {
        let candidates = alive.filter { !$0.isLeaving }
        if candidates.isEmpty { return }
        let node = candidates[dice.below(candidates.count)]
        switch dice.below(10) {
        case 0..<4: try requestSomething(node)
        case 4..<7:
            guard let lock = someLock(node, isIdle: true) else { return }
            // Bytes are locked anew in another mode (HeldRanges).
            if lock.client.bytes == nil { try convertSomehow(lock) } else { try unlock(lock) }
        case 7..<9:
            guard let lock = someLock(node, isIdle: true) else { return }
            if lock.sublocks == 0 {
                try unlock(lock)
            } else if dice.oneIn(3) {
                try unlockTree(lock)
            }
        default: if let lock = someLock(node, isIdle: false) { try cancel(lock) }
        }
    }

    /// A lock of which nothing is asked, or something is; a few throws of the dice.
    private func someLock(_ node: WorldNode, isIdle: Bool) -> WorldLock? {
        if node.locks.isEmpty { return nil }
        for _ in 0..<8 {
            let lock = node.locks[dice.below(node.locks.count)]
            let client = lock.client
            if isIdle ? client.isUsable : !client.isIdle && !client.isDoomed { return lock }
        }
        return nil
    }

    func cancel(_ lock: WorldLock) throws {
        note("\(lock.node.id) cancels \(lock.subject.name)")
        lock.client.hasCancelled = true
        touch(lock.subject)
        try drive(lock.node, about: lock.subject.name) {
            $0.cancel(lock.client.id, effects: &$1)
        }
    }

    private func requestSomething(_ node: WorldNode) throws {
        if node.locks.count >= options.locksPerNode { return }
        var flags: LockFlags = []
        var name = names[dice.below(names.count)]
        var mode = LockMode(rawValue: UInt8(dice.below(6))) ?? .null
        var parent: WorldLock?
        var owner = LockOwner.none
        if dice.oneIn(8) {
            // A name that nobody else knows.
            flags = [.freshName, .valueBlock]
            mode = .exclusive
            name = freshName()
            node.unpublished.append(Published(name: name, isFree: false))
        } else {
            flags = requestFlags(mode)
            if name.kind.isOfBytes { return try requestRange(node, name) }
            if options.faults.contains(.trees) && dice.oneIn(3), let above = parentLock(node) {
                parent = above
                name = above.subject.name.child(UInt64(dice.below(2)))
            }
            owner = someOwner()
            if owner != .none && options.faults.contains(.orphans) {
                if dice.oneIn(3) { flags.insert(.persistent) }
                if dice.oneIn(20), let orphan = someOrphan(node) {
                    flags.insert(.adoptOrphan)
                    if parent == nil && orphan.subject.name.depth == 0 {
                        name = orphan.subject.name
                        mode = orphan.client.held ?? mode
                    }
                }
            }
        }
        var client = ClientLock(cookie: nextCookie, name: name, mode: mode, flags: flags)
        client.owner = owner
        nextCookie += 1
        try request(node, client, mode, parent)
    }

    private func requestRange(_ node: WorldNode, _ name: ResourceName) throws {
        let modes = [LockMode.null, .protectedRead, .exclusive, .exclusive]
        let mode = modes[dice.below(modes.count)]
        var flags: LockFlags = [.noOrder]
        if dice.oneIn(4) { flags.insert(.noQueue) }
        if dice.oneIn(8) { flags.insert(.noDeadlockWait) }
        let (first, count) = (dice.below(16), dice.below(6))
        var client = ClientLock(cookie: nextCookie, name: name, mode: mode, flags: flags)
        client.owner = LockOwner(UInt32(1 + dice.below(4)))
        client.bytes = LockedBytes(
            first: UInt64(first),
            last: UInt64(first + count),
            process: UInt32(dice.below(3))
        )
        nextCookie += 1
        try request(node, client, mode, nil)
    }

    private func someOrphan(_ node: WorldNode) -> WorldLock? {
        node.orphans.isEmpty ? nil : node.orphans[dice.below(node.orphans.count)]
    }

    private func request(
        _ node: WorldNode,
        _ client: ClientLock,
        _ mode: LockMode,
        _ parent: WorldLock?
    ) throws {
        let name = client.name
        let lock = WorldLock(node: node, subject: subject(name), client: client, parent: parent)
        node.add(lock)
        touch(lock.subject)
        let patience = somePatience(lock)
        note(
            "\(node.id) requests \(name) \(mode) cookie \(client.cookie) flags "
                + "\(client.flags.rawValue) \(client.owner) patience \(patience)"
        )
        try drive(node, about: name) {
            let id = $0.request(
                name,
                mode,
                client.flags,
                cookie: client.cookie,
                owner: client.owner,
                parent: parent?.client.id ?? .none,
                patience: patience,
                bytes: client.bytes,
                effects: &$1
            )
            if !client.flags.contains(.adoptOrphan) { lock.client.id = id }
        }
    }

    private func requestFlags(_ mode: LockMode) -> LockFlags {
        var flags: LockFlags = []
        if dice.oneIn(6) { flags.insert(.noQueue) }
        if dice.oneIn(12) { flags.insert(.noQueueButNotify) }
        if dice.oneIn(3) && mode == .null { flags.insert(.expedite) }
        if dice.oneIn(8) { flags.insert(.recovery) }
        if dice.oneIn(8) { flags.insert(.alternatePR) }
        if dice.oneIn(8) { flags.insert(.alternateCW) }
        if dice.oneIn(16) { flags.insert(.unlessStopped) }
        if dice.oneIn(8) { flags.insert(.synchronous) }
        if !dice.oneIn(3) { flags.insert(.valueBlock) }
        return flags.union(searchFlags())
    }

    private func searchFlags() -> LockFlags {
        var flags: LockFlags = []
        if !options.faults.contains(.deadlocks) { return flags }
        if dice.oneIn(10) { flags.insert(.headQueue) }
        if dice.oneIn(10) { flags.insert(.noOrder) }
        if dice.oneIn(12) { flags.insert(.noDeadlockWait) }
        if dice.oneIn(12) { flags.insert(.noDeadlockBlock) }
        return flags
    }

    private func someOwner() -> LockOwner {
        if !options.faults.contains(.deadlocks) && !options.faults.contains(.orphans) {
            return .none
        }
        return LockOwner(UInt32(dice.below(4)))
    }

    /// Gives the next wait of a lock an end, or none.
    private func somePatience(_ lock: WorldLock) -> UInt32 {
        lock.client.deadline = nil
        lock.client.isCondemned = false
        if !options.faults.contains(.patience) || !dice.oneIn(4) { return 0 }
        let patience = 1 + dice.below(80)
        lock.client.deadline = UInt64(now + patience)
        return UInt32(patience)
    }

    /// A granted lock that may have another below it.
    private func parentLock(_ node: WorldNode) -> WorldLock? {
        guard let lock = someLock(node, isIdle: true), lock.subject.name.depth < 2,
            lock.subject.name.kind == .application
        else { return nil }
        return lock
    }

    private func freshName() -> ResourceName {
        statistics.freshRequests += 1
        if !freeNames.isEmpty && dice.oneIn(2) {
            return freeNames.remove(at: dice.below(freeNames.count))
        }
        nextFresh += 1
        return ResourceName(kind: .inode, number: nextFresh, generation: 1)
    }

    private func convertSomehow(_ lock: WorldLock) throws {
        let mode = LockMode(rawValue: UInt8(dice.below(6))) ?? .null
        var flags: LockFlags = []
        if dice.oneIn(4) { flags.insert(.noQueue) }
        if dice.oneIn(12) { flags.insert(.noQueueButNotify) }
        if dice.oneIn(4) { flags.insert(.queueConversion) }
        if dice.oneIn(8) { flags.insert(.recovery) }
        if dice.oneIn(10) { flags.insert(.alternateCW) }
        if !dice.oneIn(3) { flags.insert(.valueBlock) }
        if dice.oneIn(20) && options.faults.contains(.deaths) {
            flags.insert(.invalidateValueBlock)
        }
        if dice.oneIn(8) { flags.insert(.synchronous) }
        if dice.oneIn(6) && options.faults.contains(.deadlocks) { flags.insert(.demoteOnDeadlock) }
        try convert(lock, mode, flags.union(searchFlags()))
    }

    private func nextWritten(_ lock: WorldLock, to mode: LockMode?, _ flags: LockFlags)
        -> ValueBlock
    {
        let value = ValueBlock(nextValue, UInt64(lock.node.id.rawValue), mode == nil ? 7 : 0)
        nextValue += 1
        if let held = lock.client.held, WrittenValue.writes(from: held, to: mode, flags) {
            lock.subject.last = WrittenValue(value: value, mayBeForgotten: false)
        }
        return value
    }

    private func convert(_ lock: WorldLock, _ mode: LockMode, _ flags: LockFlags) throws {
        guard let held = lock.client.held else { return }
        // It stays what it is when its owner goes.
        let flags = flags.union(lock.client.flags.intersection(.persistent))
        let value = nextWritten(lock, to: mode, flags)
        let patience = somePatience(lock)
        lock.client.asked = .convert(mode)
        lock.client.flags = flags
        lock.client.mustYield = nil
        lock.client.hasCancelled = false
        touch(lock.subject)
        if held.covers(mode) { takePrivate(lock) }
        note(
            "\(lock.node.id) converts \(lock.subject.name) \(held) to \(mode) flags \(flags.rawValue)"
        )
        let id = lock.client.id
        pairSuspect = (lock.subject.name, LockReference(node: lock.node.id, lock: id))
        try drive(lock.node, about: lock.subject.name) {
            $0.convert(id, to: mode, flags, value: value, patience: patience, effects: &$1)
        }
    }

    private func takePrivate(_ lock: WorldLock) {
        lock.publishes = lock.node.unpublished
        lock.node.unpublished = []
    }

    func unlock(_ lock: WorldLock) throws {
        guard let held = lock.client.held else { return }
        let flags: LockFlags = dice.oneIn(2) && lock.client.bytes == nil ? [.valueBlock] : []
        let value = nextWritten(lock, to: nil, flags)
        lock.client.asked = .unlock
        touch(lock.subject)
        takePrivate(lock)
        // An inode that was created and given up before anybody could see it is free again.
        let others = lock.publishes.filter { $0.name != lock.subject.name }
        let wasPrivate = others.count < lock.publishes.count
        lock.publishes = others
        if wasPrivate {
            lock.node.unpublished.append(Published(name: lock.subject.name, isFree: true))
        }
        note("\(lock.node.id) unlocks \(lock.subject.name) \(held) flags \(flags.rawValue)")
        try drive(lock.node, about: lock.subject.name) {
            $0.unlock(lock.client.id, flags, value: value, effects: &$1)
        }
    }

    /// Somebody who was told yields.
    func react() throws {
        for _ in 0..<8 where !yielding.isEmpty {
            let place = dice.below(yielding.count)
            let lock = yielding[place]
            yielding.swapAt(place, yielding.count - 1)
            yielding.removeLast()
            if lock.isGone || !lock.node.isAlive { continue }
            guard let wanted = lock.client.mustYield, !lock.client.isDoomed else { continue }
            guard lock.client.isUsable else {
                yielding.append(lock)
                continue
            }
            let modes = LockMode.allCases.filter {
                $0.isCompatible(with: wanted) && lock.client.held?.covers($0) == true
            }
            if modes.isEmpty || (dice.oneIn(2) && lock.sublocks == 0) {
                if lock.sublocks == 0 { try unlock(lock) } else { try unlockTree(lock) }
            } else {
                try convert(lock, modes[dice.below(modes.count)], [.valueBlock])
            }
            return
        }
    }
}
