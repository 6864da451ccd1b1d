// Looking at a volume structure by structure, as debugfs does: for whoever wants to know what stands
// where, why a check complains, or what of a damaged volume can still be read.
//
// It reads what stands at home, in place. A journal that is not clean knows newer things; then that is
// said, and with `replayed` the journals are replayed on an `OverlayDevice` first, by the code of the
// recovery, and what is shown is what the next mount would find.
//
// Invariants
// I1. Nothing is written to the device, whatever is asked. (A replay goes to the overlay.)
// I2. Whatever bytes the volume holds: no trap, and an end. A tree node is looked into once for each
//     walk of its tree, and only if it says that it belongs to the inode; an inode once for each scan of
//     the volume. Numbers read from the volume are checked before they are used in arithmetic, and
//     counts are cut to what fits into the block.
// I3. Of a damaged structure all is shown that can be decoded, and what is wrong is said beside it
//     (`Sheet.damage`): nothing that was not verified passes for sound.
// I4. Memory: one block of each level of a tree, one transaction of a journal, one bit for each block
//     for walks over the whole volume, and a few MiB that were read ahead.
//
// A device that somebody has mounted can be looked at, too. Blocks are then read while they are
// written and may be torn or older than what the nodes have in memory; the caller says so.

package import BlockIO
package import DiskFormat
import Journaling
package import Vocabulary
import VolumeChecking

/// Why a question could not be answered, in one line: what, on what, what to do.
package struct InspectionError: Error, Hashable, Sendable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }
}

