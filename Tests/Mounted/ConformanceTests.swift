// The conformance suite: what each call answers, and each errno, on a mount and on ext4.
//
// The cases are texts (Tests/Conformance; ConformanceScript.swift says what they may say). Each is played on ext4, in
// an image mounted through a loop device; on one node; and by two nodes in turn, call by call, each of them once the
// first. What comes out must be the same, and what the text says. So a case tests three things: that the text is
// right about Linux, that Lockstep does the same, and that a node sees at once what another has done.

import CLinux
import Glibc
import Testing

/// The file system that Lockstep is compared with.
final class LocalFileSystem {
    let root: String
    private let isMounted: Bool

    /// ext4 in an image below `folder`; where there are no loop devices, `folder` itself.
    init(below folder: String) throws {
        let image = folder + "/local.image"
        try Files.withOpen(image, O_WRONLY | O_CREAT) { try check(ftruncate($0, 256 << 20)) }
        try Commands.demand("mkfs.ext4", ["-q", "-F", "-b", "4096", image])
        root = folder + "/local"
        mkdir(root, 0o755)
        let mounting = try Commands.run("mount", ["-o", "loop", image, root])
        isMounted = mounting.succeeded
        if !isMounted {
            print("compared with the file system of \(folder) instead of ext4: \(mounting)")
        }
    }

    deinit {
        if isMounted { _ = try? Commands.run("umount", [root]) }
    }
}

/// One way to play a case.
private struct ConformanceStyle {
    let name: String
    let roots: [String]
    let firstTurn: Int
}

/// Plays cases and compares.
private struct ConformanceRun {
    let local: String
    let nodes: [String]
    var complaints: [String] = []
    var steps = 0
    private var number = 0

    init(local: String, nodes: [String]) {
        self.local = local
        self.nodes = nodes
    }

    mutating func play(_ test: ConformanceCase) throws {
        number += 1
        steps += test.steps.count
        let expected = try answers(
            test,
            ConformanceStyle(name: "ext4", roots: [local], firstTurn: 0)
        )
        for (step, answer) in zip(test.steps, expected) { checkText(step, answer, test) }
        var styles = [ConformanceStyle(name: "one node", roots: [nodes[0]], firstTurn: 0)]
        if !test.isForOneNode {
            for first in nodes.indices {
                let name = "in turn from node \(first + 1)"
                styles.append(ConformanceStyle(name: name, roots: nodes, firstTurn: first))
            }
        }
        for style in styles {
            let found = try answers(test, style)
            for (index, step) in test.steps.enumerated() {
                let wanted = step.difference ?? expected[index]
                if found[index] != wanted {
                    complain(test, step, "\(found[index]) \(style.name), should be \(wanted)")
                }
            }
        }
    }

    private func answers(_ test: ConformanceCase, _ style: ConformanceStyle) throws -> [String] {
        let folders = style.roots.map { "\($0)/case\(number)" }
        try check(mkdir(folders[0], 0o755))
        defer { Files.removeTree(folders[0]) }
        do {
            return try ConformanceStage.play(
                test.steps,
                folders: folders,
                firstTurn: style.firstTurn
            )
        } catch {
            throw Trouble("\(test.name), \(style.name): \(error)")
        }
    }

    private mutating func checkText(
        _ step: ConformanceStep,
        _ answer: String,
        _ test: ConformanceCase
    ) {
        if let expected = step.expected {
            if expected != "*", expected != answer { complain(test, step, "\(answer) on ext4") }
        } else if answer.first == "E", answer.allSatisfy(\.isUppercase) {
            complain(test, step, "\(answer) on ext4")
        }
    }

    private mutating func complain(
        _ test: ConformanceCase,
        _ step: ConformanceStep,
        _ what: String
    ) {
        complaints.append("\(test.name), line \(step.line): \(step.text.prefix(120)): \(what)")
    }
}

extension MountedTests {
    @Suite(.serialized) struct ConformanceTests {
        private static let folder =
            "\(#filePath)".split(separator: "/").dropLast(2)
            .reduce("") { "\($0)/\($1)" } + "/Conformance"

        @Test(
            .enabled(if: geteuid() == 0),
            arguments: ["names", "permissions", "times", "data", "objects", "xattr"]
        )
        func callsAnswerAsOnLinux(script: String) throws {
            let cluster = try TestCluster(nodes: 2, size: "256M")
            chmod(cluster.folder, 0o755)
            let local = try LocalFileSystem(below: cluster.folder)
            try Watchdog.guarding(cluster, limit: 240) {
                for node in cluster.nodes {
                    try cluster.mount(node, options: ["allow_other", "dev", "suid"])
                }
                var run = ConformanceRun(local: local.root, nodes: cluster.nodes.map(\.root))
                let text = try Files.contents("\(Self.folder)/\(script).txt")
                for test in try ConformanceCase.parse(
                    String(decoding: text, as: UTF8.self),
                    file: script
                ) {
                    try run.play(test)
                }
                #expect(run.steps > 50, "only \(run.steps) steps in \(script)")
                #expect(run.complaints.isEmpty, "\n\(run.complaints.joined(separator: "\n"))")
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// The list above and the folder agree.
        @Test func everyScriptIsPlayed() throws {
            let played = ["names", "permissions", "times", "data", "objects", "xattr"]
            #expect(try Files.names(Self.folder) == played.map { "\($0).txt" }.sorted())
        }
    }

    /// What fsx does.
    @Suite(.serialized) struct FileExerciseTests {
        private func exercise(nodes count: Int, seeds: ClosedRange<UInt64>, _ operations: Int)
            throws
        {
            let cluster = try TestCluster(nodes: count, size: "256M")
            try Watchdog.guarding(cluster, limit: 300) {
                try cluster.mountAll()
                let roots = cluster.nodes.map(\.root)
                for seed in seeds {
                    let exercise = try FileExercise(roots: roots, name: "file\(seed)", seed: seed)
                    try exercise.run(operations)
                }
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// LOCKSTEP_SEED asks for another seed.
        private var first: UInt64 {
            getenv("LOCKSTEP_SEED").flatMap { UInt64(String(cString: $0)) } ?? 1
        }

        @Test func aFileOfOneNode() throws {
            try exercise(nodes: 1, seeds: first...(first + 1), 700)
        }

        @Test func aFileOfTwoNodesInTurn() throws {
            try exercise(nodes: 2, seeds: first...(first + 1), 500)
        }

        @Test func aFileOfThreeNodesInTurn() throws {
            try exercise(nodes: 3, seeds: (first + 100)...(first + 100), 500)
        }
    }
}
