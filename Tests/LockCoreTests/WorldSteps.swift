// What can happen in a world, chosen by dice.

import ClusterWire
import LockCore
import Vocabulary

extension World {
    /// One run. Throws the first failure.
    func run() throws {
        for step in 0..<options.steps {
            note("step \(step)")
            try step1()
            try checkGrants()
            if dice.oneIn(60) {
                try settle()
                try checkRest()
            }
        }
        try windDown()
    }

    private func step1() throws {
        switch dice.below(100) {
        case 0..<50: try deliverSomething()
        case 50..<90: try actSomewhere()
        case 90..<93: try react()
        default: try disturb()
        }
    }

    // MARK: Delivery

    /// Delivers one message or view. Returns whether there was any.
    @discardableResult
    func deliverSomething() throws -> Bool {
        var choices: [(Int, Int)] = []
        for from in 1...World.maximumNodes {
            for to in 1...World.maximumNodes where !channels[from][to].isEmpty {
                choices.append((from, to))
            }
        }
        let waitingViews = alive.filter { !$0.views.isEmpty }
        let total = choices.count + waitingViews.count
        if total == 0 { return false }
        let chosen = dice.below(total)
        if chosen < choices.count {
            try deliver(from: choices[chosen].0, to: choices[chosen].1)
        } else {
            try deliverView(waitingViews[chosen - choices.count])
        }
        return true
    }

    private func deliver(from: Int, to: Int) throws {
        let packet = channels[from][to].removeFirst()
        guard let node = alive.first(where: { $0.id == NodeID(UInt32(to)) }) else { return }
        var message = packet.message
        var epoch = packet.epoch
        if options.encodes {
            let decoded = try packet.bytes.withUnsafeBytes { try decodeMessage($0) }
            guard case .lock(let inner) = decoded.message, inner == message else {
                throw WorldFailure(description: "the wire changed \(message)")
            }
            message = inner
            epoch = decoded.epoch
        }
        note("deliver n\(from) -> n\(to): \(message)")
        try drive(node) {
            $0.receive(message, from: NodeID(UInt32(from)), epoch: epoch, effects: &$1)
        }
    }

    private func deliverView(_ node: TestNode) throws {
        if !node.space.isRunning && node.view.epoch.rawValue > 0 { statistics.overtakenViews += 1 }
        // A slow node may see only the newest.
        let isSkipping = dice.oneIn(3)
        let view = isSkipping ? node.views[node.views.count - 1] : node.views[0]
        if isSkipping { node.views = [] } else { node.views.removeFirst() }
        node.view = view
        for lock in node.locks { lock.heard = [] }
        note("\(node.id) sees \(view)")
        try drive(node) { $0.viewChanged(view, effects: &$1) }
        for epoch in replayed where epoch == view.epoch {
            try drive(node) { $0.journalsReplayed(epoch, effects: &$1) }
        }
    }

    // MARK: Clients

    private func actSomewhere() throws {
        let candidates = alive.filter { !$0.isLeaving }
        if candidates.isEmpty { return }
        let node = candidates[dice.below(candidates.count)]
        switch dice.below(10) {
        case 0..<4: try requestSomething(node)
        case 4..<7: try convertSomething(node)
        case 7..<9: try unlockSomething(node)
        default:
            let pending = node.locks.filter { !$0.isIdle }
            if pending.isEmpty { return }
            let lock = pending[dice.below(pending.count)]
            note("\(node.id) cancels \(lock.name)")
            try drive(node) { $0.cancel(lock.id, effects: &$1) }
        }
    }

    private func requestSomething(_ node: TestNode) throws {
        if node.locks.count >= 6 { return }
        var flags: LockFlags = []
        var name = names[dice.below(names.count)]
        var mode = LockMode(rawValue: UInt8(dice.below(6))) ?? .null
        if dice.oneIn(8) {
            // A name that nobody else knows.
            flags = [.freshName, .valueBlock]
            mode = .exclusive
            statistics.freshRequests += 1
            if !freeNames.isEmpty && dice.oneIn(2) {
                name = freeNames.remove(at: dice.below(freeNames.count))
            } else {
                name = ResourceName(kind: .inode, number: nextFresh, generation: 1)
                nextFresh += 1
            }
            node.unpublished.append(Published(name: name, isFree: false))
        } else {
            if dice.oneIn(6) { flags.insert(.noQueue) }
            if dice.oneIn(12) { flags.insert(.noQueueButNotify) }
            if dice.oneIn(3) && mode == .null { flags.insert(.expedite) }
            if dice.oneIn(8) { flags.insert(.recovery) }
            if dice.oneIn(8) { flags.insert(.alternatePR) }
            if dice.oneIn(8) { flags.insert(.alternateCW) }
            if !dice.oneIn(3) { flags.insert(.valueBlock) }
        }
        let lock = ClientLock(cookie: nextCookie, name: name, mode: mode, flags: flags)
        nextCookie += 1
        node.locks.append(lock)
        note("\(node.id) requests \(name) \(mode) cookie \(lock.cookie) flags \(flags.rawValue)")
        try drive(node) {
            lock.id = $0.request(name, mode, flags, cookie: lock.cookie, effects: &$1)
        }
    }

