// `list PATH`, `tree N|PATH` and `attributes N|PATH`.

import BlockIO
import DiskFormat
import Vocabulary

extension Inspector {
    static let entryColumns: [SheetColumn] = [
        .text("key", 18), .number("inode", 10), .number("generation", 10), .text("type", 13),
        .text("name", 10),
    ]

    static func row(_ entry: ListedEntry) -> [SheetValue] {
        [
            .hexadecimalNumber(entry.record.key, digits: 16),
            .number(entry.record.inode.address.rawValue),
            .number(entry.record.inode.generation), .text(typeName(bits: entry.record.type)),
            .text(printable(entry.name)),
        ]
    }

    private func directory(_ reference: InodeReference) async throws(InspectionError)
        -> InspectedInode
    {
        let inode = try await inode(reference)
        let layout = inode.record.layout
        guard layout == .inlineDirectory || layout == .directoryIndex else {
            throw InspectionError(
                "\(inode.number): is no directory but a \(Self.typeName(inode.record.mode)) with "
                    + Self.layoutName(layout)
            )
        }
        sheet.field("inode", inode.number.address.rawValue)
        sheet.field("generation", inode.number.generation)
        sheet.field("parent", inode.record.parent.address.rawValue)
        sheet.field("entry count", inode.record.entryCount)
        sayProblem(of: inode)
        return inode
    }

    /// Shows the entries of a directory in the order of their keys; with `long` also what the inode
    /// of each says.
    ///
    /// - Throws: if there is no such inode, or it is no directory.
    package func showList(_ reference: InodeReference, long: Bool) async throws(InspectionError) {
        let inode = try await directory(reference)
        let extra: [SheetColumn] = [
            .text("mode", 7), .number("links", 5), .number("user", 6), .number("group", 6),
            .number("size", 12), .text("modified", 30),
        ]
        let columns = Self.entryColumns
        sheet.beginTable("entries", long ? columns.dropLast() + extra + [columns[4]] : columns)
        var problems: [String] = []
        var order = EntryOrder()
        func add(_ found: [String?]) {
            for case let problem? in found where problems.count < 1000 { problems.append(problem) }
        }
        let walk = TreeWalk(self, of: inode)
        while let node = await walk.next() {
            let (entries, problem) = node.entries
            add([node.problem, node.keyProblem, problem])
            for entry in entries {
                add(order.problems(of: entry, in: node) + [nameProblem(entry)])
                var row = Self.row(entry)
                if long {
                    let target = await soundInode(entry.record.inode)
                    add([targetProblem(entry, target)])
                    row.insert(contentsOf: Self.longCells(target?.record), at: row.count - 1)
                }
                sheet.row(row)
            }
        }
        sheet.end()
        if problems.isEmpty, order.count != inode.record.entryCount {
            add(["\(order.count) entries instead of \(inode.record.entryCount)"])
        }
        for problem in problems { sheet.damage(problem) }
    }

    private func targetProblem(_ entry: ListedEntry, _ target: InspectedInode?) -> String? {
        let name = printable(entry.name)
        guard let target else {
            return "\(name) leads to \(entry.record.inode), which is not sound"
        }
        guard target.record.mode >> 12 != UInt32(entry.record.type) else { return nil }
        return
            "\(name) leads to a \(Self.typeName(target.record.mode)), not to what its entry says"
    }

    private static func longCells(_ record: InodeRecord?) -> [SheetValue] {
        guard let record else { return [SheetValue](repeating: .nothing, count: 6) }
        return [
            .text("0" + String(record.mode & 0o7777, radix: 8)),
            .number(UInt64(record.linkCount)), .number(UInt64(record.user)),
            .number(UInt64(record.group)), .number(record.size), .text(civilText(record.modified)),
        ]
    }

    private func nameProblem(_ entry: ListedEntry) -> String? {
        entry.name.withUnsafeBytes { name in
            do throws(NameError) {
                try checkName(name)
            } catch {
                return "\(printable(entry.name)) cannot be a name"
            }
            let first = DirectoryEntryRecord.firstKey(forName: name)
            guard entry.record.key >> 8 == first >> 8 else {
                return "the key of \(printable(entry.name)) is not made of its hash, 0x"
                    + hexadecimal(first, digits: 16)
            }
            return nil
        }
    }

    /// Shows the nodes of a directory's tree, without the names.
    ///
    /// - Throws: if there is no such inode, or it is no directory.
    package func showTree(_ reference: InodeReference) async throws(InspectionError) {
        let inode = try await directory(reference)
        sheet.field("layout", Self.layoutName(inode.record.layout))
        sheet.beginTable(
            "nodes",
            [
                .number("height", 6), .number("block", 12), .number("records", 8),
                .text("first key", 18), .text("keys below", 18),
            ]
        )
        var problems: [String] = []
        let walk = TreeWalk(self, of: inode)
        while let node = await walk.next() {
            for case let problem? in [node.problem, node.keyProblem, node.entries.problem]
            where problems.count < 1000 {
                problems.append(problem)
            }
            sheet.row([
                .number(UInt64(node.height)), .number(node.address.rawValue),
                node.isThere ? .number(UInt64(node.statedCount)) : .nothing,
                .hexadecimalNumber(node.lower, digits: 16),
                .hexadecimalNumber(node.upper, digits: 16),
            ])
        }
        sheet.end()
        for problem in problems { sheet.damage(problem) }
    }

    // MARK: attributes

