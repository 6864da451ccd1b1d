// Bad input: what is not ours, what is damaged, what is in use, what is too long or full. Each gets
// a clear line, the right errno or exit code, and never a crash.

import CLinux
import Glibc
import Testing
import Vocabulary

extension MountedTests {
    @Suite(.serialized) struct HostileInputTests {
        /// A refusal: a small exit code (no signal), and a line or two that say why.
        private func expectRefusal(
            _ result: CommandResult,
            naming words: [String] = [],
            codes: ClosedRange<Int32> = 1...64
        ) {
            #expect(codes.contains(result.exitCode), "\(result)")
            let lines = result.complaint.split(separator: "\n")
            #expect((1...3).contains(lines.count), "should say why in a line: \(result)")
            for word in words {
                #expect(result.complaint.contains(word), "should name '\(word)': \(result)")
            }
        }

        private func refuse(
            _ command: String,
            _ arguments: [String],
            naming words: [String] = []
        ) throws {
            expectRefusal(try Commands.run(command, arguments, limit: 60), naming: words)
        }

        @Test func whatIsNoVolumeIsRefused() throws {
            let cluster = try TestCluster(nodes: 1, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                let node = cluster.nodes[0]
                let foreign = cluster.folder + "/foreign"
                let samples: [[UInt8]] = [
                    [], Array("just a text\n".utf8), [UInt8](repeating: 0, count: 1 << 20),
                    Pattern(seed: 1, count: 1 << 20).bytes,
                ]
                for sample in samples {
                    try Files.write(sample, to: foreign)
                    let arguments = [foreign, node.root, "-o", "run=\(cluster.runDirectory)"]
                    try refuse("mount.lockstep", arguments, naming: [foreign])
                    #expect(!cluster.isMounted(node))
                    let check = try Commands.run("fsck.lockstep", ["-n", foreign])
                    expectRefusal(check, codes: 4...8)
                }
                let nowhere = cluster.folder + "/nowhere"
                try refuse("mount.lockstep", [nowhere, node.root], naming: [nowhere])
                try refuse("fsck.lockstep", ["-n", nowhere], naming: [nowhere])
                try refuse("mount.lockstep", [cluster.image, nowhere], naming: [nowhere])
            }
        }

        @Test func wrongArgumentsAreNamed() throws {
            let cluster = try TestCluster(nodes: 1, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                let node = cluster.nodes[0]
                let image = cluster.image
                try refuse(
                    "mount.lockstep",
                    [image, node.root, "-o", "nonsense"],
                    naming: ["nonsense"]
                )
                try refuse(
                    "mount.lockstep",
                    [image, node.root, "-o", "commit=soon"],
                    naming: ["commit"]
                )
                for command in ["mount.lockstep", "mkfs.lockstep", "fsck.lockstep"] {
                    let result = try Commands.run(command, [])
                    #expect((1...64).contains(result.exitCode), "\(result)")
                    #expect(!result.complaint.isEmpty, "\(result)")
                    #expect((1...64).contains(try Commands.run(command, ["--nonsense"]).exitCode))
                }
                let fresh = cluster.folder + "/fresh"
                for bad in [
                    ["-j", "0"], ["-j", "many"], ["-s", "1"], ["-t", "no-colon-" + fresh],
                ] {
                    let result = try Commands.run(
                        "mkfs.lockstep",
                        ["-q", "-s", "64M"] + bad + [fresh]
                    )
                    #expect((1...64).contains(result.exitCode), "\(result)")
                    #expect(!result.complaint.isEmpty)
                }
                // A volume is not overwritten by accident.
                let before = try Files.contents(image).hashValue
                try refuse("mkfs.lockstep", ["-q", "-s", "64M", image], naming: ["-f"])
                #expect(try Files.contents(image).hashValue == before)
                #expect(!cluster.isMounted(node))
            }
        }

