// What one node does, every other node sees at once: content, size, names, modes, attributes, open
// files.

import Glibc
import Testing
import Vocabulary

extension MountedTests {
    @Suite(.serialized) struct CoherenceTests {
        /// Ten thousand operations from three nodes. LOCKSTEP_SEED and LOCKSTEP_OPERATIONS change
        /// them.
        @Test func randomOperationsAgreeWithTheModel() throws {
            let cluster = try TestCluster()
            try Watchdog.guarding(cluster, limit: 900) {
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

        /// Repeated use of what nobody changes is served by the kernel: the daemon hears nothing of
        /// it.
        @Test func cachedUseAsksNobody() throws {
            let cluster = try TestCluster(nodes: 2, size: "128M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let node = cluster.nodes[0]
                try populate(node.root)
                let caused = try useCached(node.root) { try cluster.requests(of: node) }
                #expect(caused <= 1, "50 rounds of cached use caused \(caused) requests")
                // And the test can tell: another node's change must be asked for.
                let before = try cluster.requests(of: node)
                try Files.write([9], to: cluster.nodes[1].root + "/dir/file3")
                #expect(try Files.contents(node.root + "/dir/file3") == [9])
                let asking = try cluster.requests(of: node)
                #expect(asking - before > (try cluster.requests(of: node)) - asking)
            }
        }

        private func populate(_ root: String) throws {
            try check(mkdir(root + "/dir", 0o755))
            for index in 0..<20 {
                let data = Pattern(seed: UInt64(index), count: 10_000)
                try Files.write(data.bytes, to: "\(root)/dir/file\(index)")
            }
        }

        /// stat of every name, reading and listing through handles that stay open, fifty times,
        /// when the caches are warm. Returns how many requests `count` tells more afterwards.
        private func useCached(_ root: String, _ count: () throws -> Int) throws -> Int {
            let handles = try (0..<20).map { try Files.open("\(root)/dir/file\($0)", O_RDONLY) }
            defer { for handle in handles { close(handle) } }
            guard let folder = opendir(root + "/dir") else { throw SystemFailure(errno) }
            defer { closedir(folder) }
            for _ in 0..<3 { try useOpen(handles, folder, root: root) }
            // Asking causes requests, too: a program that is started closes its copies of the
            // handles.
            let first = try count()
            let warm = try count()
            for _ in 0..<50 { try useOpen(handles, folder, root: root) }
            return try count() - warm - (warm - first)
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

        /// A shared mapping shows what other nodes write, and what is stored through it they read.
        @Test func mappedPagesAreCoherent() throws {
            let cluster = try TestCluster(nodes: 3, size: "128M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let pages = 8
                try Files.write(
                    [UInt8](repeating: 0, count: pages * 4096),
                    to: cluster.nodes[0].root + "/map"
                )
                let maps = try cluster.nodes.map {
                    try SharedMapping($0.root + "/map", pages: pages)
                }
                let handles = try cluster.nodes.map { try Files.open($0.root + "/map", O_RDWR) }
                defer { for handle in handles { close(handle) } }
                var dice = SeededGenerator(seed: 11)
                var expected = [UInt8](repeating: 0, count: pages)
                for step in 1...300 {
                    let page = dice.below(pages)
                    let node = dice.below(3)
                    expected[page] = UInt8(step & 255)
                    if dice.oneIn(2) {
                        maps[node].store(expected[page], page: page)
                    } else {
                        try Files.write([expected[page]], to: handles[node], at: page * 4096)
                    }
                    for map in maps { #expect(map.firstBytes == expected, "after step \(step)") }
                    let other = (node + 1) % 3
                    let bytes = try Files.contents(of: handles[other])
                    #expect(
                        (0..<pages).map { bytes[$0 * 4096] } == expected,
                        "read after step \(step)"
                    )
                }
                for map in maps { map.unmap() }
            }
        }
    }
}

/// A file of some pages, mapped shared for reading and writing.
final class SharedMapping {
    private let base: UnsafeMutablePointer<UInt8>
    private let pages: Int

    init(_ path: String, pages: Int) throws {
        self.pages = pages
        base = try Files.withOpen(path, O_RDWR) { descriptor in
            let start = mmap(nil, pages * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
            guard let start, start != MAP_FAILED else { throw SystemFailure(errno) }
            return start.assumingMemoryBound(to: UInt8.self)
        }
    }

    /// The first byte of each page, as the processor sees them now.
    var firstBytes: [UInt8] { (0..<pages).map { base[$0 * 4096] } }

    func store(_ byte: UInt8, page: Int) { base[page * 4096] = byte }

    /// Once, while the mount still answers.
    func unmap() { munmap(base, pages * 4096) }
}
