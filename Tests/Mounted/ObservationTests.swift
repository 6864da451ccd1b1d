// `lockstep locks` and `lockstep dump` on real mounts: who waits for whom, nodes that are silent,
// recordings that are replayed.

import CLinux
import Glibc
import Testing
import Vocabulary

extension MountedTests {
    @Suite(.serialized) struct ObservationTests {
        /// Nodes with names; a node that is stopped is not put out while the test looks.
        private func withNodes(_ body: (TestCluster) throws -> Void) throws {
            let cluster = try TestCluster(nodes: 3)
            try Watchdog.guarding(cluster, limit: 180) {
                for node in cluster.nodes {
                    try cluster.mount(
                        node,
                        options: ["patience=600", "node=lab\(node.number + 1)"]
                    )
                }
                try body(cluster)
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        private func lockstep(_ arguments: [String]) throws -> String {
            try Commands.demand("lockstep", arguments, limit: 60).output
        }

        private func json(_ arguments: [String]) throws -> JSONText {
            try JSONText(parsing: try lockstep(arguments + ["--json"]))
        }

        /// Asks until the answer has what is waited for: who waits begins to at its own time.
        private func why(_ path: String, until isThere: (String) -> Bool) throws -> String {
            var text = ""
            for _ in 0..<100 {
                text = try lockstep(["locks", "--why", path, "--timeout", "1"])
                if isThere(text) { return text }
                sched_yield()
            }
            throw Trouble("never seen; at last:\n\(text)")
        }

        private func daemon(_ cluster: TestCluster, _ node: Int) throws -> pid_t {
            let guardians = cluster.guardians(of: cluster.nodes[node])
            let found = cluster.processes(of: cluster.nodes[node]).filter {
                !guardians.contains($0)
            }
            guard let daemon = found.first else { throw Trouble("node \(node + 1) has no daemon") }
            return daemon
        }

        @Test func whoWaitsForWhomIsToldAcrossNodes() throws {
            try withNodes { cluster in
                let roots = cluster.nodes.map(\.root)
                try check(mkdir(roots[0] + "/d", 0o755))
                try Files.write([1, 2, 3], to: roots[0] + "/d/file")
                let quiet = try lockstep(["locks", "--why", roots[1] + "/d/file"])
                #expect(quiet.contains("nothing waits for inode:"), "\(quiet)")
                // Node 3 has the file, and is stopped with it.
                try Files.write([4, 5, 6], to: roots[2] + "/d/file")
                // But not the directory.
                try check(mkdir(roots[0] + "/d/other", 0o755))
                let stopped = try daemon(cluster, 2)
                kill(stopped, SIGSTOP)
                defer { kill(stopped, SIGCONT) }
                // Node 1 is inside the directory and needs the file; node 2 needs the directory.
                let unlinking = TestThread { unlink(roots[0] + "/d/file") }
                _ = try why(roots[0] + "/d/file") { $0.contains("n1 (lab1) waits") }
                let making = TestThread { mkdir(roots[1] + "/d/made", 0o755) }
                let text = try why(roots[1] + "/d") {
                    $0.contains("n2 (lab2) waits") && $0.contains("also waits")
                }
                let lines = text.split(separator: "\n").map { $0.drop { $0 == " " } }
                func has(_ start: String, _ word: String) -> Bool {
                    lines.contains { $0.hasPrefix(start) && $0.contains(word) }
                }
                #expect(has("n2 (lab2) waits", "for inode:"), "\(text)")
                #expect(has("n1 (lab1) holds", "holder inside"), "\(text)")
                #expect(has("n1 (lab1) also waits, perhaps", "for inode:"), "\(text)")
                #expect(has("n3 holds EX", "is silent"), "\(text)")
                #expect(has("n3 is silent", "did not answer"), "\(text)")
                let below = try lockstep([
                    "locks", "--why", roots[1] + "/d/other/x", "--timeout", "1",
                ])
                #expect(below.contains("cannot be looked up: its directory /d is"), "\(below)")
                let story = try json(["locks", "--why", roots[1] + "/d"])
                #expect(story["waits"] == .boolean(true) && story["circle"] == .boolean(false))
                let waiting = try lockstep(["locks", roots[1], "--waiting", "--type", "inode"])
                #expect(
                    waiting.contains("waits for n1") && waiting.contains("waits for n3"),
                    "\(waiting)"
                )
                kill(stopped, SIGCONT)
                unlinking.join()
                making.join()
                #expect(!Files.exists(roots[2] + "/d/file") && Files.exists(roots[2] + "/d/made"))
            }
        }

        /// Who writes a shared file has no lock to wait for when its times are looked at, but the others' answers.
        @Test func whoIsAskedForTimesIsTold() throws {
            try withNodes { cluster in
                let files = cluster.nodes.map { $0.root + "/shared" }
                try Files.write([UInt8](repeating: 1, count: 4 << 20), to: files[0])
                let descriptors = files.map { open($0, O_RDWR | O_CLOEXEC) }
                defer { for descriptor in descriptors.dropLast() { close(descriptor) } }
                // All write it, until they lock regions and not the file.
                let byte: [UInt8] = [7]
                for round in 0..<30 {
                    for (node, descriptor) in descriptors.enumerated() {
                        let written = pwrite(descriptor, byte, 1, off_t(node << 20 + round))
                        try check(Int32(truncatingIfNeeded: written - 1))
                    }
                }
                // Every command closes its copy on exec, which a stopped daemon would not answer.
                close(descriptors[2])
                let stopped = try daemon(cluster, 2)
                kill(stopped, SIGSTOP)
                defer { kill(stopped, SIGCONT) }
                let looking = TestThread { _ = try? Files.status(files[0]) }
                let text = try why(files[0]) { $0.contains("asks n3 about the file since") }
                #expect(text.contains("n1 (lab1) holds CW"), "\(text)")
                kill(stopped, SIGCONT)
                looking.join()
                _ = try Files.status(files[0])
            }
        }

        @Test func whatAHolderDoesIsTold() throws {
            try withNodes { cluster in
                let root = cluster.nodes[0].root
                try Files.withOpen(root + "/file", O_RDWR | O_CREAT) { descriptor in
                    try Files.write([UInt8](repeating: 7, count: 9000), to: descriptor, at: 0)
                    let text = try lockstep(["locks", "--why", root + "/file"])
                    #expect(text.contains("nothing waits for inode:"), "\(text)")
                    #expect(text.contains("n1 (lab1) holds EX"), "\(text)")
                    #expect(text.contains("12.0 KiB dirty to flush, changes to commit"), "\(text)")
                }
                let inode = try Files.status(root + "/file").inode
                let other = cluster.nodes[1].root
                let number = try lockstep(["locks", other, "--inode", "\(inode)", "--node", "1"])
                #expect(number.contains("inode:\(inode).") && number.contains("open:\(inode)."))
                let words = number.split(separator: "\n").flatMap { $0.split(separator: " ") }
                guard let name = words.first(where: { $0.hasPrefix("inode:") }) else {
                    throw Trouble("no name: \(number)")
                }
                let named = try lockstep(["locks", other, "--why", String(name)])
                #expect(named.contains("nothing waits for \(name)"), "\(named)")
                for (arguments, words) in [
                    (["--path", root + "/none"], "no such file"),
                    (["--type", "x", root], "no kind"),
                    (["/"], "is not on a mounted"), (["--interval", "1", root], "--counters"),
                ] {
                    let bad = try Commands.run("lockstep", ["locks"] + arguments)
                    #expect(!bad.succeeded && bad.complaint.contains(words), "\(bad)")
                }
            }
        }

        @Test func aStoppedDaemonIsNamedAndNotWaitedForForEver() throws {
            try withNodes { cluster in
                let roots = cluster.nodes.map(\.root)
                for root in roots { #expect(try Files.names(root) == []) }
                let stopped = try daemon(cluster, 1)
                kill(stopped, SIGSTOP)
                defer { kill(stopped, SIGCONT) }
                let start = monotonicSeconds()
                let list = try lockstep(["locks", roots[0], "--timeout", "1"])
                #expect(monotonicSeconds() - start < 20)
                #expect(list.contains("n2 is silent") && list.contains("inode:"), "\(list)")
                let picture = try json(["locks", roots[2], "--timeout", "1", "--type", "live"])
                #expect(picture["silent"] == .array([.number(2)]))
                let counters = try json(["locks", roots[0], "--timeout", "1", "--counters"])
                #expect(counters["silent"] == .array([.number(2)]), "\(counters.text)")
                let asked = try Commands.run("lockstep", ["locks", roots[1]], limit: 60)
                #expect(!asked.succeeded && asked.complaint.contains("does not answer"), "\(asked)")
                kill(stopped, SIGCONT)
                let again = try lockstep(["locks", roots[0]])
                #expect(!again.contains("silent"), "\(again)")
            }
        }

        @Test func recordingsAreReplayed() throws {
            try withNodes { cluster in
                let roots = cluster.nodes.map(\.root)
                for round in 0..<20 {
                    let path = roots[round % 3] + "/f\(round % 4)"
                    try Files.write([UInt8](repeating: UInt8(round), count: 5000), to: path)
                    _ = try Files.contents(roots[(round + 1) % 3] + "/f\(round % 4)")
                }
                let base = cluster.folder + "/recording"
                _ = try lockstep(["dump", roots[0], "-o", base, "--all"])
                for number in 1...3 {
                    let answer = try lockstep(["dump", "--replay", "\(base).n\(number)"])
                    #expect(answer.contains("the same again"), "\(answer)")
                }
                let number = try Files.status(roots[0] + "/f1").inode
                let list = try json(["locks", roots[0], "--inode", "\(number)", "--type", "inode"])
                let name = list["resources"]?[0]?["name"]
                guard case .string(let resource)? = name else {
                    throw Trouble("no lock: \(list.text)")
                }
                let story = try lockstep(["dump", "--story", base + ".n1", "--resource", resource])
                #expect(story.contains(resource) && story.contains("from n2"), "\(story)")
                let status = try json(["status", roots[0]])
                #expect(status["lockCounters"]?["requests"] != nil)
                #expect(status["lockCounters"]?["malformedMessages"] == .number(0))
                try Files.write([1, 2, 3], to: base + ".bad")
                let bad = try Commands.run("lockstep", ["dump", "--replay", base + ".bad"])
                #expect(!bad.succeeded && bad.complaint.contains("is not a recording"), "\(bad)")
            }
        }
    }
}

extension JSONText {
    fileprivate subscript(index: Int) -> JSONText? {
        guard case .array(let values) = self, values.indices.contains(index) else { return nil }
        return values[index]
    }
}
