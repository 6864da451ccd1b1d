import LockCache
import SimulatedMachine
import Testing
import Vocabulary

@testable import FileSystem
@testable import SimulatedWorld

/// The observer of all nodes (Exclusivity.swift), shown what it must not let pass.
@Suite struct ExclusivityTests {
    /// Two nodes; the second has read a file that the first has made, so that both have it in PR.
    private func onTwoNodes(
        _ body: @escaping (Exclusivity, SimulatedNode, SimulatedNode, ResourceName) throws -> Void
    ) throws {
        try runOnTwoNodes(synchronizes: false) { two in
            try body(Exclusivity(two.cluster), two.first, two.second, two.file)
        }
    }

    private func inode(_ node: SimulatedNode, _ name: ResourceName) throws -> Inode {
        let handle = try #require(node.volume.memory(under: name).node)
        return try #require(node.volume.inodes[handle])
    }

    @Test func sharedLocksMayBeGranted() throws {
        try onTwoNodes { exclusivity, first, second, name in
            exclusivity.granted(name, .protectedRead, to: first)
            exclusivity.granted(name, .protectedRead, to: second)
            #expect(exclusivity.violation == nil && exclusivity.judged == 2)
        }
    }

    @Test func anExclusiveLockBesideAnother() throws {
        try onTwoNodes { exclusivity, first, _, name in
            exclusivity.granted(name, .exclusive, to: first)
            #expect(exclusivity.violation?.hasPrefix("X1") == true)
        }
    }

    /// The second node has lost its lock and nothing of what it had cached under it.
    @Test func memoryWithoutALock() throws {
        try onTwoNodes { exclusivity, first, second, name in
            try self.inode(second, name).glock.machine = GlockMachine()
            exclusivity.granted(name, .exclusive, to: first)
            let violation = try #require(exclusivity.violation)
            #expect(violation.hasPrefix("X2"))
            for kept in ["metadata blocks", "the inode", "page", "attributes"] {
                #expect(violation.contains(kept), "\(kept): \(violation)")
            }
        }
    }

    @Test func dirtyPagesUnderASharedLock() throws {
        try onTwoNodes { exclusivity, first, second, name in
            let inode = try #require(second.kernel.inode(try self.inode(second, name).handle))
            try #require(inode.pages.pages.first).isDirty = true
            exclusivity.granted(name, .protectedRead, to: first)
            #expect(exclusivity.violation?.hasPrefix("X3") == true)
        }
    }

    /// Who dies may leave numbers behind that are made again; a living node's grant is judged for what it has left
    /// itself.
    @Test func whatIsLeftFromBefore() throws {
        try onTwoNodes { exclusivity, first, second, name in
            exclusivity.granted(name, .protectedRead, to: first)
            try self.inode(second, name).glock.machine = GlockMachine()
            exclusivity.granted(name, .protectedRead, to: second)
            #expect(exclusivity.violation?.hasPrefix("X2") == true)
        }
    }
}
