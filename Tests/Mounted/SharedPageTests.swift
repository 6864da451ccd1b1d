// Records of several writers in one page, written in every way there is: no writer's record is ever
// lost to another's page.

import CLinux
import Glibc
import Testing
import Vocabulary

extension MountedTests {
    @Suite(.serialized) struct SharedPageTests {
        private static let writers = 6
        private static let rounds = 120
        private static let pages = 2
        /// Records of one writer: one in each page, each 64 bytes that begin with its version.
        private static func offset(_ writer: Int, _ page: Int) -> Int {
            page * 4096 + 256 + writer * 64
        }

        private static func record(_ version: Int) -> [UInt8] {
            (0..<8).flatMap { _ in (0..<8).map { UInt8(version >> (8 * $0) & 255) } }
        }

        private static func version(_ bytes: ArraySlice<UInt8>) -> Int {
            bytes.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
        }

        /// One way of writing a record.
        private enum Way: CaseIterable {
            case writeOnly, readWrite, mapping, keptMapping
        }

        private static func put(
            _ bytes: [UInt8],
            at offset: Int,
            of path: String,
            _ way: Way,
            _ kept: UnsafeMutableRawPointer
        ) throws {
            switch way {
            case .keptMapping:
                // Nobody is told: whoever wants to see it makes the kernel write it back.
                kept.advanced(by: offset).copyMemory(from: bytes, byteCount: bytes.count)
            case .mapping:
                try withMapping(path) { map in
                    map.advanced(by: offset).copyMemory(from: bytes, byteCount: bytes.count)
                    try check(msync(map, pages * 4096, MS_SYNC))
                }
            case .writeOnly, .readWrite:
                let flags = way == .writeOnly ? O_WRONLY : O_RDWR
                try Files.withOpen(path, flags) { descriptor in
                    let count = try check(pwrite(descriptor, bytes, bytes.count, off_t(offset)))
                    if count != bytes.count { throw Trouble("short write: \(count)") }
                }
            }
        }

        private static func withMapping(
            _ path: String,
            _ body: (UnsafeMutableRawPointer) throws -> Void
        ) throws {
            try Files.withOpen(path, O_RDWR) { descriptor in
                let size = pages * 4096
                let map = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
                guard let map, map != MAP_FAILED else { throw SystemFailure(errno) }
                defer { munmap(map, size) }
                try body(map)
            }
        }

        /// Reads a whole file with one call; versions must not go back.
        private static func look(_ path: String, _ seen: inout [Int]) throws {
            var bytes = [UInt8](repeating: 0, count: pages * 4096)
            try Files.withOpen(path, O_RDONLY) { descriptor in
                let count = try check(pread(descriptor, &bytes, bytes.count, 0))
                if count != bytes.count { throw Trouble("read \(count) of \(bytes.count)") }
            }
            for writer in 0..<writers {
                for page in 0..<pages {
                    let found = version(bytes[offset(writer, page)...])
                    let place = writer * pages + page
                    guard found >= seen[place] else {
                        throw Trouble(
                            "\(path): record \(page) of writer \(writer) was \(seen[place]) and is \(found)"
                        )
                    }
                    seen[place] = found
                }
            }
        }

        @Test func recordsThatShareAPageAreNotLost() throws {
            let cluster = try TestCluster()
            try Watchdog.guarding(cluster, limit: 240) {
                try cluster.mountAll()
                let nodes = cluster.nodes
                let size = Self.pages * 4096
                try Files.write([UInt8](repeating: 0, count: size), to: nodes[0].root + "/shared")
                try TestThread.together(Self.writers) { writer in
                    let path = nodes[writer % nodes.count].root + "/shared"
                    var generator = SeededGenerator(seed: UInt64(writer) + 1)
                    var seen = [Int](repeating: 0, count: Self.writers * Self.pages)
                    try Self.withMapping(path) { map in
                        for round in 1...Self.rounds {
                            let page = round % Self.pages
                            try Self.put(
                                Self.record(round),
                                at: Self.offset(writer, page),
                                of: path,
                                Way.allCases[generator.below(Way.allCases.count)],
                                map
                            )
                            seen[writer * Self.pages + page] = round
                            try Self.look(path, &seen)
                        }
                    }
                }
                for node in nodes {
                    var seen = (0..<Self.writers * Self.pages).map {
                        Self.rounds - ($0 % Self.pages == Self.rounds % Self.pages ? 0 : 1)
                    }
                    try Self.look(node.root + "/shared", &seen)
                }
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }
    }
}
