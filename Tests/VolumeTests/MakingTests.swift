import BlockIO
import DiskFormat
import Testing
import Vocabulary
import VolumeMaking

/// Options with a fixed UUID and time.
func options(mebibytes: UInt64, journals: UInt32 = 2, blockSize: UInt32 = 4096) -> VolumeOptions {
    var options = VolumeOptions(
        deviceSize: mebibytes << 20,
        volume: VolumeID(high: 0x0123_4567_89AB_4DEF, low: 0x8EDC_BA98_7654_3210),
        created: Timestamp(seconds: 1_700_000_000, nanoseconds: 5)
    )
    options.journalCount = journals
    options.blockSize = blockSize
    options.clusterName = "lab"
    options.volumeName = "data"
    return options
}

/// The plan, or why there is none.
func tried(_ options: VolumeOptions) -> (plan: VolumePlan?, error: PlanError?) {
    do {
        return (try VolumePlan(options), nil)
    } catch {
        return (nil, error)
    }
}

/// A made volume.
func made(_ options: VolumeOptions) async throws -> (MemoryDevice, VolumePlan) {
    let plan = try VolumePlan(options)
    let device = MemoryDevice(byteCount: options.deviceSize)
    try await VolumeMaker.make(on: device, plan: plan)
    return (device, plan)
}

@Suite struct MakingTests {
    @Test(arguments: [UInt64(8), 16, 64, 100, 1000, 4096, 100_000, 20_000_000])
    func plansFit(mebibytes: UInt64) throws {
        for blockSize in [UInt32(4096), 16384, 65536] {
            for journals in [UInt32(1), 2, 3, 16, 64] {
                var wanted = options(mebibytes: mebibytes, journals: journals, blockSize: blockSize)
                wanted.deviceSize += 12_345
                let (planned, error) = tried(wanted)
                guard let plan = planned else {
                    guard case .tooSmall(let needed, _)? = error else {
                        Issue.record("\(String(describing: error))")
                        continue
                    }
                    // The minimum that is named is enough, and one byte less is not.
                    wanted.deviceSize = needed
                    #expect(tried(wanted).plan != nil)
                    wanted.deviceSize = needed - 1
                    #expect(tried(wanted).plan == nil)
                    continue
                }
                let superblock = plan.superblock
                let end = superblock.byteOffset(BlockAddress(superblock.blockCount))
                #expect(end <= wanted.deviceSize)
                #expect(wanted.deviceSize - end < UInt64(16) * UInt64(blockSize) + 4096 * 16)
                #expect(superblock.groupLength(superblock.groupCount - 1) >= 16)
                let journalsEnd =
                    plan.slots.last.map { $0.journalStart + UInt64($0.journalLength) }
                #expect(journalsEnd == superblock.firstGroup)
                let total = superblock.blockCount - superblock.firstGroup.rawValue
                if total >= UInt64(journals) * 4 * 1024 {
                    #expect(superblock.groupCount >= 4 * journals)
                    #expect(superblock.blocksPerGroup >= 1024)
                }
                let places = Set(
                    plan.slots.map(\.orphanDirectory.address) + [superblock.root.address]
                        + plan.copies
                )
                #expect(places.count == Int(journals) + 1 + plan.copies.count)
                // The decoder of the format accepts what was planned.
                let block = AlignedBuffer(zeroed: Int(blockSize))
                let address = Superblock.address(blockSize: blockSize)
                superblock.write(to: block.bytes, at: address, version: 1)
                #expect(try Superblock(verifying: block.readOnly, at: address) == superblock)
            }
        }
    }

