// The log of a node that is gone, between the two passes of its replay: read, and not yet brought
// home. The invariants R1 to R7 stand at the head of JournalReplay.swift.

import BlockIO
import DiskFormat
package import Vocabulary

/// What a dead node's log knows better than the places where its blocks belong.
package final class DeadLog {
    private struct Newest {
        var version: UInt64
        var place: UInt64
        var covering: ResourceName
    }

    private let device: any BlockDevice
    private let ring: LogRing
    private let header: JournalHeader
    private let version: UInt64
    private let reader: LogReader
    private let there: AlignedBuffer
    private let image: AlignedBuffer
    /// The newest image of each address, in the order in which they stand in the log.
    private var newest: [(address: BlockAddress, image: Newest)] = []

    /// What was found, and what was done so far.
    package private(set) var report = ReplayReport()

    init(device: any BlockDevice, ring: LogRing, header: JournalHeader, version: UInt64) {
        self.device = device
        self.ring = ring
        self.header = header
        self.version = version
        reader = LogReader(device: device, ring: ring, header: header)
        there = AlignedBuffer(byteCount: ring.blockSize)
        image = AlignedBuffer(byteCount: ring.blockSize)
    }

    /// The slot whose journal this is.
    package var slot: SlotIndex { header.slot }

    /// First pass.
    func scan() async throws(StorageError) {
        var known: [BlockAddress: Newest] = [:]
        var addresses: [BlockAddress] = []
        while let found = try await reader.next() {
            report.transactions += 1
            report.images += found.count
            for block in found {
                let entry = block.entry
                if let other = known[entry.address] {
                    if other.version >= entry.version { continue }
                } else {
                    addresses.append(entry.address)
                }
                known[entry.address] = Newest(
                    version: entry.version,
                    place: block.place,
                    covering: entry.covering
                )
            }
        }
        // What marks the journal clean must be readable itself.
        for number in [reader.sequence, version] where number >= BlockHeader.largestNumber {
            throw .format(
                .invalidField(ring.descriptor.journalStart, field: "sequence", value: number)
            )
        }
        newest = addresses.compactMap { address in known[address].map { (address, $0) } }
        newest.sort { $0.image.place < $1.image.place }
        report.blocks = newest.count
        for name in newest.map(\.image.covering).sorted() where name != report.footprint.last {
            report.footprint.append(name)
        }
    }

    /// Second pass, once: brings home what is newer, and marks the journal clean. `isSettled`: the
    /// place of everything that this lock covers is known to be as new already, and others may be
    /// writing there; it is left alone. `whenQuiet` is called when there are places of which only
    /// then can be told whether they are torn, and returns when no living node writes in place any
    /// more (R5); nil: none does.
    ///
    /// - Throws: `.device`; whatever was brought home by then is harmless.
    package func bringHome(
        isSettled: (ResourceName) -> Bool = { _ in false },
        whenQuiet: (() async throws(StorageError) -> Void)? = nil
    ) async throws(StorageError) {
        var doubtful: [(address: BlockAddress, image: Newest)] = []
        for (address, image) in newest {
            if isSettled(image.covering) {
                report.skipped += 1
            } else if try await bringHome(image, to: address, isQuiet: whenQuiet == nil) == nil {
                doubtful.append((address, image))
            }
        }
        if !doubtful.isEmpty {
            try await whenQuiet?()
            for (address, image) in doubtful {
                _ = try await bringHome(image, to: address, isQuiet: true)
            }
        }
        try await flush()
        let clean = JournalHeader(
            slot: header.slot,
            tailSequence: reader.sequence + 1,
            tail: ring.index(reader.place),
            length: header.length,
            isClean: true
        )
        try await ring.writeHeader(clean, version: version + 1, to: device)
        try await flush()
    }

    private func flush() async throws(StorageError) {
        try await onDevice { () async throws(DeviceError) in try await device.flush() }
    }

    /// Writes an image if its place is older; whether it was. Nil if that cannot be told while
    /// others write in place: nothing is written then.
    private func bringHome(
        _ wanted: Newest,
        to address: BlockAddress,
        isQuiet: Bool
    ) async throws(StorageError) -> Bool? {
        let superblock = ring.superblock
        let offset = superblock.byteOffset(address)
        try await onDevice { () async throws(DeviceError) in
            try await device.read(there.bytes, at: offset)
        }
        let found = try? BlockHeader(
            verifying: there.readOnly,
            at: address,
            volume: superblock.volume
        )
        let claimed = claimedVersion(address)
        if found == nil && claimed == wanted.version && !isQuiet { return nil }
        if found.map({ $0.version >= wanted.version }) ?? (claimed > wanted.version) {
            report.skipped += 1
            return false
        }
        image.bytes.put(try await reader.block(wanted.place), 0)
        try await onDevice { () async throws(DeviceError) in
            try await device.write(image.readOnly, at: offset)
        }
        report.written += 1
        return true
    }

    /// The version that the first bytes of the place which was read claim; 0 if they are not those
    /// of a block of this address. They are written as one (B3), so they can be believed by
    /// themselves.
    private func claimedVersion(_ address: BlockAddress) -> UInt64 {
        let bytes = there.readOnly
        guard bytes.u32(0) == BlockHeader.magic, bytes.u64(16) == address.rawValue,
            VolumeID(bytes.window(32, 16)) == ring.superblock.volume
        else { return 0 }
        return bytes.u64(24)
    }
}
