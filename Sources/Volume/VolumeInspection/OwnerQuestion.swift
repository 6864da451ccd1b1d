// `owner BLOCK` and `path N`: answered by a scan over all inodes.

import BlockIO
import DiskFormat
import Vocabulary

extension Inspector {
    /// Shows what a block is by its place and its mark, and which inodes have it: all of them, if
    /// several claim it.
    ///
    /// - Throws: if the volume has no such block.
    package func showOwner(_ number: UInt64) async throws(InspectionError) {
        let address = try checkedAddress(number)
        let place = place(of: address)
        sheet.field("block", number)
        sheet.field("place", "\(place)")
        let mark = await mark(of: address)
        sheet.field("marked", mark.map { .text($0.description) } ?? .nothing)
        guard place.isInGroup else { return }
        if let block = await block(address) {
            let stated = StatedHeader(block.readOnly)
            if stated.hasMagic {
                sheet.field("header says", stated.kind?.description ?? "unknown")
                sheet.field("header owner", stated.owner)
            }
        }
        sheet.beginTable(
            "owners",
            [
                .number("inode", 10), .number("generation", 10), .text("reachable", 9),
                .text("as", 20), .number("logical", 12),
            ]
        )
        var count = 0
        let scan = InodeScan(self)
        while let found = await scan.next() {
            for use in await uses(of: address, by: found.inode) {
                count += 1
                sheet.row([
                    .number(found.inode.number.address.rawValue),
                    .number(found.inode.number.generation), .flag(found.isReachable),
                    .text(use.what), use.logical.map { .number($0) } ?? .nothing,
                ])
            }
        }
        sheet.end()
        judge(owners: count, mark: mark, address)
        saySkipped(scan)
    }

    private func judge(owners: Int, mark: BlockState?, _ address: BlockAddress) {
        if owners > 1 { sheet.damage("\(address) is used \(owners) times") }
        switch mark {
        case .data? where owners == 0, .metadata? where owners == 0:
            sheet.damage("\(address) is marked in use, and no inode that can be read has it")
        case .free? where owners > 0, .quarantined? where owners > 0:
            sheet.damage("\(address) is in use and not marked so")
        default: break
        }
    }

    private func saySkipped(_ scan: InodeScan) {
        guard scan.losses > 0 else { return }
        sheet.damage(
            "\(scan.losses) inodes or parts of directories could not be read: the answer may lack what "
                + "they hold"
        )
    }

    private struct BlockUsage {
        var what: String
        var logical: UInt64?
    }

    /// What an inode has a block for.
    private func uses(of address: BlockAddress, by inode: InspectedInode) async -> [BlockUsage] {
        var found: [BlockUsage] = []
        if inode.number.address == address { found.append(BlockUsage(what: "inode")) }
        let layout = inode.record.layout
        if layout == .extents || layout == .directoryIndex {
            let walk = TreeWalk(self, of: inode)
            while let node = await walk.next() {
                if !node.isRoot, node.address == address {
                    let what = node.isThere ? "\(node.kind)" : "\(node.kind), damaged"
                    found.append(BlockUsage(what: what, logical: node.lower))
                }
                for extent in node.extents where extent.isPlausible(in: superblock) {
                    guard address >= extent.physical,
                        address - extent.physical < UInt64(extent.length)
                    else { continue }
                    found.append(
                        BlockUsage(
                            what: extent.isUnwritten ? "unwritten data" : "data",
                            logical: extent.logical + (address - extent.physical)
                        )
                    )
                }
            }
        }
        if inode.record.attributeBlock != .none {
            let chain = await attributeChain(of: inode)
            if chain.blocks.contains(address) { found.append(BlockUsage(what: "attributes")) }
        }
        return found
    }

    // MARK: names

    /// Shows all names of an inode: the entries that lead to it, with the paths of their
    /// directories.
    ///
    /// - Throws: if there is no such inode.
    package func showNames(_ reference: InodeReference) async throws(InspectionError) {
        let inode = try await inode(reference)
        sheet.field("inode", inode.number.address.rawValue)
        sheet.field("generation", inode.number.generation)
        sheet.field("type", Self.typeName(inode.record.mode))
        sheet.field("link count", inode.record.linkCount)
        sayProblem(of: inode)
        if inode.number == superblock.root {
            sheet.field("place", "/")
            return
        }
        if let slot = orphanSlot(of: inode.number) {
            sheet.field("place", "the orphan directory of \(slot)")
            return
        }
        let scan = InodeScan(self)
        var names: UInt64 = 0
        var parents: [InodeNumber] = []
        sheet.beginTable("names", [.number("directory", 10), .text("path", 10)])
        while let found = await scan.next() {
            let directory = found.inode
            guard directory.record.isDirectory else { continue }
            let walk = TreeWalk(self, of: directory)
            while let node = await walk.next() {
                for entry in node.entries.entries where entry.record.inode == inode.number {
                    if orphanSlot(of: directory.number) == nil { parents.append(directory.number) }
                    let path = await path(of: directory) + "/" + printable(entry.name)
                    names += 1
                    sheet.row([.number(directory.number.address.rawValue), .text(path)])
                }
            }
        }
        sheet.end()
        if names == 0 { sheet.damage("\(inode.number): no name leads to it") }
        if scan.losses == 0 { compare(inode, parents) }
        saySkipped(scan)
    }

    /// What the inode says of its names, with what was found: one for each link, and of a directory
    /// the one in its parent.
    private func compare(_ inode: InspectedInode, _ parents: [InodeNumber]) {
        if inode.record.isDirectory {
            if parents.count > 1 { sheet.damage("a directory has \(parents.count) names") }
            for parent in parents where parent != inode.record.parent {
                sheet.damage("its parent is \(inode.record.parent), its name is in \(parent)")
            }
        } else if parents.count != Int(inode.record.linkCount) {
            sheet.damage("\(parents.count) names instead of \(inode.record.linkCount)")
        }
        if inode.record.flags.contains(.orphan) != parents.isEmpty {
            sheet.damage(
                parents.isEmpty
                    ? "it has no name and is not marked as an orphan"
                    : "it is marked as an orphan and has names"
            )
        }
    }

    private func orphanSlot(of number: InodeNumber) -> SlotIndex? {
        slots.lazy.compactMap { $0 }.first { $0.orphanDirectory == number }?.slot
    }

    /// The path of a directory, found by its parents; it begins in brackets where they do not lead
    /// to the root.
    private func path(of directory: InspectedInode) async -> String {
        var names: [String] = []
        var here = directory
        var met: Set<UInt64> = []
        while here.number != superblock.root {
            if let slot = orphanSlot(of: here.number) {
                return "(orphans of \(slot))" + names.joined()
            }
            guard met.insert(here.number.address.rawValue).inserted,
                let parent = await soundInode(here.record.parent),
                let name = await name(of: here.number, in: parent)
            else { return "(\(here.number))" + names.joined() }
            names.insert("/" + printable(name), at: 0)
            here = parent
        }
        return names.joined()
    }

    private func name(of number: InodeNumber, in directory: InspectedInode) async -> [UInt8]? {
        let walk = TreeWalk(self, of: directory)
        while let node = await walk.next() {
            if let entry = node.entries.entries.first(where: { $0.record.inode == number }) {
                return entry.name
            }
        }
        return nil
    }
}
