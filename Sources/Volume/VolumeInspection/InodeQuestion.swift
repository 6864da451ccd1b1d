// `inode N|PATH`, `extents N|PATH`.

import BlockIO
import DiskFormat
import Vocabulary
import VolumeChecking

extension Inspector {
    /// Shows all fields of an inode, what its body holds and its attributes.
    ///
    /// - Throws: if there is no such inode.
    package func showInode(_ reference: InodeReference) async throws(InspectionError) {
        let inode = try await inode(reference)
        sheet.field("inode", inode.number.address.rawValue)
        sheet.field(
            "marked",
            await mark(of: inode.number.address).map { .text($0.description) } ?? .nothing
        )
        showHeader(inode.block, at: inode.number.address)
        sheet.beginSection("fields")
        showInodeFields(inode.block, at: inode.number.address)
        sheet.end()
        if inode.number.generation == 0 {
            sheet.note("the inode was freed: what is shown is what is left of it")
        }
        await showAttributes(of: inode)
    }

    /// The fields and the body of an inode's block, right or wrong.
    func showInodeFields(_ block: AlignedBuffer, at address: BlockAddress) {
        let bytes = block.readOnly
        let record = InodeRecord(unchecked: bytes)
        sheet.field("type", Self.typeName(record.mode))
        sheet.field("mode", .text("0" + String(record.mode, radix: 8)))
        sheet.field("user", record.user)
        sheet.field("group", record.group)
        sheet.field("link count", record.linkCount)
        sheet.field("size", record.size)
        sheet.field("block count", record.blockCount)
        sheet.field("accessed", civilText(record.accessed))
        sheet.field("modified", civilText(record.modified))
        sheet.field("changed", civilText(record.changed))
        sheet.field("born", civilText(record.born))
        sheet.field("flags", Self.flagNames(record.flags))
        if record.flags.contains(.orphan) { sheet.field("orphan slot", record.orphanSlot.rawValue) }
        sheet.field("device", .hexadecimalNumber(UInt64(record.device)))
        sheet.field(
            "layout",
            InodeLayout(rawValue: bytes[152]) == nil
                ? "unknown (\(bytes[152]))" : Self.layoutName(record.layout)
        )
        sheet.field("height", UInt64(record.height))
        sheet.field("inline attribute length", UInt64(record.inlineAttributeLength))
        sheet.field("root count", UInt64(record.rootCount))
        sheet.field("root length", UInt64(record.rootLength))
        sheet.field("attribute block", .address(record.attributeBlock))
        sheet.field("entry count", record.entryCount)
        sheet.field("parent", .address(record.parent.address))
        sheet.field("parent generation", record.parent.generation)
        sayIfDamaged { () throws(FormatError) in
            _ = try InodeRecord(fields: bytes, at: address)
        }
        if !record.hasLayoutOfType {
            sheet.damage(
                "mode 0\(String(record.mode, radix: 8)) does not go with \(Self.layoutName(record.layout))"
            )
        }
        if !record.flags.subtracting(Self.namedFlags.reduce([]) { $0.union($1.flag) }).isEmpty {
            sheet.damage("the inode has flags that are not known")
        } else if !record.flags.isDisjoint(with: .ofFiles),
            !record.canHaveFileFlags || !superblock.features.hasFileFlags
        {
            sheet.damage("the inode has flags that it cannot have on this volume")
        }
        if StatedHeader(bytes).owner != address.rawValue, place(of: address).isInGroup {
            sheet.damage("the inode says that it belongs to block \(StatedHeader(bytes).owner)")
        }
        showBody(block, at: address, record)
    }

