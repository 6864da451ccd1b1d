import BlockIO
import DiskFormat
import Execution
import Glibc
import Journaling
import SimulatedMachine
import Testing
import Vocabulary

@Suite struct CrashTests {
    /// Some clients work on `hosts` nodes; perhaps a node dies and another one recovers it; then
    /// the power fails, everything is replayed, perhaps with another power cut in between, and
    /// checked. Then again.
    static func run(seed: UInt64, hosts: Int, rounds: Int = 3) throws -> Int {
        try runSimulated(seed: seed, stepLimit: 3_000_000) { engine in
            let world = CrashWorld(engine: engine, hosts: hosts, groupCount: 8, seed: seed)
            for round in 0..<rounds {
                let story = "seed \(seed), \(hosts) hosts, round \(round)"
                try await world.open()
                var left = 6
                let done = Signal()
                for _ in 0..<6 {
                    var dice = world.dice.fork()
                    engine.spawn {
                        await client(world, &dice, story)
                        left -= 1
                        done.notify()
                    }
                }
                let faulty = world.dice.oneIn(4)
                if faulty { world.injectFault() }
                if hosts > 1, !faulty, world.dice.oneIn(2) {
                    await engine.sleep(nanoseconds: UInt64(world.dice.below(30_000_000)))
                    try await killAndRecover(world, world.dice.below(hosts), story)
                }
                await engine.sleep(nanoseconds: UInt64(world.dice.below(60_000_000)))
                world.isCrashed = true
                let content = world.disk.crash(seed: world.dice.next())
                #expect(world.disk.counters.overlappingWrites == 0, "\(story): J5")
                for node in world.nodes { node.journal.stop() }
                while left > 0 { await done.wait() }
                try await replay(world, content)
                world.checkRecovered(world.groups, in: world.disk.visible, story)
                world.forgetSequences()
            }
            return world.operations
        }
    }

    private static func client(
        _ world: CrashWorld,
        _ dice: inout SeededGenerator,
        _ story: String
    ) async {
        while !world.isCrashed {
            await world.engine.sleep(nanoseconds: UInt64(dice.below(200_000)))
            do {
                try await world.operate(&dice)
            } catch StorageError.stopped, StorageError.device(.closed), DeviceError.closed {
                continue  // The node is dead; its groups get another owner.
            } catch StorageError.device(.failed) where world.hasFault {
                continue  // The operation, or the whole node, failed.
            } catch DeviceError.failed where world.hasFault {
                continue
            } catch {
                Issue.record("\(story): \(error)")
                return
            }
        }
    }

    /// After a power cut: replays all logs in some order, at times cut short by another power cut.
    private static func replay(_ world: CrashWorld, _ content: DiskContent) async throws {
        var content = content
        while true {
            let engine = world.engine
            world.disk = SimulatedDisk(content: content, executor: engine.seededExecutor)
            let host = world.disk.attach("recovery")
            let slots = (0..<world.volume.superblock.slotCount).map { SlotIndex($0) }
                .shuffled(using: &world.dice)
            let superblock = world.volume.superblock
            if world.dice.oneIn(3) {
                engine.spawn {
                    for slot in slots {
                        _ = try? await JournalReplay.replay(
                            device: host,
                            superblock: superblock,
                            slot: slot
                        )
                    }
                }
                await engine.sleep(nanoseconds: UInt64(world.dice.below(12_000_000)))
                content = world.disk.crash(seed: world.dice.next())
                continue
            }
            for slot in slots {
                _ = try await JournalReplay.replay(
                    device: host,
                    superblock: superblock,
                    slot: slot
                )
                let isClean = try await JournalReplay.isClean(
                    device: host,
                    superblock: superblock,
                    slot: slot
                )
                #expect(isClean)
            }
            return
        }
    }

    /// One node dies while the others go on; another one replays its log and takes its groups over;
    /// then it comes back.
    private static func killAndRecover(
        _ world: CrashWorld,
        _ number: Int,
        _ story: String
    ) async throws {
        // Quarantine ends only while nobody is dead: that lock waits for recovery.
        await world.barrier.enter()
        defer { world.barrier.leave() }
        let dead = world.nodes[number]
        dead.host.cutOff()
        dead.journal.stop()
        var lost: [BlockGroup] = []
        for group in world.groups {
            await group.gate.enter()
            if group.owner == number { lost.append(group) } else { group.gate.leave() }
        }
        defer { for group in lost { group.gate.leave() } }
        let survivor = world.nodes[(number + 1) % world.nodes.count]
        let living = world.nodes.filter { $0 !== dead }
        for node in living { await node.journal.holdWritesHome() }
        defer { for node in living { node.journal.releaseWritesHome() } }
        _ = try await JournalReplay.replay(
            device: survivor.host,
            superblock: world.volume.superblock,
            slot: SlotIndex(UInt32(number))
        )
        world.checkRecovered(lost, in: world.disk.visible, "\(story), node \(number) died")
        for group in lost { group.owner = (number + 1) % world.nodes.count }
        world.nodes[number] = try await world.openNode(UInt32(number))
        for group in world.groups { for state in group.history { state.leave(number) } }
    }

    @Test(arguments: 0..<15) func oneNode(block: Int) throws {
        for seed in 0..<10 {
            let operations = try Self.run(seed: UInt64(block * 10 + seed), hosts: 1)
            #expect(operations > 20)
        }
    }

    @Test(arguments: 0..<15) func twoAndThreeNodes(block: Int) throws {
        for seed in 0..<10 {
            _ = try Self.run(seed: UInt64(10_000 + block * 10 + seed), hosts: 2 + seed % 2)
        }
    }

    /// `LOCKSTEP_SEEDS=1000-5000`: as many more, by hand.
    private static let moreSeeds: Range<UInt64>? = {
        guard let text = getenv("LOCKSTEP_SEEDS") else { return nil }
        let parts = String(cString: text).split(separator: "-").compactMap { UInt64($0) }
        guard parts.count == 2, parts[0] < parts[1] else { return nil }
        return parts[0]..<parts[1]
    }()

    @Test(.enabled(if: moreSeeds != nil)) func more() throws {
        for seed in Self.moreSeeds ?? 0..<0 {
            _ = try Self.run(seed: seed, hosts: 1 + Int(seed % 3))
        }
    }
}
