// One event of the search carried out: the state after it, or the oracle that objects.

import LockCore
import Vocabulary

extension SearchState {
    /// The state after an event. `tell` hears what the clients hear.
    func after(
        _ event: SearchEvent,
        _ plan: SearchPlan,
        tell: ((String) -> Void)? = nil
    ) throws -> SearchState {
        var next = self
        switch event.kind {
        case .deliver: try next.deliver(event.node, to: NodeID(UInt32(event.a)), tell)
        case .control: try next.hear(event.node, skips: event.a == 1, tell)
        case .request, .convert, .unlock, .cancel: try next.ask(event, plan, tell)
        case .die: next.remove(event.node, dies: true, plan)
        case .leave:
            try next.drive(event.node, tell) { $0.leave(effects: &$1) }
            next.remove(event.node, dies: false, plan)
        case .join: next.join(plan)
        case .lose: next.lose(event.node, NodeID(UInt32(event.a)))
        case .move:
            next.moves += 1
            try next.drive(event.node, tell) { [names] in
                let target = NodeID(UInt32(event.a))
                $0.moveMaster(of: names[event.b], to: target, effects: &$1)
            }
        case .replay:
            next.unreplayed = []
            for node in next.nodes {
                next.controls[Int(node.id.rawValue)].append(.replayed(next.epoch))
            }
        }
        try next.checkGrants()
        if next.isQuiescent { try next.checkRest() }
        return next
    }

    // MARK: Driving a node

    private mutating func drive(
        _ id: NodeID,
        _ tell: ((String) -> Void)?,
        change: (SearchNode) -> Void = { _ in },
        _ body: (inout Lockspace, inout [LockEffect]) -> Void
    ) throws {
        guard let index = index(of: id) else { return }
        let node = SearchNode(copying: nodes[index])
        nodes[index] = node
        change(node)
        var effects: [LockEffect] = []
        body(&node.space, &effects)
        for effect in effects { try carryOut(effect, node, tell) }
        try node.space.checkInvariants()
        if node.space.counters.protocolErrors > 0 {
            throw WorldFailure("\(id) met a protocol error")
        }
        node.seal()
    }

    private mutating func carryOut(
        _ effect: LockEffect,
        _ node: SearchNode,
        _ tell: ((String) -> Void)?
    ) throws {
        switch effect {
        case .send(let message, let peer):
            let index = channel(node.id, peer)
            guard self.index(of: peer) != nil else { return }
            if !lostThrough.isEmpty && node.space.epoch.rawValue <= lostThrough[index] { return }
            channels[index].append(
                SearchPacket(message, from: node.id, to: peer, epoch: node.space.epoch)
            )
            tell?("\(node.id) -> \(peer): \(message)")
        case .complete(let completion): try complete(completion, node, tell)
        case .blocking(let cookie, _, let wanted):
            tell?("\(node.id): place \(cookie) is in the way of \(wanted)")
            let place = Int(cookie) - 1
            guard node.clients[place] != nil else { throw WorldFailure("a notice for nobody") }
            try node.clients[place]?.takeNotice(of: wanted)
        case .deadlock: throw WorldFailure("a circle of waits, without owners")
        case .recoveryFinished(let finished):
            tell?("\(node.id): recovery of \(finished) finished")
            if finished != node.space.epoch {
                throw WorldFailure("an overtaken recovery finished")
            }
        }
    }

    private mutating func complete(
        _ completion: LockCompletion,
        _ node: SearchNode,
        _ tell: ((String) -> Void)?
    ) throws {
        tell?("\(node.id): \(completion)")
        let place = Int(completion.cookie) - 1
        guard var client = node.clients[place] else {
            throw WorldFailure("an answer for nobody: \(completion)")
        }
        let flags = client.flags
        let outcome = try client.take(completion, hasLeft: node.space.hasLeft)
        node.clients[place] = client
        switch outcome {
        case .granted(let isLess, let isSideways):
            if isSecondCreated && client.name == names[0]
                && client.held.map({ $0 >= .protectedRead }) == true
            {
                knowsSecond |= 1 << UInt64(node.id.rawValue)
            }
            if !isLess && !isSideways && !flags.contains(.recovery) && !unreplayed.isEmpty
                && node.space.epoch == epoch
            {
                throw WorldFailure("\(client.name) granted before the journals were replayed")
            }
            if let index = names.firstIndex(of: client.name) {
                try WrittenValue.check(completion, client.name, last: written[index])
            }
        case .unchanged: break
        case .gone: node.clients[place] = nil
        }
    }

