// `slots` and `journal SLOT`.

import BlockIO
import DiskFormat
import Journaling
import Vocabulary
import VolumeChecking

extension Inspector {
    /// Shows the volume guard, and for each slot its descriptor, journal and heartbeat.
    package func showSlots() async {
        let address = superblock.guardTable
        sheet.beginSection("guard")
        sheet.field("block", address.rawValue)
        if let block = await block(address) {
            showGuard(block, at: address)
            sayIfDamaged { () throws(FormatError) in
                _ = try GuardRecord.read(
                    verifying: block.readOnly,
                    at: address,
                    volume: superblock.volume
                )
            }
        }
        sheet.end()
        sheet.beginTable(
            "slots",
            [
                .number("slot", 4), .number("journal", 10), .number("length", 8),
                .text("log", 8), .number("orphan directory", 16), .number("generation", 10),
                .number("incarnation", 20), .number("beat", 10),
            ]
        )
        var damages: [String] = []
        for index in 0..<superblock.slotCapacity {
            let row = await slotRow(SlotIndex(index), &damages)
            if let row { sheet.row(row) }
        }
        sheet.end()
        for damage in damages { sheet.damage(damage) }
    }

    /// The line of a slot; nil for one without a journal and without a sign of life.
    private func slotRow(_ slot: SlotIndex, _ damages: inout [String]) async -> [SheetValue]? {
        let beatAddress = superblock.heartbeat(slot)
        var beat: SlotHeartbeat?
        if let block = await block(beatAddress) {
            do throws(FormatError) {
                beat = try SlotHeartbeat(
                    verifying: block.readOnly,
                    at: beatAddress,
                    volume: superblock.volume
                )
            } catch {
                damages.append("\(error)")
            }
        }
        let life: [SheetValue] = [
            beat.map { .number($0.incarnation) } ?? .nothing,
            beat.map { .number($0.beat) } ?? .nothing,
        ]
        guard slot.rawValue < superblock.slotCount else {
            guard let beat, beat.incarnation > 0 else { return nil }
            return [.number(UInt64(slot.rawValue))]
                + [SheetValue](repeating: .nothing, count: 5) + life
        }
        let address = superblock.slotDescriptor(slot)
        guard let block = await block(address) else { return nil }
        let fields = SlotDescriptor(unchecked: block.readOnly)
        if let error = formatError({ () throws(FormatError) in
            _ = try SlotDescriptor(verifying: block.readOnly, at: address, in: superblock)
        }) {
            damages.append("\(error)")
        }
        return [
            .number(UInt64(slot.rawValue)), .number(fields.journalStart.rawValue),
            .number(UInt64(fields.journalLength)), .text(await logState(of: slot, &damages)),
            .number(fields.orphanDirectory.address.rawValue),
            .number(fields.orphanDirectory.generation),
        ] + life
    }

    private func logState(of slot: SlotIndex, _ damages: inout [String]) async -> String {
        guard let descriptor = slots[Int(slot.rawValue)] else { return "unknown" }
        do throws(StorageError) {
            let listing = try await LogListing(
                device: device,
                superblock: superblock,
                descriptor: descriptor
            )
            return listing.header.isClean ? "clean" : "unclean"
        } catch {
            damages.append("\(error)")
            return "damaged"
        }
    }

    /// What a check of the format refuses.
    func formatError(_ check: () throws(FormatError) -> Void) -> FormatError? {
        do throws(FormatError) {
            try check()
            return nil
        } catch {
            return error
        }
    }

    /// Says what a check of the format refuses.
    func sayIfDamaged(_ check: () throws(FormatError) -> Void) {
        if let error = formatError(check) { sheet.damage(error) }
    }

    func showGuard(_ block: AlignedBuffer, at address: BlockAddress) {
        let bytes = block.readOnly
        let record = GuardRecord(unchecked: bytes)
        let mode =
            switch record?.mode {
            case .free?: "free"
            case .hostLocal?: "nodes of one host"
            case .corosync?: "corosync"
            case .alone?: "one mount alone"
            case nil: "unknown (\(bytes[64]))"
            }
        sheet.field("mode", mode)
        sheet.field("version", StatedHeader(bytes).version)
        sheet.field("cluster high", .hexadecimalNumber(bytes.u64(72), digits: 16))
        sheet.field("cluster low", .hexadecimalNumber(bytes.u64(80), digits: 16))
        sheet.field("host", printable((record?.host ?? "").utf8))
    }

    func showHeartbeat(_ block: AlignedBuffer, at address: BlockAddress) {
        let fields = SlotHeartbeat(unchecked: block.readOnly)
        sheet.field("slot", fields.slot.rawValue)
        sheet.field("incarnation", fields.incarnation)
        sheet.field("beat", fields.beat)
        sheet.field("cluster high", .hexadecimalNumber(fields.clusterHigh, digits: 16))
        sheet.field("cluster low", .hexadecimalNumber(fields.clusterLow, digits: 16))
    }