/// One look at one volume.
package final class Inspector {
    /// The device, or the overlay with what a replay would have written.
    let device: any BlockDevice
    package let superblock: Superblock
    package let sheet: Sheet
    /// Sound slot descriptors, by slot; nil where damaged.
    let slots: [SlotDescriptor?]
    /// Journals that hold something to replay, before any replay.
    package let uncleanJournals: [SlotIndex]
    private let readAhead: ReadAhead

    private init(
        device: any BlockDevice,
        superblock: Superblock,
        sheet: Sheet,
        slots: [SlotDescriptor?],
        uncleanJournals: [SlotIndex]
    ) {
        self.device = device
        self.superblock = superblock
        self.sheet = sheet
        self.slots = slots
        self.uncleanJournals = uncleanJournals
        readAhead = ReadAhead(
            device,
            blockSize: Int(superblock.blockSize),
            end: superblock.byteOffset(BlockAddress(superblock.blockCount))
        )
    }

    /// Opens the volume on `device`. With `replayed` what is shown is what a replay of its journals
    /// would leave; without, a journal that is not clean is noted on the sheet.
    ///
    /// - Throws: if there is no volume, or none that this version can read.
    package static func open(
        _ device: any BlockDevice,
        sheet: Sheet,
        replayed: Bool
    ) async throws(InspectionError) -> Inspector {
        let superblock = try await findSuperblock(on: device)
        try await judgePrimary(device, superblock, sheet)
        let home = Inspector(
            device: device,
            superblock: superblock,
            sheet: sheet,
            slots: await readSlots(device, superblock),
            uncleanJournals: []
        )
        let unclean = await home.findUncleanJournals()
        let isOverlaid = replayed && !unclean.isEmpty
        let inspector = Inspector(
            device: isOverlaid ? OverlayDevice(over: device) : device,
            superblock: superblock,
            sheet: sheet,
            slots: home.slots,
            uncleanJournals: unclean
        )
        if isOverlaid {
            try await inspector.replay()
        } else if !unclean.isEmpty {
            let names = unclean.map(\.description).joined(separator: ", ")
            sheet.note(
                "the journal of \(names) is not clean: what is shown is what stands in place, without "
                    + "what the journal knows better; --replayed shows both together"
            )
        }
        return inspector
    }

    private static func findSuperblock(
        on device: any BlockDevice
    ) async throws(InspectionError) -> Superblock {
        do throws(CheckError) {
            return try await VolumeChecker.superblock(of: device)
        } catch {
            switch error {
            case .format(.notMetadata):
                throw InspectionError("is no Lockstep volume; name the right device")
            case .format(.truncated):
                throw InspectionError(
                    "\(error); only 'superblock' can be asked; use the whole image for the rest"
                )
            case .format(.unsupportedVersion), .format(.unsupportedFeatures),
                .format(.readOnlyFeatures):
                throw InspectionError("\(error); use a newer version of this program")
            default: throw InspectionError("\(error); 'superblock' shows what is left of it")
            }
        }
    }

    /// Says so if a copy stands in for the superblock.
    private static func judgePrimary(
        _ device: any BlockDevice,
        _ superblock: Superblock,
        _ sheet: Sheet
    ) async throws(InspectionError) {
        let address = Superblock.address(blockSize: superblock.blockSize)
        let buffer = AlignedBuffer(zeroed: Int(superblock.blockSize))
        do {
            try await device.read(buffer.bytes, at: Superblock.byteOffset)
            _ = try Superblock(verifying: buffer.readOnly, at: address)
        } catch {
            sheet.damage("the superblock is damaged, a copy stands in for it: \(error)")
        }
    }

    private static func readSlots(
        _ device: any BlockDevice,
        _ superblock: Superblock
    ) async -> [SlotDescriptor?] {
        let buffer = AlignedBuffer(zeroed: Int(superblock.blockSize))
        var slots: [SlotDescriptor?] = []
        for index in 0..<superblock.slotCount {
            let address = superblock.slotDescriptor(SlotIndex(index))
            let isRead: ()? = try? await device.read(
                buffer.bytes,
                at: superblock.byteOffset(address)
            )
            let slot =
                isRead == nil
                ? nil
                : try? SlotDescriptor(verifying: buffer.readOnly, at: address, in: superblock)
            slots.append(slot)
        }
        return slots
    }

    private func findUncleanJournals() async -> [SlotIndex] {
        var unclean: [SlotIndex] = []
        for case let slot? in slots {
            // One that cannot be read is damage, which whoever asks for it is told.
            let isClean = try? await JournalReplay.isClean(
                device: device,
                superblock: superblock,
                slot: slot.slot
            )
            if isClean == false { unclean.append(slot.slot) }
        }
        return unclean
    }

    private func replay() async throws(InspectionError) {
        let misplaced = superblock.misplacedJournals(slots).map(\.slot)
        for slot in uncleanJournals {
            guard !misplaced.contains(slot) else {
                sheet.damage("the journal of \(slot) is not where one can be, and not replayed")
                continue
            }
            do throws(StorageError) {
                let report = try await JournalReplay.replay(
                    device: device,
                    superblock: superblock,
                    slot: slot
                )
                sheet.note(
                    "shown as if the journal of \(slot) had been replayed: \(report.transactions) "
                        + "transactions, \(report.written) blocks newer than in place; nothing was written"
                )
            } catch {
                switch error {
                case .format: sheet.damage("the journal of \(slot) is not replayed: \(error)")
                case .device, .stopped: throw InspectionError("\(slot): \(error)")
                }
            }
        }
    }

    /// Who has the volume mounted, or had it and did not leave in order, as the guard on the volume
    /// says; nil if nobody, or if it cannot be read.
    package func user() async -> String? {
        guard let block = await block(superblock.guardTable),
            let record = try? GuardRecord.read(
                verifying: block.readOnly,
                at: superblock.guardTable,
                volume: superblock.volume
            ).record,
            record.mode != .free
        else { return nil }
        // The host, and what tells its machine and boot.
        return record.host.split(separator: " ").first.map { printable($0.utf8) } ?? "somebody"
    }

    // MARK: blocks

    var blockSize: Int { Int(superblock.blockSize) }

    /// Reads one block of the volume; nil, and said, if the device cannot.
    func block(_ address: BlockAddress) async -> AlignedBuffer? {
        precondition(address.rawValue < superblock.blockCount, "I2: a block outside the volume")
        let buffer = AlignedBuffer(byteCount: blockSize)
        do throws(DeviceError) {
            try await readAhead.read(buffer, at: superblock.byteOffset(address))
            return buffer
        } catch {
            sheet.damage("\(address) cannot be read: \(error)")
            return nil
        }
    }

    /// Whether the volume has such a block, besides the one that means "none".
    func isInside(_ address: BlockAddress) -> Bool {
        address != .none && address.rawValue < superblock.blockCount
    }

    /// What is wrong with a block that should be of this kind and belong to this owner; nil if
    /// nothing is.
    func headerError(
        _ block: UnsafeRawBufferPointer,
        at address: BlockAddress,
        kind: BlockKind,
        owner: UInt64,
        generation: UInt64
    ) -> FormatError? {
        BlockHeader.error(
            in: block,
            at: address,
            volume: superblock.volume,
            kind: kind,
            owner: owner,
            generation: generation
        )
    }
}