    private func showBody(_ block: AlignedBuffer, at address: BlockAddress, _ record: InodeRecord) {
        switch record.layout {
        case .none: return
        case .inlineData:
            let room = max(0, record.bodyLength(blockSize: blockSize))
            let length = Int(min(record.size, UInt64(room)))
            let data = block.readOnly.window(InodeRecord.bodyOffset, length)
            if record.isSymbolicLink {
                sheet.field("target", printable(data))
            } else {
                sheet.field("data", printable(data.prefix(Self.shownData)))
                if length > Self.shownData {
                    sheet.note("the first \(Self.shownData) of \(length) bytes; 'cat' has all")
                }
            }
        case .extents, .inlineDirectory, .directoryIndex:
            let node = TreeNode(rootIn: block, at: address, record)
            if let problem = node.problem { sheet.damage(problem) }
            showRoot(node)
        }
    }

    /// Bytes of inline data that are shown.
    private static let shownData = 256

    private func showRoot(_ node: TreeNode) {
        if node.height > 0 {
            sheet.beginTable("root", [.text("key", 18), .number("child", 12)])
            for pointer in node.pointers {
                sheet.row([
                    .hexadecimalNumber(pointer.key, digits: 16), .address(pointer.child),
                ])
            }
            sheet.end()
        } else if node.kind == .extentNode {
            sheet.beginTable("root", Self.extentColumns)
            for extent in node.extents { sheet.row(Self.row(extent)) }
            sheet.end()
        } else {
            let (entries, problem) = node.entries
            sheet.beginTable("root", Self.entryColumns)
            for entry in entries { sheet.row(Self.row(entry)) }
            sheet.end()
            if let problem { sheet.damage(problem) }
        }
    }

    // MARK: words

    static func typeName(_ mode: UInt32) -> String {
        typeName(bits: UInt8(truncatingIfNeeded: (mode & 0o170000) >> 12))
    }

    /// The name of a type as directory entries hold it: `st_mode >> 12`.
    static func typeName(bits: UInt8) -> String {
        switch bits {
        case 1: "fifo"
        case 2: "character device"
        case 4: "directory"
        case 6: "block device"
        case 8: "file"
        case 10: "symbolic link"
        case 12: "socket"
        default: "unknown (\(bits))"
        }
    }

    static func layoutName(_ layout: InodeLayout) -> String {
        switch layout {
        case .inlineData: "inline data"
        case .extents: "extents"
        case .inlineDirectory: "inline directory"
        case .directoryIndex: "directory index"
        case .none: "nothing"
        }
    }

    private static let namedFlags: [(flag: InodeFlags, name: String)] = [
        (.system, "system"), (.orphan, "orphan"), (.sharedWriters, "shared writers"),
        (.immutable, "immutable"),
        (.appendOnly, "append only"), (.noAccessTime, "no access time"), (.noDump, "no dump"),
    ]

    private static func flagNames(_ flags: InodeFlags) -> String {
        var names = namedFlags.filter { flags.contains($0.flag) }.map(\.name)
        let unknown = flags.subtracting(namedFlags.reduce([]) { $0.union($1.flag) })
        if !unknown.isEmpty {
            names.append("unknown (0x" + hexadecimal(UInt64(unknown.rawValue)) + ")")
        }
        return names.isEmpty ? "none" : names.joined(separator: ", ")
    }

    // MARK: extents

    static let extentColumns: [SheetColumn] = [
        .number("logical", 12), .number("address", 12), .number("length", 8), .text("state", 10),
    ]

    static func row(_ extent: Extent) -> [SheetValue] {
        [
            .number(extent.logical), .number(extent.physical.rawValue),
            .number(UInt64(extent.length)), .text(extent.isUnwritten ? "unwritten" : "data"),
        ]
    }

