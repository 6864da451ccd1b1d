// `lockstep inspect` as it is shipped, on images that real mounts have written.

import CLinux
import Glibc
import Testing
import Vocabulary

extension MountedTests {
    @Suite(.serialized) struct InspectionTests {
        private func inspect(_ arguments: String...) throws -> CommandResult {
            try Commands.run("lockstep", ["inspect"] + arguments, limit: 60)
        }

        /// The JSON that a question which finds nothing wrong is answered with.
        private func answer(_ arguments: String...) throws -> JSONText {
            let result = try Commands.demand(
                "lockstep",
                ["inspect"] + arguments + ["--json"],
                limit: 60
            )
            return try JSONText(parsing: result.output)
        }

        private func number(_ value: JSONText?, _ name: String) throws -> UInt64 {
            guard case .number(let number)? = value?[name] else {
                throw Trouble("no number \(name) in \(value?.text ?? "nothing")")
            }
            return number
        }

        private func names(_ value: JSONText) -> [String] {
            guard case .array(let rows)? = value["entries"] else { return [] }
            return rows.compactMap { row in
                guard case .string(let name)? = row["name"] else { return nil }
                return name
            }
        }

        private func populate(_ root: String) throws {
            try check(mkdir(root + "/folder", 0o755))
            try Files.write(Array("small and secret".utf8), to: root + "/folder/small")
            for number in 0..<300 {
                try check(link(root + "/folder/small", "\(root)/folder/name-\(number)"))
            }
            try Files.withOpen(root + "/large", O_WRONLY | O_CREAT) { descriptor in
                for number in 0..<40 {
                    let bytes = Pattern(seed: UInt64(number), count: 5_000).bytes
                    try Files.write(bytes, to: descriptor, at: number * 50_000)
                }
            }
            try check(symlink("folder/small", root + "/link"))
            try check(setxattr(root + "/large", "user.colour", "blue", 4, 0))
        }

        @Test func aRealVolumeIsShown() throws {
            let cluster = try TestCluster(nodes: 2, size: "64M")
            try Watchdog.guarding(cluster, limit: 180) {
                let node = cluster.nodes[0]
                let image = cluster.image
                try cluster.mount(node)
                try populate(node.root)
                let large = try Files.contents(node.root + "/large")
                let inode = try Files.status(node.root + "/large").inode
                try Commands.demand("lockstep", ["sync", node.root])
                // Mounted: it is answered, and said.
                let mounted = try inspect(image, "list", "/", "--replayed")
                #expect([0, 1].contains(mounted.exitCode), "\(mounted)")
                #expect(mounted.complaint.contains("may be changing"), "\(mounted)")
                try cluster.unmountAll()

                let list = try answer(image, "list", "/folder", "--long")
                #expect(names(list).count == 301 && names(list).contains("small"))
                #expect(try number(answer(image, "inode", "/large"), "inode") == inode)
                #expect(try number(answer(image, "extents", "\(inode)"), "size") == large.count)
                let content = cluster.folder + "/content"
                try Commands.demand(
                    "sh",
                    [
                        "-c",
                        "'\(Commands.folder)/lockstep' inspect '\(image)' cat /large >'\(content)'",
                    ]
                )
                #expect(try Files.contents(content) == large)
                for question in [
                    ["superblock"], ["slots"], ["groups"], ["group", "0"], ["journal", "0"],
                    ["tree", "/folder"], ["attributes", "/large"], ["path", "\(inode)"],
                    ["owner", "\(inode)"], ["block", "16"], ["block", "16", "--hex"],
                ] {
                    let result = try Commands.run("lockstep", ["inspect", image] + question)
                    #expect(result.exitCode == 0 && !result.output.isEmpty, "\(result)")
                    #expect(result.complaint.isEmpty, "\(result)")
                }
                let path = try inspect(image, "path", "\(inode)")
                #expect(path.output.contains("/large"), "\(path)")
                try cluster.checkClean()
            }
        }