    // MARK: Events

    private mutating func deliver(
        _ from: NodeID,
        to: NodeID,
        _ tell: ((String) -> Void)?
    ) throws {
        let packet = channels[channel(from, to)].removeFirst()
        guard let index = index(of: to) else { return }
        let before = nodes[index]
        try drive(to, tell) {
            $0.receive(packet.message, from: from, epoch: packet.epoch, effects: &$1)
        }
        if packet.epoch < before.space.epoch && !packet.message.mayCauseDoubt
            && nodes[index].digest != before.digest
        {
            throw WorldFailure("LockCore I8: \(to) obeyed \(packet.message) of \(packet.epoch)")
        }
    }

    private mutating func hear(
        _ id: NodeID,
        skips: Bool,
        _ tell: ((String) -> Void)?
    ) throws {
        let number = Int(id.rawValue)
        let control = skips ? controls[number].removeLast() : controls[number].removeFirst()
        if skips { controls[number] = [] }
        switch control {
        case .replayed(let epoch):
            try drive(id, tell) { $0.journalsReplayed(epoch, effects: &$1) }
        case .view(let view):
            // Whoever is not in any more has said all that will be heard of it.
            for sender in 1..<controls.count {
                let sender = NodeID(UInt32(sender))
                if index(of: sender) == nil && !view.contains(sender) {
                    channels[channel(sender, id)] = []
                }
            }
            try drive(
                id,
                tell,
                change: { node in
                    for place in node.clients.indices { node.clients[place]?.heard = 0 }
                },
                { $0.viewChanged(view, effects: &$1) }
            )
        }
    }

    private mutating func ask(
        _ event: SearchEvent,
        _ plan: SearchPlan,
        _ tell: ((String) -> Void)?
    ) throws {
        let place = event.a
        if event.kind == .request { return try request(event, plan, tell) }
        guard let index = index(of: event.node), let client = nodes[index].clients[place] else {
            return
        }
        let spends = plan.operationsPerNode != nil
        let change = { (asked: Asked?, flags: LockFlags?) in
            { (node: SearchNode) in
                if spends { node.budget -= 1 }
                if let asked { node.clients[place]?.asked = asked }
                if let flags { node.clients[place]?.flags = flags }
                node.clients[place]?.hasCancelled = asked == nil
            }
        }
        switch event.kind {
        case .convert:
            let ask = plan.conversions[event.b]
            let value = write(client, to: ask.mode, ask.flags)
            try drive(event.node, tell, change: change(.convert(ask.mode), ask.flags)) {
                $0.convert(client.id, to: ask.mode, ask.flags, value: value, effects: &$1)
            }
        case .unlock:
            let flags = plan.unlocks[event.b]
            let value = write(client, to: nil, flags)
            try drive(event.node, tell, change: change(.unlock, nil)) {
                $0.unlock(client.id, flags, value: value, effects: &$1)
            }
        default:
            try drive(event.node, tell, change: change(nil, nil)) {
                $0.cancel(client.id, effects: &$1)
            }
        }
    }

    private mutating func request(
        _ event: SearchEvent,
        _ plan: SearchPlan,
        _ tell: ((String) -> Void)?
    ) throws {
        let place = event.a
        var ask = plan.requests[event.c]
        let name = names[event.b]
        if plan.createsSecond && event.b == 1 && !isSecondCreated {
            isSecondCreated = true
            knowsSecond = 1 << UInt64(event.node.rawValue)
            ask.flags.insert(.freshName)
        }
        let client = ClientLock(
            cookie: UInt64(place) + 1,
            name: name,
            mode: ask.mode,
            flags: ask.flags
        )
        let change: (SearchNode) -> Void = { node in
            if plan.operationsPerNode != nil { node.budget -= 1 }
            node.clients[place] = client
        }
        try drive(event.node, tell, change: change) {
            $0.request(name, ask.mode, ask.flags, cookie: client.cookie, effects: &$1)
        }
        adoptName(event.node, place)
    }

