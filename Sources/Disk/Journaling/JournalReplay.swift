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
// R5. A living node can be writing a place only if it came to own the block after the dead node, which
//     had brought its image home then. So a place that does not verify may be in the middle of such a
//     write only if its first bytes claim at least the version of the image. If they claim just that
//     version, the place is left to the end, when whoever replays brings it about that no living node
//     writes in place (`whenQuiet`). What does not verify then is torn for good, by a writer that is
//     gone.
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
        let found = try await read(device: device, superblock: superblock, slot: slot)
        guard let log = found else { return ReplayReport() }
        try await log.bringHome()
        return log.report
    }

    /// Reads the log of `slot` without writing; nil if it is clean. Its owner is gone for certain.
    ///
    /// - Throws: `.format` if descriptor, header or a whole transaction of the log is damaged.
    package static func read(
        device: any BlockDevice,
        superblock: Superblock,
        slot: SlotIndex
    ) async throws(StorageError) -> DeadLog? {
        let ring = try await ring(device, superblock, slot)
        let (header, version) = try await ring.readHeader(from: device)
        if header.isClean { return nil }
        let log = DeadLog(device: device, ring: ring, header: header, version: version)
        try await log.scan()
        return log
    }

    /// What a replay would find, without writing: for a check, or a mount that must not write.
    package static func inspect(
        device: any BlockDevice,
        superblock: Superblock,
        slot: SlotIndex
    ) async throws(StorageError) -> ReplayReport {
        try await read(device: device, superblock: superblock, slot: slot)?.report ?? ReplayReport()
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
}
