// Stages "contents" and "parents": each inode's tree, and each directory's place in the tree of
// directories.

import BlockIO
import DiskFormat
import Vocabulary

extension RepairRound {
    // MARK: contents

    func repairContents(_ found: [Finding]) async throws(CheckError) -> [Finding] {
        var trees: [InodeNumber: Bool] = [:]
        var attributes: [InodeNumber: Bool] = [:]
        return try await each(found) { (finding) async throws(CheckError) -> Bool in
            guard let number = finding.inode else { return false }
            switch finding.kind {
            case .attributeBlockDamaged, .attributesDamaged:
                if let known = attributes[number] { return known }
                let isDone = try await rebuildAttributes(number)
                attributes[number] = isDone
                return isDone
            default:
                // One rebuilding puts all that is wrong in a tree right.
                if let known = trees[number] { return known }
                let isDone = try await rebuildTree(number)
                trees[number] = isDone
                return isDone
            }
        }
    }

    private func rebuildTree(_ number: InodeNumber) async throws(CheckError) -> Bool {
        guard let inode = try await seen(number.address), inode.number == number else {
            return false
        }
        return inode.isDirectory
            ? try await rebuildDirectory(number) : try await rebuildExtents(number)
    }

    /// Rebuilds all that belongs to an inode.
    func rebuildContent(_ number: InodeNumber) async throws(CheckError) -> Bool {
        let hasTree = try await rebuildTree(number)
        let buffer = makeBuffer()
        guard let record = try await readInode(number, into: buffer),
            record.attributeBlock != .none
        else { return hasTree }
        let hasAttributes = try await rebuildAttributes(number)
        return hasTree || hasAttributes
    }

    // MARK: parents

    /// Directories with two entries first: which entry stays decides what the parent is.
    func repairParents(_ found: [Finding]) async throws(CheckError) -> [Finding] {
        let linked = found.filter { $0.kind == .directoryLinkedTwice }
        guard linked.isEmpty else { return try await removeSecondEntries(linked) }
        return try await each(found) { (finding) async throws(CheckError) -> Bool in
            guard let number = finding.inode,
                let inode = checker.inodes[number.address]
            else { return false }
            let parent = inode.isAnchor ? number : inode.linkedFrom
            guard let parent else { return false }
            return try await editInode(number) { $0.parent = parent }
        }
    }

    private func removeSecondEntries(_ found: [Finding]) async throws(CheckError) -> [Finding] {
        var rebuilt: [InodeNumber: Bool] = [:]
        return try await each(found) { (finding) async throws(CheckError) -> Bool in
            guard let number = finding.inode,
                let inode = checker.inodes[number.address],
                let second = try await second(finding)
            else { return false }
            var isDone = false
            // Both: which of the two entries goes depends on the directory's own word.
            for holder in [second.number, inode.linkedFrom].compactMap({ $0 }) {
                if rebuilt[holder] == nil { rebuilt[holder] = try await rebuildDirectory(holder) }
                isDone = isDone || rebuilt[holder] ?? false
            }
            return isDone
        }
    }

    /// The directory in which a check met another entry of a directory than its first.
    private func second(_ finding: Finding) async throws(CheckError) -> SeenInode? {
        guard let address = finding.found else { return nil }
        return try await seen(BlockAddress(address))
    }

    /// See `keepers`.
    func findKeepers() async throws(CheckError) -> [BlockAddress: InodeNumber] {
        if let keepers { return keepers }
        var keepers: [BlockAddress: InodeNumber] = [:]
        for finding in checker.report.findings where finding.kind == .directoryLinkedTwice {
            guard let number = finding.inode,
                let inode = checker.inodes[number.address],
                let second = try await second(finding),
                inode.parent == second.number
            else { continue }
            keepers[number.address] = second.number
        }
        self.keepers = keepers
        return keepers
    }
}
