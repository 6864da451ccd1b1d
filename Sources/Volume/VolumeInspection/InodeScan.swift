// Every inode of a volume, once: first those that directories lead to, from the root and from the orphan
// lists on; then those that nothing leads to, in blocks that are marked as metadata or whose group does
// not say.

import BlockIO
import DiskFormat
import Vocabulary

/// One inode of a scan.
struct ScannedInode {
    var inode: InspectedInode
    /// Whether directories lead to it, from the root or an orphan list.
    var isReachable: Bool
}

/// A scan over a volume.
final class InodeScan {
    private let inspector: Inspector
    private var met = BlockSet()
    private var pending: [InodeNumber] = []
    private var isReachable = true
    private var group: UInt32 = 0
    private var index: UInt32 = 0
    private var bitmap: AlignedBuffer?
    /// Entries that lead to no sound inode, and blocks of directories that cannot be read.
    private(set) var losses: UInt64 = 0
    /// Is told each address that an entry leads to, sound or not.
    private let onTarget: (BlockAddress) -> Void

    init(_ inspector: Inspector, onTarget: @escaping (BlockAddress) -> Void = { _ in }) {
        self.inspector = inspector
        self.onTarget = onTarget
        pending = inspector.slots.compactMap { $0?.orphanDirectory }.reversed()
        pending.append(inspector.superblock.root)
        for number in pending { onTarget(number.address) }
    }

    /// The next sound inode; nil at the end.
    func next() async -> ScannedInode? {
        while true {
            if let number = pending.popLast() {
                guard !met.contains(number.address) else { continue }
                guard let inode = await inspector.soundInode(number) else {
                    losses += 1
                    continue
                }
                met.insert(number.address)
                await expand(inode)
                return ScannedInode(inode: inode, isReachable: isReachable)
            }
            isReachable = false
            guard await findUnreachable() else { return nil }
        }
    }

    /// Puts what a directory leads to on the list.
    private func expand(_ inode: InspectedInode) async {
        guard inode.record.isDirectory else { return }
        let walk = TreeWalk(inspector, of: inode)
        while let node = await walk.next() {
            let (entries, problem) = node.entries
            if node.problem != nil || problem != nil { losses += 1 }
            for entry in entries {
                let target = entry.record.inode
                onTarget(target.address)
                guard inspector.superblock.group(of: target.address) != nil else {
                    losses += 1
                    continue
                }
                if !met.contains(target.address) { pending.append(target) }
            }
        }
    }

    /// Puts the next inode that nothing leads to on the list; false at the end of the volume.
    private func findUnreachable() async -> Bool {
        let superblock = inspector.superblock
        while group < superblock.groupCount {
            let length = superblock.groupLength(group)
            if index == 0 {
                bitmap = await inspector.soundGroup(group)
                index = 1
            }
            while index < length {
                let address = superblock.groupStart(group) + UInt64(index)
                let mark = bitmap.map { GroupBitmap(block: $0.bytes, blockCount: length)[index] }
                index += 1
                guard mark ?? .metadata == .metadata, !met.contains(address),
                    let number = await inspector.inodeNumber(in: address)
                else { continue }
                pending.append(number)
                return true
            }
            group += 1
            index = 0
        }
        return false
    }
}

extension Inspector {
    /// The block of a group; nil if it is not sound.
    func soundGroup(_ group: UInt32) async -> AlignedBuffer? {
        let start = superblock.groupStart(group)
        guard let block = await block(start),
            headerError(
                block.readOnly,
                at: start,
                kind: .resourceGroup,
                owner: UInt64(group),
                generation: 0
            ) == nil,
            (try? ResourceGroupRecord(checking: block.readOnly, at: start, in: superblock)) != nil
        else { return nil }
        return block
    }

    /// The number of the sound inode in a block; nil if there is none.
    fileprivate func inodeNumber(in address: BlockAddress) async -> InodeNumber? {
        guard let block = await block(address) else { return nil }
        let stated = StatedHeader(block.readOnly)
        guard stated.hasMagic, stated.kind == .inode, stated.owner == address.rawValue,
            (1...BlockHeader.largestNumber).contains(stated.generation)
        else { return nil }
        let number = InodeNumber(address: address, generation: stated.generation)
        return await soundInode(number) == nil ? nil : number
    }
}
