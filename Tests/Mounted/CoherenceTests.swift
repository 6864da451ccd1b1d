// What one node does, every other node sees at once: content, size, names, modes, attributes, open files.

import Glibc
import Testing

extension MountedTests {
    @Suite(.serialized) struct CoherenceTests {
        /// Ten thousand operations from three nodes. LOCKSTEP_SEED and LOCKSTEP_OPERATIONS change them.
        @Test func randomOperationsAgreeWithTheModel() throws {
            let cluster = try TestCluster()
            try Watchdog.guarding(cluster, limit: 400) {
                try cluster.mountAll()
                let seed = number("LOCKSTEP_SEED") ?? 20_251
                let count = number("LOCKSTEP_OPERATIONS") ?? 10_000
                var run = try CoherenceRun(seed: UInt64(seed), nodes: cluster.nodes)
                try run.run(operations: count)
                #expect(run.performed == count)
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        private func number(_ variable: String) -> Int? {
            getenv(variable).flatMap { Int(String(cString: $0)) }
        }

        /// Unmounted and mounted again, the tree is the same, and goes on.
        @Test func aTreeSurvivesRemounting() throws {
            let cluster = try TestCluster()
            try Watchdog.guarding(cluster, limit: 180) {
                try cluster.mountAll()
                var run = try CoherenceRun(seed: 7, nodes: cluster.nodes)
                for _ in 0..<3 {
                    try run.run(operations: 300)
                    try cluster.unmountAll()
                    try cluster.checkClean()
                    try cluster.mountAll()
                    try run.compareAll()
                }
            }
        }

        /// Repeated use of what nobody changes is served by the kernel: the daemon hears nothing of it.
        @Test func cachedUseAsksNobody() throws {
            let cluster = try TestCluster(nodes: 2, size: "128M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let node = cluster.nodes[0]
                try populate(node.root)
                // What asking itself costs, to be taken off.
                let first = try cluster.requests(of: node)
                let asking = try cluster.requests(of: node) - first
                let (warm, after) = try useCached(node.root) { try cluster.requests(of: node) }
                let caused = after - warm - asking
                #expect(caused <= 1, "50 rounds of cached use caused \(caused) requests")
                // And the test can tell: another node's change must be asked for.
                let before = try cluster.requests(of: node)
                try Files.write([9], to: cluster.nodes[1].root + "/dir/file3")
                #expect(try Files.contents(node.root + "/dir/file3") == [9])
                #expect(try cluster.requests(of: node) - before > asking)
            }
        }

        private func populate(_ root: String) throws {
            try check(mkdir(root + "/dir", 0o755))
            for index in 0..<20 {
                let data = Pattern(seed: UInt64(index), count: 10_000)
                try Files.write(data.bytes, to: "\(root)/dir/file\(index)")
            }
        }

        /// stat of every name, reading and listing through handles that stay open, fifty times; `count`
        /// is called when the caches are warm and when all is done.
        private func useCached(_ root: String, _ count: () throws -> Int) throws -> (Int, Int) {
            let handles = try (0..<20).map { try Files.open("\(root)/dir/file\($0)", O_RDONLY) }
            defer { for handle in handles { close(handle) } }
            guard let folder = opendir(root + "/dir") else { throw SystemFailure(errno) }
            defer { closedir(folder) }
            for _ in 0..<3 { try useOpen(handles, folder, root: root) }
            let warm = try count()
            for _ in 0..<50 { try useOpen(handles, folder, root: root) }
            return (warm, try count())
        }

        private func useOpen(_ handles: [Int32], _ folder: OpaquePointer, root: String) throws {
            for (index, handle) in handles.enumerated() {
                _ = try Files.status("\(root)/dir/file\(index)")
                #expect(try Files.contents(of: handle).count == 10_000)
            }
            rewinddir(folder)
            var count = 0
            while readdir(folder) != nil { count += 1 }
            #expect(count == 22)
        }
    }
}
