// One state of the search: nodes, what is on its way, what an observer of all clients knows. States
// share the parts in which they agree; a part never changes once it is in a state.

import LockCore
import Vocabulary

/// One node and its client.
final class SearchNode {
    let id: NodeID
    let incarnation: UInt64
    var space: Lockspace
    /// By place; the cookie of the lock at place n is n + 1.
    var clients: [ClientLock?]
    /// Operations left.
    var budget: Int
    /// Set by `seal`.
    private(set) var digest = StateDigest(high: 0, low: 0)
    private(set) var references: [LockReference] = []
    /// This client's locks by their names.
    private(set) var own: [(lock: LockID, cookie: UInt64)] = []

    init(id: NodeID, incarnation: UInt64, plan: SearchPlan) {
        self.id = id
        self.incarnation = incarnation
        space = Lockspace(node: id, incarnation: incarnation)
        space.settings.cachedMasters = plan.cachedMasters
        clients = [ClientLock?](repeating: nil, count: plan.locksPerNode)
        budget = plan.operationsPerNode ?? 0
        seal()
    }

    init(copying other: SearchNode) {
        id = other.id
        incarnation = other.incarnation
        space = other.space.clone()
        clients = other.clients
        budget = other.budget
    }

    /// Writes down what the node is, after the last change.
    func seal() {
        var encoder = StateEncoder()
        space.encodeState(into: &encoder)
        encoder.add(budget)
        for client in clients {
            encoder.add(client != nil)
            guard let client else { continue }
            encoder.add(client.name)
            encoder.add(client.held.map { UInt64($0.rawValue) } ?? 255)
            encoder.add(client.asked.word)
            encoder.add(client.asked == .nothing ? 0 : UInt64(client.flags.rawValue))
            encoder.add(UInt64(client.heard))
            encoder.add(client.hasCancelled)
        }
        digest = encoder.digest
        references = encoder.references
        own = []
        space.visitOwnLocks { own.append(($0, $1)) }
    }
}

/// A message on its way.
final class SearchPacket {
    let message: LockMessage
    let epoch: Epoch
    let digest: StateDigest
    let references: [LockReference]

    init(_ message: LockMessage, from sender: NodeID, to receiver: NodeID, epoch: Epoch) {
        self.message = message
        self.epoch = epoch
        var encoder = StateEncoder()
        encoder.add(epoch.rawValue)
        message.encodeState(from: sender, to: receiver, into: &encoder)
        digest = encoder.digest
        references = encoder.references
    }
}

/// What the membership tells a node, in order.
enum SearchControl: Equatable {
    case view(ClusterView)
    case replayed(Epoch)
}

/// One state.
struct SearchState {
    /// Those that live, ascending.
    var nodes: [SearchNode]
    /// By sender and receiver.
    var channels: [[SearchPacket]]
    /// By sender and receiver: messages of this epoch and older are lost. Empty when nothing is
    /// ever lost.
    var lostThrough: [UInt64]
    /// Whether the second name exists, and who knows it: a bit per node (`SearchPlan.createsSecond`).
    var isSecondCreated = false
    var knowsSecond: UInt64 = 0
    /// The last view before which a connection broke.
    var connectionsLost = Epoch(0)
    /// By node number.
    var controls: [[SearchControl]]
    var epoch = Epoch(0)
    var unreplayed: [SlotIndex] = []
    var deaths = 0
    var joins = 0
    var leaves = 0
    var losses = 0
    var writes = 0
    var moves = 0
    let names: [ResourceName]
    /// By resource.
    var written: [WrittenValue?]

    init(_ plan: SearchPlan) {
        let width = plan.highestNode + 1
        nodes = (1...plan.nodeCount).map {
            SearchNode(id: NodeID(UInt32($0)), incarnation: UInt64($0), plan: plan)
        }
        channels = [[SearchPacket]](repeating: [], count: width * width)
        lostThrough = plan.losses == 0 ? [] : [UInt64](repeating: 0, count: width * width)
        controls = [[SearchControl]](repeating: [], count: width)
        names = plan.names
        written = [WrittenValue?](repeating: nil, count: plan.resourceCount)
        issueView()
        if !plan.beginsAtOnce { settleFirstView(plan) }
    }

    /// Lets the first recovery, which has nothing to recover, happen in one order.
    private mutating func settleFirstView(_ plan: SearchPlan) {
        while let event = events(plan).first(where: { $0.kind == .deliver || $0.kind == .control })
        {
            guard let next = try? after(event, plan) else { return }
            self = next
        }
    }

    private var width: Int { controls.count }

    func channel(_ from: NodeID, _ to: NodeID) -> Int {
        Int(from.rawValue) * width + Int(to.rawValue)
    }

    func index(of id: NodeID) -> Int? { nodes.firstIndex { $0.id == id } }

    /// A view of all that live, on its way to each.
    mutating func issueView() {
        epoch = Epoch(epoch.rawValue + 1)
        let view = ClusterView(
            epoch: epoch,
            members: nodes.map { Member(node: $0.id, incarnation: $0.incarnation) },
            slotsToReplay: unreplayed,
            connectionsLost: connectionsLost
        )
        for node in nodes { controls[Int(node.id.rawValue)].append(.view(view)) }
    }

    /// Whether nothing is on its way.
    var isQuiescent: Bool {
        channels.allSatisfy(\.isEmpty) && controls.allSatisfy(\.isEmpty)
    }

    /// The state in 128 bits. Names of locks are replaced by what makes them equal or different.
    var digest: StateDigest {
        var encoder = StateEncoder()
        encoder.add(epoch.rawValue)
        encoder.add(moves << 30 | deaths << 24 | joins << 18 | leaves << 12 | losses << 6 | writes)
        encoder.add(unreplayed.count)
        for node in nodes { encoder.add(node.digest) }
        for (index, packets) in channels.enumerated() where !packets.isEmpty {
            encoder.add(index << 16 | packets.count)
            for packet in packets { encoder.add(packet.digest) }
        }
        for lost in lostThrough { encoder.add(lost) }
        encoder.add(connectionsLost.rawValue)
        encoder.add(isSecondCreated)
        encoder.add(knowsSecond)
        for queue in controls {
            encoder.add(queue.count)
            for control in queue { add(control, to: &encoder) }
        }
        for value in written {
            encoder.add(value?.value)
            encoder.add(value?.mayBeForgotten ?? false)
        }
        addReferences(to: &encoder)
        return encoder.digest
    }

    private func add(_ control: SearchControl, to encoder: inout StateEncoder) {
        switch control {
        case .view(let view):
            encoder.add(view.epoch.rawValue)
            encoder.add(view.slotsToReplay.count)
            for member in view.members { encoder.add(member.incarnation) }
        case .replayed(let epoch):
            encoder.add(UInt64.max)
            encoder.add(epoch.rawValue)
        }
    }

    private func addReferences(to encoder: inout StateEncoder) {
        var stale: [LockReference] = []
        let add = { (reference: LockReference) in
            for node in nodes where node.id == reference.node {
                for own in node.own where own.lock == reference.lock {
                    encoder.add(own.cookie)
                    return
                }
            }
            let known = stale.firstIndex(of: reference) ?? stale.count
            if known == stale.count { stale.append(reference) }
            encoder.add(1000 + known)
        }
        for node in nodes { node.references.forEach(add) }
        for packets in channels {
            for packet in packets { packet.references.forEach(add) }
        }
    }
}
