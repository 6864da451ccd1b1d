// Nodes that die. What was fsynced is there, on the others at once and on itself after it comes
// back, and no check ever finds something to repair.

import CLinux
import Glibc
import Testing
import Vocabulary

/// A log of records, each written and fsynced before the next: what of it must survive is known
/// exactly.
final class SyncedLog: @unchecked Sendable {
    // Sendable: `acknowledged` is written by one thread through an atomic store of the kernel's
    // making, a byte in a pipe for each record, and read only after that thread has ended.
    private let path: String
    private let seed: UInt64
    /// O_DSYNC or O_SYNC instead of an fsync after each record.
    private let synchronousFlag: Int32
    private(set) var acknowledged = 0
    private var pipe: [Int32] = [-1, -1]

    init(_ path: String, seed: UInt64, synchronousFlag: Int32 = 0) throws {
        self.synchronousFlag = synchronousFlag
        self.path = path
        self.seed = seed
        try check(Glibc.pipe(&pipe))
    }

    deinit { for end in pipe { close(end) } }

    private func record(_ number: Int) -> [UInt8] {
        var generator = SeededGenerator(seed: seed &+ UInt64(number))
        let count = 1 + generator.below(9_000)
        return Pattern(seed: generator.next(), count: count).bytes
    }

    /// Writes records, each with its fsync, and every tenth a small file of its own beside it,
    /// until `limit` or until the mount goes away.
    func write(limit: Int) {
        let flags = O_WRONLY | O_CREAT | O_APPEND | synchronousFlag
        try? Files.withOpen(path, flags) { descriptor in
            while acknowledged < limit {
                try Files.write(record(acknowledged), to: descriptor, at: nil)
                if synchronousFlag == 0 { try check(fsync(descriptor)) }
                if acknowledged % 10 == 0 {
                    let data = record(acknowledged)
                    try Files.write(data, to: "\(path).\(acknowledged)", sync: true)
                }
                acknowledged += 1
                Glibc.write(pipe[1], [1], 1)
            }
        }
    }

    /// Waits until `count` more records have been acknowledged. False after `limit` seconds.
    func wait(for count: Int, limit: Double) -> Bool {
        let deadline = monotonicSeconds() + limit
        for _ in 0..<count {
            var wait = pollfd(fd: pipe[0], events: Int16(POLLIN), revents: 0)
            let rest = Int32(max(0, deadline - monotonicSeconds()) * 1000)
            guard poll(&wait, 1, rest) > 0 else { return false }
            var byte: UInt8 = 0
            Glibc.read(pipe[0], &byte, 1)
        }
        return true
    }

    /// Demands that `path` begins with all acknowledged records and holds nothing but a beginning
    /// of the one that was being written.
    func verify(_ path: String) throws {
        let found = try Files.contents(path)
        let expected = (0..<acknowledged).flatMap { record($0) }
        guard found.starts(with: expected) else {
            throw Trouble(
                "\(path): \(found.count) bytes, which do not begin with the \(acknowledged) records "
                    + "(\(expected.count) bytes) that were fsynced"
            )
        }
        for number in stride(from: 0, to: acknowledged, by: 10) {
            guard try Files.contents("\(path).\(number)") == record(number) else {
                throw Trouble("\(path).\(number) is not what was fsynced")
            }
        }
    }
}

extension MountedTests {
    @Suite(.serialized) struct CrashTests {
        @Test func aKilledNodeLosesNothingThatWasSynced() throws {
            let cluster = try TestCluster(nodes: 1, size: "256M")
            try Watchdog.guarding(cluster, limit: 240) {
                let node = cluster.nodes[0]
                try cluster.mount(node)
                var logs: [SyncedLog] = []
                for round in 0..<4 {
                    let path = "\(node.root)/log\(round)"
                    let log = try SyncedLog(
                        path,
                        seed: UInt64(round) * 1_000_000,
                        synchronousFlag: [0, O_DSYNC, O_SYNC, 0][round]
                    )
                    let writer = TestThread { log.write(limit: 1_000_000) }
                    // Let it be somewhere in the middle, a different middle each time.
                    let isAlive = log.wait(for: 20 + 37 * round, limit: 60)
                    try cluster.kill(node)
                    writer.join()
                    #expect(isAlive, "the writer stopped after \(log.acknowledged) records")
                    logs.append(log)
                    try cluster.mount(node)
                    for (number, log) in logs.enumerated() {
                        try log.verify("\(node.root)/log\(number)")
                    }
                    try cluster.unmount(node)
                    try cluster.checkClean()
                    try cluster.mount(node)
                }
            }
        }

