// `superblock`: shown even where nothing of it verifies, since then it is most of interest.

package import BlockIO
import DiskFormat
import Vocabulary
import VolumeChecking

extension Inspector {
    /// Shows the superblock, and how its copies do; with `copy` (from 1) that copy instead. Needs no
    /// volume that could be opened.
    ///
    /// - Throws: if the device is too small or cannot be read, or there is no such copy.
    package static func showSuperblock(
        of device: any BlockDevice,
        copy: UInt32?,
        sheet: Sheet
    ) async throws(InspectionError) {
        if let copy, copy > 0 {
            let inspector = try await open(device, sheet: sheet, replayed: false)
            try await inspector.showCopy(copy)
            return
        }
        let limit = Int(Superblock.blockSizes.upperBound)
        guard device.byteCount >= Superblock.byteOffset + UInt64(Superblock.byteCount) else {
            throw InspectionError(
                "has \(device.byteCount) bytes; no superblock fits into that; use the whole image"
            )
        }
        let unit = UInt64(Superblock.byteCount)
        let rest = (device.byteCount - Superblock.byteOffset) / unit * unit
        let buffer = AlignedBuffer(zeroed: limit)
        do throws(DeviceError) {
            let part = buffer.bytes.window(0, Int(min(UInt64(limit), rest)))
            try await device.read(part, at: Superblock.byteOffset)
        } catch {
            throw InspectionError("the superblock cannot be read: \(error)")
        }
        sheet.field("byte offset", Superblock.byteOffset)
        showSuperblockFields(buffer.readOnly, sheet)
        if let superblock = judge(buffer, device, sheet) {
            let inspector = try? await open(device, sheet: sheet, replayed: false)
            if inspector?.superblock == superblock { await inspector?.showCopies() }
        }
    }

    /// Says what is wrong with a superblock; returns it if it is sound.
    private static func judge(
        _ buffer: AlignedBuffer,
        _ device: any BlockDevice,
        _ sheet: Sheet
    ) -> Superblock? {
        do throws(FormatError) {
            let superblock = try Superblock(verifying: buffer.readOnly, at: nil)
            let address = Superblock.address(blockSize: superblock.blockSize)
            _ = try Superblock(verifying: buffer.readOnly, at: address)
            try superblock.checkFeatures(forWriting: true)
            let needed = superblock.byteOffset(BlockAddress(superblock.blockCount))
            guard needed <= device.byteCount else {
                throw .truncated(needed: needed, found: device.byteCount)
            }
            return superblock
        } catch {
            sheet.damage(error)
            return nil
        }
    }

    private func showCopy(_ number: UInt32) async throws(InspectionError) {
        let groups = superblock.groupsWithCopy
        guard number <= UInt32(groups.count) else {
            throw InspectionError(
                groups.isEmpty
                    ? "copy \(number): a volume of one group has no copies of its superblock"
                    : "copy \(number): the superblock has copies 1 to \(groups.count)"
            )
        }
        let address = superblock.copyAddress(inGroup: groups[Int(number) - 1])
        sheet.field("copy", number)
        sheet.field("block", address.rawValue)
        guard let block = await block(address) else { return }
        showHeader(block, at: address)
        showSuperblockFields(block.readOnly)
        do throws(FormatError) {
            if try Superblock(verifying: block.readOnly, at: address) != superblock {
                sheet.damage("copy \(number) differs from the superblock")
            }
        } catch {
            sheet.damage(error)
        }
    }

    /// A line for each copy.
    private func showCopies() async {
        sheet.beginTable(
            "copies",
            [.number("copy", 4), .number("group", 6), .number("block", 12), .text("state", 8)]
        )
        var damages: [String] = []
        for (index, group) in superblock.groupsWithCopy.enumerated() {
            let address = superblock.copyAddress(inGroup: group)
            var state = "unreadable"
            if let block = await block(address) {
                do throws(FormatError) {
                    let copy = try Superblock(verifying: block.readOnly, at: address)
                    state = copy == superblock ? "same" : "differs"
                    if copy != superblock { damages.append("\(address): the copy differs") }
                } catch {
                    state = "damaged"
                    damages.append("\(error)")
                }
            }
            sheet.row([
                .number(UInt64(index + 1)), .number(UInt64(group)), .number(address.rawValue),
                .text(state),
            ])
        }
        sheet.end()
        for damage in damages { sheet.damage(damage) }
    }

    func showSuperblockFields(_ block: UnsafeRawBufferPointer) {
        Self.showSuperblockFields(block, sheet)
    }

    /// The fields as they stand there, right or wrong.
    static func showSuperblockFields(_ block: UnsafeRawBufferPointer, _ sheet: Sheet) {
        let fields = Superblock(unchecked: block)
        sheet.field("format version", block.u32(72))
        sheet.field("volume", fields.volume.description)
        sheet.field("block size", fields.blockSize)
        sheet.field("block count", fields.blockCount)
        sheet.field("compatible features", fields.features.compatible)
        sheet.field("incompatible features", fields.features.incompatible)
        sheet.field("read only compatible features", fields.features.readOnlyCompatible)
        sheet.field("slot capacity", fields.slotCapacity)
        sheet.field("slot count", fields.slotCount)
        sheet.field("slot table", fields.slotTable.rawValue)
        sheet.field("guard", fields.guardTable.rawValue)
        sheet.field("first group", fields.firstGroup.rawValue)
        sheet.field("blocks per group", fields.blocksPerGroup)
        sheet.field("group count", fields.groupCount)
        sheet.field("root inode", fields.root.address.rawValue)
        sheet.field("root generation", fields.root.generation)
        sheet.field("region size", fields.regionSize)
        if fields.features.hasQuotas {
            sheet.field("quota start", fields.quotaStart.rawValue)
            sheet.field("quota table length", fields.quotaTableLength)
        }
        sheet.field("created", civilText(fields.created))
        sheet.field("cluster name", printable(fields.clusterName.utf8))
        sheet.field("volume name", printable(fields.volumeName.utf8))
        sheet.field("label", printable(fields.label.utf8))
    }
}
