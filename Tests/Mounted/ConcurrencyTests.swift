// Nodes that work on the same thing at the same time.

import CLinux
import Glibc
import Testing
import Vocabulary

extension MountedTests {
    @Suite(.serialized) struct ConcurrencyTests {
        private func withThreeNodes(
            limit: Double = 180,
            _ body: ([TestNode]) throws -> Void
        ) throws {
            let cluster = try TestCluster()
            try Watchdog.guarding(cluster, limit: limit) {
                try cluster.mountAll()
                try body(cluster.nodes)
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        // MARK: Appending

        private static let recordsPerNode = 200

        /// A record says who wrote it, which of theirs it is and how long it is; the rest follows
        /// from that.
        private static func record(writer: Int, number: Int) -> [UInt8] {
            var generator = SeededGenerator(seed: UInt64(writer) << 32 | UInt64(number))
            let count = 1 + generator.below(generator.oneIn(10) ? 20_000 : 500)
            let head = [writer, number & 255, number >> 8, count & 255, count >> 8].map {
                UInt8($0)
            }
            return head + Pattern(seed: generator.next(), count: count).bytes
        }

        @Test func appendedRecordsAreNeitherLostNorTorn() throws {
            try withThreeNodes { nodes in
                try TestThread.together(nodes.count) { writer in
                    let path = nodes[writer].root + "/log"
                    try Files.withOpen(path, O_WRONLY | O_CREAT | O_APPEND) { descriptor in
                        for number in 0..<Self.recordsPerNode {
                            let record = Self.record(writer: writer, number: number)
                            // One call for each: a write that is cut in two would not be atomic.
                            let count = try check(write(descriptor, record, record.count))
                            if count != record.count { throw Trouble("short write: \(count)") }
                        }
                    }
                }
                for node in nodes { try checkLog(node) }
            }
        }

        private func checkLog(_ node: TestNode) throws {
            let bytes = try Files.contents(node.root + "/log")
            var next = [0, 0, 0]
            var at = 0
            while at < bytes.count {
                let writer = Int(bytes[at])
                guard writer < next.count else {
                    throw Trouble("\(node.name): no record begins at \(at) of \(bytes.count)")
                }
                let expected = Self.record(writer: writer, number: next[writer])
                guard bytes[at...].starts(with: expected) else {
                    throw Trouble(
                        "\(node.name): record \(next[writer]) of node \(writer + 1) is lost or torn at "
                            + "\(at) of \(bytes.count)"
                    )
                }
                next[writer] += 1
                at += expected.count
            }
            #expect(next == Array(repeating: Self.recordsPerNode, count: 3))
        }

        // MARK: Names

        @Test func createdNamesAreSeenByAll() throws {
            try withThreeNodes { nodes in
                try check(mkdir(nodes[0].root + "/dir", 0o755))
                try TestThread.together(nodes.count) { writer in
                    for number in 0..<150 {
                        let name = "from\(writer).\(number)"
                        try Files.write(Array(name.utf8), to: nodes[writer].root + "/dir/" + name)
                    }
                }
                let names = (0..<3).flatMap { writer in (0..<150).map { "from\(writer).\($0)" } }
                for node in nodes {
                    #expect(try Files.names(node.root + "/dir") == names.sorted())
                    for name in names {
                        let found = try Files.contents("\(node.root)/dir/\(name)")
                        #expect(found == Array(name.utf8), "\(name) on \(node.name)")
                    }
                }
            }
        }

        /// O_EXCL, mkdir and link as locks: of three that try at once, one gets the name.
        @Test func exclusiveCreationHasOneWinner() throws {
            try withThreeNodes { nodes in
                let wins = Tally(nodes.count)
                try TestThread.together(nodes.count) { writer in
                    let root = nodes[writer].root
                    try Files.write([UInt8(writer)], to: "\(root)/mine\(writer)")
                    for number in 0..<120 {
                        let path = "\(root)/name\(number)"
                        do {
                            switch number % 3 {
                            case 0: try Files.withOpen(path, O_WRONLY | O_CREAT | O_EXCL) { _ in }
                            case 1: try check(mkdir(path, 0o755))
                            default: try check(link("\(root)/mine\(writer)", path))
                            }
                            wins.add(writer)
                        } catch let failure as SystemFailure where failure.code == EEXIST {
                            continue
                        }
                    }
                }
                #expect(wins.total == 120, "120 names were won \(wins.total) times")
            }
        }

        /// rename(2) replaces at once: who looks finds the old file or the new, whole, never
        /// nothing, and never an older one than before.
        @Test func replacingIsAtomic() throws {
            try withThreeNodes { nodes in
                @Sendable func content(_ version: Int) -> [UInt8] {
                    let count = 1 + version * 131 % 10_000
                    let head = [UInt8(version & 255), UInt8(version >> 8)]
                    return head + Pattern(seed: UInt64(version), count: count).bytes
                }
                let last = 200
                try Files.write(content(0), to: nodes[0].root + "/target")
                // The fourth looks on the node that replaces.
                try TestThread.together(nodes.count + 1) { number in
                    let root = nodes[number % nodes.count].root
                    var newest = 0
                    for version in 1...last where number == 0 {
                        try Files.write(content(version), to: root + "/fresh")
                        try check(rename(root + "/fresh", root + "/target"))
                    }
                    while newest < last && number != 0 {
                        let found = try Files.contents(root + "/target")
                        guard found.count > 2 else { throw Trouble("found \(found.count) bytes") }
                        let version = Int(found[0]) | Int(found[1]) << 8
                        guard version >= newest, found == content(version) else {
                            throw Trouble("\(version) after \(newest), \(found.count) bytes")
                        }
                        newest = version
                    }
                }
            }
        }

        /// Moving one file back and forth between directories while others look for it: it is
        /// always in exactly one of the two.
        @Test func movingNeverLosesAFile() throws {
            try withThreeNodes { nodes in
                for name in ["/left", "/right"] { try check(mkdir(nodes[0].root + name, 0o755)) }
                try Files.write([1, 2, 3], to: nodes[0].root + "/left/file")
                try TestThread.together(nodes.count) { number in
                    let (left, right) = (
                        nodes[number].root + "/left/file", nodes[number].root + "/right/file"
                    )
                    for _ in 0..<100 {
                        // Whoever finds it moves it to the other side; the others get ENOENT.
                        for (from, to) in [(left, right), (right, left)] where rename(from, to) != 0
                        {
                            guard errno == ENOENT else { throw SystemFailure(errno) }
                        }
                    }
                }
                for node in nodes {
                    let found = try ["/left", "/right"].flatMap { try Files.names(node.root + $0) }
                    #expect(found == ["file"], "on \(node.name)")
                }
            }
        }

        /// Directories moved into each other from all sides: no node waits for ever, none makes a
        /// loop.
        @Test func movingDirectoriesMakesNoLoop() throws {
            try withThreeNodes { nodes in
                let names = ["a", "b", "c"]
                for name in names { try check(mkdir(nodes[0].root + "/" + name, 0o755)) }
                for name in names {
                    try Files.write([1], to: "\(nodes[0].root)/\(name)/in-\(name)")
                }
                // Each node moves its directory into the next one's and back.
                try TestThread.together(nodes.count) { number in
                    let root = nodes[number].root
                    let (own, other) = (names[number], names[(number + 1) % 3])
                    for _ in 0..<60 {
                        let paths = ["/\(own)", "/\(other)/\(own)"]
                        for (from, to) in [(paths[0], paths[1]), (paths[1], paths[0])]
                        where rename(root + from, root + to) != 0 {
                            // It has been carried elsewhere, or would be inside itself.
                            guard [ENOENT, EINVAL].contains(errno) else {
                                throw SystemFailure(errno)
                            }
                        }
                    }
                }
                for node in nodes {
                    #expect(try files(below: node.root) == ["in-a", "in-b", "in-c"])
                }
            }
        }

        /// The names of all files of a tree, sorted.
        private func files(below path: String) throws -> [String] {
            try Files.names(path).flatMap { name -> [String] in
                let full = path + "/" + name
                return try Files.status(full).isDirectory ? files(below: full) : [name]
            }.sorted()
        }

        /// RENAME_EXCHANGE: both names are there at every moment.
        @Test func exchangingIsAtomic() throws {
            try withThreeNodes { nodes in
                for name in ["/one", "/two"] {
                    try Files.write(Array(name.utf8), to: nodes[0].root + name)
                }
                try TestThread.together(nodes.count) { number in
                    let root = nodes[number].root
                    for _ in 0..<100 {
                        if number == 0 {
                            let flags: UInt32 = 2  // RENAME_EXCHANGE
                            try check(
                                lockstep_rename_with_flags(root + "/one", root + "/two", flags)
                            )
                        } else {
                            let found = try Files.contents(root + "/one")
                            guard found == Array("/one".utf8) || found == Array("/two".utf8) else {
                                throw Trouble("found \(found)")
                            }
                        }
                    }
                }
                #expect(try Files.names(nodes[1].root) == ["one", "two"])
                // An even number of times: as before.
                #expect(try Files.contents(nodes[2].root + "/one") == Array("/one".utf8))
            }
        }

        // MARK: Open files

        @Test func deletedFilesStayReadableWhereTheyAreOpen() throws {
            let cluster = try TestCluster()
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let nodes = cluster.nodes
                let data = Pattern(seed: 5, count: 6 << 20).bytes
                let before = try freeBytes(nodes[2])
                try Files.write(data, to: nodes[0].root + "/doomed")
                do {
                    let handle = try Files.open(nodes[1].root + "/doomed", O_RDWR)
                    defer { close(handle) }
                    try check(unlink(nodes[2].root + "/doomed"))
                    for node in nodes { #expect(!Files.exists(node.root + "/doomed")) }
                    #expect(try Files.status(of: handle).links == 0)
                    #expect(try Files.contents(of: handle) == data)
                    try Files.write([7], to: handle, at: 3)
                    // New files do not get its blocks.
                    let other = Pattern(seed: 6, count: 4 << 20).bytes
                    try Files.write(other, to: nodes[2].root + "/other")
                    let expected = data[..<3] + [7] + data[4...]
                    let isSame = try Files.contents(of: handle) == Array(expected)
                    #expect(isSame, "the deleted file has changed")
                }
                try check(unlink(nodes[0].root + "/other"))
                // What statfs says of other nodes' work is an estimate while they are at it.
                try cluster.unmountAll()
                try cluster.checkClean()
                try cluster.mount(nodes[2])
                let after = try freeBytes(nodes[2])
                #expect(before - after < 64 << 10, "\(before - after) bytes are lost")
            }
        }

        /// Three writers of disjoint parts of one file, and three readers of all of it in between.
        @Test func disjointWritesToOneFileAllArrive() throws {
            try withThreeNodes { nodes in
                let block = 10_000
                try Files.write([], to: nodes[0].root + "/shared")
                try TestThread.together(nodes.count) { number in
                    try Files.withOpen(nodes[number].root + "/shared", O_RDWR) { descriptor in
                        for turn in 0..<60 {
                            let index = turn * 3 + number
                            let data = Pattern(seed: UInt64(index), count: block)
                            try Files.write(data.bytes, to: descriptor, at: index * block)
                            var found = [UInt8](repeating: 0, count: block)
                            let count = try check(pread(descriptor, &found, block, index * block))
                            guard count == block, found == data.bytes else {
                                throw Trouble("block \(index) is not what was just written")
                            }
                        }
                    }
                }
                let all = (0..<180).flatMap { Pattern(seed: UInt64($0), count: block).bytes }
                for node in nodes {
                    let found = try Files.contents(node.root + "/shared")
                    let isSame = found == all
                    #expect(isSame, "\(found.count) of \(all.count) bytes on \(node.name)")
                }
            }
        }
    }
}

/// Counts of several threads, each its own.
final class Tally: @unchecked Sendable {
    // Sendable: each thread counts in its own element, and the sum is taken after all have been
    // joined.
    private let counts: UnsafeMutableBufferPointer<Int>

    init(_ threads: Int) {
        counts = .allocate(capacity: threads)
        counts.initialize(repeating: 0)
    }

    deinit { counts.deallocate() }

    func add(_ thread: Int) { counts[thread] += 1 }

    var total: Int { counts.reduce(0, +) }
}
