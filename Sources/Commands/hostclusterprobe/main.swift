// One node as a process, for the tests of HostCluster and Transport: tests cannot fork, and a
// process is what the cluster of a host is made of. It does what the lines on standard input say
// and tells what happens on standard output, one line each. It ends with its standard input.
//
//   hostclusterprobe join RUN VOLUME SLOTS SLOT|- PATIENCE-MS   then: beat | leave | replayed E |
//   fence N |
//                                                           send N COUNT TEXT | status |
//                                                           mount DIR abort|answer | unmount DIR
//   hostclusterprobe --guardian                             as mount.lockstep: the guardian of a
//   mount
//   hostclusterprobe kill-as-nobody PID                     what fencing says without permission

import CLinux
import DiskFormat
import Glibc
import HostCluster
import LinuxSystem
import Membership
import Transport
import Vocabulary

/// Tells one line.
@Sendable func say(_ line: String) {
    let bytes = Array((line + "\n").utf8)
    _ = write(1, bytes, bytes.count)  // a test that does not listen has ended
}

func list<Element>(_ elements: [Element], _ text: (Element) -> String) -> String {
    elements.isEmpty ? "-" : elements.map(text).joined(separator: ",")
}

/// Holds what the callbacks need before it exists.
final class Late: @unchecked Sendable {
    private let latch = Latch()
    private var storedTransport: UnixTransport?
    private var storedCluster: HostCluster?
    private var storedMount: TinyFuse?

    var mount: TinyFuse? {
        get { latch.withLock { storedMount } }
        set { latch.withLock { storedMount = newValue } }
    }

    var transport: UnixTransport? {
        get { latch.withLock { storedTransport } }
        set { latch.withLock { storedTransport = newValue } }
    }
    var cluster: HostCluster? {
        get { latch.withLock { storedCluster } }
        set { latch.withLock { storedCluster = newValue } }
    }
}

func makeTransport(_ claim: SlotClaim, _ directory: RunDirectory, _ late: Late) throws {
    late.transport = try UnixTransport(
        identity: TransportIdentity(
            volumeHigh: directory.volume.high,
            volumeLow: directory.volume.low,
            member: claim.member
        ),
        listeningAt: claim.socketPath,
        pathOf: { directory.socket($0.slot) },
        client: TransportClient(
            onMessage: { node, bytes in
                say("got \(node.rawValue) \(String(decoding: bytes, as: UTF8.self))")
            },
            onPeerLost: { member, why in
                say("lost \(member.node.rawValue) \(why)")
                late.cluster?.fenceNow(member.node, because: .connectionLost)
            },
            onReport: { say("report \($0)") }
        )
    )
}

func join(_ arguments: [String]) throws -> (HostCluster, Late) {
    guard arguments.count == 5, let volume = VolumeID(arguments[1]),
        let slots = UInt32(arguments[2]), let patience = UInt64(arguments[4])
    else { throw HostClusterError("usage: join RUN VOLUME SLOTS SLOT|- PATIENCE-MS") }
    var options = HostClusterOptions()
    options.runDirectory = arguments[0]
    options.slot = UInt32(arguments[3]).map { SlotIndex($0) }
    options.patience = patience * 1_000_000
    options.joinPatience = 20_000_000_000
    options.mountPoint = "/mnt/\(getpid())"
    options.device = "probe"
    let late = Late()
    let directory = try RunDirectory(root: arguments[0], volume: volume)
    let client = HostClusterClient(
        onView: { view in
            late.transport?.adopt(view)
            say(
                "view \(view.epoch.rawValue) members=\(list(view.members) { "\($0.node.rawValue)" })"
                    + " replay=\(list(view.slotsToReplay) { "\($0.rawValue)" })"
            )
        },
        onExpelled: { say("expelled \($0)") },
        onReport: { say("report \($0)") }
    )
    let cluster = try HostCluster.join(
        volume,
        slotCount: slots,
        options: options,
        client: client
    ) { claim in
        say("claim \(claim.member.node.rawValue) \(claim.isFirst ? "first" : "later")")
        try makeTransport(claim, directory, late)
    }
    late.cluster = cluster
    return (cluster, late)
}

func obey(_ words: [String], _ cluster: HostCluster, _ late: Late) throws {
    switch words.first ?? "" {
    case "beat": cluster.progress()
    case "replayed": cluster.markReplayed(Epoch(UInt64(words[1]) ?? 0))
    case "fence": cluster.fenceNow(NodeID(UInt32(words[1]) ?? 0))
    case "send":
        for index in 0..<(Int(words[2]) ?? 0) {
            late.transport?.send(
                Array("\(words[3])\(index)".utf8),
                to: NodeID(UInt32(words[1]) ?? 0)
            )
        }
    case "mount":
        late.mount = try TinyFuse(
            at: words[1],
            slot: cluster.node.slot,
            directory: cluster.directory,
            mayAbort: words[2].hasPrefix("abort"),
            isOld: words[2].hasSuffix("-old")
        )
        say("mounted")
    case "unmount":
        try late.mount?.unmount()
        say("unmounted")
    case "status":
        let status = try cluster.members()
        say(
            "status replay=\(list(status?.slotsToReplay ?? []) { "\($0.rawValue)" })"
                + " slots=\(list(status?.slots ?? []) { "\($0.slot.rawValue):\($0.content?.process ?? 0)" })"
        )
    case "leave":
        try cluster.leave { say("last") }
        late.transport?.close()
        say("left")
        exit(0)
    default: throw HostClusterError("what is '\(words)'?")
    }
}

do {
    var arguments = Array(CommandLine.arguments.dropFirst())
    let verb = arguments.isEmpty ? "" : arguments.removeFirst()
    switch verb {
    case "join":
        let (cluster, late) = try join(arguments)
        say("joined \(cluster.node.rawValue)")
        while let line = readLine() {
            try obey(line.split(separator: " ").map(String.init), cluster, late)
        }
    case Guardian.argument: exit(runGuardian(log: LineLog(name: "hostclusterprobe")))
    case "kill-as-nobody":
        guard let process = arguments.first.flatMap({ Int32($0) }) else { exit(2) }
        guard setuid(65_534) == 0 else { throw SystemError.last("setuid") }
        let descriptor = lockstep_pidfd_open(process)
        guard descriptor >= 0 else { throw SystemError.last("pidfd_open") }
        say("kill \(lockstep_pidfd_send_signal(descriptor, SIGKILL) == 0 ? 0 : errno)")
    default: throw HostClusterError("usage: hostclusterprobe join|kill-as-nobody ...")
    }
} catch {
    say("error \(error)")
    exit(1)
}