    /// Shows the extended attributes of an inode.
    ///
    /// - Throws: if there is no such inode.
    package func showAttributes(_ reference: InodeReference) async throws(InspectionError) {
        let inode = try await inode(reference)
        sheet.field("inode", inode.number.address.rawValue)
        sheet.field("generation", inode.number.generation)
        sayProblem(of: inode)
        await showAttributes(of: inode)
    }

    func showAttributes(of inode: InspectedInode) async {
        let record = inode.record
        let room = blockSize - InodeRecord.bodyOffset
        let length = min(Int(record.inlineAttributeLength), room)
        var problems: [String] = []
        var stream = Array(inode.block.readOnly.window(blockSize - length, length))
        var blocks: [UInt64] = []
        if record.attributeBlock != .none {
            if length > 0 {
                problems.append("attributes stand both in the inode and in blocks of their own")
            }
            let chain = await attributeChain(of: inode)
            stream += chain.stream
            blocks = chain.blocks.map(\.rawValue)
            if let problem = chain.problem { problems.append(problem) }
        }
        sheet.beginTable("attribute blocks", [.number("block", 12)])
        for block in blocks { sheet.row([.number(block)]) }
        sheet.end()
        if let problem = showAttributeStream(stream) { problems.append(problem) }
        for problem in problems { sheet.damage(problem) }
    }

    /// Shows the records of a stream; returns what is wrong with it.
    private func showAttributeStream(_ stream: [UInt8]) -> String? {
        sheet.beginTable(
            "attributes",
            [.text("name", 24), .number("length", 6), .text("value", 10)]
        )
        defer { sheet.end() }
        return stream.withUnsafeBytes { bytes in
            var offset = 0
            while offset < bytes.count {
                guard let record = AttributeRecord(bytes, at: offset) else {
                    return "\(bytes.count - offset) bytes of the attributes are no whole record"
                }
                let nameStart = offset + AttributeRecord.fixedByteCount
                let name = bytes.window(nameStart, Int(record.nameLength))
                let value = bytes.window(
                    nameStart + Int(record.nameLength),
                    Int(record.valueLength)
                )
                sheet.row([
                    .text(printable(name)), .number(UInt64(value.count)), .text(printable(value)),
                ])
                offset += record.byteCount
            }
            return nil
        }
    }

    /// What the chain of an inode's attribute blocks holds, as far as it can be read.
    func attributeChain(of inode: InspectedInode) async -> (
        stream: [UInt8], blocks: [BlockAddress], problem: String?
    ) {
        var stream: [UInt8] = []
        var blocks: [BlockAddress] = []
        var next = inode.record.attributeBlock
        // A chain that bites its tail becomes longer than a stream can be (I2).
        while next != .none {
            guard superblock.group(of: next) != nil else {
                return (stream, blocks, "the chain of attributes leads to \(next)")
            }
            guard !blocks.contains(next), stream.count <= AttributeRecord.longestStream else {
                return (stream, blocks, "the chain of attributes has no end")
            }
            blocks.append(next)
            guard let block = await block(next) else {
                return (stream, blocks, "\(next) cannot be read")
            }
            if let error = headerError(
                block.readOnly,
                at: next,
                kind: .extendedAttributes,
                owner: inode.number.address.rawValue,
                generation: inode.number.generation
            ) {
                return (stream, blocks, "\(error)")
            }
            let header = AttributeBlockHeader(unchecked: block.readOnly)
            let room = blockSize - AttributeBlockHeader.bytesOffset
            guard (1...UInt32(room)).contains(header.byteCount) else {
                return (stream, blocks, "\(next) says \(header.byteCount) bytes of attributes")
            }
            stream += block.readOnly.window(
                AttributeBlockHeader.bytesOffset,
                Int(header.byteCount)
            )
            next = header.next
        }
        return (stream, blocks, nil)
    }

    /// For `block N`.
    func showAttributeBlock(_ block: AlignedBuffer, at address: BlockAddress) {
        let header = AttributeBlockHeader(unchecked: block.readOnly)
        sheet.field("next", .address(header.next))
        sheet.field("bytes", header.byteCount)
        let room = blockSize - AttributeBlockHeader.bytesOffset
        guard (1...UInt32(room)).contains(header.byteCount) else {
            sheet.damage("\(address) says \(header.byteCount) bytes of attributes")
            return
        }
        let bytes = block.readOnly.window(AttributeBlockHeader.bytesOffset, Int(header.byteCount))
        // A record may begin in the block before, so that only the bytes can be shown.
        sheet.field("begins with", printable(bytes.prefix(64)))
    }
}

/// Whether the entries of a directory stand in the order of their keys, and each name once.
private struct EntryOrder {
    private(set) var count: UInt64 = 0
    private var last: UInt64?
    /// Names of one hash, which stand together.
    private var names: [[UInt8]] = []

    /// What is wrong with the place of the next entry.
    mutating func problems(of entry: ListedEntry, in node: TreeNode) -> [String?] {
        count += 1
        let key = entry.record.key
        var problems: [String?] = []
        let isOrdered = last.map { $0 < key } ?? true
        if !isOrdered || key < node.lower || key >= node.upper {
            problems.append("the entry \(printable(entry.name)) is out of order")
        }
        let isOfNextHash = last.map { $0 >> 8 != key >> 8 } ?? true
        if isOfNextHash || names.count >= Int(DirectoryEntryRecord.maximumCollisions) {
            names.removeAll(keepingCapacity: true)
        }
        if names.contains(entry.name) {
            problems.append("the name \(printable(entry.name)) is there twice")
        }
        names.append(entry.name)
        last = key
        return problems
    }
}
