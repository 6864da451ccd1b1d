// Changing the pointers of a tree: a leaf comes, a leaf goes. All of it is synchronous and cannot
// fail but by damage; the blocks it may need have been set aside.

import DiskFormat
import Execution
import Journaling
import Vocabulary

/// Which blocks go when a leaf goes: decided when a removal is prepared, carried out later.
struct LeafRemoval {
    /// Steps of the path whose nodes stay; the nodes below them become empty and are freed.
    var survivingSteps: Int
    /// Nodes below the root whose pointers move up into the root, because it has no others.
    var raisedSteps: Int
    /// Nodes beside the path that begin where the freed part began, from now on (T1).
    var lowered: [PointerArea] = []

    /// What is freed, the leaf first.
    func freed(_ path: TreePath) -> [MetadataBlock] {
        var blocks: [MetadataBlock] = []
        if let leaf = path.leaf { blocks.append(leaf) }
        for step in path.steps.dropFirst(max(survivingSteps, 1)) { blocks.append(step.area.block) }
        for step in path.steps.dropFirst().prefix(raisedSteps) { blocks.append(step.area.block) }
        return blocks
    }
}

extension Tree {
    /// Blocks that adding one leaf behind `path`'s leaf takes, the leaf itself included: exact.
    func blocksToAddLeaf(_ path: TreePath) -> Int {
        var needed = 1
        for step in path.steps.reversed() {
            guard step.area.count == step.area.capacity else { break }
            needed += 1
        }
        return needed
    }

    /// What adding leaves takes in the worst case, by the height alone: two leaves at most, one
    /// node for each level above them, one for growth.
    static func worstChange(height: UInt8) -> OperationCost {
        let newBlocks = 2 + Int(height)
        return OperationCost(newBlocks: newBlocks, modifiedBlocks: 2 + 2 * Int(height) + newBlocks)
    }

    /// Adds the pointer to a new leaf behind `path`'s leaf. The path is void afterwards.
    func addPointer(
        _ pointer: TreePointer,
        behind path: TreePath,
        with allocator: Allocator
    ) throws(StoreError) {
        var pointer = pointer
        for (depth, step) in path.steps.enumerated().reversed() {
            let area = step.area
            if area.count < area.capacity {
                insert(pointer, in: area, at: step.slot + 1, allocator.transaction)
                return
            }
            if depth == 0 {
                try growRoot(pointer, slot: step.slot + 1, allocator)
                return
            }
            let height = Int(inode.record.height) - depth
            pointer = try split(area, adding: pointer, at: step.slot + 1, height, allocator)
        }
    }

    private func insert(
        _ pointer: TreePointer,
        in area: PointerArea,
        at slot: Int,
        _ transaction: Transaction
    ) {
        transaction.modify(area.block)
        var pointers = read(area)
        pointers.insert(pointer, at: slot)
        write(pointers, to: area)
    }

    /// Moves the upper half to a new node and returns the pointer to it. At the end of a full node
    /// nothing moves: trees that grow at the end stay dense.
    private func split(
        _ area: PointerArea,
        adding pointer: TreePointer,
        at slot: Int,
        _ height: Int,
        _ allocator: Allocator
    ) throws(StoreError) -> TreePointer {
        reached(.nodeSplit)
        var pointers = read(area)
        pointers.insert(pointer, at: slot)
        let middle = slot == area.count ? area.count : pointers.count / 2
        allocator.transaction.modify(area.block)
        let node = allocator.makeBlock(kind.index, for: inode)
        writeNode(Array(pointers[middle...]), to: node, height)
        write(Array(pointers[..<middle]), to: area)
        return TreePointer(key: pointers[middle].key, child: node.address)
    }

    /// All pointers of the root, and one more, move into a new node below it.
    private func growRoot(
        _ pointer: TreePointer,
        slot: Int,
        _ allocator: Allocator
    ) throws(StoreError) {
        guard inode.record.height < InodeRecord.maximumHeight else {
            throw .damaged(inode.number.address, "height", UInt64(inode.record.height))
        }
        let root: PointerArea
        do throws(Interruption) { root = try PointerArea(root: inode) } catch {
            throw .damaged(inode.number.address, "pointer count", UInt64(inode.record.rootCount))
        }
        reached(.treeGrows)
        var pointers = read(root)
        pointers.insert(pointer, at: slot)
        allocator.transaction.modify(inode.block)
        let node = allocator.makeBlock(kind.index, for: inode)
        writeNode(pointers, to: node, Int(inode.record.height))
        inode.record.height += 1
        write([TreePointer(key: 0, child: node.address)], to: root)
    }

    /// Makes the body, whose records have moved to leaves, a root over them; its block has been
    /// announced.
    func plantRoot(_ pointers: [TreePointer]) {
        precondition(inode.record.height == 0 && pointers[0].key == 0, "TreePath T1")
        inode.record.height = 1
        inode.record.rootLength = 0
        writeRoot(pointers)
    }

    // MARK: a leaf goes

