// Messages between simulated nodes: in order between two of them, after seeded delays, until one of
// them dies. A node that comes back has new connections.

import Execution
import NodeService
import Vocabulary

/// Connects lock nodes. Engine-bound.
final class SimulatedNetwork {
    /// One life of one node on the network.
    final class End {
        let lockNode: LockNode
        let engine: Engine
        var isDead = false

        init(lockNode: LockNode, engine: Engine) {
            self.lockNode = lockNode
            self.engine = engine
        }
    }

    private var ends: [UInt32: End] = [:]
    private var dice: SeededGenerator
    /// Messages delivered.
    private(set) var messageCount = 0

    init(dice: SeededGenerator) { self.dice = dice }

    func attach(_ end: End) { ends[end.lockNode.node.rawValue] = end }

    func end(of node: NodeID) -> End? { ends[node.rawValue] }

    func delay() -> UInt64 {
        dice.oneIn(10) ? UInt64(dice.below(2_000_000)) : UInt64(dice.below(120_000))
    }

    func delivered() { messageCount += 1 }
}

/// One life's way out.
final class SimulatedLink: PeerLink {
    private struct Channel {
        let peer: SimulatedNetwork.End
        var messages: [[UInt8]] = []
    }

    private let network: SimulatedNetwork
    private let node: NodeID
    private var channels: [Channel] = []
    /// Nothing leaves any more.
    var isDead = false

    init(network: SimulatedNetwork, node: NodeID) {
        self.network = network
        self.node = node
    }

    func send(_ bytes: [UInt8], to peer: NodeID) {
        guard !isDead, let end = network.end(of: peer), !end.isDead else { return }
        let index = channels.firstIndex { $0.peer === end } ?? channels.count
        if index == channels.count { channels.append(Channel(peer: end)) }
        channels[index].messages.append(bytes)
        if channels[index].messages.count == 1 { deliverNext(end) }
    }

    private func deliverNext(_ end: SimulatedNetwork.End) {
        let due = end.engine.clock.now.advanced(nanoseconds: network.delay())
        end.engine.clock.schedule(
            at: due,
            in: end.engine,
            EngineBound { [self] in
                guard let index = channels.firstIndex(where: { $0.peer === end }) else { return }
                let bytes = channels[index].messages.removeFirst()
                if !end.isDead, !isDead {
                    network.delivered()
                    bytes.withUnsafeBytes { end.lockNode.received($0, from: node) }
                }
                if !channels[index].messages.isEmpty { deliverNext(end) }
            }
        )
    }
}
