// `block N`: what stands in a block, by what its header says, and what the layout and the group say.

import BlockIO
import DiskFormat
import Vocabulary

extension Inspector {
    /// Tells what a block is and decodes it.
    ///
    /// - Throws: if the volume has no such block.
    package func showBlock(_ number: UInt64) async throws(InspectionError) {
        let address = try checkedAddress(number)
        sheet.field("block", number)
        sheet.field("place", "\(place(of: address))")
        let mark = await mark(of: address)
        sheet.field("marked", mark.map { .text($0.description) } ?? .nothing)
        guard let block = await block(address) else { return }
        decode(block, at: address, marked: mark)
    }

    /// The address of a block that the volume has.
    func checkedAddress(_ number: UInt64) throws(InspectionError) -> BlockAddress {
        guard number < superblock.blockCount else {
            throw InspectionError(
                "block \(number): the volume has blocks 0 to \(superblock.blockCount - 1)"
            )
        }
        return BlockAddress(number)
    }

    /// The bytes of a block as a table of 16 to a line; lines of zeros are left out.
    ///
    /// - Throws: if the volume has no such block, or it cannot be read.
    package func hexadecimalDump(
        ofBlock number: UInt64,
        to write: (String) -> Void
    ) async throws(InspectionError) {
        let address = try checkedAddress(number)
        guard let block = await block(address) else {
            throw InspectionError("\(address) cannot be read")
        }
        for offset in stride(from: 0, to: blockSize, by: 16) {
            let bytes = block.readOnly.window(offset, 16)
            guard !bytes.isAllZero else { continue }
            let cells = bytes.map { hexadecimal(UInt64($0), digits: 2) }
            let text = String(
                decoding: bytes.map { (0x20..<0x7F).contains($0) ? $0 : UInt8(ascii: ".") },
                as: UTF8.self
            )
            write(
                hexadecimal(UInt64(offset), digits: 5) + "  "
                    + cells[..<8].joined(separator: " ") + "  "
                    + cells[8...].joined(separator: " ") + "  |" + text + "|\n"
            )
        }
    }

    /// Decodes whatever a block holds. What is wrong is said.
    private func decode(_ block: AlignedBuffer, at address: BlockAddress, marked: BlockState?) {
        let stated = StatedHeader(block.readOnly)
        guard stated.hasMagic else {
            decodeHeaderless(block, at: address, marked: marked)
            return
        }
        showHeader(block, at: address)
        guard let kind = stated.kind else { return }
        sheet.beginSection(kind.description)
        switch kind {
        case .superblock: showSuperblockFields(block.readOnly)
        case .slotDescriptor: showSlotDescriptor(block, at: address)
        case .volumeGuard: showGuard(block, at: address)
        case .slotHeartbeat: showHeartbeat(block, at: address)
        case .resourceGroup: showGroupFields(block, at: address)
        case .inode: showInodeFields(block, at: address)
        case .extentNode, .directoryIndex, .directoryLeaf:
            showNode(block, kind, at: address, marked)
        case .extendedAttributes: showAttributeBlock(block, at: address)
        case .journalHeader: showJournalHeader(block, at: address)
        case .journalDescriptor: showDescriptor(block, at: address)
        case .journalCommit:
            let commit = JournalCommitHeader(fields: block.readOnly)
            sheet.field("block count", commit.blockCount)
            sheet.field("checksum", .hexadecimalNumber(UInt64(commit.checksum), digits: 8))
        case .quotaShare: showQuotaShare(block)
        case .quotaTable: showQuotaTable(block)
        }
        sheet.end()
    }

    /// A block without a header: what it can be depends on where it stands.
    private func decodeHeaderless(
        _ block: AlignedBuffer,
        at address: BlockAddress,
        marked: BlockState?
    ) {
        let isZero = block.readOnly.isAllZero
        sheet.field("content", isZero ? "zeros" : "bytes without a header")
        let place = place(of: address)
        switch place {
        case .reserved, .unused, .journal(_, 1...): break
        case .slotDescriptor(let slot) where slot.rawValue >= superblock.slotCount && isZero: break
        case .group where marked != .metadata: break
        case .group:
            sheet.damage("\(address) is marked as metadata and has no header")
        default: sheet.damage("\(address) should be \(place) and has no header")
        }
    }

    /// The 64 bytes that every metadata block begins with, and whether they are right.
    @discardableResult
    func showHeader(_ block: AlignedBuffer, at address: BlockAddress) -> StatedHeader {
        let stated = StatedHeader(block.readOnly)
        let computed = BlockHeader.checksum(block.readOnly)
        sheet.beginSection("header")
        sheet.field("kind", stated.kind?.description ?? "unknown (\(stated.kindNumber))")
        sheet.field("revision", UInt64(stated.revision))
        sheet.field("checksum", .hexadecimalNumber(UInt64(stated.checksum), digits: 8))
        sheet.field("computed checksum", .hexadecimalNumber(UInt64(computed), digits: 8))
        sheet.field("address", stated.address.rawValue)
        sheet.field("version", stated.version)
        sheet.field("volume", stated.volume.description)
        sheet.field("owner", stated.owner)
        sheet.field("generation", stated.generation)
        do throws(FormatError) {
            _ = try BlockHeader(
                verifying: block.readOnly,
                at: address,
                volume: superblock.volume
            )
        } catch {
            // In a journal stand images of blocks of elsewhere.
            if case .journal(_, 1...) = place(of: address), case .misplaced = error {
                sheet.note("\(error): an image in a journal")
            } else {
                sheet.damage(error)
            }
        }
        sheet.end()
        return stated
    }

    private func showNode(
        _ block: AlignedBuffer,
        _ kind: BlockKind,
        at address: BlockAddress,
        _ marked: BlockState?
    ) {
        let header = TreeNodeHeader(fields: block.readOnly)
        sheet.field("height", UInt64(header.height))
        sheet.field("records", UInt64(header.count))
        if kind == .directoryLeaf { sheet.field("used bytes", header.usedBytes) }
        let node = TreeNode(block, kind: kind, at: address, header)
        if let problem = node.problem {
            // What is free may be left in any state.
            if marked == .quarantined || marked == .free {
                sheet.note(problem)
            } else {
                sheet.damage(problem)
            }
        }
        if node.height > 0 {
            sheet.beginTable("pointers", [.number("key", 20), .number("child", 12)])
            for pointer in node.pointers {
                let key = SheetValue.hexadecimalNumber(pointer.key, digits: 16)
                sheet.row([key, .address(pointer.child)])
            }
            sheet.end()
        } else if kind == .directoryLeaf {
            sheet.beginTable("entries", Self.entryColumns)
            for entry in node.entries.entries { sheet.row(Self.row(entry)) }
            sheet.end()
            if let problem = node.entries.problem { sheet.damage(problem) }
        } else {
            sheet.beginTable("extents", Self.extentColumns)
            for extent in node.extents { sheet.row(Self.row(extent)) }
            sheet.end()
            for extent in node.extents where !extent.isPlausible(in: superblock) {
                sheet.damage("no extent can be like that of logical block \(extent.logical)")
            }
        }
    }
}
