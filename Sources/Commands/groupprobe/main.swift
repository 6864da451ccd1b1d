// A process in a group of corosync's that does what it is told, one line each, and says what it is to do: for the tests of
// the agreement between hosts.
//
//   groupprobe VOLUME SLOTS [JOURNAL]
//   join, leave, withdrew, replayed EPOCH, doom NODE, fenced NODE, state, end
//
// JOURNAL is a folder of all hosts in which each life has a file while it may write, in place of the slots of a device.

import CorosyncCluster
import Glibc
import GroupAgreement
import LinuxSystem
import Membership
import Vocabulary

/// Tells one line.
@Sendable func say(_ line: String, to descriptor: Int32 = 1) {
    let bytes = Array((line + "\n").utf8)
    _ = write(descriptor, bytes, bytes.count)  // a test that does not listen has ended
}

/// What the callbacks and the commands share.
final class Probe: @unchecked Sendable {
    // Sendable: `latch`.
    private let latch = Latch()
    private let journal: String?
    private var group: CorosyncGroup?
    private var members: [Member] = []
    private var life: Member?
    private var host: UInt32 = 0

    init(journal: String?) { self.journal = journal }

    func begin(_ group: CorosyncGroup) {
        latch.withLock { self.group = group }
        host = group.me.host
        say("here \(group.me.host) \(group.me.process)")
    }

    /// The member with this node.
    func member(_ node: UInt32) -> Member? {
        latch.withLock { members.first { $0.node == NodeID(node) } }
    }

    func take(_ effect: AgreementEffect) {
        switch effect {
        case .say, .grace: break
        case .apply(let view, _):
            latch.withLock { members = view.members }
            let nodes = view.members.map { "\($0.node.rawValue)" }.joined(separator: ",")
            say("view \(view.epoch.rawValue) members \(nodes) replay \(view.slotsToReplay.count)")
        case .inspect(let ring):
            let found = remains()
            latch.withLock { group }?.post(.inspected(Inspection(ring: ring, remains: found)))
        case .permit(let isPermitted): say("permit \(isPermitted)")
        case .joined(let member):
            latch.withLock { life = member }
            if let journal {
                let file = "\(journal)/\(member.node.rawValue).\(member.incarnation).\(host)"
                close(open(file, O_CREAT | O_WRONLY, 0o600))
            }
            say("joined \(member.node.rawValue)")
        case .refused(let refusal): say("refused \(refusal)")
        case .left: say("left")
        case .expelled(let why): say("expelled \(why)")
        case .fence(let member, let host, let isHere):
            latch.withLock { if !members.contains(member) { members.append(member) } }
            say("fence \(member.node.rawValue) host \(host) \(isHere ? "here" : "gone")")
        case .stopFencing(let member): say("fencing-over \(member.node.rawValue)")
        case .report(let text): say("says \(text)")
        }
    }

    private func remains() -> [Remains] {
        guard let journal, let folder = opendir(journal) else { return [] }
        defer { closedir(folder) }
        var found: [Remains] = []
        while let entry = readdir(folder) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            let parts = name.split(separator: ".").compactMap { UInt64($0) }
            guard parts.count == 3, let node = UInt32(exactly: parts[0]), node > 0, parts[1] > 0,
                let host = UInt32(exactly: parts[2])
            else { continue }
            found.append(
                Remains(member: Member(node: NodeID(node), incarnation: parts[1]), host: host)
            )
        }
        return found
    }

    func removeOwnRemains() {
        guard let journal, let life = latch.withLock({ life }) else { return }
        unlink("\(journal)/\(life.node.rawValue).\(life.incarnation).\(host)")
    }
}

/// Obeys one line; false when it is the last.
func obey(_ words: [Substring], _ probe: Probe, _ group: CorosyncGroup, _ slots: UInt32) -> Bool {
    let number = words.dropFirst().first.flatMap { UInt64($0) } ?? 0
    switch words.first {
    case "join":
        let place = MemberPlace(process: group.me, hostName: "host\(group.me.host)", addresses: [])
        group.post(
            .wantsToJoin(
                JoinWish(
                    incarnation: UInt64.random(in: 1...UInt64.max),
                    place: place,
                    slot: nil,
                    slotCount: slots
                )
            )
        )
    case "leave":
        probe.removeOwnRemains()
        group.post(.wantsToLeave)
    case "withdrew":
        probe.removeOwnRemains()
        group.post(.withdrew)
    case "replayed": group.post(.replayed(Epoch(number)))
    case "doom", "fenced":
        guard let member = probe.member(UInt32(truncatingIfNeeded: number)) else {
            say("no member \(number)")
            break
        }
        if words[0] == "doom" {
            group.post(.suspected(member, .asked))
        } else {
            group.post(.fenced(member, .agent))
        }
    case "end": return false
    default: say("what is that? \(words.joined(separator: " "))")
    }
    return true
}

let arguments = CommandLine.arguments
guard arguments.count >= 3, let slots = UInt32(arguments[2]) else {
    say("usage: groupprobe VOLUME SLOTS [JOURNAL]", to: 2)
    exit(2)
}
let probe = Probe(journal: arguments.count > 3 ? arguments[3] : nil)
do throws(CorosyncError) {
    let group = try CorosyncGroup(
        volume: arguments[1],
        client: CorosyncGroupClient(
            onEffect: { probe.take($0) },
            onLost: { why in
                say("lost \(why)")
                exit(3)
            }
        )
    )
    probe.begin(group)
    try group.start()
    while let line = readLine() {
        if !obey(line.split(separator: " "), probe, group, slots) { break }
    }
    group.stop()
} catch {
    say("groupprobe: \(error)", to: 2)
    exit(1)
}
