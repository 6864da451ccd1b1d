// lockstep-stress on real mounts, and on what must be found wrong.
//
// LOCKSTEP_STRESS_SECONDS says how long it works on three mounts (tools/test: 60).

import CLinux
import Glibc
import LinuxSystem
import Testing
import Vocabulary

extension MountedTests {
    @Suite(.serialized) struct StressTests {
        private static var seconds: Int {
            getenv("LOCKSTEP_STRESS_SECONDS").flatMap { Int(String(cString: $0)) } ?? 20
        }

        /// Runs it and reads what it says.
        private func stress(_ arguments: [String], seconds: Int) throws -> (Int32, JSONText) {
            let all = ["--json", "--seconds", "\(seconds)"] + arguments
            let result = try Commands.run(
                "lockstep-stress",
                all,
                limit: Double(seconds) + 240
            )
            guard let json = try? JSONText(parsing: result.output) else {
                throw Trouble(result.description)
            }
            return (result.exitCode, json)
        }

        /// Demands that nothing was found, and that every agent has done something of every workload.
        private func demandSound(
            _ run: (code: Int32, report: JSONText),
            agents: Int
        ) {
            #expect(run.code == 0, "\(run.report.text)")
            #expect(run.report.number("violationCount") == 0, "\(run.report.text)")
            let lines = run.report.list("workloads")
            #expect(lines.count == 9 * agents)
            for line in lines { #expect(line.number("operations") > 0, "\(line.text)") }
        }

        private func withFolders(_ names: [String], _ body: ([String]) throws -> Void) throws {
            var template = Array("/var/tmp/lockstep-mounted-stress-XXXXXX".utf8CString)
            guard mkdtemp(&template) != nil else { throw SystemFailure(errno) }
            let bytes = template.dropLast().map { UInt8(bitPattern: $0) }
            let folder = String(decoding: bytes, as: UTF8.self)
            defer { Files.removeTree(folder) }
            let paths = names.map { folder + "/" + $0 }
            for path in paths { try check(mkdir(path, 0o755)) }
            try body(paths)
        }

        @Test func threeMountsAreOneFileSystem() throws {
            let cluster = try TestCluster()
            try Watchdog.guarding(cluster, limit: 300 + Double(Self.seconds)) {
                try cluster.mountAll()
                let run = try stress(cluster.nodes.map(\.root), seconds: Self.seconds)
                demandSound(run, agents: 3)
                #expect(try Files.names(cluster.nodes[0].root) == [], "it has left something")
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// A daemon is killed and mounted again, twice; the others must not notice but by waiting, and what it
        /// had not made durable is all that may be missing.
        @Test func theLossOfANodeIsJudged() throws {
            let cluster = try TestCluster()
            try Watchdog.guarding(cluster, limit: 300) {
                try cluster.mountAll()
                let seconds = 24
                let started = try Files.names(cluster.nodes[0].root).count
                let killer = TestThread {
                    // Its folder is there when it has begun.
                    while (try? Files.names(cluster.nodes[0].root).count) == started {
                        poll(nil, 0, 20)
                    }
                    for victim in [1, 2] {
                        poll(nil, 0, 5000)
                        try? cluster.kill(cluster.nodes[victim])
                        try? cluster.mount(cluster.nodes[victim])
                    }
                }
                let run = try stress(
                    ["--rejoin"] + cluster.nodes.map(\.root),
                    seconds: seconds
                )
                killer.join()
                demandSound(run, agents: 3)
                let losses = run.1.list("agents").map { $0.number("losses") }
                #expect(losses == [0, 1, 1], "\(run.1.text)")
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        @Test func oneLocalDirectoryIsFoundSound() throws {
            try withFolders(["local"]) { paths in
                demandSound(try stress(paths + paths + paths, seconds: 5), agents: 3)
                #expect(try Files.names(paths[0]) == [])
            }
        }

        /// What is said to be one directory and is not must be found wrong, by each workload.
        @Test func twoLocalDirectoriesAreFoundWrong() throws {
            try withFolders(["one", "two"]) { paths in
                let (code, report) = try stress(["--no-identity-check"] + paths, seconds: 4)
                #expect(code == 1)
                for line in report.list("workloads") {
                    let name = line.string("workload")
                    let all = report.list("workloads").filter { $0.string("workload") == name }
                    #expect(all.contains { $0.number("violations") > 0 }, "\(name) finds nothing")
                }
                let first = try #require(report.list("violations").first)
                #expect(first.list("history").count == 2)
                // Asked first, it says so at once.
                let refused = try Commands.run("lockstep-stress", ["--seconds", "1"] + paths)
                #expect(refused.exitCode == 2)
                #expect(
                    refused.complaint.contains("does not show the same directory"),
                    "\(refused)"
                )
            }
        }

        @Test func agentsOfOtherHostsAreLetInByTheSecret() throws {
            try withFolders(["local"]) { paths in
                let (secret, wrong) = (paths[0] + "/../secret", paths[0] + "/../wrong")
                try Files.write(Array("a secret of many\n".utf8), to: secret)
                try Files.write(Array("another of many\n".utf8), to: wrong)
                let port = 20_000 + Int(getpid()) % 20_000
                let agent = try ChildProcess(
                    "\(Commands.folder)/lockstep-stress",
                    ["agent", "--listen", "127.0.0.1:\(port)", "--secret-file", secret, paths[0]]
                )
                defer {
                    kill(agent.process, SIGKILL)
                    _ = agent.end()
                }
                let line = try #require(agent.readLine())
                #expect(line.contains("listens at 127.0.0.1:\(port)"))
                let places = ["tcp:127.0.0.1:\(port)", paths[0]]
                let refused = try Commands.run(
                    "lockstep-stress",
                    ["--seconds", "1", "--secret-file", wrong] + places
                )
                #expect(refused.exitCode == 2)
                #expect(refused.complaint.contains("does not let us in"), "\(refused)")
                // Twice: an agent serves one run after the other.
                for _ in 0..<2 {
                    demandSound(
                        try stress(["--secret-file", secret] + places, seconds: 3),
                        agents: 2
                    )
                }
            }
        }

        /// The kill command gets the place, and one that fails ends the run.
        @Test func theKillCommandIsRunWithThePlace() throws {
            try withFolders(["local"]) { paths in
                let note = paths[0] + "/../note"
                let places = ["--seconds", "3", "--kill-every", "1"] + paths + paths
                let noting = try Commands.run(
                    "lockstep-stress",
                    ["--kill-command", "echo \"$1\" >>\(note)"] + places
                )
                #expect(noting.exitCode == 0, "\(noting)")
                let lines = try Files.contents(note).split(separator: 10)
                #expect(!lines.isEmpty)
                #expect(lines.allSatisfy { Array($0) == Array(paths[0].utf8) })
                let failing = try Commands.run(
                    "lockstep-stress",
                    ["--kill-command", "exit 3"] + places
                )
                #expect(failing.exitCode == 2, "\(failing)")
                #expect(failing.output.contains("ended with 3"), "\(failing)")
            }
        }

        @Test func wrongArgumentsHaveOneLine() throws {
            let cases: [(arguments: [String], code: Int32, words: String)] = [
                (["/var/tmp/there-is-no-such-place"], 2, "No such file or directory"),
                (["/etc/passwd"], 2, "Not a directory"),
                (["--seconds", "0", "/var/tmp"], 64, "--seconds is"),
                (["--workloads", "registers,none", "/var/tmp"], 64, "no workload is called none"),
                (["--workloads", "logs,logs", "/var/tmp"], 64, "none twice"),
                (["tcp:nowhere", "/var/tmp"], 64, "tcp:HOST:PORT"),
                (["tcp:127.0.0.1:9", "/var/tmp"], 64, "--secret-file"),
                (["--secret-file", "/dev/null", "tcp:127.0.0.1:9"], 2, "holds no secret"),
                ([], 64, "Missing expected argument"),
            ]
            for wrong in cases {
                let result = try Commands.run("lockstep-stress", wrong.arguments)
                #expect(result.exitCode == wrong.code, "\(result)")
                #expect(result.complaint.contains(wrong.words), "\(result)")
            }
        }
    }
}