    /// Shows the whole tree of extents of a file: its nodes, extents and holes, in order.
    ///
    /// - Throws: if there is no such inode, or its body holds no extents.
    package func showExtents(_ reference: InodeReference) async throws(InspectionError) {
        let inode = try await inode(reference)
        guard inode.record.layout == .extents else {
            throw InspectionError(
                "\(inode.number): has no extents but \(Self.layoutName(inode.record.layout)); see "
                    + "'inode \(inode.number.address.rawValue)'"
            )
        }
        sheet.field("inode", inode.number.address.rawValue)
        sheet.field("generation", inode.number.generation)
        sheet.field("size", inode.record.size)
        sayProblem(of: inode)
        sheet.beginTable(
            "tree",
            [
                .text("what", 10), .number("height", 6), .number("logical", 12),
                .number("address", 12), .number("length", 10),
            ]
        )
        var totals = ExtentTotals()
        let walk = TreeWalk(self, of: inode)
        while let node = await walk.next() { show(node, &totals) }
        sheet.end()
        let end = Self.blocks(inode.record.size, blockSize)
        if totals.isComplete, totals.end < end {
            sheet.note("from block \(totals.end) to the end, block \(end), there is a hole")
        }
        sheet.field("extents", totals.extents)
        sheet.field("data blocks", totals.blocks)
        sheet.field("tree blocks", totals.nodes)
        for problem in totals.problems { sheet.damage(problem) }
        if totals.isComplete { await compare(inode, totals, end: end) }
    }

    /// What the inode says of its size and blocks, with what was found.
    private func compare(_ inode: InspectedInode, _ totals: ExtentTotals, end: UInt64) async {
        if totals.writtenEnd > end, inode.record.isRegular {
            sheet.damage(
                "\(totals.writtenEnd) blocks were written, \(end) are covered by the size"
            )
        }
        let attributes = await attributeChain(of: inode).blocks.count
        let found = 1 + totals.nodes + totals.blocks + UInt64(attributes)
        if inode.record.blockCount != found {
            sheet.damage("the inode says \(inode.record.blockCount) blocks, and has \(found)")
        }
    }

    /// Blocks that so many bytes fill.
    static func blocks(_ size: UInt64, _ blockSize: Int) -> UInt64 {
        size / UInt64(blockSize) + (size % UInt64(blockSize) == 0 ? 0 : 1)
    }

    private struct ExtentTotals {
        var extents: UInt64 = 0
        var blocks: UInt64 = 0
        var nodes: UInt64 = 0
        /// The first block behind the last extent.
        var end: UInt64 = 0
        /// The same of those that were written.
        var writtenEnd: UInt64 = 0
        var isComplete = true
        var problems: [String] = []

        mutating func add(_ problem: String?) {
            guard let problem else { return }
            isComplete = false
            if problems.count < 1000 { problems.append(problem) }
        }
    }

    private func show(_ node: TreeNode, _ totals: inout ExtentTotals) {
        totals.add(node.problem)
        totals.add(node.keyProblem)
        let height = SheetValue.number(UInt64(node.height))
        if !node.isRoot {
            totals.nodes += 1
            sheet.row([
                .text(node.isThere ? "node" : "lost node"), height,
                .number(node.lower), .number(node.address.rawValue),
                .number(UInt64(node.statedCount)),
            ])
        }
        for extent in node.extents {
            let isOrdered =
                extent.logical >= totals.end && extent.logical >= node.lower
                && extent.logicalEnd <= node.upper
            if !extent.isPlausible(in: superblock) {
                totals.add("no extent can be like that of logical block \(extent.logical)")
            } else if !isOrdered {
                totals.add("the extent of logical block \(extent.logical) is out of order")
            }
            if isOrdered, extent.logical > totals.end {
                sheet.row([
                    .text("hole"), height, .number(totals.end), .nothing,
                    .number(extent.logical - totals.end),
                ])
            }
            sheet.row([
                .text(extent.isUnwritten ? "unwritten" : "extent"), height,
                .number(extent.logical), .number(extent.physical.rawValue),
                .number(UInt64(extent.length)),
            ])
            totals.extents += 1
            totals.blocks += UInt64(extent.length)
            totals.end = max(totals.end, extent.logicalEnd)
            if !extent.isUnwritten { totals.writtenEnd = max(totals.writtenEnd, extent.logicalEnd) }
        }
    }
}

extension BlockPlace {
    /// Whether inodes can stand there.
    var isInGroup: Bool {
        if case .group = self { return true }
        return false
    }
}
