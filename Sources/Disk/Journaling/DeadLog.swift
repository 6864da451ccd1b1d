// The log of a node that is gone, between the two passes of its replay: read, and not yet brought
// home. The invariants R1 to R7 stand at the head of JournalReplay.swift.

import BlockIO
import DiskFormat
import Execution
package import Vocabulary

/// What a dead node's log knows better than the places where its blocks belong.
package final class DeadLog {
    private struct Newest {
        var version: UInt64
        var place: UInt64
        var covering: ResourceName
    }

    private typealias Wanted = (address: BlockAddress, image: Newest)

    private let device: any BlockDevice
    private let ring: LogRing
    private let header: JournalHeader
    private let version: UInt64
    private let reader: LogReader
    /// Blocks that are looked at together: as many as the log has one after the other.
    private let batchLength: Int
    /// What stands in their places, and their images, in the order of their addresses.
    private let there: AlignedBuffer
    private let images: AlignedBuffer
    /// The newest image of each address, in the order in which they stand in the log.
    private var newest: [Wanted] = []

    /// What was found, and what was done so far.
    package private(set) var report = ReplayReport()

    init(device: any BlockDevice, ring: LogRing, header: JournalHeader, version: UInt64) {
        self.device = device
        self.ring = ring
        self.header = header
        self.version = version
        reader = LogReader(device: device, ring: ring, header: header)
        batchLength = max(1, min(128, (2 << 20) / ring.blockSize))
        there = AlignedBuffer(byteCount: batchLength * ring.blockSize)
        images = AlignedBuffer(byteCount: batchLength * ring.blockSize)
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
                    reached(.severalImages)
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
        let wanted = newest.filter { !isSettled($0.image.covering) }
        if wanted.count < newest.count { reached(.survivorHolds) }
        report.skipped += newest.count - wanted.count
        var doubtful: [Wanted] = []
        for start in stride(from: 0, to: wanted.count, by: batchLength) {
            doubtful += try await bringHome(
                Array(wanted[start..<min(start + batchLength, wanted.count)]),
                isQuiet: whenQuiet == nil
            )
        }
        if !doubtful.isEmpty {
            try await whenQuiet?()
            for start in stride(from: 0, to: doubtful.count, by: batchLength) {
                _ = try await bringHome(
                    Array(doubtful[start..<min(start + batchLength, doubtful.count)]),
                    isQuiet: true
                )
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

    /// Writes the images whose places are older, those of adjacent places together. Returns those of
    /// which that cannot be told while others write in place: they are not written.
    ///
    /// - Parameter batch: in the order in which they stand in the log, so that it is read forwards.
    private func bringHome(
        _ batch: [Wanted],
        isQuiet: Bool
    ) async throws(StorageError) -> [Wanted] {
        let size = ring.blockSize
        let order = batch.indices.sorted { batch[$0].address < batch[$1].address }
        var position = [Int](repeating: 0, count: batch.count)
        for (place, index) in order.enumerated() { position[index] = place }
        for (index, wanted) in batch.enumerated() {
            images.bytes.put(try await reader.block(wanted.image.place), position[index] * size)
        }
        let sorted = order.map { batch[$0] }
        for run in Self.adjacent(sorted.map(\.address.rawValue)) {
            try await read(sorted, run)
        }
        var doubtful: [Wanted] = []
        var older: [Int] = []
        for (index, wanted) in sorted.enumerated() {
            switch isOlder(wanted, index, isQuiet: isQuiet) {
            case true?: older.append(index)
            case false?: report.skipped += 1
            case nil: doubtful.append(wanted)
            }
        }
        for run in Self.adjacent(older.map { sorted[$0].address.rawValue }) {
            try await write(sorted, older[run.lowerBound]..<older[run.upperBound - 1] + 1)
        }
        doubtful.sort { $0.image.place < $1.image.place }
        return doubtful
    }

    /// The runs of ascending addresses that follow each other without a gap.
    private static func adjacent(_ addresses: [UInt64]) -> [Range<Int>] {
        var runs: [Range<Int>] = []
        for (index, address) in addresses.enumerated() {
            if let last = runs.last, addresses[index - 1] + 1 == address {
                runs[runs.count - 1] = last.lowerBound..<index + 1
            } else {
                runs.append(index..<index + 1)
            }
        }
        return runs
    }

    private func read(_ sorted: [Wanted], _ run: Range<Int>) async throws(StorageError) {
        let size = ring.blockSize
        let bytes = there.bytes.window(run.lowerBound * size, run.count * size)
        let offset = ring.superblock.byteOffset(sorted[run.lowerBound].address)
        try await onDevice { () async throws(DeviceError) in
            try await device.read(bytes, at: offset)
        }
    }

    private func write(_ sorted: [Wanted], _ run: Range<Int>) async throws(StorageError) {
        let size = ring.blockSize
        let bytes = images.readOnly.window(run.lowerBound * size, run.count * size)
        let offset = ring.superblock.byteOffset(sorted[run.lowerBound].address)
        try await onDevice { () async throws(DeviceError) in
            try await device.write(bytes, at: offset)
        }
        report.written += run.count
    }

    /// Whether what stands in a place, which was read, is older than the image. Nil if that cannot be
    /// told while others write in place (R5).
    private func isOlder(_ wanted: Wanted, _ index: Int, isQuiet: Bool) -> Bool? {
        let bytes = there.readOnly.window(index * ring.blockSize, ring.blockSize)
        let found = try? BlockHeader(
            verifying: bytes,
            at: wanted.address,
            volume: ring.superblock.volume
        )
        if let found {
            if found.version > wanted.image.version { reached(.placeIsNewer) }
            return found.version < wanted.image.version
        }
        let claimed = claimedVersion(wanted.address, bytes)
        if claimed == wanted.image.version && !isQuiet {
            reached(.doubtfulPlace)
            return nil
        }
        if claimed == wanted.image.version { reached(.tornPlace) }
        return claimed <= wanted.image.version
    }

    /// The version that the first bytes of the place which was read claim; 0 if they are not those
    /// of a block of this address. They are written as one (B3), so they can be believed by
    /// themselves.
    private func claimedVersion(
        _ address: BlockAddress,
        _ bytes: UnsafeRawBufferPointer
    ) -> UInt64 {
        guard bytes.u32(0) == BlockHeader.magic, bytes.u64(16) == address.rawValue,
            VolumeID(bytes.window(32, 16)) == ring.superblock.volume
        else { return 0 }
        return bytes.u64(24)
    }
}
