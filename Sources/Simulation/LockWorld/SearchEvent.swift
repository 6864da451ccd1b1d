// What can happen next in a state of the search.

import LockCore
import Vocabulary

/// One event. Small, as every state keeps the one that led to it.
struct SearchEvent: Hashable, Sendable {
    enum Kind: UInt8, CaseIterable, Sendable {
        /// The oldest message from `node` to node `a` arrives.
        case deliver
        /// `node` hears the oldest, or with `a` the newest, that the membership tells it.
        case control
        /// `node` asks for resource `b` at place `a`, the `c`th of the plan's requests.
        case request
        /// The `b`th conversion of the lock at place `a`.
        case convert
        /// The lock at place `a`, with the `b`th flags.
        case unlock
        case cancel
        case die
        case join
        case leave
        /// The connection with node `a` is lost.
        case lose
        /// The journals are replayed.
        case replay
        /// `node` begins to move the mastership of resource `b` to node `a`.
        case move
    }

    var kind: Kind
    var node = NodeID.none
    var a = 0
    var b = 0
    var c = 0

    /// In 32 bits.
    var code: UInt32 {
        let numbers = UInt32(a) << 16 | UInt32(b) << 12 | UInt32(c) << 8
        return UInt32(kind.rawValue) << 24 | node.rawValue << 20 | numbers
    }

    init(_ kind: Kind, _ node: NodeID = .none, a: Int = 0, b: Int = 0, c: Int = 0) {
        self.kind = kind
        self.node = node
        self.a = a
        self.b = b
        self.c = c
    }

    init(code: UInt32) {
        kind = Kind(rawValue: UInt8(code >> 24)) ?? .deliver
        node = NodeID(code >> 20 & 15)
        a = Int(code >> 16 & 15)
        b = Int(code >> 12 & 15)
        c = Int(code >> 8 & 15)
    }
}

extension SearchState {
    /// The arrival of a message that is older than its receiver's view, if there is one. It changes
    /// nothing at the receiver (`after` checks that), so that it may come first: whatever else can
    /// happen now can happen after it just as well, to the same effect. Not so what may cause a doubt.
    var staleArrival: SearchEvent? {
        for node in nodes {
            for from in 1..<controls.count {
                let sender = NodeID(UInt32(from))
                guard let first = channels[channel(sender, node.id)].first,
                    first.epoch < node.space.epoch, !first.message.mayCauseDoubt
                else { continue }
                return SearchEvent(.deliver, sender, a: Int(node.id.rawValue))
            }
        }
        return nil
    }

    /// Everything that can happen next and matters in which order.
    func events(_ plan: SearchPlan) -> [SearchEvent] {
        if let staleArrival { return [staleArrival] }
        var events: [SearchEvent] = []
        for from in 1..<controls.count {
            for to in 1..<controls.count {
                let (sender, receiver) = (NodeID(UInt32(from)), NodeID(UInt32(to)))
                if channels[channel(sender, receiver)].isEmpty { continue }
                events.append(SearchEvent(.deliver, sender, a: to))
            }
        }
        for node in nodes {
            let queue = controls[Int(node.id.rawValue)]
            if !queue.isEmpty { events.append(SearchEvent(.control, node.id)) }
            // A slow node may see only the newest view.
            if queue.count > 1, case .view = queue.last {
                events.append(SearchEvent(.control, node.id, a: 1))
            }
            if plan.operationsPerNode == nil || node.budget > 0 {
                addClient(node, plan, &events)
            }
        }
        addDisturbances(plan, &events)
        return events
    }

    private func addClient(
        _ node: SearchNode,
        _ plan: SearchPlan,
        _ events: inout [SearchEvent]
    ) {
        // Free places are alike: the first is taken.
        if let free = node.clients.firstIndex(where: { $0 == nil }) {
            for resource in 0..<plan.resourceCount
            where !plan.createsSecond || resource != 1 || mayNameSecond(node) {
                for ask in plan.requests.indices {
                    events.append(SearchEvent(.request, node.id, a: free, b: resource, c: ask))
                }
            }
        }
        for (place, client) in node.clients.enumerated() {
            guard let client else { continue }
            guard client.isIdle, let held = client.held else {
                if plan.cancels && !client.hasCancelled && client.asked != .unlock {
                    events.append(SearchEvent(.cancel, node.id, a: place))
                }
                continue
            }
            for (number, ask) in plan.conversions.enumerated()
            where ask.mode != held && mayWrite(held, ask.mode, ask.flags, plan) {
                events.append(SearchEvent(.convert, node.id, a: place, b: number))
            }
            for (number, flags) in plan.unlocks.enumerated()
            where mayWrite(held, nil, flags, plan) {
                events.append(SearchEvent(.unlock, node.id, a: place, b: number))
            }
        }
    }

    /// The second name is created by who holds the first in EX, as a directory with the new entry;
    /// afterwards those know it who were granted the first since.
    private func mayNameSecond(_ node: SearchNode) -> Bool {
        if isSecondCreated { return knowsSecond & (1 << UInt64(node.id.rawValue)) != 0 }
        return node.clients.contains {
            $0?.name == names[0] && $0?.isIdle == true && $0?.held == .exclusive
        }
    }

    private func addMoves(_ events: inout [SearchEvent]) {
        for node in nodes {
            for (number, name) in names.enumerated() {
                for target in 1..<controls.count
                where node.space.canMoveMaster(of: name, to: NodeID(UInt32(target))) {
                    events.append(SearchEvent(.move, node.id, a: target, b: number))
                }
            }
        }
    }

    private func mayWrite(
        _ held: LockMode,
        _ mode: LockMode?,
        _ flags: LockFlags,
        _ plan: SearchPlan
    ) -> Bool {
        !WrittenValue.writes(from: held, to: mode, flags) || writes < plan.writes
    }

    private func addDisturbances(_ plan: SearchPlan, _ events: inout [SearchEvent]) {
        if nodes.count > 1 {
            for node in nodes {
                if deaths < plan.deaths { events.append(SearchEvent(.die, node.id)) }
                if leaves < plan.leaves && node.clients.allSatisfy({ $0 == nil }) {
                    events.append(SearchEvent(.leave, node.id))
                }
                for other in nodes where losses < plan.losses && node.id < other.id {
                    events.append(SearchEvent(.lose, node.id, a: Int(other.id.rawValue)))
                }
            }
        }
        if moves < plan.moves { addMoves(&events) }
        if joins < plan.joins { events.append(SearchEvent(.join)) }
        if !unreplayed.isEmpty, let first = nodes.first, first.space.isRunning,
            first.space.epoch == epoch
        {
            events.append(SearchEvent(.replay))
        }
    }
}