        @Test func whatCannotBeAnsweredIsRefused() throws {
            let cluster = try TestCluster(nodes: 1, size: "64M")
            try Watchdog.guarding(cluster, limit: 120) {
                let image = cluster.image
                let text = cluster.folder + "/text"
                try Files.write([UInt8](repeating: 65, count: 1 << 20), to: text)
                let cases: [([String], Int32, String)] = [
                    ([image], 64, "QUESTION"), ([image, "nonsense"], 64, "nonsense"),
                    ([image, "block", "x"], 64, "'x'"), ([image, "list"], 64, "path"),
                    ([image, "slots", "--long"], 64, "--long"),
                    ([image, "cat", "/a", "--json"], 64, "--json"),
                    ([image, "list", "/nothing"], 2, "/nothing: no such name"),
                    ([image, "group", "999"], 2, "groups 0 to"),
                    ([image, "block", "99999999"], 2, "blocks 0 to"),
                    ([cluster.folder + "/nowhere", "slots"], 2, "nowhere"),
                    ([text, "slots"], 2, "no Lockstep volume"),
                    (["restore", text, cluster.folder + "/new"], 2, "no metadata image"),
                    ([image, "save", text], 2, "is there already"),
                    ([image, "save", cluster.folder + "/no/file"], 2, "no/file"),
                ]
                for (arguments, code, words) in cases {
                    let result = try Commands.run("lockstep", ["inspect"] + arguments)
                    #expect(result.exitCode == code, "\(result)")
                    #expect(result.complaint.contains(words), "should say '\(words)': \(result)")
                    let lines = result.complaint.split(separator: "\n")
                    #expect(code == 64 || lines.count == 1, "\(result)")
                }
                #expect(!Files.exists(cluster.folder + "/new"))
                // Damage: shown, and told by the exit code.
                let damaged = cluster.folder + "/damaged"
                try Commands.demand("cp", ["--sparse=always", image, damaged])
                let root = try number(answer(image, "superblock"), "root_inode")
                try Files.withOpen(damaged, O_RDWR) { descriptor in
                    try Files.write([0xFF], to: descriptor, at: Int(root) * 4096 + 90)
                }
                let result = try inspect(damaged, "block", "\(root)")
                #expect(result.exitCode == 1 && result.output.contains("fails its checksum"))
            }
        }

        @Test func metadataImagesAreMadeAndUsed() throws {
            let cluster = try TestCluster(nodes: 1, size: "64M")
            try Watchdog.guarding(cluster, limit: 180) {
                let node = cluster.nodes[0]
                try cluster.mount(node)
                try populate(node.root)
                try cluster.unmountAll()
                let file = cluster.folder + "/metadata"
                let copy = cluster.folder + "/copy"
                try Commands.demand("lockstep", ["inspect", cluster.image, "save", file])
                let bytes = try Files.contents(file)
                #expect(bytes.count < 2 << 20)
                #expect(bytes.firstRange(of: Array("small and secret".utf8)) == nil)
                #expect(bytes.firstRange(of: Array("name-299".utf8)) != nil)
                try Commands.demand("lockstep", ["inspect", "restore", file, copy])
                #expect(try Files.status(copy).size == Files.status(cluster.image).size)
                let checked = try Commands.run("fsck.lockstep", ["-n", "-f", copy])
                #expect(checked.exitCode == 0, "\(checked)")
                let list = try inspect(copy, "list", "/folder")
                #expect(try list.output == inspect(cluster.image, "list", "/folder").output)
                try Commands.demand(
                    "mount.lockstep",
                    [copy, node.root, "-o", "run=\(cluster.runDirectory)"]
                )
                #expect(try Files.names(node.root + "/folder").count == 301)
                let zeros = [UInt8](repeating: 0, count: 16)
                #expect(try Files.contents(node.root + "/folder/small") == zeros)
                #expect(try Files.contents(node.root + "/large").allSatisfy { $0 == 0 })
                #expect(try Files.linkTarget(node.root + "/link") == "xxxxxxxxxxxx")
                try cluster.unmount(node)
                // Cut off.
                try check(truncate(file, off_t(bytes.count - 1)))
                let again = cluster.folder + "/again"
                let cut = try inspect("restore", file, again)
                #expect(cut.exitCode == 2 && cut.complaint.contains("cut off"), "\(cut)")
                #expect(!Files.exists(again))
            }
        }
    }
}
