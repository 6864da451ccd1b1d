// What goes on beside the programs of a workload: a node that comes and goes, and an administrator.

import CLinux
import Glibc
import SimulatedWorld
import Synchronization

/// One node of a cluster, which is mounted, works, and is unmounted or killed, again and again. The
/// others must neither wait for it for ever nor notice anything else.
struct Visitor: Sendable {
    let cluster: TestCluster
    let node: TestNode
    let mix: WorkloadMix
    let seed: UInt64

    /// One visit, the `number`-th. Every other one ends by SIGKILL in the middle of work.
    func visit(_ number: Int, _ tally: WorkloadTally) throws {
        try cluster.mount(node)
        let arena = Arena(mix, name: "visit\(number)", seed: seed + UInt64(number))
        try arena.make(on: node)
        try arena.fight(on: node, 25, tally)
        guard number % 2 == 0 else { return try cluster.unmount(node) }
        let hasBegun = eventfd(0, Int32(EFD_CLOEXEC))
        defer { close(hasBegun) }
        let isDead = Atomic(false)
        let thread = TestThread { [node] in
            // Until the daemon is dead; what is lost with it nobody asks. When its mount is gone, too,
            // paths lead into the empty folder below, where a name that is not there is no reason to
            // end.
            var count = 0
            while !isDead.load(ordering: .relaxed), (try? arena.step(on: node, tally)) != nil {
                count += 1
                if count == 10 { eventfd_write(hasBegun, 1) }
            }
            eventfd_write(hasBegun, 1)
        }
        var wait = pollfd(fd: hasBegun, events: Int16(POLLIN), revents: 0)
        let begun = poll(&wait, 1, Int32(60_000 * Patience.factor))
        let killed = Result { try cluster.kill(node) }
        isDead.store(true, ordering: .relaxed)
        thread.join()
        try killed.get()
        if begun != 1 { throw Trouble("\(node.name) does not work before it is killed") }
    }
}

/// Looks at a cluster in every way that there is.
struct Administrator: Sendable {
    let cluster: TestCluster
    let nodes: [TestNode]

    /// Each command once, for every node.
    func look() throws {
        for node in nodes {
            try Commands.demand("lockstep", ["status", "--json", node.root])
            try Commands.demand("lockstep", ["locks", node.root])
            try Commands.demand("lockstep", ["locks", "--waiting", "--json", node.root])
            try Commands.demand("lockstep", ["locks", "--counters", node.root])
            let recording = "\(cluster.folder)/recording\(node.number)"
            try Commands.demand("lockstep", ["dump", "-o", recording, node.root])
            try Commands.demand("lockstep", ["sync", node.root])
            let scrub = try Commands.run("lockstep", ["scrub", node.root], limit: 120)
            guard scrub.exitCode == 0 else { throw Trouble("a scrub: \(scrub)") }
        }
    }
}