    /// What goes with the leaf of `path` (T3), whether the root can take up its only child, and
    /// which nodes get a lower bound (exact).
    func planRemoval(of path: TreePath) throws(Interruption) -> LeafRemoval {
        var surviving = path.steps.count
        while surviving > 0, path.steps[surviving - 1].area.count == 1 { surviving -= 1 }
        guard surviving > 0 else { return LeafRemoval(survivingSteps: 0, raisedSteps: 0) }
        func countAfter(_ depth: Int) -> Int {
            path.steps[depth].area.count - (depth == surviving - 1 ? 1 : 0)
        }
        var raised = 0
        var depth = 1
        while depth < surviving, countAfter(depth - 1) == 1,
            countAfter(depth) <= path.steps[0].area.capacity
        {
            raised += 1
            depth += 1
        }
        return LeafRemoval(
            survivingSteps: surviving,
            raisedSteps: raised,
            lowered: try nodesToLower(path.steps[surviving - 1], depth: surviving - 1)
        )
    }

    /// When the first child of a node goes, the next one takes over its bound, and with it the
    /// first child of that one, and so on down to the leaves, whose bound is not written in them.
    private func nodesToLower(
        _ step: TreeStep,
        depth: Int
    ) throws(Interruption) -> [PointerArea] {
        guard step.slot == 0 else { return [] }
        var nodes: [PointerArea] = []
        var child = step.area[1].child
        var height = Int(inode.record.height) - depth - 1
        while height > 0 {
            let node = try PointerArea(node: try source.block(child, kind.index), height: height)
            nodes.append(node)
            child = node[0].child
            height -= 1
        }
        return nodes
    }

    /// Frees the leaf of `path` and what goes with it. If nothing is left the height is 0 and the
    /// body empty.
    func remove(
        _ path: TreePath,
        _ plan: LeafRemoval,
        with allocator: Allocator
    ) throws(StoreError) {
        guard plan.survivingSteps > 0 else {
            for block in plan.freed(path) { try allocator.freeBlock(block, of: inode) }
            allocator.transaction.modify(inode.block)
            clearBody()
            return
        }
        let last = path.steps[plan.survivingSteps - 1]
        var pointers = read(last.area)
        let gone = pointers.remove(at: last.slot)
        if last.slot == 0 { pointers[0].key = gone.key }  // T1
        for node in plan.lowered {
            allocator.transaction.modify(node.block)
            var below = read(node)
            below[0].key = gone.key
            write(below, to: node)
        }
        // Nodes that move up into the root leave only the pointers of the deepest of them.
        let deepest = plan.raisedSteps
        var raised: [TreePointer] = []
        if deepest > 0 {
            raised = deepest == plan.survivingSteps - 1 ? pointers : read(path.steps[deepest].area)
            raised[0].key = 0
        }
        for block in plan.freed(path) { try allocator.freeBlock(block, of: inode) }
        if deepest < plan.survivingSteps - 1 || deepest == 0 {
            allocator.transaction.modify(last.area.block)
            write(pointers, to: last.area)
        }
        guard deepest > 0 else { return }
        allocator.transaction.modify(inode.block)
        reached(.treeShrinks)
        inode.record.height -= UInt8(deepest)
        writeRoot(raised)
    }

    /// The only leaf of a tree has moved into the body: the body is no root any more.
    func clearBody() {
        inode.record.height = 0
        inode.record.rootCount = 0
        inode.record.rootLength = 0
        inode.block.bytes.clear(InodeRecord.bodyOffset, inode.bodyLength)
    }

    /// Lowers the bound of `path`'s leaf to `key`, which belongs to no leaf before it.
    func lowerBound(of path: TreePath, to key: UInt64, _ transaction: Transaction) {
        for step in path.steps.reversed() {
            transaction.modify(step.area.block)
            var pointers = read(step.area)
            pointers[step.slot].key = key
            write(pointers, to: step.area)
            if step.slot > 0 { return }
        }
        preconditionFailure("TreePath T1: the first leaf has no lower bound to move")
    }

    // MARK: bytes

    private func read(_ area: PointerArea) -> [TreePointer] {
        (0..<area.count).map { area[$0] }
    }

    private func write(_ pointers: [TreePointer], to area: PointerArea) {
        precondition(!pointers.isEmpty && pointers.count <= area.capacity)
        if area.isRoot {
            writeRoot(pointers)
        } else {
            writeNode(
                pointers,
                to: area.block,
                Int(TreeNodeHeader(fields: area.block.bytes.readOnly).height)
            )
        }
    }

    private func writeRoot(_ pointers: [TreePointer]) {
        inode.record.rootCount = UInt16(pointers.count)
        inode.block.bytes.clear(InodeRecord.bodyOffset, inode.bodyLength)
        put(pointers, inode.block.bytes, InodeRecord.bodyOffset)
    }

    private func writeNode(_ pointers: [TreePointer], to node: MetadataBlock, _ height: Int) {
        TreeNodeHeader(count: UInt16(pointers.count), height: UInt16(height), usedBytes: 0)
            .writeFields(to: node.bytes)
        let start = TreeNodeHeader.recordsOffset
        node.bytes.clear(start, node.bytes.count - start)
        put(pointers, node.bytes, start)
    }

    private func put(
        _ pointers: [TreePointer],
        _ bytes: UnsafeMutableRawBufferPointer,
        _ offset: Int
    ) {
        for (index, pointer) in pointers.enumerated() {
            pointer.write(to: bytes, at: offset + index * TreePointer.byteCount)
        }
    }
}
