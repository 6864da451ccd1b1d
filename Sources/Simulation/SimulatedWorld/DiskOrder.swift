// An observer of the disk. It sees what all nodes write, what is on its way, and what would be left if the power
// failed now; of what nodes have in memory it asks for their locks alone (W4).
//
//   W1. No record overwrites the transaction with which a replay would begin, by the header of the log that
//       is durable at that moment (J7 of the journal, seen from outside).
//   W2. Whoever is granted a resource group finds no metadata of another node on its way to a block that the
//       group does not count as metadata: the block may be given to somebody now.
//   W3. Whoever is granted an inode finds no metadata of it on its way from another node.
//   W4. No node writes metadata in place that another one has a lock on. Who brings home what a dead
//       node has left has locked it, or leaves it to the survivor that has.
//   W5. No data is written into a block of which a log still has an image, behind the begin of its durable header:
//       a replay would bring the image back over the data. A transaction of which something has not arrived, and
//       never will, is not in the log: nobody who recovers it asks for its names.
//   W6. When a log is called clean, every block of which it has an image behind the begin of its durable header is
//       durable in that version or a newer one, unless its group does not count it as metadata, or another log has
//       an image of it: then it was freed, and somebody else uses it now.
//   W7. No metadata is written in place into a block that was given up: that the group counts as something else in
//       its newest image, in place or durable in a log. (LoggedGroups.swift.) What a freed inode leaves
//       may go into a block that is free; a replay may bring home what another log has freed, as long as the
//       block is in quarantine.
//   W8. No metadata is written in place over a newer version of the block.

import DiskFormat
import FileSystem
import SimulatedMachine
import Vocabulary
import VolumeMaking

/// Judges every write into a log and every grant.
final class DiskOrder {
    private unowned let cluster: SimulatedCluster
    /// The first violation.
    private(set) var violation: String?
    /// Records of which it was asked what they overwrite.
    private(set) var judgedRecords = 0
    /// Grants that were judged.
    private(set) var judgedGrants = 0
    /// For each slot, of every block of which its log may have an image: the newest, behind the
    /// one before that if the newest is of the last transaction.
    private var logged: [[BlockAddress: [LoggedImage]]]
    /// For each slot, the last transaction that began, and the blocks of which it has images.
    private var latest: [(sequence: UInt64, blocks: [BlockAddress])]
    private var groups: LoggedGroups

    private struct LoggedImage {
        let sequence: UInt64
        let version: UInt64
    }

    init(_ cluster: SimulatedCluster) {
        self.cluster = cluster
        logged = Array(repeating: [:], count: cluster.plan.slots.count)
        latest = Array(repeating: (0, []), count: cluster.plan.slots.count)
        groups = LoggedGroups(cluster.plan.superblock, slots: cluster.plan.slots.count)
    }

    // MARK: Logs

    /// The power has failed: of what was not durable nobody knows what is there.
    func powerFailed() {
        for slot in logged.indices {
            forget(slot)
            groups.isUnknown(slot)
        }
    }

    /// A write of the header of a log begins.
    func headerBegins(_ index: Int, _ bytes: UnsafeRawBufferPointer) {
        let header = JournalHeader(unchecked: bytes)
        guard header.isClean else { return }
        if let begin = durableBegin(cluster.plan.slots[index]) {
            // The last transaction may be there in part, and then does not count; who has found
            // that leaves out its number.
            let places = logged[index].compactMapValues { images in
                images.last {
                    $0.sequence >= begin.tailSequence && $0.sequence + 1 < header.tailSequence
                }
            }
            for (address, image) in places.sorted(by: { $0.key < $1.key }) {
                judgePlace(address, image, cluster.plan.slots[index])
            }
        }
        // Nothing is in the log any more, and its numbers may be used again.
        forget(index)
        groups.isClean(index)
    }

    private func forget(_ index: Int) {
        logged[index] = [:]
        latest[index] = (0, [])
    }

    /// A write into the log of slot `index` has failed, or whoever wrote is cut off, and not all of it has arrived:
    /// the last transaction is not in the log, and never will be.
    func recordIsTorn(_ index: Int) {
        for address in latest[index].blocks {
            logged[index][address]?.removeAll { $0.sequence == latest[index].sequence }
        }
        latest[index].blocks = []
    }

    private func note(_ index: Int, _ address: BlockAddress, _ image: LoggedImage) {
        if latest[index].sequence != image.sequence { latest[index] = (image.sequence, []) }
        latest[index].blocks.append(address)
        let before = logged[index][address]?.last { $0.sequence != image.sequence }
        logged[index][address] = (before.map { [$0] } ?? []) + [image]
    }

