// Stage "places": slot descriptors. A journal is looked for by its own header, which says whose it
// is and where it stands; if there is none, it gets the place that equal shares of the journals'
// area give it, as mkfs deals them out, provided that nothing else stands there, and is made empty.
// An orphan directory shows by its mark that it is one; if there is none left over, a new one is
// made.

import BlockIO
import DiskFormat
import Vocabulary

extension RepairRound {
    func repairPlaces(_ found: [Finding]) async throws(CheckError) -> [Finding] {
        var wrong: Set<SlotIndex> = []
        for finding in found {
            guard let slot = finding.slot else { continue }
            wrong.insert(slot)
            if finding.kind == .journalMisplaced {
                wrong.formUnion(try await overlapping(slot))
            }
        }
        var places = try await findJournals(of: wrong)
        if places.count < wrong.count {
            // Who stands where no header of his is may be in the way, and in the wrong.
            wrong.formUnion(try await withoutHeader())
            places = try await findJournals(of: wrong)
        }
        var directories = spareOrphanDirectories()
        var done: Set<SlotIndex> = []
        for (slot, place) in places {
            let before = checker.slots[Int(slot.rawValue)]
            var directory = before?.orphanDirectory
            if directory == nil, !directories.isEmpty { directory = directories.removeFirst() }
            if directory == nil { directory = try await makeOrphanDirectory() }
            guard let directory else { continue }
            let descriptor = SlotDescriptor(
                slot: slot,
                journalStart: place.start,
                journalLength: place.length,
                orphanDirectory: directory
            )
            // V2: the journal is there before the descriptor leads to it.
            if !place.hasHeader { try await emptyJournal(descriptor) }
            try await writeDescriptor(descriptor)
            done.insert(slot)
        }
        return found.filter { finding in finding.slot.map(done.contains) ?? false }
    }

    private func writeDescriptor(_ descriptor: SlotDescriptor) async throws(CheckError) {
        let address = superblock.slotDescriptor(descriptor.slot)
        let buffer = makeBuffer()
        descriptor.write(to: buffer.bytes, at: address, volume: superblock.volume)
        try await write(buffer, at: address)
        try await flush()
    }

    /// The slots whose journals overlap that of `slot` and do not begin with a header of theirs and of
    /// that length: of two that overlap, the one without is the one that is wrong.
    private func overlapping(_ slot: SlotIndex) async throws(CheckError) -> [SlotIndex] {
        guard let own = checker.slots[Int(slot.rawValue)] else { return [] }
        let ownEnd = own.journalStart + UInt64(own.journalLength)
        var others: [SlotIndex] = []
        for case let other? in checker.slots where other.slot != slot {
            let end = other.journalStart + UInt64(other.journalLength)
            guard own.journalStart < end, other.journalStart < ownEnd,
                try await header(at: other.journalStart, of: other.slot)?.length
                    != other.journalLength
            else { continue }
            others.append(other.slot)
        }
        return others
    }

    /// The slots whose journals do not begin with a header of theirs and of that length.
    private func withoutHeader() async throws(CheckError) -> [SlotIndex] {
        var found: [SlotIndex] = []
        for case let slot? in checker.slots
        where try await header(at: slot.journalStart, of: slot.slot)?.length
            != slot.journalLength
        {
            found.append(slot.slot)
        }
        return found
    }

    /// The journal header of a slot at an address, if one stands there.
    private func header(
        at address: BlockAddress,
        of slot: SlotIndex
    ) async throws(CheckError) -> JournalHeader? {
        let buffer = makeBuffer()
        try await read(address, into: buffer)
        return try? JournalHeader.read(
            verifying: buffer.readOnly,
            at: address,
            volume: superblock.volume,
            slot: slot
        ).header
    }

    /// The blocks between the heartbeats and the first group.
    private var journalArea: (start: BlockAddress, end: BlockAddress) {
        (superblock.guardTable + 1 + UInt64(superblock.slotCapacity), superblock.journalsEnd)
    }

