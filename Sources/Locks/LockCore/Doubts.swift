// Words about the end of a mastership that a change of view has overtaken.
//
// A view drops what is on its way (I8). Where a master had just told the directory node that it
// masters a tree no longer, the entry would stay for ever: nothing else would ever speak of it (R5).
// Such a word is no order any more, as the tree may have been taken on again since, but a reason to
// ask. Both sides know nothing less than before, because messages between two nodes keep their order
// across views:
//
// Q1. The directory node that hears too late of an end (`remove`), of a move (`entry`) or of what
//     nobody wanted (`disclaim`) asks whom the entry names, when its recovery is over. The answer says
//     whether that node masters the tree, and
//     all it had to say about it came before.
// Q2. A node that hears too late that the directory has made it the master has asked again, or is not
//     interested any more. Then it says so (`disclaim`), when its recovery is over: in the middle of it
//     others may have been sent to it, who make it the master. That, too, is a reason to ask, as in Q1.
// Q3. Only connections that broke lose words for good. Then the directory is forgotten and rebuilt
//     (R4).
// Q4. A "no" is void if somebody else's word, about a move, has made that node the master since it was
//     asked: it may not have heard of that when it answered.

import Vocabulary

/// A question of the directory node to the node that an entry names.
struct OpenConfirm: Sendable {
    var name: ResourceName
    var node: NodeID
    /// Q4.
    var isVoid = false
}

extension Lockspace {
    /// A message of an older epoch: nothing is done, but four kinds are a reason to ask (Q1, Q2).
    mutating func takeStale(
        _ message: LockMessage,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        counters.staleMessages += 1
        switch message {
        case .remove(let name), .entry(let name, _), .disclaim(let name):
            if isMember(peer) && name.depth == 0 { doubt(name, &effects) }
        case .lookupReply(let name, let master) where master == node && name.depth == 0:
            disclaim(name, &effects)
        default: return
        }
    }

    /// Q1.
    private mutating func doubt(_ name: ResourceName, _ effects: inout [LockEffect]) {
        if status != .running {
            if !doubtedEntries.contains(name) { doubtedEntries.append(name) }
            return
        }
        let root = find(name)
        if root == 0 || directoryNode(name) != node { return }
        let master = resources[root].directoryMaster
        if master != .none && master != node { askToConfirm(name, master, &effects) }
    }

    /// Asks a node that an entry names whether it masters the tree.
    mutating func askToConfirm(
        _ name: ResourceName,
        _ master: NodeID,
        _ effects: inout [LockEffect]
    ) {
        openConfirms.append(OpenConfirm(name: name, node: master))
        send(.confirm(name), to: master, &effects)
    }

    /// A question without an answer: one of them is lost with the view.
    mutating func doubtAgain() {
        for confirm in openConfirms where !doubtedEntries.contains(confirm.name) {
            doubtedEntries.append(confirm.name)
        }
        openConfirms = []
    }

    /// Q4.
    mutating func voidConfirms(_ name: ResourceName) {
        for place in openConfirms.indices where openConfirms[place].name == name {
            openConfirms[place].isVoid = true
        }
    }

    /// Q2.
    private mutating func disclaim(_ name: ResourceName, _ effects: inout [LockEffect]) {
        if status != .running {
            if !unwantedEntries.contains(name) { unwantedEntries.append(name) }
            return
        }
        let root = find(name)
        let directory = directoryNode(name)
        if directory == node || moves.contains(where: { $0.root == name }) { return }
        if root != 0 {
            let mastery = resources[root].mastery
            if mastery == .local || mastery == .lookingUp { return }
        }
        send(.disclaim(name), to: directory, &effects)
    }

    mutating func serveDisclaim(
        _ name: ResourceName,
        from peer: NodeID,
        _ effects: inout [LockEffect]
    ) {
        let root = find(name)
        if root != 0 && resources[root].directoryMaster == peer { doubt(name, &effects) }
    }

    /// What was put off until the recovery was over.
    mutating func settleDoubts(_ effects: inout [LockEffect]) {
        let doubted = doubtedEntries
        doubtedEntries = []
        for name in doubted { doubt(name, &effects) }
        let unwanted = unwantedEntries
        unwantedEntries = []
        for name in unwanted { disclaim(name, &effects) }
    }

    /// Entries in places that belong to others since this view.
    mutating func dropForeignEntries() {
        for resource in 1..<resources.bound
        where resources[resource].mastery != .free && resources[resource].directoryMaster != .none
            && directoryNode(name(of: resource)) != node
        {
            resources[resource].directoryMaster = .none
            if resources[resource].mastery == .unknown && isUnused(resource) {
                removeRecord(resource)
            }
        }
    }
}

extension LockMessage {
    /// Whether it is a reason to ask even if it comes too late.
    package var mayCauseDoubt: Bool {
        switch self {
        case .remove, .entry, .disclaim, .lookupReply: true
        default: false
        }
    }
}