    /// The name of a new lock, which `request` returns after its effects are known.
    private func adoptName(_ id: NodeID, _ place: Int) {
        guard let index = index(of: id) else { return }
        let node = nodes[index]
        for own in node.own where own.cookie == UInt64(place) + 1 {
            node.clients[place]?.id = own.lock
        }
    }

    private mutating func write(
        _ client: ClientLock,
        to mode: LockMode?,
        _ flags: LockFlags
    ) -> ValueBlock? {
        guard let held = client.held, WrittenValue.writes(from: held, to: mode, flags) else {
            return nil
        }
        writes += 1
        let value = ValueBlock(UInt64(writes))
        if let index = names.firstIndex(of: client.name) {
            written[index] = WrittenValue(value: value, mayBeForgotten: false)
        }
        return value
    }

    // MARK: Membership

    /// A death and its fence are one event: between them the node could only be slow.
    private mutating func remove(_ id: NodeID, dies: Bool, _ plan: SearchPlan) {
        nodes.removeAll { $0.id == id }
        // What nobody knows any more may be created again.
        knowsSecond &= ~(1 << UInt64(id.rawValue))
        if knowsSecond == 0 { isSecondCreated = false }
        controls[Int(id.rawValue)] = []
        for other in 1..<controls.count { channels[channel(NodeID(UInt32(other)), id)] = [] }
        if dies {
            deaths += 1
            if plan.replays { unreplayed = (unreplayed + [id.slot]).sorted() }
        } else {
            leaves += 1
        }
        issueView()
    }

    private mutating func join(_ plan: SearchPlan) {
        joins += 1
        let number = plan.nodeCount + joins
        nodes.append(
            SearchNode(id: NodeID(UInt32(number)), incarnation: UInt64(number), plan: plan)
        )
        issueView()
    }

    private mutating func lose(_ one: NodeID, _ other: NodeID) {
        losses += 1
        for index in [channel(one, other), channel(other, one)] {
            channels[index] = []
            lostThrough[index] = epoch.rawValue
        }
        connectionsLost = Epoch(epoch.rawValue + 1)
        issueView()
    }

    // MARK: Oracles

    /// No two incompatible locks in effect; and what nobody relies on may be forgotten.
    private mutating func checkGrants() throws {
        for (number, name) in names.enumerated() {
            var inEffect: [(mode: LockMode, node: NodeID)] = []
            for node in nodes {
                for client in node.clients {
                    guard let client, client.name == name, let mode = client.effective else {
                        continue
                    }
                    for other in inEffect where !mode.isCompatible(with: other.mode) {
                        throw WorldFailure(
                            "\(name): \(other.node) has \(other.mode) and \(node.id) has \(mode)"
                        )
                    }
                    inEffect.append((mode, node.id))
                }
            }
            if inEffect.isEmpty { written[number]?.mayBeForgotten = true }
        }
    }

    /// With nothing on its way: everybody runs, masters, holders and directory agree, every wait
    /// has a reason and who is in the way was told.
    private func checkRest() throws {
        var seen: [(node: NodeID, resource: ResourceDescription)] = []
        for node in nodes {
            if !node.space.isRunning || node.space.epoch != epoch {
                throw WorldFailure("\(node.id) is at rest in a recovery")
            }
            node.space.visitResources { seen.append((node.id, $0)) }
        }
        let picture = try RestPicture(seen)
        var owned = 0
        for node in nodes {
            for case .some(let client) in node.clients {
                owned += 1
                try picture.check(client, of: node.id, checksNotices: unreplayed.isEmpty)
            }
        }
        if picture.lockCount != owned {
            throw WorldFailure("\(picture.lockCount) locks on masters, \(owned) with clients")
        }
        if unreplayed.isEmpty { try picture.checkWaits() }
    }
}
