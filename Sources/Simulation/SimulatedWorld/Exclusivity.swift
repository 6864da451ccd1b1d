// An observer who sees all nodes at once. Whenever a lock is granted to a node, nobody else may have in
// memory what the lock protects, beyond what is compatible; and the node itself may have nothing in memory that is
// older than the grant.
//
//   X1. EX on one node, and no lock on any other; PR on some, and EX on none.
//   X2. What a lock protects is in memory only under PR or EX: metadata blocks, the decoded inode,
//       data that is to be written; in the kernel pages, attributes, names that are present or absent.
//   X3. Under PR nothing is dirty, in pages neither.
//   X4. Under CW the same holds region by region: a page or data of a region is there only under PR or EX of the
//       region, dirty only under EX.
//
// Pages that write(2) has filled while it waits for the lock are not judged (Docs/CAVEATS.md, KERNEL F5), nor
// are pages that are locked: they show nothing.
//
// A dead or withdrawn node is not judged either: what it has is given to nobody before its guardian
// has taken back what its processes see.

import Execution
import FileSystem
import Vocabulary

/// Judges every grant.
final class Exclusivity {
    private unowned let cluster: SimulatedCluster
    /// The first violation.
    private(set) var violation: String?
    /// Inodes of which some lock was granted.
    private var known: Set<ResourceName> = []
    /// Grants that were judged.
    private(set) var judged = 0

    init(_ cluster: SimulatedCluster) { self.cluster = cluster }

    /// A node has died, or all have: inodes that it had made may be made again, with the same numbers.
    func died() { known = [] }

    /// A lock of an inode or a group is granted to `node` now.
    func granted(_ name: ResourceName, _ mode: LockMode, to node: SimulatedNode) {
        guard violation == nil, !node.isDead, node.withdrawal == nil else { return }
        guard name.kind == .inode || name.kind == .resourceGroup else { return }
        judged += 1
        if name.depth > 0 { return grantedRegion(name, mode, to: node) }
        let own = node.volume.memory(under: name)
        // A new inode is made under the locks of its directory and its group, before it has one itself.
        let isFirst = name.kind == .inode && known.insert(name).inserted
        if own.covering == .null, !isFirst { judge(node, name, own, "is granted \(mode)") }
        for other in cluster.living where other !== node && other.withdrawal == nil {
            let memory = other.volume.memory(under: name)
            if !memory.covering.isCompatible(with: mode) {
                fail(
                    "X1: \(node.kernel.name) is granted \(mode) of \(name), \(other.kernel.name) has \(memory.covering)"
                )
            }
            judge(other, name, memory, "\(node.kernel.name) is granted \(mode)")
        }
    }

    /// A lock of a region is granted.
    private func grantedRegion(_ name: ResourceName, _ mode: LockMode, to node: SimulatedNode) {
        for other in cluster.living where other !== node && other.withdrawal == nil {
            let memory = other.volume.memory(under: name.root)
            guard let region = memory.regions.first(where: { $0.index == name.lastNumber }) else {
                continue
            }
            let why = "\(node.kernel.name) is granted \(mode) of \(name)"
            if !region.covering.isCompatible(with: mode) {
                fail("X1: \(why), \(other.kernel.name) has \(region.covering)")
            }
            judgeRegions(other, name.root, memory, why)
        }
    }

    /// X4.
    private func judgeRegions(
        _ node: SimulatedNode,
        _ name: ResourceName,
        _ memory: MemoryUnderLock,
        _ why: String
    ) {
        guard memory.covering == .concurrentWrite else { return }
        var found: [String] = []
        let number = InodeNumber(address: BlockAddress(name.number), generation: name.generation)
        for bytes in node.volume.dirtyBytes(of: number)
        where memory.covering(bytes) != .exclusive {
            found.append("data that is not written, \(bytes)")
        }
        let inode = memory.node.flatMap { node.kernel.inode($0) }
        for page in inode?.pages.pages ?? [] where inode?.shows(page) == true {
            let start = page.index * UInt64(KernelPage.size)
            let mode = memory.covering(start..<start + UInt64(KernelPage.size))
            if page.isDirty ? mode != .exclusive : !mode.covers(.protectedRead) {
                found.append("\(page.isDirty ? "dirty " : "")page \(page.index) under \(mode)")
            }
        }
        if let inode, inode.keepsAttributes { found.append("attributes") }
        guard !found.isEmpty else { return }
        fail("X4: \(node.kernel.name) has \(found.joined(separator: ", ")) of \(name), when \(why)")
    }

    private func judge(
        _ node: SimulatedNode,
        _ name: ResourceName,
        _ memory: MemoryUnderLock,
        _ why: String
    ) {
        guard memory.covering != .exclusive else { return }
        if memory.covering == .concurrentWrite { return judgeRegions(node, name, memory, why) }
        var found: [String] = []
        if memory.isDirty { found.append("data that is not written") }
        let inode = memory.node.flatMap { node.kernel.inode($0) }
        if let inode, let page = inode.pages.pages.first(where: { $0.isDirty && inode.shows($0) }) {
            found.append("a dirty page \(page.index)")
        }
        if memory.covering == .null {
            if memory.hasBlocks { found.append("metadata blocks") }
            if memory.isDecoded { found.append("the inode") }
            if let inode { found += inode.kept(node.kernel.epoch) }
        }
        guard !found.isEmpty else { return }
        fail(
            "\(memory.covering == .null ? "X2" : "X3"): \(node.kernel.name) has \(found.joined(separator: ", ")) of \(name) under \(memory.covering), when \(why)"
        )
    }

    private func fail(_ what: String) { violation = violation ?? what }
}

extension KernelInode {
    /// Whether a page can be seen, and not because a write(2) has put bytes into it before it has the lock.
    fileprivate func shows(_ page: KernelPage) -> Bool {
        let start = page.index * UInt64(KernelPage.size)
        let bytes = start..<start + UInt64(KernelPage.size)
        return page.isUptodate && !page.isGone && !page.lock.isTaken
            && !unanswered.contains { $0.bytes.overlaps(bytes) }
    }

    /// What is in the kernel's caches, in words.
    fileprivate func kept(_ epoch: UInt64) -> [String] {
        var found: [String] = []
        if let page = pages.pages.first(where: { shows($0) }) { found.append("page \(page.index)") }
        if keepsAttributes { found.append("attributes") }
        if let name = nameOrder.first(where: {
            names[$0].map { $0.isTrusted && $0.epoch == epoch } ?? false
        }) {
            found.append("the name \(String(decoding: name, as: UTF8.self))")
        }
        return found
    }
}
