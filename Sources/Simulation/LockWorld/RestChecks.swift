// What must be true of a cluster at rest: all members run in the same view, no message and no view
// is on its way. Used by the random world and by the search.

import LockCore
import Vocabulary

/// Everything the nodes of a cluster at rest know, by resource.
struct RestPicture {
    /// One resource as its master and its directory node know it.
    struct Resource {
        var name: ResourceName
        var master = NodeID.none
        var directoryEntry = NodeID.none
        /// The master's queues: granted, converting, waiting, each in order.
        var locks: [LockDescription] = []
    }

    /// Ascending by name.
    private(set) var resources: [Resource] = []

    /// How many locks all masters have.
    var lockCount: Int { resources.reduce(0) { $0 + $1.locks.count } }

    /// `seen` is what each node says, node by node.
    init(_ seen: [(node: NodeID, resource: ResourceDescription)]) throws {
        for (node, said) in seen.sorted(by: { $0.resource.name < $1.resource.name }) {
            if resources.last?.name != said.name { resources.append(Resource(name: said.name)) }
            let index = resources.count - 1
            if said.directoryEntry != .none {
                resources[index].directoryEntry = said.directoryEntry
            }
            guard said.master == node else { continue }
            if resources[index].master != .none {
                throw WorldFailure(
                    "\(said.name): masters \(resources[index].master) and \(node) at rest"
                )
            }
            resources[index].master = node
            resources[index].locks = said.locks
        }
        // Parts have the master of their root, and no entry.
        for resource in resources
        where resource.name.depth == 0 && resource.master != resource.directoryEntry {
            throw WorldFailure(
                "\(resource.name): mastered by \(resource.master), the directory says \(resource.directoryEntry)"
            )
        }
    }

    /// A resource somebody masters.
    func resource(_ name: ResourceName) -> Resource? {
        var low = 0
        var high = resources.count
        while low < high {
            let middle = (low + high) / 2
            if resources[middle].name < name { low = middle + 1 } else { high = middle }
        }
        guard low < resources.count, resources[low].name == name else { return nil }
        return resources[low]
    }

    /// Every wait has a reason that the rules of order know: the first conversion conflicts with
    /// what another lock has, the others wait behind it; the first request conflicts, or waits
    /// behind a conversion, and so on. `isEligible`: what may be granted at present.
    func checkWaits(isEligible: (LockDescription) -> Bool = { _ in true }) throws {
        for resource in resources {
            let held = resource.locks.filter { $0.granted != nil }
            if resource.name.kind.isOfBytes {
                try checkRangeWaits(resource, held, isEligible)
                continue
            }
            for state in [LockDescription.State.converting, .waiting] {
                guard
                    let first = resource.locks.first(where: {
                        $0.state == state && isEligible($0)
                    })
                else { continue }
                guard let wanted = first.requested else {
                    throw WorldFailure("\(resource.name): \(first) waits for nothing")
                }
                let isBlocked = held.contains { other in
                    (other.holder != first.holder || other.lock != first.lock)
                        && other.granted?.isCompatible(with: wanted) == false
                }
                if !isBlocked {
                    throw WorldFailure("\(resource.name): \(first) waits, and nobody is in the way")
                }
                // Requests wait behind conversions.
                break
            }
        }
    }

    /// Whoever waits for bytes waits for somebody who has some of them.
    private func checkRangeWaits(
        _ resource: Resource,
        _ held: [LockDescription],
        _ isEligible: (LockDescription) -> Bool
    ) throws {
        for waiter in resource.locks where waiter.state == .waiting && isEligible(waiter) {
            if !held.contains(where: { $0.isInTheWay(of: waiter) }) {
                throw WorldFailure("\(resource.name): \(waiter) waits, and nobody is in the way")
            }
        }
    }

    /// The master's copy of a client's lock is what the client thinks it is; and who stands in
    /// somebody's way was told.
    func check(_ client: ClientLock, of node: NodeID, checksNotices: Bool) throws {
        let copies = resource(client.name)?.locks ?? []
        guard let copy = copies.first(where: { $0.holder == node && $0.lock == client.id }) else {
            throw WorldFailure("\(client.name): the master lost \(node)'s lock")
        }
        if client.isDoomed { return }
        let owner = client.isOrphan ? .none : client.owner
        if copy.holder != resource(client.name)?.master && copy.owner != owner {
            throw WorldFailure(
                "\(client.name): the master takes \(node)'s lock for that of \(copy.owner), not \(owner)"
            )
        }
        if copy.bytes != client.bytes {
            throw WorldFailure(
                "\(client.name): the master has \(String(describing: copy.bytes)), \(node) \(String(describing: client.bytes))"
            )
        }
        if client.isOrphan { return }
        let expected: LockDescription.State =
            client.isIdle ? .granted : client.held == nil ? .waiting : .converting
        var wanted: LockMode?
        switch client.asked {
        case .request(let mode), .convert(let mode): wanted = mode
        case .nothing: break
        case .unlock: throw WorldFailure("\(client.name): \(node)'s unlock is never answered")
        }
        // The old mode of a conversion that allows it may be gone already.
        let isDemoted =
            expected == .converting && client.flags.contains(.demoteOnDeadlock)
            && copy.granted == .null
        if copy.state != expected || (copy.granted != client.held && !isDemoted)
            || copy.requested != wanted
        {
            throw WorldFailure(
                "\(client.name): the master has \(copy), \(node) \(client.held?.description ?? "-") and asks for \(wanted?.description ?? "-")"
            )
        }
        if wanted != nil && client.hasCancelled {
            throw WorldFailure("\(client.name): \(node) waits for what it has cancelled")
        }
        guard let held = client.held, client.isIdle, checksNotices, client.bytes == nil else {
            return
        }
        for other in copies {
            guard let wanted = other.requested, !held.isCompatible(with: wanted) else { continue }
            if !client.hasHeard(of: wanted) {
                throw WorldFailure(
                    "\(client.name): \(node) in \(held) never heard that \(other.holder) wants \(wanted)"
                )
            }
        }
    }
}

extension LockDescription {
    /// Whether a granted lock keeps another from the mode that asks for, bytes and owners considered.
    func isInTheWay(of waiter: LockDescription) -> Bool {
        guard let granted, let wanted = waiter.requested,
            (holder, lock) != (waiter.holder, waiter.lock), !granted.isCompatible(with: wanted)
        else { return false }
        guard let bytes, let others = waiter.bytes else { return true }
        let isOfOneOwner = holder == waiter.holder && owner == waiter.owner && owner != .none
        return bytes.overlaps(others) && !isOfOneOwner
    }
}
