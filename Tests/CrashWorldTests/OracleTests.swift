import CrashWorld
import Testing
import Vocabulary

/// The oracle alone, with trees that no file system made: what it must accept and what it must
/// refuse.
@Suite struct OracleTests {
    /// The history of a workload in which each operation writes twice: operation i begins before
    /// event 2i and returns after event 2i + 1.
    static func history(_ text: String) throws -> CrashHistory {
        let workload = try #require(CrashWorkload(text))
        var history = try #require(CrashHistory(workload))
        history.steps = workload.operations.enumerated().map {
            CrashStep(operation: $0.element, begunAt: 2 * $0.offset, returnedAt: 2 * $0.offset + 2)
        }
        return history
    }

    static func observe(_ tree: ModelTree) -> ObservedTree {
        var objects: [ObservedObject] = []
        func visit(_ number: Int, _ path: String) {
            let node = tree.nodes[number]
            let subdirectories = node.entries.count { tree.nodes[$0.node].kind == .directory }
            let links = node.kind == .directory ? 2 + subdirectories : tree.nameCount(of: number)
            objects.append(
                ObservedObject(
                    path: path,
                    kind: node.kind,
                    inode: InodeNumber(address: BlockAddress(UInt64(number)), generation: 1),
                    linkCount: UInt32(links),
                    content: node.content,
                    attribute: node.attribute
                )
            )
            for entry in node.entries {
                visit(entry.node, path.isEmpty ? entry.name : path + "/" + entry.name)
            }
        }
        visit(0, "")
        return ObservedTree(objects: objects.sorted { $0.path < $1.path })
    }

    /// The tree after `operations` operations, changed by `change`.
    static func verdict(
        _ history: CrashHistory,
        after operations: Int,
        at events: Int,
        _ change: (inout ObservedTree) -> Void = { _ in }
    ) -> String? {
        var tree = observe(history.states[operations])
        change(&tree)
        return CrashOracle(history).complaint(about: tree, after: events)
    }

    static func index(_ path: String, _ tree: ObservedTree) -> Int {
        tree.objects.firstIndex { $0.path == path } ?? -1
    }

    @Test func unsynchronisedOperationsMayBeMissing() throws {
        let history = try Self.history("create:A/new+mkdir:B/dir+pause")
        for operations in 0...2 {
            #expect(Self.verdict(history, after: operations, at: 4) == nil)
        }
        #expect(Self.verdict(history, after: 0, at: 6) != nil)
        #expect(Self.verdict(history, after: 2, at: 6) == nil)
    }

    @Test func nothingIsThereBeforeItBegins() throws {
        let history = try Self.history("create:A/new+mkdir:B/dir")
        #expect(Self.verdict(history, after: 1, at: 0) != nil)
        #expect(Self.verdict(history, after: 1, at: 1) == nil)
        #expect(Self.verdict(history, after: 2, at: 2) != nil)
    }

    @Test func laterOperationsNeedEarlierOnes() throws {
        let history = try Self.history("create:A/new+mkdir:B/dir+pause")
        let alone = Self.verdict(history, after: 2, at: 4) { tree in
            tree.objects.remove(at: Self.index("A/new", tree))
        }
        #expect(alone != nil)
    }

    @Test func synchronisedFilesStay() throws {
        let history = try Self.history("append:A/foo:5000+fsync:A/foo+unlink:B/bar+pause")
        #expect(Self.verdict(history, after: 0, at: 3) == nil)
        #expect(Self.verdict(history, after: 0, at: 4) != nil)
        #expect(Self.verdict(history, after: 1, at: 4) == nil)
        #expect(Self.verdict(history, after: 3, at: 5) == nil)
    }

    @Test func renamesAreWholeOrNot() throws {
        let history = try Self.history("rename:A/foo:B/bar+pause")
        for (operations, path) in [(0, "A/foo"), (0, "B/bar"), (1, "B/bar")] {
            let neither = Self.verdict(history, after: operations, at: 2) { tree in
                tree.objects.remove(at: Self.index(path, tree))
            }
            #expect(neither != nil)
        }
        let both = Self.verdict(history, after: 1, at: 2) { tree in
            var object = tree.objects[Self.index("B/bar", tree)]
            object.path = "A/foo"
            tree.objects.insert(object, at: Self.index("B", tree))
        }
        #expect(both != nil)
        let half = Self.verdict(history, after: 1, at: 2) { tree in
            tree.objects[Self.index("B/bar", tree)].content.removeLast(4000)
        }
        #expect(half != nil)
    }

    @Test func bytesAreOldOrNew() throws {
        let history = try Self.history("write:A/foo:1000:6000+pause")
        let old = history.states[0].nodes[4].content
        let mixed = Self.verdict(history, after: 1, at: 2) { tree in
            let file = Self.index("A/foo", tree)
            tree.objects[file].content.replaceSubrange(2048..<4096, with: old[2048..<4096])
        }
        #expect(mixed == nil)
        for value in [UInt8(0), 0xEE] {
            let foreign = Self.verdict(history, after: 1, at: 2) { tree in
                tree.objects[Self.index("A/foo", tree)].content[3000] = value
            }
            #expect(foreign != nil)
        }
    }

    @Test func synchronisedBytesAreNew() throws {
        let history = try Self.history("write:A/foo:1000:6000+fsync:A/foo+pause")
        let old = history.states[0].nodes[4].content[3000]
        for (events, isRight) in [(2, true), (3, true), (4, false), (6, false)] {
            let verdict = Self.verdict(history, after: 1, at: events) { tree in
                tree.objects[Self.index("A/foo", tree)].content[3000] = old
            }
            #expect((verdict == nil) == isRight)
        }
    }

    @Test func whatWasAppendedIsThereWithTheSize() throws {
        let history = try Self.history("append:A/foo:5000+pause")
        let zero = Self.verdict(history, after: 1, at: 2) { tree in
            tree.objects[Self.index("A/foo", tree)].content[10_000] = 0
        }
        #expect(zero != nil)
        let short = Self.verdict(history, after: 1, at: 1) { tree in
            tree.objects[Self.index("A/foo", tree)].content.removeLast(1000)
        }
        #expect(short == nil)
        let long = Self.verdict(history, after: 1, at: 1) { tree in
            tree.objects[Self.index("A/foo", tree)].content.append(1)
        }
        #expect(long != nil)
    }

    @Test func namesOfOneFileStayTogether() throws {
        let history = try Self.history("link:A/foo:B/link+pause")
        #expect(Self.verdict(history, after: 1, at: 2) == nil)
        let apart = Self.verdict(history, after: 1, at: 2) { tree in
            let other = InodeNumber(address: BlockAddress(777), generation: 1)
            tree.objects[Self.index("B/link", tree)].inode = other
        }
        #expect(apart?.contains("not the same") == true)
        let count = Self.verdict(history, after: 1, at: 2) { tree in
            tree.objects[Self.index("B/link", tree)].linkCount = 1
        }
        #expect(count != nil)
    }

    @Test func attributesAndTargetsAreWhole() throws {
        let history = try Self.history("setxattr:A/foo:30+symlink:A/new:20+pause")
        let cut = Self.verdict(history, after: 2, at: 4) { tree in
            tree.objects[Self.index("A/foo", tree)].attribute?.removeLast()
        }
        #expect(cut != nil)
        let target = Self.verdict(history, after: 2, at: 4) { tree in
            tree.objects[Self.index("A/new", tree)].content[3] ^= 1
        }
        #expect(target != nil)
        #expect(Self.verdict(history, after: 2, at: 4) == nil)
    }
}