    private func isVacant(
        _ start: BlockAddress,
        _ length: UInt64,
        _ known: [SlotDescriptor?]
    ) -> Bool {
        guard start >= journalArea.start, start <= journalArea.end,
            length >= UInt64(SlotDescriptor.minimumJournalLength),
            length <= min(journalArea.end - start, UInt64(UInt32.max))
        else { return false }
        for case let other? in known
        where start < other.journalStart + UInt64(other.journalLength)
            && other.journalStart < start + length
        {
            return false
        }
        return true
    }

    /// A place, and whether the journal begins there with a header of the slot's.
    private typealias JournalPlace = (start: BlockAddress, length: UInt32, hasHeader: Bool)

    /// Where the journals of these slots are, or can be, beside those of all others; ascending, without
    /// those for which there is no place.
    private func findJournals(
        of wrong: Set<SlotIndex>
    ) async throws(CheckError) -> [(slot: SlotIndex, place: JournalPlace)] {
        var known = checker.slots
        for slot in wrong.sorted() { known[Int(slot.rawValue)] = nil }
        var places: [(slot: SlotIndex, place: JournalPlace)] = []
        for slot in wrong.sorted() {
            guard let place = try await findJournal(of: slot, known) else { continue }
            places.append((slot, place))
            known[Int(slot.rawValue)] = SlotDescriptor(
                slot: slot,
                journalStart: place.start,
                journalLength: place.length,
                orphanDirectory: superblock.root
            )
        }
        return places
    }

    /// Where the journal of a slot is, or can be.
    private func findJournal(
        of slot: SlotIndex,
        _ known: [SlotDescriptor?]
    ) async throws(CheckError) -> JournalPlace? {
        let share =
            (journalArea.end - journalArea.start) / UInt64(max(superblock.slotCount, 1))
        let usual = journalArea.start + share * UInt64(slot.rawValue)
        if isVacant(usual, share, known), let header = try await header(at: usual, of: slot),
            isVacant(usual, UInt64(header.length), known)
        {
            return (usual, header.length, true)
        }
        var address = journalArea.start
        while address < journalArea.end {
            if let other = known.lazy.compactMap({ $0 }).first(where: {
                $0.journalStart <= address
                    && address < $0.journalStart + UInt64($0.journalLength)
            }) {
                address = other.journalStart + UInt64(other.journalLength)
                continue
            }
            if let header = try await header(at: address, of: slot),
                isVacant(address, UInt64(header.length), known)
            {
                return (address, header.length, true)
            }
            address = address + 1
        }
        guard isVacant(usual, share, known) else { return nil }
        return (usual, UInt32(share), false)
    }

    /// Directories with the mark of an orphan list in places that no slot names, ascending: as mkfs
    /// spreads them, so that the first belongs to the lowest slot.
    private func spareOrphanDirectories() -> [InodeNumber] {
        let named = checker.slots.compactMap { $0?.orphanDirectory.address }
        // An inode with that mark where it does not belong has a record (InodeTable T1).
        return checker.inodes.open
            .filter { inode in
                !inode.isDamaged && inode.isDirectory && inode.flags.contains(.system)
                    && !named.contains(inode.number.address)
                    && inode.number != checker.superblock.root
            }
            .map(\.number)
    }

    /// Makes an orphan directory; nil if no block is free.
    func makeOrphanDirectory() async throws(CheckError) -> InodeNumber? {
        guard let (number, version) = try await takeInode() else { return nil }
        try await writeDirectory(number, mode: 0o040700, flags: .system, version: version)
        try await flush()
        return number
    }

    /// Gives a slot a new orphan directory; false if no block is free.
    func replaceOrphanDirectory(of slot: SlotIndex) async throws(CheckError) -> Bool {
        guard var descriptor = checker.slots[Int(slot.rawValue)],
            let number = try await makeOrphanDirectory()
        else { return false }
        descriptor.orphanDirectory = number
        try await writeDescriptor(descriptor)
        return true
    }
}