    private func convertSomething(_ node: TestNode) throws {
        let idle = node.locks.filter(\.isIdle)
        if idle.isEmpty { return }
        let lock = idle[dice.below(idle.count)]
        let mode = LockMode(rawValue: UInt8(dice.below(6))) ?? .null
        var flags: LockFlags = []
        if dice.oneIn(4) { flags.insert(.noQueue) }
        if dice.oneIn(12) { flags.insert(.noQueueButNotify) }
        if dice.oneIn(4) { flags.insert(.queueConversion) }
        if dice.oneIn(8) { flags.insert(.recovery) }
        if dice.oneIn(10) { flags.insert(.alternateCW) }
        if !dice.oneIn(3) { flags.insert(.valueBlock) }
        try convert(node, lock, mode, flags)
    }

    private func convert(
        _ node: TestNode,
        _ lock: ClientLock,
        _ mode: LockMode,
        _ flags: LockFlags
    ) throws {
        guard let held = lock.held else { return }
        let value = ValueBlock(nextValue, UInt64(node.id.rawValue))
        nextValue += 1
        let writes =
            flags.contains(.valueBlock)
            && (held == .exclusive || (held == .protectedWrite && mode <= .protectedWrite))
        if writes { written[lock.name] = (value, false) }
        lock.asked = .convert(mode)
        lock.flags = flags
        lock.mustYield = nil
        if held.covers(mode) { takePrivate(node, lock) }
        note("\(node.id) converts \(lock.name) \(held) to \(mode) flags \(flags.rawValue)")
        try drive(node) { $0.convert(lock.id, to: mode, flags, value: value, effects: &$1) }
    }

    private func takePrivate(_ node: TestNode, _ lock: ClientLock) {
        lock.publishes = node.unpublished
        node.unpublished = []
    }

    private func unlockSomething(_ node: TestNode) throws {
        let idle = node.locks.filter(\.isIdle)
        if !idle.isEmpty { try unlock(node, idle[dice.below(idle.count)]) }
    }

    func unlock(_ node: TestNode, _ lock: ClientLock) throws {
        guard let held = lock.held else { return }
        var flags: LockFlags = []
        let value = ValueBlock(nextValue, UInt64(node.id.rawValue), 7)
        nextValue += 1
        if dice.oneIn(2) { flags.insert(.valueBlock) }
        if held >= .protectedWrite && flags.contains(.valueBlock) {
            written[lock.name] = (value, false)
        }
        lock.asked = .unlock
        takePrivate(node, lock)
        // An inode that was created and given up before anybody could see it is free again.
        let others = lock.publishes.filter { $0.name != lock.name }
        let wasPrivate = others.count < lock.publishes.count
        lock.publishes = others
        if wasPrivate { node.unpublished.append(Published(name: lock.name, isFree: true)) }
        note("\(node.id) unlocks \(lock.name) \(held) flags \(flags.rawValue)")
        try drive(node) { $0.unlock(lock.id, flags, value: value, effects: &$1) }
    }

    /// Somebody who was told yields.
    private func react() throws {
        for node in alive {
            for lock in node.locks where lock.isIdle {
                guard let wanted = lock.mustYield else { continue }
                let modes = LockMode.allCases.filter {
                    $0.isCompatible(with: wanted) && lock.held?.covers($0) == true
                }
                if dice.oneIn(2) || modes.isEmpty {
                    try unlock(node, lock)
                } else {
                    try convert(node, lock, modes[dice.below(modes.count)], [.valueBlock])
                }
                return
            }
        }
    }

    // MARK: Disturbances

    private func disturb() throws {
        switch dice.below(12) {
        case 0 where options.hasDeaths: kill()
        case 1, 2: fence()
        case 3 where options.hasJoins: join()
        case 4 where options.hasLeaves: startLeaving()
        case 5, 6: try replayJournals()
        default: try finishLeaving()
        }
    }

    func kill() {
        let candidates = alive
        if candidates.count < 2 { return }
        let victim = candidates[dice.below(candidates.count)]
        note("\(victim.id) dies")
        victim.isAlive = false
        unfenced.append(victim)
        let number = Int(victim.id.rawValue)
        for other in 1...World.maximumNodes {
            channels[other][number] = []
            // Of what it said last, some may have got out.
            let kept = dice.below(channels[number][other].count + 1)
            channels[number][other] = Array(channels[number][other].prefix(kept))
        }
    }

