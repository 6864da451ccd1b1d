// Each rule is shown what it must catch and what it must leave alone.

import Testing

@Suite struct RuleSamples {
    private func source(_ text: String, path: String = "Sources/Base/Vocabulary/A.swift")
        -> SourceText
    {
        SourceText(path: path, text: text)
    }

    private let manifest = Manifest(
        SourceText(
            path: "Package.swift",
            text: """
                func pure(_ name: String, _ folder: String) -> Target { target(name, folder) }
                let layers: [Target] = [
                    pure("Vocabulary", "Base"),
                    shell("LinuxSystem", ["Vocabulary", nioCore]),
                    closed("BlockIO", "Disk", ["Vocabulary"]),
                    pure("LockCore", "Locks", ["Vocabulary"]),
                    closed("FileStore", "Files", ["Vocabulary", "BlockIO"]),
                    command("mount", ["Vocabulary", "FileStore", "LinuxSystem"]),
                ]
                """
        )
    )

    @Test func commentsAndStringsAreNotCode() {
        let text = source(
            #"""
            // Task { } in a comment
            /* try! /* nested */ fatalError() */
            let a = "Task { \(b("x")) }"  // fatalError(
            let c = #"quote " Task {"#
            let d = """
                fatalError("x")
                """
            """#
        )
        #expect(TextRules.checkBans(text, grade: .pure).isEmpty)
        #expect(text.tokens.filter { $0.kind == .string }.count == 3)
        #expect(text.tokens.last?.line == 5)
    }

    @Test(arguments: [
        "Task { }", "Task.detached { }", "Task(priority: .low) { }",
        "let a = Int.random(in: 0...1)",
        "a.shuffled()", "ContinuousClock().now", "Date()", "SystemRandomNumberGenerator()",
        "UUID()",
        "DispatchQueue.main", "usleep(1)", "sleep(1)", "try! f()", "fatalError()", "Mutex(0)",
    ])
    func bannedCallsAreCaughtInPureCode(sample: String) {
        #expect(TextRules.checkBans(source(sample), grade: .pure).count == 1)
    }

    @Test func ownNamesAreNotBanned() {
        let text = source(
            "func sleep(until a: Int) {}\nengine.sleep(until: 3)\nMyTask { }\nlet a = try !b\nawait sleep(until: 3)"
        )
        #expect(TextRules.checkBans(text, grade: .closed).isEmpty)
        #expect(TextRules.checkBans(source("ContinuousClock().now"), grade: .shell).isEmpty)
        #expect(TextRules.checkBans(source("try! f()"), grade: .shell).count == 1)
        let engine = source(
            "Task(executorPreference: e) { }",
            path: "Sources/Base/Execution/E.swift"
        )
        #expect(TextRules.checkBans(engine, grade: .closed).isEmpty)
    }

    @Test func layersAreReadFromTheManifest() {
        #expect(manifest.targets.map(\.name).count == 6)
        #expect(manifest["BlockIO"]?.folder == "Sources/Disk/BlockIO")
        #expect(manifest["LinuxSystem"]?.products == ["nioCore"])
        #expect(manifest.owner(of: "Sources/Commands/mount/main.swift")?.name == "mount")
        #expect(LayerRules.check(manifest).isEmpty)
    }

    @Test(arguments: [
        (#"pure("A", "Base", ["B"]), pure("B", "Base")"#, "not above"),
        (#"closed("B", "Disk"), pure("A", "Base", ["B"])"#, "is pure but"),
        (#"shell("S"), closed("A", "Disk", ["S"])"#, "is closed but"),
        (#"shell("S"), shell("T", ["S"])"#, "no other shell"),
        (#"pure("LockCore", "Locks"), closed("FileStore", "Files", ["LockCore"])"#, "files do not"),
        (#"pure("DiskFormat", "Disk"), pure("LockCore", "Locks", ["DiskFormat"])"#, "locks know"),
        (
            #"closed("BlockIO", "Disk"), closed("NodeService", "Cluster", ["BlockIO"])"#,
            "cluster does"
        ),
        (
            #"closed("SimulatedWorld", "S"), command("mount", ["SimulatedWorld"])"#,
            "simulate and tests"
        ),
    ])
    func wrongLayersAreCaught(text: String, complaint: String) {
        let findings = LayerRules.check(
            Manifest(SourceText(path: "Package.swift", text: "let layers = [\(text)]"))
        )
        #expect(findings.count == 1)
        #expect(findings.first?.message.contains(complaint) == true)
    }

    @Test(arguments: [
        ("import Foundation", "Sources/Base/Vocabulary/A.swift"),
        ("import Glibc", "Sources/Disk/BlockIO/A.swift"),
        ("import NIOCore", "Sources/Locks/LockCore/A.swift"),
        ("import Foundation", "Sources/Commands/mount/A.swift"),
        ("import Dispatch", "Sources/Commands/mount/A.swift"),
        ("import BlockIO", "Sources/Commands/mount/A.swift"),
        ("package import FileStore", "Sources/Locks/LockCore/A.swift"),
        ("import Synchronization", "Sources/Disk/BlockIO/A.swift"),
    ])
    func wrongImportsAreCaught(text: String, path: String) {
        #expect(LayerRules.checkImports(source(text, path: path), manifest).count == 1)
    }

    @Test func rightImportsPass() {
        let text = "import DequeModule\npackage import struct Vocabulary.NodeID"
        let path = "Sources/Disk/BlockIO/A.swift"
        #expect(LayerRules.checkImports(source(text, path: path), manifest).isEmpty)
        let shell = source("import Glibc", path: "Sources/Shell/LinuxSystem/A.swift")
        #expect(LayerRules.checkImports(shell, manifest).isEmpty)
    }

    @Test func longFilesAndFunctionsAreCaught() {
        let many = String(repeating: "a()\n", count: 801)
        #expect(TextRules.checkLength(source(many)).count == 1)
        #expect(TextRules.checkLength(source(String(many.dropLast(4)))).isEmpty)
        func function(_ lines: Int) -> String {
            "protocol P { func q() throws -> [Int]\nfunc r()\ninit(a: Int) }\n"
                + "func f(_ a: () -> Void = { }) async -> Int {\n"
                + String(repeating: "if a { b() }\n", count: lines - 2) + "}\n"
        }
        #expect(TextRules.checkFunctionLength(source(function(60))).isEmpty)
        let findings = TextRules.checkFunctionLength(source(function(61)))
        #expect(findings.count == 1)
        #expect(findings.first?.message.contains("'f' has 61 lines") == true)
    }

    @Test func undocumentedDeclarationsAreCaught() {
        let text = source(
            """
            package struct A {
                package var stored = 1
                package var other: Int { didSet { f() } }
                package var computed: Int { 1 }
                package init() {}
                package static func f() {}
                package func asked() {}
                package static func == (a: A, b: A) -> Bool { true }
                /// Documented.
                @inlinable
                package func g() {}
            }
            /// Documented.
            package protocol P { func asked() }
            package final class C {}
            """
        )
        let found = DeclarationRules.checkDocumentation(
            text,
            requirements: DeclarationRules.requirements(of: [text])
        )
        #expect(found.map(\.line) == [1, 4, 6, 15])
    }

    @Test func loopsOverDictionariesAndSetsAreCaught() {
        let text = source(
            """
            var a: [Int: String] = [:]
            var b: Set<Int> = []
            let c: [Int] = []
            var d = Dictionary<Int, Int>()
            for (k, v) in a { f() }
            for x in self.b where x > 0 { f() }
            for x in c { f() }
            for x in a.keys { f() }
            for x in d.values { f() }
            for x in a.keys.sorted() { f() }
            for x in b.sorted() { f() }
            func g(_ a: [Int]) { for x in a { f() } }
            for x in other.a { f() }
            for x in other.b { f() }
            """
        )
        #expect(DeclarationRules.checkUnorderedIteration(text).map(\.line) == [5, 6, 8, 9, 14])
    }

    @Test(arguments: [
        "engine.spawn { [self] in await go() }",
        "f { [weak self] (a: Int) async -> Int in\n if let self { return await self.go(a) }\n return 1 }",
        "run { [a = b.c] in\n for x in y where x > 1 { await x.go() } }",
        "run { [self] _ in do { try await go() } catch { } }",
    ])
    func waitingClosuresWithCaptureListsAreCaught(sample: String) {
        #expect(ClosureRules.checkCaptureLists(source(sample)).map(\.line) == [1])
    }

    @Test(arguments: [
        "engine.spawn { await self.go() }",
        "f { [self] in go() }",
        "f { [self] in engine.spawn { await self.go() } }",
        "f { [self] in if ready { g(1, with: { await x }) } }",
        "let a = { [1, 2].map { await $0 } }",
        "let a: [Int] = [b]\nfunc f() async { await g() }",
    ])
    func otherClosuresAreLeftAlone(sample: String) {
        #expect(ClosureRules.checkCaptureLists(source(sample)).isEmpty)
    }

    @Test func unfinishedWorkIsCaught() {
        let mark = "// TO" + "DO: later"
        #expect(TextRules.checkUnfinished(path: "a", lines: ["fine", mark]).map(\.line) == [2])
        let path = "see /wo" + "rk/shared"
        #expect(TextRules.checkForeignPaths(path: "a", lines: [path, "fine"]).map(\.line) == [1])
    }

    @Test func linksAreFound() {
        let lines = [
            "see [a](../A.md#part) and [b](b/c.md)", "[web](https://swift.org) [here](#there)",
        ]
        #expect(TextRules.links(in: lines, of: "Docs/x.md") == ["A.md", "Docs/b/c.md"])
    }

    @Test func allowancesOnlyShrink() {
        let allowances = Allowances([
            "# why", "documentation a.swift 2", "file-length gone.swift 1",
        ])
        func findings(_ count: Int, _ path: String) -> [Finding] {
            (0..<count).map { Finding(rule: .documentation, path: path, line: $0, message: "m") }
        }
        #expect(allowances.complaints(about: findings(2, "a.swift"), of: .documentation).isEmpty)
        #expect(allowances.complaints(about: findings(3, "a.swift"), of: .documentation).count == 3)
        #expect(
            allowances.complaints(about: findings(1, "a.swift"), of: .documentation)
                == ["allowances.txt: lower the line to 'documentation a.swift 1'"]
        )
        let other = findings(2, "a.swift") + findings(1, "b.swift")
        #expect(allowances.complaints(about: other, of: .documentation).count == 1)
        #expect(allowances.complaints(about: [], of: .fileLength).first?.contains("remove") == true)
    }
}
