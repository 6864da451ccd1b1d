// A walk over the tree of an inode, from the root down and from left to right. A node is believed if
// its header says that it is the inode's, of the right kind and height; it is met once (I2).

import BlockIO
import DiskFormat
import Vocabulary

/// The nodes of one tree, one after the other.
final class TreeWalk {
    private struct Step {
        var address: BlockAddress
        var height: Int
        var lower: UInt64
        var upper: UInt64
    }

    private let inspector: Inspector
    private let number: InodeNumber
    private let isDirectory: Bool
    private let wanted: ClosedRange<UInt64>
    private var root: TreeNode?
    private var steps: [Step] = []
    private var met: Set<UInt64> = []

    /// The tree whose root is in an inode's block; of it only the part where keys of `wanted` can
    /// be.
    init(
        _ inspector: Inspector,
        of inode: InspectedInode,
        wanted: ClosedRange<UInt64> = 0...UInt64.max
    ) {
        self.inspector = inspector
        self.wanted = wanted
        number = inode.number
        isDirectory =
            inode.record.layout == .directoryIndex || inode.record.layout == .inlineDirectory
        root = TreeNode(rootIn: inode.block, at: inode.number.address, inode.record)
    }

    /// The next node, the root first; nil at the end. One that cannot be looked into has a
    /// `problem` and no records.
    func next() async -> TreeNode? {
        let node: TreeNode
        if let root {
            node = root
            self.root = nil
        } else if let step = steps.popLast() {
            node = await visit(step)
        } else {
            return nil
        }
        push(node)
        return node
    }

    private func push(_ node: TreeNode) {
        guard node.height > 0 else { return }
        let pointers = node.pointers
        // Where the keys are wrong they cannot tell where to look.
        let trusts = node.keyProblem == nil
        for (index, pointer) in pointers.enumerated().reversed() {
            let upper = index + 1 < pointers.count ? pointers[index + 1].key : node.upper
            if trusts, wanted.upperBound < pointer.key || wanted.lowerBound >= upper { continue }
            steps.append(
                Step(
                    address: pointer.child,
                    height: node.height - 1,
                    lower: pointer.key,
                    upper: upper
                )
            )
        }
    }

    private func visit(_ step: Step) async -> TreeNode {
        let kind: BlockKind =
            isDirectory ? (step.height == 0 ? .directoryLeaf : .directoryIndex) : .extentNode
        func lost(_ problem: String) -> TreeNode {
            TreeNode(lost: step.address, kind: kind, height: step.height, because: problem)
        }
        guard inspector.superblock.group(of: step.address) != nil else {
            return lost("a pointer leads to \(step.address), where no node can be")
        }
        guard met.insert(step.address.rawValue).inserted else {
            return lost("two pointers lead to \(step.address)")
        }
        guard let block = await inspector.block(step.address) else {
            return lost("\(step.address) cannot be read")
        }
        if let error = inspector.headerError(
            block.readOnly,
            at: step.address,
            kind: kind,
            owner: number.address.rawValue,
            generation: number.generation
        ) {
            return lost("\(error)")
        }
        let header = TreeNodeHeader(fields: block.readOnly)
        guard Int(header.height) == step.height else {
            return lost("\(step.address) has height \(header.height) instead of \(step.height)")
        }
        var node = TreeNode(block, kind: kind, at: step.address, header)
        node.lower = step.lower
        node.upper = step.upper
        return node
    }
}