        @Test func aVolumeInUseIsGuarded() throws {
            let cluster = try TestCluster(nodes: 2, size: "64M")
            try Watchdog.guarding(cluster, limit: 180) {
                let (one, two) = (cluster.nodes[0], cluster.nodes[1])
                try cluster.mount(one)
                try Files.write([1], to: one.root + "/file")
                let otherRun = cluster.folder + "/other-run"
                mkdir(otherRun, 0o700)
                try refuse("mount.lockstep", [cluster.image, two.root, "-o", "run=\(otherRun)"])
                #expect(!cluster.isMounted(two))
                try refuse("mkfs.lockstep", ["-q", "-f", cluster.image])
                let check = try Commands.run("fsck.lockstep", ["-y", cluster.image])
                #expect(check.exitCode == 8, "\(check)")
                // More nodes than journals.
                try cluster.mount(two)
                let third = cluster.folder + "/third"
                mkdir(third, 0o755)
                try refuse(
                    "mount.lockstep",
                    [cluster.image, third, "-o", "run=\(cluster.runDirectory)"]
                )
                #expect(try Files.contents(two.root + "/file") == [1])
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        @Test func aTruncatedImageIsRefused() throws {
            let cluster = try TestCluster(nodes: 1, size: "128M")
            try Watchdog.guarding(cluster, limit: 120) {
                let whole = try Files.status(cluster.image).size
                for size in [whole / 2, 1 << 20, 4096, 100] {
                    try check(truncate(cluster.image, size))
                    try refuse("mount.lockstep", cluster.mountArguments(cluster.nodes[0]))
                    let result = try Commands.run("fsck.lockstep", ["-n", cluster.image])
                    #expect((4...12).contains(result.exitCode), "\(result)")
                    #expect(!cluster.isMounted(cluster.nodes[0]))
                }
            }
        }

        /// One flipped bit in a block of each kind: a check finds it, and a mount refuses, or meets
        /// nothing of it, or withdraws.
        @Test func flippedBitsAreFoundAndSurvived() throws {
            let cluster = try TestCluster(nodes: 1, size: "64M")
            try Watchdog.guarding(cluster, limit: 400) {
                let node = cluster.nodes[0]
                try cluster.mount(node)
                try populate(node.root)
                try cluster.unmount(node)
                try cluster.checkClean()
                let blocks = try metadataBlocks(cluster.image)
                // Superblock, slots, groups, inodes, directory index and leaves, attributes,
                // extents.
                for kind in [1, 2, 5, 6, 7, 8, 9, 10] {
                    #expect(blocks[kind]?.isEmpty == false, "no block of kind \(kind) to damage")
                }
                for (kind, offsets) in blocks.sorted(by: { $0.key < $1.key }) {
                    for offset in Set([offsets.first, offsets.last].compactMap { $0 }).sorted() {
                        try damage(cluster, kind: kind, offset: offset)
                    }
                }
            }
        }

        /// One flipped bit in a block of each kind: a repair puts it right, and what is left of the
        /// volume can be used.
        @Test func flippedBitsAreRepaired() throws {
            let cluster = try TestCluster(nodes: 1, size: "64M")
            try Watchdog.guarding(cluster, limit: 400) {
                let node = cluster.nodes[0]
                try cluster.mount(node)
                try populate(node.root)
                try cluster.unmount(node)
                let blocks = try metadataBlocks(cluster.image)
                for (kind, offsets) in blocks.sorted(by: { $0.key < $1.key }) {
                    for offset in Set([offsets.first, offsets.last].compactMap { $0 }).sorted() {
                        try repair(cluster, kind: kind, offset: offset)
                    }
                }
            }
        }

        private func repair(_ cluster: TestCluster, kind: Int, offset: Int) throws {
            let node = cluster.nodes[0]
            let copy = cluster.folder + "/repaired"
            try Commands.demand("cp", ["--sparse=always", cluster.image, copy])
            defer { remove(copy) }
            try flip(copy, offset)
            // -f: the guard may be what is damaged.
            func fsck(_ option: String) throws -> CommandResult {
                try Commands.run("fsck.lockstep", [option, "-f", copy], limit: 120)
            }
            let found = try fsck("-n")
            let repaired = try fsck("-y")
            #expect(
                [0, 4].contains(found.exitCode)
                    && repaired.exitCode == (found.exitCode == 0 ? 0 : 1),
                "kind \(kind) at \(offset): \(found)\(repaired)"
            )
            let clean = try fsck("-n")
            #expect(clean.exitCode == 0, "kind \(kind) at \(offset): \(clean)")
            let arguments = [copy, node.root, "-o", "run=\(cluster.runDirectory)"]
            try Commands.demand("mount.lockstep", arguments)
            walk(node.root)
            try Files.write([1, 2, 3], to: node.root + "/after the repair")
            let daemon = cluster.processes(of: node)
            try Commands.demand("fusermount3", ["-u", node.root])
            for process in daemon where !Commands.waitForEnd(of: process, limit: 30) {
                throw Trouble("kind \(kind): the daemon \(process) does not end")
            }
            let used = try fsck("-n")
            #expect(used.exitCode == 0, "kind \(kind) at \(offset), used: \(used)")
        }

        private func flip(_ path: String, _ offset: Int) throws {
            try Files.withOpen(path, O_RDWR) { descriptor in
                var byte: UInt8 = 0
                try check(pread(descriptor, &byte, 1, offset + 100))
                try Files.write([byte ^ 4], to: descriptor, at: offset + 100)
            }
        }

        private func damage(_ cluster: TestCluster, kind: Int, offset: Int) throws {
            let node = cluster.nodes[0]
            let copy = cluster.folder + "/damaged"
            try Commands.demand("cp", ["--sparse=always", cluster.image, copy])
            defer { remove(copy) }
            try flip(copy, offset)
            let result = try Commands.run("fsck.lockstep", ["-n", copy], limit: 120)
            // What journals and heartbeats hold is not missed when the volume was left cleanly.
            let mayBeUnseen = [3, 4, 11, 12, 13].contains(kind)
            let codes: [Int32] = mayBeUnseen ? [0, 4, 8] : [4, 8]
            #expect(codes.contains(result.exitCode), "kind \(kind) at \(offset): \(result)")
            let arguments = [copy, node.root, "-o", "run=\(cluster.runDirectory)"]
            let mounted = try Commands.run("mount.lockstep", arguments)
            guard mounted.succeeded else {
                expectRefusal(mounted)
                return
            }
            #expect(!cluster.processes(of: node).isEmpty, "kind \(kind): no daemon after mounting")
            walk(node.root)
            let daemon = cluster.processes(of: node)
            if daemon.isEmpty {
                // Who met the damage has withdrawn, and says what it was, once its guardian has taken
                // back what its kernel had cached.
                try waitUntil(limit: 30, "kind \(kind): the status tells of the withdrawal") {
                    let told = try Commands.demand(
                        "lockstep",
                        ["status", "--run", cluster.runDirectory]
                    )
                    return told.output.contains("has WITHDRAWN: ")
                }
            }
            try Commands.demand("fusermount3", ["-u", node.root])
            for process in daemon where !Commands.waitForEnd(of: process, limit: 30) {
                throw Trouble("kind \(kind): the daemon \(process) does not end")
            }
        }

        /// Looks at everything; errors are expected.
        private func walk(_ path: String) {
            guard let status = try? Files.status(path) else { return }
            _ = try? Files.attributes(path)
            if status.isDirectory {
                for name in (try? Files.names(path)) ?? [] { walk(path + "/" + name) }
                _ = try? Files.write([1], to: path + "/new")
            } else {
                _ = try? Files.contents(path)
            }
        }

        /// Something of every kind of metadata: large directories, many extents, large attributes.
        private func populate(_ root: String) throws {
            try check(mkdir(root + "/large", 0o755))
            try Files.write([1], to: root + "/one")
            // The leaves are found through the inode until there are some hundreds of them.
            let tail = String(repeating: "-", count: 200)
            for number in 0..<6_000 {
                try check(link(root + "/one", "\(root)/large/\(number)\(tail)"))
            }
            try Files.withOpen(root + "/sparse", O_WRONLY | O_CREAT) { descriptor in
                for number in 0..<1_500 {
                    try Files.write([1], to: descriptor, at: number * 16_384)
                }
            }
            try Files.write([1], to: root + "/attributes")
            let value = Pattern(seed: 1, count: 3_000).bytes
            for number in 0..<8 {
                try check(setxattr(root + "/attributes", "user.\(number)", value, value.count, 0))
            }
        }

        /// Where the blocks of each kind are, by the mark at their front; only those that say that
        /// they belong where they are (a journal holds copies of others).
        private func metadataBlocks(_ image: String) throws -> [Int: [Int]] {
            let bytes = try Files.contents(image)
            var found: [Int: [Int]] = [:]
            for offset in stride(from: 0, to: bytes.count - 4095, by: 4096)
            where bytes[offset..<offset + 4].elementsEqual("LKST".utf8) {
                let kind = Int(bytes[offset + 4]) | Int(bytes[offset + 5]) << 8
                let address = (0..<8).reduce(0) { $0 | Int(bytes[offset + 16 + $1]) << ($1 * 8) }
                if address == offset / 4096 { found[kind, default: []].append(offset) }
            }
            return found
        }
    }
}
