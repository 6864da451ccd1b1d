// Pass 1: the superblock, and its copies.

import BlockIO
package import DiskFormat
package import Vocabulary

/// Finds the superblock of a device, by its copies if the primary is damaged.
struct SuperblockReader {
    let device: any BlockDevice

    /// Bytes at the front of the device where a copy is looked for: the first copy of every volume
    /// with journals of usual size lies in there.
    private static let searchLength: UInt64 = 1 << 30
    private static let searchStep = 1 << 20

    /// The superblock, and what is wrong with the primary if a copy had to be used.
    ///
    /// - Throws: `format` if this is another version's volume, a truncated one, or something else
    ///   altogether; `noSuperblock` if it was a volume once.
    func find() async throws(CheckError) -> (Superblock, FormatError?) {
        let start = Int(Superblock.byteOffset)
        guard device.byteCount >= 2 * UInt64(start) else {
            throw .format(
                .truncated(needed: 2 * UInt64(start), found: device.byteCount)
            )
        }
        let buffer = AlignedBuffer(byteCount: start)
        try await read(buffer, at: UInt64(start))
        do throws(FormatError) {
            let superblock = try Superblock(verifying: buffer.readOnly, at: nil)
            let place = Superblock.address(blockSize: superblock.blockSize)
            _ = try Superblock(verifying: buffer.readOnly, at: place)
            try judge(superblock)
            return (superblock, nil)
        } catch {
            switch error {
            case .unsupportedVersion, .unsupportedFeatures, .readOnlyFeatures, .truncated:
                throw .format(error)
            default: return (try await findCopy(after: error), error)
            }
        }
    }

    /// Refuses what this version must not judge.
    private func judge(_ superblock: Superblock) throws(FormatError) {
        try superblock.checkFeatures(forWriting: true)
        let needed = superblock.byteOffset(BlockAddress(superblock.blockCount))
        guard needed <= device.byteCount else {
            throw .truncated(needed: needed, found: device.byteCount)
        }
    }

    private func read(_ buffer: AlignedBuffer, at offset: UInt64) async throws(CheckError) {
        do throws(DeviceError) {
            try await device.read(buffer.bytes, at: offset)
        } catch {
            throw .device(CheckError.DeviceFailure(text: "\(error)"))
        }
    }

    /// The newest copy that stands where a copy of its own volume would.
    private func findCopy(after error: FormatError) async throws(CheckError) -> Superblock {
        guard try await !isForeign() else { throw .format(error) }
        let unit = Int(Superblock.blockSizes.lowerBound)
        // Steps overlap by the largest block, so that none is cut in two.
        let buffer = AlignedBuffer(byteCount: Self.searchStep + Int(Superblock.byteOffset))
        let end = device.byteCount / UInt64(unit) * UInt64(unit)
        var best: Superblock?
        var offset = 2 * Superblock.byteOffset
        while offset < min(end, Self.searchLength) {
            let length = Int(min(UInt64(buffer.bytes.count), end - offset))
            let part = UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[0..<length])
            do throws(DeviceError) {
                try await device.read(part, at: offset)
            } catch {
                throw .device(CheckError.DeviceFailure(text: "\(error)"))
            }
            for start in stride(from: 0, to: min(length, Self.searchStep), by: unit) {
                let rest = UnsafeRawBufferPointer(rebasing: part[start...])
                guard let copy = copy(in: rest, at: offset + UInt64(start)) else { continue }
                if best.map({ $0.created < copy.created }) ?? true { best = copy }
            }
            offset += UInt64(Self.searchStep)
        }
        guard let best else {
            if case .notMetadata = error { throw .format(error) }
            throw .noSuperblock
        }
        return best
    }

    /// The superblock that stands at a byte offset, if it is a sound copy in its right place.
    private func copy(in bytes: UnsafeRawBufferPointer, at offset: UInt64) -> Superblock? {
        guard bytes.u32(0) == BlockHeader.magic, bytes.u64(64) == Superblock.magic,
            let superblock = try? Superblock(verifying: bytes, at: nil)
        else { return nil }
        let blockSize = UInt64(superblock.blockSize)
        guard offset % blockSize == 0 else { return nil }
        let address = BlockAddress(offset / blockSize)
        guard BlockAddress(bytes.u64(16)) == address, let group = superblock.group(of: address),
            Superblock.groupHasCopy(group),
            address == superblock.copyAddress(inGroup: group),
            (try? judge(superblock)) != nil
        else { return nil }
        return superblock
    }

    /// Whether the device shows the signs of something else.
    private func isForeign() async throws(CheckError) -> Bool {
        let unit = UInt64(AlignedBuffer.alignment)
        let end = device.byteCount / unit * unit
        let head = AlignedBuffer(byteCount: Int(min(UInt64(ForeignSignature.headLength), end)))
        let tail = AlignedBuffer(byteCount: Int(min(UInt64(ForeignSignature.tailLength), end)))
        let tailOffset = end - UInt64(tail.bytes.count)
        try await read(head, at: 0)
        try await read(tail, at: tailOffset)
        let found = ForeignSignature.find(
            head: head.readOnly,
            tail: tail.readOnly,
            tailOffset: tailOffset,
            deviceSize: device.byteCount
        )
        return found.contains { $0.name != "lockstep" }
    }
}

extension Superblock {
    /// Where the copy of a group that has one stands.
    package func copyAddress(inGroup group: UInt32) -> BlockAddress {
        groupStart(group) + (UInt64(groupLength(group)) - 1)
    }

    /// The groups with a copy, ascending.
    package var groupsWithCopy: [UInt32] {
        var groups: [UInt32] = []
        var index: UInt32 = 1
        while index < groupCount {
            groups.append(index)
            let (next, overflows) = index.multipliedReportingOverflow(by: 2)
            if overflows { break }
            index = next
        }
        return groups
    }
}

extension VolumeChecker {
    func checkSuperblocks(damage: FormatError?) async throws(CheckError) {
        if let damage {
            let address = Superblock.address(blockSize: superblock.blockSize)
            add(Finding(.superblockDamaged, block: address, error: damage))
        }
        let buffer = makeBuffer()
        let groups = superblock.groupsWithCopy
        for (index, group) in groups.enumerated() {
            let address = superblock.copyAddress(inGroup: group)
            try await read(address, into: buffer)
            do throws(FormatError) {
                let copy = try Superblock(verifying: buffer.readOnly, at: address)
                if copy != superblock {
                    add(Finding(.superblockCopyDiffers, block: address, group: group))
                }
            } catch {
                add(
                    Finding(
                        .superblockCopyDamaged,
                        block: address,
                        group: group,
                        error: error
                    )
                )
            }
            show(.superblocks, UInt64(index + 1), of: UInt64(groups.count))
        }
    }
}