    @Test func refusesWhatCannotBe() {
        func refused(_ change: (inout VolumeOptions) -> Void) -> PlanError? {
            var wanted = options(mebibytes: 64)
            change(&wanted)
            let error = tried(wanted).error
            #expect(error?.description.contains("\n") != true)
            return error
        }
        #expect(refused { _ in } == nil)
        #expect(refused { $0.blockSize = 512 } == .badBlockSize(512))
        #expect(refused { $0.blockSize = 5000 } == .badBlockSize(5000))
        #expect(refused { $0.journalCount = 0 } == .badJournalCount(0))
        #expect(refused { $0.journalCount = 65 } == .badJournalCount(65))
        #expect(refused { $0.journalSize = 4096 } != nil)
        #expect(refused { $0.journalSize = 1 << 40 } != nil)
        #expect(refused { $0.journalSize = 32 << 20 } != nil)
        #expect(refused { $0.clusterName = String(repeating: "x", count: 32) } != nil)
        #expect(refused { $0.volumeName = "a:b" } == .badName(field: "volume name"))
        #expect(refused { $0.label = "tab\t" } == .badName(field: "label"))
        #expect(refused { $0.label = String(repeating: "ö", count: 32) } != nil)
        #expect(refused { $0.blocksPerGroup = 15 } != nil)
        #expect(refused { $0.blocksPerGroup = 15_873 } != nil)
        #expect(refused { $0.deviceSize = 0 } != nil)
        #expect(refused { $0.deviceSize = .max } != nil)
        #expect(refused { $0.regionSize = 6000 } == .badRegionSize(6000))
    }

    /// M1: whatever write is the last, there is no volume before all are done.
    @Test func anInterruptedMakingIsNoVolume() async throws {
        let wanted = options(mebibytes: 8)
        let plan = try VolumePlan(wanted)
        let address = Superblock.address(blockSize: 4096)
        var isDone = false
        var limit = 0
        while !isDone {
            let device = MemoryDevice(byteCount: wanted.deviceSize, failsAfter: limit)
            // An older volume stands there.
            let old = AlignedBuffer(zeroed: 4096)
            plan.superblock.write(to: old.bytes, at: address, version: 9)
            device.writeNow(old.readOnly, at: 65_536)
            do {
                try await VolumeMaker.make(on: device, plan: plan)
                isDone = true
            } catch {}
            let block = AlignedBuffer(zeroed: 4096)
            device.readNow(block.bytes, at: 65_536)
            if isDone || limit == 0 {
                #expect(try Superblock(verifying: block.readOnly, at: address) == plan.superblock)
            } else {
                #expect(throws: FormatError.self) {
                    try Superblock(verifying: block.readOnly, at: address)
                }
            }
            limit += limit < 4 || limit > 250 ? 1 : 13
        }
    }

    @Test func allRecordsReadBack() async throws {
        let (device, plan) = try await made(options(mebibytes: 64, journals: 3))
        let superblock = plan.superblock
        let block = AlignedBuffer(zeroed: 4096)
        for slot in plan.slots {
            let address = superblock.slotDescriptor(slot.slot)
            device.readNow(block.bytes, at: superblock.byteOffset(address))
            #expect(
                try SlotDescriptor(verifying: block.readOnly, at: address, in: superblock) == slot
            )
            device.readNow(block.bytes, at: superblock.byteOffset(slot.journalStart))
            let (header, version) = try JournalHeader.read(
                verifying: block.readOnly,
                at: slot.journalStart,
                volume: superblock.volume,
                slot: slot.slot
            )
            #expect(header.isClean && header.tail == 1 && header.tailSequence == 1)
            #expect(header.length == slot.journalLength && version == 1)
        }
        device.readNow(block.bytes, at: superblock.byteOffset(superblock.guardTable))
        #expect(
            try GuardRecord.read(
                verifying: block.readOnly,
                at: superblock.guardTable,
                volume: superblock.volume
            ).record == .free
        )
        for copy in plan.copies {
            device.readNow(block.bytes, at: superblock.byteOffset(copy))
            #expect(try Superblock(verifying: block.readOnly, at: copy) == superblock)
        }
        #expect(plan.copies.count > 2)
    }
}