    private func judgePlace(
        _ address: BlockAddress,
        _ image: LoggedImage,
        _ slot: SlotDescriptor
    ) {
        let superblock = cluster.plan.superblock
        let place = cluster.disk.durable.bytes(
            at: superblock.byteOffset(address),
            count: BlockHeader.byteCount
        ).withUnsafeBytes { StatedHeader($0) }
        if place.hasMagic, place.address == address, place.version >= image.version { return }
        let newer = logged.contains { ($0[address]?.last?.version ?? 0) > image.version }
        if newer { return }
        if let group = superblock.group(of: address), isGivenUp(address, in: group) { return }
        fail(
            "W6: the log of slot \(slot.slot) is called clean, and block \(address) of its transaction \(image.sequence) is not durable in version \(image.version)"
        )
    }

    /// A write into the log of slot `index` begins, behind its header.
    func recordBegins(_ index: Int, at offset: UInt64, _ bytes: UnsafeRawBufferPointer) {
        guard violation == nil else { return }
        judgedRecords += 1
        judgeRecord(cluster.plan.slots[index], bytes: offset..<offset + UInt64(bytes.count))
        eachBlock(of: bytes, at: offset) { address, block in
            let stated = StatedHeader(block)
            guard stated.hasMagic, stated.kind == .journalDescriptor, stated.address == address
            else { return groups.image(index, block) }
            groups.transaction(index, stated.owner)
            for entry in 0..<Int(JournalDescriptorHeader(fields: block).count) {
                let place =
                    JournalDescriptorHeader.entriesOffset + entry * JournalEntry.byteCount
                guard let image = JournalEntry(block, at: place) else { continue }
                note(
                    index,
                    image.address,
                    LoggedImage(sequence: stated.owner, version: image.version)
                )
            }
        }
    }

    private func judgeRecord(_ slot: SlotDescriptor, bytes: Range<UInt64>) {
        let superblock = cluster.plan.superblock
        guard let begin = durableBegin(slot) else { return }
        let address = slot.journalStart + UInt64(begin.tail)
        let offset = superblock.byteOffset(address)
        guard bytes.contains(offset) else { return }
        let first = cluster.disk.visible.bytes(at: offset, count: BlockHeader.byteCount)
        let stated = first.withUnsafeBytes { StatedHeader($0) }
        guard stated.hasMagic, stated.kind == .journalDescriptor, stated.address == address,
            stated.owner == begin.tailSequence
        else { return }
        fail(
            "W1: slot \(slot.slot) overwrites transaction \(begin.tailSequence) at \(address), with which a replay would begin"
        )
    }

    /// The header of a log that a replay would find now; nil if it finds nothing to do. One that is torn
    /// says nothing.
    private func durableBegin(_ slot: SlotDescriptor) -> JournalHeader? {
        let superblock = cluster.plan.superblock
        let header = cluster.disk.durable.bytes(
            at: superblock.byteOffset(slot.journalStart),
            count: Int(superblock.blockSize)
        )
        return header.withUnsafeBytes { bytes in
            guard
                let found = try? JournalHeader.read(
                    verifying: bytes,
                    at: slot.journalStart,
                    volume: superblock.volume,
                    slot: slot.slot
                )
            else { return nil }
            return found.header.isClean ? nil : found.header
        }
    }

    private func eachBlock(
        of bytes: UnsafeRawBufferPointer,
        at offset: UInt64,
        _ body: (BlockAddress, UnsafeRawBufferPointer) -> Void
    ) {
        let blockSize = Int(cluster.plan.superblock.blockSize)
        for start in stride(from: 0, through: bytes.count - blockSize, by: blockSize) {
            body(
                BlockAddress((offset + UInt64(start)) / UInt64(blockSize)),
                UnsafeRawBufferPointer(rebasing: bytes[start..<start + blockSize])
            )
        }
    }

    // MARK: Writes in place

    /// A write outside the logs begins.
    func writeBegins(_ host: String, at offset: UInt64, _ bytes: UnsafeRawBufferPointer) {
        guard violation == nil else { return }
        eachBlock(of: bytes, at: offset) { address, block in
            let stated = StatedHeader(block)
            if stated.hasMagic, stated.address == address {
                if let name = Self.covering(stated, block) { judge(host, address, name) }
                judgePlace(host, address, stated)
            } else {
                judgeData(host, address)
            }
        }
    }

