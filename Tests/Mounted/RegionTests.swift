// Several nodes that write one file at the same time, each its own part and all the same part (FileSystem/Regions.swift).

import CLinux
import Glibc
import Synchronization
import Testing
import Vocabulary

extension MountedTests {
    @Suite(.serialized) struct RegionTests {
        private static let piece = 64 << 10
        /// Four regions of 1 MiB.
        private static let size = 4 << 20

        private static func bytes(_ value: Int) -> [UInt8] {
            [UInt8](repeating: UInt8(value & 0xFF), count: piece)
        }

        private static func write(_ descriptor: Int32, _ value: Int, at offset: Int) throws {
            let bytes = bytes(value)
            guard pwrite(descriptor, bytes, bytes.count, off_t(offset)) == bytes.count
            else { throw SystemFailure(errno) }
        }

        /// The oldest value in a piece. A page with two is torn: what is read through the page cache is of one
        /// moment page by page.
        private static func read(_ descriptor: Int32, at offset: Int) throws -> Int {
            var found = [UInt8](repeating: 0, count: piece)
            guard pread(descriptor, &found, piece, off_t(offset)) == piece
            else { throw SystemFailure(errno) }
            for page in stride(from: 0, to: piece, by: 4096)
            where !found[page..<page + 4096].allSatisfy({ $0 == found[page] }) {
                throw Trouble("torn at \(offset + page)")
            }
            return Int(found.min() ?? 0)
        }

        private static func modified(_ path: String) throws -> (Int, Int) {
            var status = stat()
            try check(stat(path, &status))
            return (status.st_mtim.tv_sec, status.st_mtim.tv_nsec)
        }

        private static func mountAll(_ cluster: TestCluster) throws {
            for node in cluster.nodes { try cluster.mount(node, options: ["regions"]) }
        }

        /// Each node rewrites every other piece, opened before anybody fought or after, and reads those of the
        /// other, whose values only grow.
        @Test(arguments: [false, true]) func interleaved(isReopened: Bool) throws {
            let cluster = try TestCluster(nodes: 2, size: "128M")
            try Watchdog.guarding(cluster, limit: 240) {
                try Self.mountAll(cluster)
                let paths = cluster.nodes.map { $0.root + "/file" }
                try Files.write([UInt8](repeating: 0, count: Self.size), to: paths[0])
                try Self.fight(paths)
                let rounds = 10
                let failures = Mutex<[String]>([])
                let threads = paths.indices.map { own in
                    TestThread {
                        do {
                            try Self.rewrite(paths[own], own, rounds, isReopened)
                        } catch {
                            failures.withLock { $0.append("\(paths[own]): \(error)") }
                        }
                    }
                }
                for thread in threads { thread.join() }
                #expect(failures.withLock { $0 } == [])
                for path in paths {
                    try Files.withOpen(path, O_RDONLY) { file in
                        for offset in stride(from: 0, to: Self.size, by: Self.piece) {
                            let found = try Self.read(file, at: offset)
                            #expect(found == rounds)
                        }
                    }
                }
                for node in cluster.nodes.prefix(2) {
                    #expect(try Counters.value("regionRequests", node.root) > 0)
                }
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// Makes both nodes give the file up to each other, until they lock regions.
        private static func fight(_ paths: [String]) throws {
            for round in 0..<8 {
                for path in paths {
                    try Files.withOpen(path, O_RDWR) { file in
                        try write(file, 0, at: round * piece)
                        _ = try read(file, at: 0)
                    }
                }
            }
        }

        private static func rewrite(
            _ path: String,
            _ own: Int,
            _ rounds: Int,
            _ isReopened: Bool
        ) throws {
            var seen = [Int](repeating: 0, count: size / piece)
            var file = try Files.open(path, O_RDWR)
            defer { close(file) }
            for round in 1...rounds {
                if isReopened {
                    close(file)
                    file = try Files.open(path, O_RDWR)
                }
                for index in seen.indices where index % 2 == own {
                    try write(file, round, at: index * piece)
                    let other = (index + 1) % seen.count
                    let value = try read(file, at: other * piece)
                    if value < seen[other] {
                        throw Trouble("piece \(other): \(value) after \(seen[other])")
                    }
                    seen[other] = value
                    guard try read(file, at: index * piece) == round else {
                        throw Trouble("piece \(index) is not what this node wrote")
                    }
                }
            }
        }

        /// Who writes under locks of regions is seen in the time of change, by everybody, at once; also after
        /// all have left.
        @Test func timesOfSharedFilesAreTrue() throws {
            let cluster = try TestCluster(nodes: 2, size: "128M")
            try Watchdog.guarding(cluster, limit: 120) {
                try Self.mountAll(cluster)
                let paths = cluster.nodes.map { $0.root + "/file" }
                try Files.write([UInt8](repeating: 0, count: Self.size), to: paths[0])
                try Self.fight(paths)
                var last = (0, 0)
                for round in 0..<30 {
                    let (writer, reader) = (paths[round % 2], paths[(round + round / 2) % 2])
                    try Files.withOpen(writer, O_RDWR) { file in
                        try Self.write(file, round, at: round % 4 << 20)
                    }
                    let time = try Self.modified(reader)
                    #expect(time > last, "round \(round)")
                    #expect(try Self.modified(writer) == time)
                    last = time
                }
                for node in cluster.nodes.prefix(2) {
                    #expect(try Counters.value("regionRequests", node.root) > 0)
                }
                try cluster.unmountAll()
                try cluster.checkClean()
                try Self.mountAll(cluster)
                #expect(try Self.modified(paths[1]) == last)
                try cluster.unmountAll()
            }
        }

        /// Whoever makes the file shorter or longer, punches holes or reads all is right while others write.
        @Test func theWholeAndItsParts() throws {
            let cluster = try TestCluster(nodes: 3, size: "128M")
            try Watchdog.guarding(cluster, limit: 240) {
                try Self.mountAll(cluster)
                let paths = cluster.nodes.map { $0.root + "/file" }
                try Files.write([UInt8](repeating: 0, count: Self.size), to: paths[0])
                try Self.fight(Array(paths.prefix(2)))
                let failures = Mutex<[String]>([])
                let threads = (0..<2).map { own in
                    TestThread {
                        do {
                            try Files.withOpen(paths[own], O_RDWR) { file in
                                // The first two regions only: the rest comes and goes.
                                for round in 1...200 { try Self.write(file, round, at: own << 20) }
                            }
                        } catch {
                            failures.withLock { $0.append("\(error)") }
                        }
                    }
                }
                for round in 0..<25 {
                    let length = (2 << 20) + round % 3 * 300_001
                    try check(truncate(paths[2], off_t(length)))
                    for path in paths {
                        var status = stat()
                        try check(stat(path, &status))
                        #expect(status.st_size == length)
                    }
                    try Files.withOpen(paths[2], O_RDONLY) { file in
                        for own in 0..<2 { _ = try Self.read(file, at: own << 20) }
                    }
                }
                for thread in threads { thread.join() }
                #expect(failures.withLock { $0 } == [])
                try Files.withOpen(paths[2], O_RDONLY) { file in
                    for own in 0..<2 {
                        let found = try Self.read(file, at: own << 20)
                        #expect(found == 200)
                    }
                }
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }
    }
}