        @Test func theOthersGoOnWhenOneIsKilled() throws {
            let cluster = try TestCluster()
            try Watchdog.guarding(cluster, limit: 300) {
                try cluster.mountAll()
                for round in 0..<3 {
                    try killOne(cluster, victim: round, round: round)
                    let told = try Commands.demand(
                        "lockstep",
                        ["status", "--run", cluster.runDirectory]
                    )
                    #expect(
                        told.output.contains("replayed the journal of slot \(round) in epoch "),
                        "\(told)"
                    )
                    try cluster.mount(cluster.nodes[round])
                }
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// All write and fsync, in one directory; one is killed; the others do not stop, and find
        /// everything that it had fsynced.
        private func killOne(_ cluster: TestCluster, victim: Int, round: Int) throws {
            let nodes = cluster.nodes
            try check(mkdir(nodes[0].root + "/round\(round)", 0o755))
            let names = nodes.map { "round\(round)/log\($0.number)" }
            let logs = try nodes.map {
                try SyncedLog(
                    "\($0.root)/\(names[$0.number])",
                    seed: UInt64(round * 10 + $0.number) << 32
                )
            }
            let writers = nodes.map { node in
                TestThread { [log = logs[node.number]] in
                    log.write(limit: node.number == victim ? 1_000_000 : 150)
                }
            }
            let wasAlive = logs[victim].wait(for: 30 + 11 * round, limit: 60)
            try cluster.kill(nodes[victim])
            for writer in writers { writer.join() }
            #expect(wasAlive, "the victim stopped after \(logs[victim].acknowledged) records")
            for survivor in nodes where survivor.number != victim {
                #expect(logs[survivor.number].acknowledged == 150, "\(survivor.name) was stopped")
                for (number, log) in logs.enumerated() {
                    try log.verify("\(survivor.root)/\(names[number])")
                }
                try Files.write([1], to: "\(survivor.root)/after\(round).\(survivor.number)")
            }
        }

        /// 'lockstep sync' makes everything durable, fsynced by its writer or not; so does SIGTERM.
        @Test func syncAndTermKeepEverything() throws {
            let cluster = try TestCluster(nodes: 1, size: "128M")
            try Watchdog.guarding(cluster, limit: 180) {
                let node = cluster.nodes[0]
                let data = (0..<200).map { Pattern(seed: UInt64($0), count: 1 + $0 * 97).bytes }
                func verify(_ folder: String) throws {
                    for (number, bytes) in data.enumerated() {
                        let found = try Files.contents("\(node.root)/\(folder)/\(number)")
                        #expect(found == bytes, "\(folder)/\(number): \(found.count) bytes")
                    }
                }
                func fill(_ folder: String) throws {
                    try check(mkdir("\(node.root)/\(folder)", 0o755))
                    for (number, bytes) in data.enumerated() {
                        try Files.write(bytes, to: "\(node.root)/\(folder)/\(number)")
                    }
                }
                try cluster.mount(node)
                try fill("synced")
                try Commands.demand("lockstep", ["sync", node.root])
                try cluster.kill(node)
                try cluster.mount(node)
                try verify("synced")
                try fill("ended")
                for process in cluster.processes(of: node) {
                    Glibc.kill(process, SIGTERM)
                    #expect(Commands.waitForEnd(of: process, limit: 60))
                }
                #expect(!cluster.isMounted(node))
                try cluster.checkClean()
                try cluster.mount(node)
                try verify("synced")
                try verify("ended")
            }
        }

        /// A file that a dead node held open and unlinked does not keep its space for ever.
        @Test func theOrphansOfADeadNodeAreFreed() throws {
            let cluster = try TestCluster(nodes: 2, size: "256M")
            try Watchdog.guarding(cluster, limit: 180) {
                try cluster.mountAll()
                let (one, two) = (cluster.nodes[0], cluster.nodes[1])
                let before = try freeBytes(two)
                let data = Pattern(seed: 1, count: 8 << 20).bytes
                try Files.write(data, to: one.root + "/big", sync: true)
                let handle = try Files.open(one.root + "/big", O_RDONLY)
                defer { close(handle) }
                try check(unlink(one.root + "/big"))
                try Files.withOpen(one.root, O_RDONLY | O_DIRECTORY) { try check(fsync($0)) }
                try cluster.kill(one)
                #expect(try Files.names(two.root).isEmpty)
                try cluster.mount(one)
                try waitUntil(limit: 60, "the space of the orphan comes back") {
                    try freeBytes(two) + (1 << 20) >= before
                }
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }
    }
}

/// Free bytes as statvfs says on a node.
func freeBytes(_ node: TestNode) throws -> Int {
    var usage = statvfs()
    try check(statvfs(node.root, &usage))
    return Int(usage.f_bfree) * Int(usage.f_frsize)
}

/// Asks until `condition` holds; nothing announces it. Throws after `limit` seconds.
func waitUntil(limit: Double, _ what: String, _ condition: () throws -> Bool) throws {
    let deadline = monotonicSeconds() + limit
    while try !condition() {
        guard monotonicSeconds() < deadline else { throw Trouble("not within \(limit) s: \(what)") }
        poll(nil, 0, 50)
    }
}
