// What happens in a random world, chosen by dice: the run, deliveries, disturbances.

import ClusterWire
import LockCore
import Vocabulary

extension World {
    /// One run. Throws the first failure.
    package func run() throws {
        for step in 0..<options.steps {
            note("step \(step)")
            now += 1
            try takeStep()
            try checkGrants()
            if dice.oneIn(options.restEvery) {
                try settle()
                try checkRest()
            }
        }
        try windDown()
    }

    private func takeStep() throws {
        let deliveries = busy.count > 4 * options.nodeCount ? 80 : 50
        switch dice.below(100) {
        case 0..<deliveries: try deliverSomething()
        case deliveries..<90: try actSomewhere()
        case 90..<93: try react()
        case 93..<95: try tick(alive[dice.below(alive.count)])
        case 95 where options.faults.contains(.moves): try moveSomething()
        case 96 where options.faults.contains(.orphans):
            if dice.oneIn(3) {
                try purgeSomething()
            } else {
                try endOwner(alive[dice.below(alive.count)])
            }
        default: if dice.oneIn(options.calm) { try disturb() }
        }
    }

    // MARK: Delivery

    /// Delivers one message or view that is due, or else the first that will be. Returns whether
    /// there was any.
    @discardableResult
    func deliverSomething() throws -> Bool {
        let waitingViews = alive.filter { !$0.views.isEmpty }
        if busy.isEmpty && waitingViews.isEmpty { return false }
        var ready = busy.filter { channels[$0].first.due <= now }
        if ready.isEmpty && waitingViews.isEmpty {
            now = busy.reduce(Int.max) { min($0, channels[$1].first.due) }
            ready = busy.filter { channels[$0].first.due <= now }
        }
        let chosen = dice.below(ready.count + waitingViews.count)
        if chosen < ready.count {
            try deliver(ready[chosen])
        } else {
            try deliverView(waitingViews[chosen - ready.count])
        }
        return true
    }

    private func deliver(_ index: Int) throws {
        let packet = channels[index].takeFirst()
        settleBusy(index)
        let width = options.maximumNodes + 1
        let (from, to) = (NodeID(UInt32(index / width)), NodeID(UInt32(index % width)))
        guard let node = nodes.first(where: { $0.id == to && $0.isAlive }) else { return }
        if options.encodes {
            let decoded = try packet.bytes.withUnsafeBytes { try decodeMessage($0) }
            guard case .lock(let inner) = decoded.message, inner == packet.message,
                decoded.epoch == packet.epoch
            else { throw WorldFailure("the wire changed \(packet.message)") }
        }
        note("deliver \(from) -> \(to): \(packet.message)")
        switch packet.message {
        case .seek, .chase, .cycle, .verified, .condemned, .condemn: isSearching = true
        case .convert(let name, let lock, _, _, _):
            pairSuspect = (name, LockReference(node: from, lock: lock))
        case .purge(let owner): node.purges.append((packet.epoch, owner))
        default: break
        }
        try drive(node, about: packet.message.name) {
            $0.receive(packet.message, from: from, epoch: packet.epoch, effects: &$1)
        }
        isSearching = false
    }

    private func deliverView(_ node: WorldNode) throws {
        if !node.space.isRunning && node.view.epoch.rawValue > 0 { statistics.overtakenViews += 1 }
        // A slow node may see only the newest.
        let isSkipping = dice.oneIn(3)
        let view = isSkipping ? node.views[node.views.count - 1] : node.views[0]
        if isSkipping { node.views = [] } else { node.views.removeFirst() }
        node.view = view
        for lock in node.locks + node.orphans { lock.client.heard = 0 }
        note("\(node.id) sees \(view)")
        node.callsSinceCheck = options.fullCheckEvery
        try drive(node, about: nil) { $0.viewChanged(view, effects: &$1) }
        if replayed.contains(view.epoch) {
            try drive(node, about: nil) { $0.journalsReplayed(view.epoch, effects: &$1) }
        }
    }

    // MARK: Disturbances

    private func disturb() throws {
        switch dice.below(14) {
        case 0: if options.faults.contains(.deaths) { kill() }
        case 1, 2: mend()
        case 3: join()
        case 4: startLeaving()
        case 5, 6: try replayJournals()
        case 7: loseConnection()
        case 8: if dice.oneIn(4) { try storm() }
        default: try finishLeaving()
        }
    }

    /// Several changes of view in short succession, so that recoveries are overtaken at any point:
    /// a second and a third death, joins and leaves before the first is dealt with.
    private func storm() throws {
        note("a storm")
        for _ in 0..<(1 + dice.below(4)) {
            switch dice.below(4) {
            case 0 where options.faults.contains(.deaths):
                kill()
                if !dice.oneIn(3) { mend() }
            case 1: join()
            case 2: try leaveAtOnce()
            default: loseConnection()
            }
            try checkGrants()
            // A recovery takes about four messages per pair of nodes, and what it reports.
            for _ in 0..<dice.below(6 * alive.count * alive.count + 2) {
                if try !deliverSomething() { break }
                try checkGrants()
            }
        }
    }

    /// What a view settles: the dead are fenced, lost connections are opened anew.
    private func mend() {
        if !unfenced.isEmpty { return fence() }
        if isBroken { issueView(replaying: unreplayedSlots()) }
    }

    private func replayJournals() throws {
        guard !replayed.contains(epoch), alive.contains(where: { $0.view.epoch == epoch }) else {
            return
        }
        replayed.append(epoch)
        note("journals of \(epoch) are replayed")
        for node in alive where node.view.epoch == epoch {
            node.callsSinceCheck = options.fullCheckEvery
            try drive(node, about: nil) { $0.journalsReplayed(epoch, effects: &$1) }
        }
    }

    // MARK: Rest

    /// Delivers everything; fences who is dead; opens what was lost; replays journals.
    func settle() throws {
        note("settling")
        while !unfenced.isEmpty || isBroken {
            mend()
            try checkGrants()
        }
        while try deliverSomething() { try checkGrants() }
        try replayJournals()
        while try deliverSomething() { try checkGrants() }
        try tickAll()
        while try deliverSomething() { try checkGrants() }
        statistics.rests += 1
    }
}