    func showSlotDescriptor(_ block: AlignedBuffer, at address: BlockAddress) {
        let fields = SlotDescriptor(unchecked: block.readOnly)
        sheet.field("slot", fields.slot.rawValue)
        sheet.field("journal start", fields.journalStart.rawValue)
        sheet.field("journal length", fields.journalLength)
        sheet.field("orphan directory", fields.orphanDirectory.address.rawValue)
        sheet.field("orphan directory generation", fields.orphanDirectory.generation)
        guard case .slotDescriptor = place(of: address) else { return }
        sayIfDamaged { () throws(FormatError) in
            _ = try SlotDescriptor(verifying: block.readOnly, at: address, in: superblock)
        }
    }

    func showJournalHeader(_ block: AlignedBuffer, at address: BlockAddress) {
        let fields = JournalHeader(unchecked: block.readOnly)
        sheet.field("slot", fields.slot.rawValue)
        sheet.field("tail sequence", fields.tailSequence)
        sheet.field("tail", fields.tail)
        sheet.field("length", fields.length)
        sheet.field("clean", fields.isClean)
    }

    func showDescriptor(_ block: AlignedBuffer, at address: BlockAddress) {
        let fields = JournalDescriptorHeader(fields: block.readOnly)
        sheet.field("entries", fields.count)
        sheet.field("index", fields.index)
        let most = JournalDescriptorHeader.entriesPerDescriptor(blockSize: blockSize)
        if fields.count == 0 || fields.count > UInt32(most) {
            sheet.damage("a descriptor has 1 to \(most) entries, not \(fields.count)")
        }
        sheet.beginTable("blocks", Self.logColumns)
        var unknown: [String] = []
        for index in 0..<min(Int(fields.count), most) {
            let offset = JournalDescriptorHeader.entriesOffset + index * JournalEntry.byteCount
            guard let entry = JournalEntry(block.readOnly, at: offset) else {
                unknown.append("entry \(index) is covered by no known kind of lock")
                continue
            }
            sheet.row(Self.row(entry, kind: nil, place: nil))
        }
        sheet.end()
        for text in unknown { sheet.damage(text) }
    }

    // MARK: a journal

    private static let logColumns: [SheetColumn] = [
        .number("block", 10), .text("kind", 24), .number("version", 12), .text("lock", 20),
        .number("at", 10), .text("checksum", 10),
    ]

    private static func row(_ entry: JournalEntry, kind: BlockKind?, place: BlockAddress?)
        -> [SheetValue]
    {
        [
            .number(entry.address.rawValue), kind.map { .text($0.description) } ?? .nothing,
            .number(entry.version), .text(entry.covering.description),
            place.map { .number($0.rawValue) } ?? .nothing,
            .hexadecimalNumber(UInt64(entry.checksum), digits: 8),
        ]
    }

    /// Shows a journal: its header, every transaction from the tail on, and why the log ends there;
    /// with `blocks` every image, too.
    ///
    /// - Throws: if there is no such slot, or nothing leads to its journal.
    package func showJournal(_ number: UInt32, blocks: Bool) async throws(InspectionError) {
        guard number < superblock.slotCount else {
            throw InspectionError(
                "slot \(number): the volume has slots 0 to \(superblock.slotCount - 1)"
            )
        }
        let slot = SlotIndex(number)
        guard let descriptor = slots[Int(number)] else {
            throw InspectionError(
                "\(slot): its descriptor is damaged, so nobody knows where its journal is; see "
                    + "'block \(superblock.slotDescriptor(slot).rawValue)'"
            )
        }
        sheet.field("slot", number)
        sheet.field("start", descriptor.journalStart.rawValue)
        sheet.field("length", descriptor.journalLength)
        if superblock.misplacedJournals(slots).contains(where: { $0.slot == slot }) {
            sheet.damage("the journal is not where one can be, or in another one")
        }
        if let block = await block(descriptor.journalStart) {
            sheet.beginSection("journal header")
            showJournalHeader(block, at: descriptor.journalStart)
            sheet.end()
        }
        do throws(StorageError) {
            let listing = try await LogListing(
                device: device,
                superblock: superblock,
                descriptor: descriptor
            )
            try await showLog(listing, blocks: blocks)
        } catch {
            sheet.endAll()
            sheet.damage(error)
        }
    }

    private func showLog(_ listing: LogListing, blocks: Bool) async throws(StorageError) {
        var count: UInt64 = 0
        sheet.beginList("transactions")
        while let transaction = try await listing.next() {
            count += 1
            sheet.beginItem("transaction \(transaction.sequence)")
            sheet.field("sequence", transaction.sequence)
            sheet.field("block", transaction.place.rawValue)
            sheet.field("length", transaction.blockCount)
            sheet.field("images", UInt64(transaction.images.count))
            if blocks {
                sheet.beginTable("blocks", Self.logColumns)
                for image in transaction.images {
                    sheet.row(Self.row(image.entry, kind: image.kind, place: image.place))
                }
                sheet.end()
            }
            sheet.end()
        }
        sheet.end()
        sheet.field("transaction count", count)
        sheet.field("next sequence", listing.nextSequence)
        sheet.field("reading stops at", listing.nextPlace.rawValue)
        sheet.field("because", listing.whyEnded.map { .text($0.description) } ?? .nothing)
        sheet.field("to replay", !listing.header.isClean && count > 0)
    }
}
