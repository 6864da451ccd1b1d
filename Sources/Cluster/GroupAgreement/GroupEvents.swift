// What the members of a closed process group hear, say and do. The words are those of corosync's CPG: a *group* is
// all processes of a cluster that have the same volume mounted or are about to; a *configuration* is who is in it now;
// a *ring* is the hosts that hear each other.

package import Membership
package import Vocabulary

/// A process in the group.
package struct GroupProcess: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// The number of its host in the cluster (corosync's `nodeid`).
    package var host: UInt32
    /// Its number on that host.
    package var process: UInt32

    /// From its parts.
    package init(host: UInt32, process: UInt32) {
        self.host = host
        self.process = process
    }

    /// The order of the numbers.
    package static func < (left: GroupProcess, right: GroupProcess) -> Bool {
        (left.host, left.process) < (right.host, right.process)
    }

    /// For logs and reports.
    package var description: String { "host \(host), process \(process)" }
}

/// Hosts that hear each other. Each change of them makes a new ring, with a larger sequence than all before it that any
/// of its hosts was in.
package struct RingID: Hashable, Sendable {
    /// The host that formed it.
    package var host: UInt32
    /// Grows.
    package var sequence: UInt64

    /// From its parts.
    package init(host: UInt32, sequence: UInt64) {
        self.host = host
        self.sequence = sequence
    }
}

/// One thing that happened. What comes from the group comes in the order that all members of a configuration agree on.
package enum AgreementEvent: Hashable, Sendable {
    /// Who is in the group now, ascending, and who has come.
    case configured([GroupProcess], joined: [GroupProcess])
    /// The ring that this configuration, and the messages after it, belong to. Ascending.
    case ring(RingID, hosts: [UInt32])
    /// A member of the group said something.
    case delivered(AgreementMessage, from: GroupProcess)
    /// The quorum service of this host speaks of a ring.
    case quorum(RingID, isQuorate: Bool)
    /// This process wants to live in a slot.
    case wantsToJoin(JoinWish)
    /// What was asked for by `inspect`.
    case inspected(Inspection)
    /// This node's last write has returned, its journal is clean.
    case wantsToLeave
    /// The coordinator has replayed what the view listed.
    case replayed(Epoch)
    /// This node doubts a member.
    case suspected(Member, Suspicion)
    /// The time that `grace` asked for is over.
    case graceOver(RingID)
    /// It is certain that a life can neither write nor be read through any more.
    case fenced(Member, FenceProof)
    /// This node was expelled, and has stopped: nothing is being written, the kernel has forgotten all.
    case withdrew
}

/// What a process needs to live in a slot.
package struct JoinWish: Hashable, Sendable {
    /// Random, never 0.
    package var incarnation: UInt64
    /// Where the others reach it.
    package var place: MemberPlace
    /// The slot to live in; nil for the first free one.
    package var slot: SlotIndex?
    /// How many slots the volume has.
    package var slotCount: UInt32

    /// From its parts.
    package init(incarnation: UInt64, place: MemberPlace, slot: SlotIndex?, slotCount: UInt32) {
        self.incarnation = incarnation
        self.place = place
        self.slot = slot
        self.slotCount = slotCount
    }
}

/// What the device shows: lives that have not ended in order, as of a time when a ring had a quorum already.
package struct Inspection: Hashable, Sendable {
    /// The ring.
    package var ring: RingID
    /// The lives.
    package var remains: [Remains]

    /// From its parts.
    package init(ring: RingID, remains: [Remains]) {
        self.ring = ring
        self.remains = remains
    }
}

/// A life of which nobody knows whether it has ended.
package struct Remains: Hashable, Sendable {
    /// Who it was.
    package var member: Member
    /// Where.
    package var host: UInt32

    /// From its parts.
    package init(member: Member, host: UInt32) {
        self.member = member
        self.host = host
    }
}

/// Where a member lives.
package struct MemberPlace: Hashable, Sendable {
    /// Its process in the group.
    package var process: GroupProcess
    /// The name of its host, at most 255 bytes.
    package var hostName: String
    /// Where it listens, as text: address and port of each link. At most 8 of at most 255 bytes.
    package var addresses: [String]

    /// From its parts.
    package init(process: GroupProcess, hostName: String, addresses: [String]) {
        self.process = process
        self.hostName = hostName
        self.addresses = addresses
    }
}

/// Why it is certain that a life is over.
package enum FenceProof: UInt8, Hashable, Sendable, CaseIterable, CustomStringConvertible {
    /// A fence agent said so, or the storage.
    case agent
    /// An administrator vouches for it.
    case administrator
    /// Its own host says so: its process and its guardian have ended, or the host was started anew since.
    case ownHost
    /// It said so itself, after it had stopped.
    case ownWord
    /// Its time was over, and hardware stops who goes on after that.
    case lease

    /// For logs and reports.
    package var description: String {
        switch self {
        case .agent: "fenced"
        case .administrator: "acknowledged by an administrator"
        case .ownHost: "ended, says its host"
        case .ownWord: "withdrawn"
        case .lease: "out of time"
        }
    }
}

/// One thing to say, to all members of the group and to oneself.
package enum AgreementMessage: Hashable, Sendable {
    /// What I know: said by everybody after somebody has come (A2).
    case standing(GroupState?, life: Member?)
    /// The ring of the inspection has a quorum (A4), and the device shows this (A7).
    case quorate(Inspection)
    /// The ring has no quorum any more.
    case inquorate(RingID)
    /// I begin to live in a slot.
    case join(Member, JoinWish)
    /// I have stopped in order.
    case leave(Member)
    /// The slots that this view listed are replayed.
    case replayed(Epoch)
    /// A member is to be fenced.
    case doom(Member, Suspicion)
    /// A member can neither write nor be read through any more.
    case fenced(Member, FenceProof)
}

/// One thing to do.
package enum AgreementEffect: Hashable, Sendable {
    /// Say it to the group, oneself included.
    case say(AgreementMessage)
    /// There is a new view, and these are the places of its members, in the order of the view.
    case apply(ClusterView, places: [MemberPlace])
    /// Find out what lives the device shows, from now on, and answer `inspected` with this ring.
    case inspect(RingID)
    /// Answer `graceOver` with this ring after some seconds.
    case grace(RingID)
    /// Whether the file system may answer: false below quorum.
    case permit(Bool)
    /// This node is in.
    case joined(Member)
    /// This node cannot be let in.
    case refused(JoinRefusal)
    /// This node has left.
    case left
    /// The others go on without this node: it must stop writing, make the kernel forget everything, and answer
    /// `withdrew` then.
    case expelled(String)
    /// See to it that a life ends, and answer `fenced`; `isHostHere` if its host is in the ring. Repeated when that changes.
    case fence(Member, host: UInt32, isHostHere: Bool)
    /// Another node sees to that now, or it is done.
    case stopFencing(Member)
    /// Say it to the administrator.
    case report(String)
}
