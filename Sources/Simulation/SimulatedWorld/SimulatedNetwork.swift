// Messages between simulated nodes: in order between two of them, after seeded delays, until one of
// them dies. A node that comes back has new connections. What is sent into a direction that is cut
// waits, as in a stream that is sent again and again; a connection that breaks loses what is on its way
// in both directions, and both ends are told.

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
    /// Directions in which nothing arrives.
    private var cuts: [(from: NodeID, to: NodeID)] = []
    /// Told when one end of a connection notices that it has broken.
    var onLost: ((_ end: NodeID, _ peer: NodeID) -> Void)?
    private var links: [SimulatedLink] = []
    /// A network where a message takes up to so many nanoseconds, now and then.
    var slowest = 2_000_000

    init(dice: SeededGenerator) { self.dice = dice }

    func attach(_ end: End) { ends[end.lockNode.node.rawValue] = end }

    func end(of node: NodeID) -> End? { ends[node.rawValue] }

    func delay() -> UInt64 {
        dice.oneIn(10) ? UInt64(dice.below(slowest)) : UInt64(dice.below(120_000))
    }

    func attach(_ link: SimulatedLink) { links.append(link) }

    // MARK: Cuts

    /// From now on nothing arrives from one node at another.
    func cut(from: NodeID, to: NodeID) { cuts.append((from, to)) }

    func isCut(from: NodeID, to: NodeID) -> Bool {
        cuts.contains { $0.from == from && $0.to == to }
    }

    /// Everything that waits goes on its way.
    func heal() {
        cuts = []
        for link in links { link.goOn() }
    }

    /// The connection of two nodes breaks: what is on its way is lost, both ends notice.
    func breakConnection(_ one: NodeID, _ other: NodeID) {
        for link in links {
            if link.node == one { link.drop(other) }
            if link.node == other { link.drop(one) }
        }
        for (end, peer) in [(one, other), (other, one)] {
            guard let attached = self.end(of: end), !attached.isDead else { continue }
            let lost = self.end(of: peer)
            attached.engine.clock.schedule(
                at: attached.engine.clock.now.advanced(nanoseconds: delay()),
                in: attached.engine,
                EngineBound { [weak self] in
                    // Whoever has come back meanwhile, at either end, has another connection.
                    guard let self, !attached.isDead, self.end(of: end) === attached,
                        self.end(of: peer) === lost
                    else { return }
                    self.onLost?(end, peer)
                }
            )
        }
    }

    func delivered() { messageCount += 1 }
}

/// One life's way out.
final class SimulatedLink: PeerLink {
    private struct Channel {
        let peer: SimulatedNetwork.End
        var messages: [[UInt8]] = []
        /// The first is on its way.
        var isMoving = false
        /// Nothing arrives any more.
        var isBroken = false
    }

    private let network: SimulatedNetwork
    let node: NodeID
    private var channels: [Channel] = []
    /// Nothing leaves any more.
    var isDead = false

    init(network: SimulatedNetwork, node: NodeID) {
        self.network = network
        self.node = node
        network.attach(self)
    }

    /// What waits because its direction was cut goes on its way.
    func goOn() {
        for channel in channels where !channel.isMoving && !channel.messages.isEmpty {
            deliverNext(channel.peer)
        }
    }

    /// The connection to a node has broken.
    func drop(_ peer: NodeID) {
        for index in channels.indices where channels[index].peer.lockNode.node == peer {
            channels[index].isBroken = true
        }
    }

    func send(_ bytes: [UInt8], to peer: NodeID) {
        guard !isDead, let end = network.end(of: peer), !end.isDead else { return }
        let index = channels.firstIndex { $0.peer === end } ?? channels.count
        if index == channels.count { channels.append(Channel(peer: end)) }
        if channels[index].isBroken { return }
        channels[index].messages.append(bytes)
        if !channels[index].isMoving { deliverNext(end) }
    }

    private func deliverNext(_ end: SimulatedNetwork.End) {
        guard let index = channels.firstIndex(where: { $0.peer === end }),
            !network.isCut(from: node, to: end.lockNode.node)
        else { return }
        channels[index].isMoving = true
        let due = end.engine.clock.now.advanced(nanoseconds: network.delay())
        end.engine.clock.schedule(
            at: due,
            in: end.engine,
            EngineBound { [self] in
                guard let index = channels.firstIndex(where: { $0.peer === end }) else { return }
                channels[index].isMoving = false
                let bytes = channels[index].messages.removeFirst()
                if !end.isDead, !isDead, !channels[index].isBroken {
                    network.delivered()
                    bytes.withUnsafeBytes { end.lockNode.received($0, from: node) }
                }
                if !channels[index].messages.isEmpty { deliverNext(end) }
            }
        )
    }
}