    private func judge(_ host: String, _ address: BlockAddress, _ name: ResourceName) {
        for node in cluster.living where node.withdrawal == nil && node.member.host.name != host {
            let mode = node.volume.memory(under: name).covering
            guard mode != .null else { continue }
            fail(
                "W4: \(host) writes block \(address) of \(name) in place, which \(node.kernel.name) holds in \(mode)"
            )
        }
    }

    private func judgePlace(_ host: String, _ address: BlockAddress, _ stated: StatedHeader) {
        guard let kind = stated.kind else { return }
        if let state = groups.state(of: address, cluster.disk), state != .metadata,
            !mayBeWritten(stated, into: state)
        {
            fail("W7: \(host) writes a \(kind) into \(address), which is \(state) now")
        }
        let superblock = cluster.plan.superblock
        let place = cluster.disk.visible.bytes(
            at: superblock.byteOffset(address),
            count: BlockHeader.byteCount
        ).withUnsafeBytes { StatedHeader($0) }
        guard place.hasMagic, place.address == address, place.version > stated.version else {
            return
        }
        fail(
            "W8: \(host) writes block \(address) in version \(stated.version) over version \(place.version)"
        )
    }

    private func mayBeWritten(_ stated: StatedHeader, into state: BlockState) -> Bool {
        switch state {
        case .metadata: true
        case .data: false
        // A freed inode leaves one of generation 0, until the block is used again.
        case .free: stated.kind == .inode && stated.generation == 0
        case .quarantined: stated.kind == .inode && stated.generation == 0 || isReplayPending
        }
    }

    /// Whether there is a log that somebody may be replaying: its own node lives no more.
    private var isReplayPending: Bool {
        cluster.plan.slots.contains { slot in
            let isUsed = cluster.living.contains { $0.slot == slot.slot && $0.withdrawal == nil }
            return !isUsed && durableBegin(slot) != nil
        }
    }

    private func judgeData(_ host: String, _ address: BlockAddress) {
        for index in logged.indices {
            guard let image = logged[index][address]?.last else { continue }
            let slot = cluster.plan.slots[index]
            guard let begin = durableBegin(slot), begin.tailSequence <= image.sequence else {
                logged[index][address] = nil
                continue
            }
            fail(
                "W5: \(host) writes data into block \(address), of which the log of slot \(slot.slot) has an image in transaction \(image.sequence)"
            )
        }
    }

    /// The lock that covers a block in use, as it says itself.
    private static func covering(
        _ stated: StatedHeader,
        _ block: UnsafeRawBufferPointer
    ) -> ResourceName? {
        switch stated.kind {
        case .inode, .extentNode, .directoryIndex, .directoryLeaf, .extendedAttributes:
            .inode(
                InodeNumber(address: BlockAddress(stated.owner), generation: stated.generation)
            )
        case .resourceGroup: .resourceGroup(ResourceGroupRecord(fields: block).index)
        default: nil
        }
    }

    // MARK: Grants

    /// A lock of an inode or a group is granted now; `host` is the node's way to the disk.
    func granted(_ name: ResourceName, to host: String) {
        guard violation == nil, name.depth == 0 else { return }
        guard name.kind == .inode || name.kind == .resourceGroup else { return }
        judgedGrants += 1
        cluster.disk.eachWriteInFlight { writer, offset, bytes in
            guard writer != host else { return }
            let stated = StatedHeader(bytes)
            let address = BlockAddress(offset / UInt64(cluster.plan.superblock.blockSize))
            guard stated.hasMagic, stated.address == address else { return }
            let isBad =
                name.kind == .inode
                ? Self.covering(stated, bytes) == name
                : isGivenUp(address, in: UInt32(truncatingIfNeeded: name.number))
            guard isBad else { return }
            fail(
                "\(name.kind == .inode ? "W3" : "W2"): \(host) is granted \(name), and \(writer) is still writing block \(address)"
            )
        }
    }

    /// Whether the group, as everybody reads it, does not count a block of it as metadata.
    private func isGivenUp(_ address: BlockAddress, in group: UInt32) -> Bool {
        let superblock = cluster.plan.superblock
        let start = superblock.groupStart(group)
        let count = superblock.groupLength(group)
        // Its own first block holds the bits.
        guard address > start, address.rawValue - start.rawValue < UInt64(count) else {
            return false
        }
        var block = cluster.disk.visible.bytes(
            at: superblock.byteOffset(start),
            count: Int(superblock.blockSize)
        )
        return block.withUnsafeMutableBytes { bytes in
            let bitmap = GroupBitmap(block: bytes, blockCount: count)
            return bitmap[UInt32(address.rawValue - start.rawValue)] != .metadata
        }
    }

    private func fail(_ what: String) { violation = violation ?? what }
}