    func fence() {
        if unfenced.isEmpty { return }
        let slots = unfenced.map { $0.id.slot }.sorted()
        // An unfenced node is a member still: fencing one at a time or all.
        if dice.oneIn(2) {
            let victim = unfenced.removeFirst()
            forget(victim)
            issueView(replaying: dice.oneIn(2) ? [victim.id.slot] : [])
        } else {
            for victim in unfenced { forget(victim) }
            unfenced = []
            issueView(replaying: dice.oneIn(2) ? slots : [])
        }
    }

    private func forget(_ victim: TestNode) {
        nodes.removeAll { $0 === victim }
        // Names it created and nobody saw may be created again.
        freeNames += victim.unpublished.map(\.name)
        let number = Int(victim.id.rawValue)
        for other in 1...World.maximumNodes { channels[number][other] = [] }
    }

    private func join() {
        let used = nodes.map(\.id)
        let free = (1...World.maximumNodes).map { NodeID(UInt32($0)) }.filter { !used.contains($0) }
        if free.isEmpty || nodes.count >= options.nodeCount + 1 { return }
        let id = free[dice.below(free.count)]
        note("\(id) joins")
        add(id)
        issueView(replaying: unreplayedSlots())
    }

    /// A view that overtakes an unfinished replay names its slots again.
    private func unreplayedSlots() -> [SlotIndex] {
        guard let last = alive.flatMap({ $0.views + [$0.view] }).max(by: { $0.epoch < $1.epoch })
        else { return [] }
        return replayed.contains(last.epoch) ? [] : last.slotsToReplay
    }

    private func startLeaving() {
        let candidates = alive.filter { !$0.isLeaving }
        if candidates.count < 2 { return }
        candidates[dice.below(candidates.count)].isLeaving = true
    }

    private func finishLeaving() throws {
        for node in alive where node.isLeaving {
            for lock in node.locks where lock.isIdle { try unlock(node, lock) }
            for lock in node.locks where !lock.isIdle && lock.asked != .unlock {
                try drive(node) { $0.cancel(lock.id, effects: &$1) }
            }
            guard node.locks.isEmpty && alive.count > 1 else { continue }
            note("\(node.id) leaves")
            try drive(node) { $0.leave(effects: &$1) }
            node.isAlive = false
            nodes.removeAll { $0 === node }
            let number = Int(node.id.rawValue)
            for other in 1...World.maximumNodes { channels[other][number] = [] }
            issueView(replaying: unreplayedSlots())
            return
        }
    }

    private func replayJournals() throws {
        guard !replayed.contains(epoch), alive.contains(where: { $0.view.epoch == epoch }) else {
            return
        }
        replayed.append(epoch)
        note("journals of \(epoch) are replayed")
        for node in alive where node.view.epoch == epoch {
            try drive(node) { $0.journalsReplayed(epoch, effects: &$1) }
        }
    }

    // MARK: Rest

    /// Delivers everything; fences who is dead; replays journals.
    func settle() throws {
        note("settling")
        while !unfenced.isEmpty {
            fence()
            try checkGrants()
        }
        while try deliverSomething() { try checkGrants() }
        try replayJournals()
        while try deliverSomething() { try checkGrants() }
    }

    /// Everybody lets go. What waits must be granted, in the end nothing is left anywhere.
    private func windDown() throws {
        isWindingDown = true
        try settle()
        var idleRounds = 0
        while alive.contains(where: { !$0.locks.isEmpty }) {
            let before = statistics.grants
            var hasUnlocked = false
            for node in alive {
                for lock in node.locks where lock.isIdle {
                    try unlock(node, lock)
                    hasUnlocked = true
                }
            }
            try settle()
            try checkRest()
            if hasUnlocked || statistics.grants > before { continue }
            // Conversions that wait for each other: there is no deadlock search yet.
            var hasCancelled = false
            for node in alive {
                for lock in node.locks where lock.held != nil && !lock.isIdle && !hasCancelled {
                    try drive(node) { $0.cancel(lock.id, effects: &$1) }
                    hasCancelled = true
                }
            }
            idleRounds += 1
            if !hasCancelled || idleRounds > 100 {
                throw WorldFailure(description: "requests are never answered")
            }
            try settle()
        }
        for node in alive {
            var rest = 0
            node.space.visitResources { _ in rest += 1 }
            if rest > 0 { throw WorldFailure(description: "\(node.id) kept \(rest) records") }
        }
    }
}
