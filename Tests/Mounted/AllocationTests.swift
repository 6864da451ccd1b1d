// fallocate(2), data and holes, as programs use them, on two nodes at once.

import CLinux
import Glibc
import Testing
import Vocabulary

extension MountedTests {
    @Suite(.serialized) struct AllocationTests {
        private static let end = 1 << 20

        private static func allocate(_ options: [String], _ range: Range<Int>, _ path: String)
            throws
        {
            try Commands.demand(
                "fallocate",
                options + ["-o", "\(range.lowerBound)", "-l", "\(range.count)", path]
            )
        }

        /// 512-byte blocks that a file has.
        private static func blocks(_ path: String) throws -> Int {
            var raw = stat()
            try check(lstat(path, &raw))
            return Int(raw.st_blocks)
        }

        /// Where data and holes begin, in turn, from the first byte on; beginning with data.
        private static func borders(_ path: String) throws -> [Int] {
            try Files.withOpen(path, O_RDONLY) { descriptor in
                var places: [Int] = []
                var place: off_t = 0
                while true {
                    place = lseek(descriptor, place, places.count % 2 == 0 ? SEEK_DATA : SEEK_HOLE)
                    if place < 0 {
                        guard errno == ENXIO else { throw SystemFailure(errno) }
                        return places
                    }
                    places.append(Int(place))
                }
            }
        }

        @Test func holesAreMadeAndFilled() throws {
            let cluster = try TestCluster(nodes: 2, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let (one, two) = (cluster.nodes[0].root + "/file", cluster.nodes[1].root + "/file")
                var expected = Pattern(seed: 1, count: Self.end).bytes
                try Files.write(expected, to: one)
                let whole = try Self.blocks(two)
                // A hole with ragged edges.
                try Self.allocate(["-p"], 5_000..<300_000, two)
                for place in 5_000..<300_000 { expected[place] = 0 }
                #expect(try Files.contents(one) == expected)
                #expect(try Files.contents(two) == expected)
                #expect(try Self.borders(one) == [0, 8_192, 299_008, Self.end])
                #expect(try Self.blocks(one) == whole - (299_008 - 8_192) / 512)
                // Zeros that keep their blocks; the file becomes longer, or not.
                try Self.allocate(["-z"], 400_000..<500_000, one)
                for place in 400_000..<500_000 { expected[place] = 0 }
                let before = try Self.blocks(two)
                try Self.allocate(["-z", "-n"], Self.end..<Self.end + 8_192, one)
                #expect(try Files.contents(two) == expected)
                #expect(try Self.blocks(two) == before + 16)
                #expect(
                    try Self.borders(two)
                        == [0, 8_192, 299_008, 401_408, 499_712, Self.end]
                )
                // Room for what will be written.
                try Self.allocate([], 0..<Self.end + 8_192, two)
                expected += [UInt8](repeating: 0, count: 8_192)
                #expect(try Files.contents(one) == expected)
                #expect(try Self.blocks(one) == whole + 16)
                try Files.withOpen(one, O_WRONLY) { descriptor in
                    try Files.write([7, 7, 7], to: descriptor, at: 200_000)
                }
                for place in 200_000..<200_003 { expected[place] = 7 }
                #expect(try Files.contents(two) == expected)
                #expect(try Self.blocks(two) == whole + 16)
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// What was stored through a mapping and never written back is no hole.
        @Test func aMappingsStoresAreData() throws {
            let cluster = try TestCluster(nodes: 2, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let (one, two) = (cluster.nodes[0].root + "/file", cluster.nodes[1].root + "/file")
                try Files.write([], to: one)
                try check(truncate(one, off_t(Self.end)))
                try Files.withOpen(one, O_RDWR) { descriptor in
                    let map = mmap(
                        nil,
                        Self.end,
                        PROT_READ | PROT_WRITE,
                        MAP_SHARED,
                        descriptor,
                        0
                    )
                    guard let map, map != MAP_FAILED else { throw SystemFailure(errno) }
                    defer { munmap(map, Self.end) }
                    map.storeBytes(of: 1, toByteOffset: 50_000, as: UInt8.self)
                    #expect(try Self.borders(one) == [49_152, 53_248])
                    map.storeBytes(of: 1, toByteOffset: 90_000, as: UInt8.self)
                    #expect(try Self.borders(two) == [49_152, 53_248, 86_016, 90_112])
                    // Punched elsewhere, it is gone here too.
                    try Self.allocate(["-p"], 49_152..<53_248, two)
                    #expect(map.load(fromByteOffset: 50_000, as: UInt8.self) == 0)
                    #expect(map.load(fromByteOffset: 90_000, as: UInt8.self) == 1)
                    try Self.allocate(["-p"], 86_016..<90_112, one)
                    #expect(map.load(fromByteOffset: 90_000, as: UInt8.self) == 0)
                }
                #expect(try Self.borders(two) == [])
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        @Test func whatIsRefused() throws {
            let cluster = try TestCluster(nodes: 1, size: "32M")
            try Watchdog.guarding(cluster, limit: 120) {
                try cluster.mountAll()
                let path = cluster.nodes[0].root + "/file"
                let bytes = Pattern(seed: 2, count: 100).bytes
                try Files.write(bytes, to: path)
                func fails(_ options: [String], _ range: Range<Int>, _ word: String) throws {
                    let result = try Commands.run(
                        "fallocate",
                        options + ["-o", "\(range.lowerBound)", "-l", "\(range.count)", path]
                    )
                    #expect(!result.succeeded && result.complaint.contains(word), "\(result)")
                }
                try fails(["-c"], 0..<4_096, "not supported")
                try fails(["-i"], 0..<4_096, "not supported")
                try fails([], 0..<1 << 30, "No space left")
                // What there was room for stays with the file until somebody cuts it off.
                try check(truncate(path, 100))
                #expect(try Files.contents(path) == bytes)
                try Files.withOpen(path, O_RDONLY) { descriptor in
                    #expect(lseek(descriptor, 100, SEEK_DATA) == -1 && errno == ENXIO)
                    #expect(lseek(descriptor, 99, SEEK_HOLE) == 100)
                    #expect(lseek(descriptor, -1, SEEK_HOLE) == -1 && errno == ENXIO)
                }
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }
    }
}
