// Replay: what the log of a node that is gone knows better than the places where its blocks belong.
//
// Two passes. The first walks from the tail to the first transaction that is not whole and notes
// for each address the newest image. The second reads each place and writes the image if what is
// there does not verify (torn, or never written) or has a lower version. Then a flush, then the
// header is marked clean, then a flush.
//
// Invariants
// R1. Versions of a block only grow, in every log and in place, through being freed and used again
//     (Docs/decisions/0003). So "not newer" is the whole question, whoever wrote what is there.
// R2. Nothing is written that is not newer than what is there, so replay may be interrupted
//     anywhere and begun again, and several logs may be replayed in any order.
// R3. A transaction counts only if every byte of it arrived; the first that is not whole ends the
//     log, because no later one was begun before it was durable.
// R4. The next owner begins with a sequence number that was never used, not even by the transaction
//     that did not get through: what is left of that is never taken for the present (J10).
// R5. While other nodes live, none of them writes in place during a replay
//     (`Journal.holdWritesHome`). So a place that does not verify is torn for good, by a writer
//     that is gone.
// R6. If such a place claims a higher version than the image, its writer was a later owner, whose
//     own log still has what it wrote: it is left to that log.
// R7. The place of a block is not data: a freed metadata block becomes data only after every log
//     has passed the transaction that freed it.

package import BlockIO
package import DiskFormat
package import Vocabulary

/// What a replay found and did.
package struct ReplayReport: Hashable, Sendable {
    /// Whole transactions in the log; 0 if it was clean.
    package var transactions = 0
    /// Images in them.
    package var images = 0
    /// Distinct addresses among them.
    package var blocks = 0
    /// Images brought home.
    package var written = 0
    /// Addresses whose place was as new already.
    package var skipped = 0
    /// The locks that cover the blocks of the log, ascending: what recovery has to keep others
    /// from.
    package var footprint: [ResourceName] = []

    package init() {}
}

/// Replays the journal of a slot whose owner is gone for certain.
package enum JournalReplay {
    private struct Newest {
        var version: UInt64
        var place: UInt64
    }

    /// Whether there is nothing to replay. Writes nothing.
    ///
    /// - Throws: `.format` if the descriptor or the header of the journal is damaged.
    package static func isClean(
        device: any BlockDevice,
        superblock: Superblock,
        slot: SlotIndex
    ) async throws(StorageError) -> Bool {
        let ring = try await ring(device, superblock, slot)
        return try await ring.readHeader(from: device).header.isClean
    }

    /// Brings home what is newer in the log of `slot`, and marks the journal clean. A log that ends
    /// in the middle of a transaction is normal.
    ///
    /// - Throws: `.format` if descriptor, header or a whole transaction of the log is damaged;
    ///   nothing has been written then.
    package static func replay(
        device: any BlockDevice,
        superblock: Superblock,
        slot: SlotIndex
    ) async throws(StorageError) -> ReplayReport {
        let ring = try await ring(device, superblock, slot)
        let (header, version) = try await ring.readHeader(from: device)
        var report = ReplayReport()
        if header.isClean { return report }
        let reader = LogReader(device: device, ring: ring, header: header)
        let newest = try await scan(reader, &report)
        try await bringHome(newest, reader, device, superblock, &report)
        try await onDevice { () async throws(DeviceError) in try await device.flush() }
        let clean = JournalHeader(
            slot: slot,
            tailSequence: reader.sequence + 1,
            tail: ring.index(reader.place),
            length: header.length,
            isClean: true
        )
        try await ring.writeHeader(clean, version: version + 1, to: device)
        try await onDevice { () async throws(DeviceError) in try await device.flush() }
        return report
    }

    /// What a replay would find, without writing: for a check, or a mount that must not write.
    package static func inspect(
        device: any BlockDevice,
        superblock: Superblock,
        slot: SlotIndex
    ) async throws(StorageError) -> ReplayReport {
        let ring = try await ring(device, superblock, slot)
        let header = try await ring.readHeader(from: device).header
        var report = ReplayReport()
        if header.isClean { return report }
        _ = try await scan(LogReader(device: device, ring: ring, header: header), &report)
        return report
    }

    private static func ring(
        _ device: any BlockDevice,
        _ superblock: Superblock,
        _ slot: SlotIndex
    ) async throws(StorageError) -> LogRing {
        precondition(slot.rawValue < superblock.slotCapacity, "a slot the volume does not have")
        let buffer = AlignedBuffer(byteCount: Int(superblock.blockSize))
        let address = superblock.slotDescriptor(slot)
        try await onDevice { () async throws(DeviceError) in
            try await device.read(buffer.bytes, at: superblock.byteOffset(address))
        }
        let descriptor = try checkingFormat { () throws(FormatError) in
            try SlotDescriptor(verifying: buffer.readOnly, at: address, in: superblock)
        }
        return LogRing(descriptor: descriptor, superblock: superblock)
    }

    /// First pass: the newest image of each address, in the order in which they stand in the log.
    private static func scan(
        _ reader: LogReader,
        _ report: inout ReplayReport
    ) async throws(StorageError) -> [(address: BlockAddress, image: Newest)] {
        var newest: [BlockAddress: Newest] = [:]
        var addresses: [BlockAddress] = []
        var covering: Set<ResourceName> = []
        while let found = try await reader.next() {
            report.transactions += 1
            report.images += found.count
            for block in found {
                let entry = block.entry
                if covering.insert(entry.covering).inserted {
                    report.footprint.append(entry.covering)
                }
                if let known = newest[entry.address] {
                    if known.version >= entry.version { continue }
                } else {
                    addresses.append(entry.address)
                }
                newest[entry.address] = Newest(version: entry.version, place: block.place)
            }
        }
        report.footprint.sort()
        report.blocks = addresses.count
        return addresses.compactMap { address in newest[address].map { (address, $0) } }
            .sorted { $0.1.place < $1.1.place }
    }

    /// Second pass. The log is read once more from front to back.
    private static func bringHome(
        _ newest: [(address: BlockAddress, image: Newest)],
        _ reader: LogReader,
        _ device: any BlockDevice,
        _ superblock: Superblock,
        _ report: inout ReplayReport
    ) async throws(StorageError) {
        let size = Int(superblock.blockSize)
        let there = AlignedBuffer(byteCount: size)
        let image = AlignedBuffer(byteCount: size)
        for (address, wanted) in newest {
            let offset = superblock.byteOffset(address)
            try await onDevice { () async throws(DeviceError) in
                try await device.read(there.bytes, at: offset)
            }
            if isNewer(there.readOnly, at: address, in: superblock, than: wanted.version) {
                report.skipped += 1
                continue
            }
            image.bytes.put(try await reader.block(wanted.place), 0)
            try await onDevice { () async throws(DeviceError) in
                try await device.write(image.readOnly, at: offset)
            }
            report.written += 1
        }
    }

    /// Whether a place holds, or was to hold when it was torn, something the image must not replace
    /// (R2, R6).
    private static func isNewer(
        _ there: UnsafeRawBufferPointer,
        at address: BlockAddress,
        in superblock: Superblock,
        than version: UInt64
    ) -> Bool {
        if let found = try? BlockHeader(verifying: there, at: address, volume: superblock.volume) {
            return found.version >= version
        }
        // The first bytes of a block are written as one (B3), so they can be believed by
        // themselves.
        guard there.u32(0) == BlockHeader.magic, there.u64(16) == address.rawValue,
            VolumeID(there.window(32, 16)) == superblock.volume
        else { return false }
        return there.u64(24) > version
    }
}
