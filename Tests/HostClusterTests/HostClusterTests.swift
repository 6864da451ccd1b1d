import CLinux
import DiskFormat
import Glibc
import HostCluster
import LinuxSystem
import Testing
import Vocabulary

/// Nodes that are real processes. One test at a time: they block threads of the pool.
@Suite(.serialized) struct HostClusterTests {
    let volume = VolumeID(high: 0x1234_5678_9abc_def0, low: 42)
    let folder: TemporaryFolder

    init() throws {
        folder = try TemporaryFolder()
        #expect(chmod(folder.path, 0o700) == 0)
    }

    /// A node that has joined.
    private func node(
        slots: Int = 3,
        slot: Int? = nil,
        patience: Int = 0
    ) throws -> Probe {
        let probe = try Probe([
            "join", folder.path + "/run", volume.description, "\(slots)",
            slot.map { "\($0)" } ?? "-", "\(patience)",
        ])
        return probe
    }

    @Test func theFirstIsToldToReplayEverything() throws {
        let first = try node()
        #expect(first.expect("claim") == "claim 1 first")
        #expect(first.expect("view") == "view 1 members=1 replay=0,1,2")
        first.expect("joined 1")
        first.tell("leave")
        first.expect("last")
        first.expect("left")
        #expect(first.waitForEnd() == 0)
        let status = try #require(try HostClusterStatus.read(volume, in: folder.path + "/run"))
        #expect(!status.isInUse && status.members.isEmpty && status.epoch == Epoch(2))
    }

    @Test func othersWaitUntilAllIsReplayed() throws {
        let first = try node()
        first.expect("joined")
        let second = try node()
        // It cannot have been let in: there is no slot that is known to be clean.
        first.tell("status")
        first.expect("status replay=0,1,2")
        #expect(second.said("claim").isEmpty)
        first.tell("replayed 1")
        #expect(second.expect("claim") == "claim 2 later")
        #expect(second.expect("view") == "view 2 members=1,2 replay=-")
        #expect(first.expect("view 2") == "view 2 members=1,2 replay=-")
        second.expect("joined")
        second.tell("leave")
        second.expect("left")
        #expect(first.expect("view 3") == "view 3 members=1 replay=-")
        #expect(first.said("report") == [])
        #expect(second.said("last") == [] && second.said("expelled") == [])
    }

    @Test func aKilledNodeIsBuriedAndItsSlotKeptForReplay() throws {
        let first = try node()
        first.expect("joined")
        first.tell("replayed 1")
        let second = try node()
        second.expect("joined")
        let third = try node()
        third.expect("joined")
        first.expect("view 3")
        second.signal(SIGKILL)
        #expect(first.expect("view 4") == "view 4 members=1,3 replay=1")
        #expect(third.expect("view 4") == "view 4 members=1,3 replay=1")
        second.waitForEnd()
        // The free slot is the dirty one: nobody moves in.
        let fourth = try node()
        first.tell("status")
        first.expect("status replay=1")
        #expect(fourth.said("claim").isEmpty)
        first.tell("replayed 4")
        #expect(fourth.expect("claim") == "claim 2 later")
        #expect(first.expect("view 5") == "view 5 members=1,2,3 replay=-")
    }

    @Test func whenAllAreKilledTheNextIsTheFirst() throws {
        let first = try node()
        first.expect("joined")
        first.tell("replayed 1")
        let second = try node()
        second.expect("joined")
        first.signal(SIGKILL)
        second.signal(SIGKILL)
        first.waitForEnd()
        second.waitForEnd()
        let third = try node(slot: 2)
        #expect(third.expect("claim") == "claim 3 first")
        let view = try #require(third.expect("view"))
        #expect(view.hasSuffix("members=3 replay=0,1,2"))
    }

    @Test func aNodeThatStandsStillIsKilled() throws {
        let first = try node(patience: 400)
        first.expect("joined")
        first.tell("replayed 1")
        // watches nobody's heartbeat, so that only one of the two can be killed
        let second = try node()
        second.expect("joined")
        first.expect("view 2")
        second.signal(SIGSTOP)
        #expect(first.expect("report n2 made no progress") != nil)
        #expect(first.expect("view 3") == "view 3 members=1 replay=1")
        #expect(second.waitForEnd() == SIGKILL)
    }

    @Test func aNodeThatMakesProgressIsLeftAlone() throws {
        let first = try node(patience: 3000)
        first.expect("joined")
        first.tell("replayed 1")
        let second = try node()
        second.expect("joined")
        // Longer than the patience of the first, with heartbeats well within it.
        for round in 0..<50 {
            second.tell("beat")
            second.tell("status")
            second.expect("status")
            if round < 49 { usleep(80_000) }
        }
        #expect(first.said("report").isEmpty)
        #expect(first.said("view 3").isEmpty)
    }

    @Test func fencingByOrder() throws {
        let first = try node()
        first.expect("joined")
        first.tell("replayed 1")
        let second = try node()
        second.expect("joined")
        second.tell("fence 1")
        #expect(first.waitForEnd() == SIGKILL)
        #expect(second.expect("view 3") == "view 3 members=2 replay=0")
        second.tell("fence 7")  // nobody: nothing happens
        second.tell("status")
        second.expect("status")
        #expect(second.said("expelled").isEmpty)
    }

    @Test func slotsAreRefusedByName() throws {
        let first = try node(slots: 2, slot: 1)
        #expect(first.expect("joined") == "joined 2")
        first.tell("replayed 1")
        #expect(
            try node(slots: 2, slot: 1).expect("error") == "error slot 1 is in use by another mount"
        )
        let beyond = try node(slots: 2, slot: 9).expect("error")
        #expect(beyond == "error the volume has 2 slots, numbered from 0; there is no slot 9")
        let second = try node(slots: 2)
        #expect(second.expect("joined") == "joined 1")
        let full = try node(slots: 2).expect("error")
        #expect(full?.contains("all 2 slots of the volume are in use") == true)
        #expect(try node(slots: 5).expect("error")?.contains("know 2 slots") == true)
    }

    @Test func toolsAndMountsKeepEachOtherOut() throws {
        let run = folder.path + "/run"
        let claim = try OfflineClaim(volume, in: run, patience: 0)
        #expect(try node().expect("error")?.contains("a tool works on") == true)
        claim.release()
        let first = try node()
        first.expect("joined")
        do {
            _ = try OfflineClaim(volume, in: run, patience: 0)
            Issue.record("worked on a mounted volume")
        } catch {
            #expect(
                "\(error)"
                    == "the volume is mounted at /mnt/\(first.process) by process \(first.process)"
            )
        }
        let status = try #require(try HostClusterStatus.read(volume, in: run))
        #expect(status.isInUse)
        #expect(status.slots.map(\.content?.process) == [first.process])
        #expect(try HostClusterStatus.volumes(in: run) == [volume])
    }

    @Test func anUnmountCanBeWaitedFor() throws {
        let run = folder.path + "/run"
        let first = try node()
        first.expect("joined")
        let found = try #require(
            try HostClusterStatus.find(mountPoint: "/mnt/\(first.process)", in: run)
        )
        #expect(found.volume == volume && found.slot == SlotIndex(0))
        #expect(try HostClusterStatus.find(mountPoint: "/elsewhere", in: run) == nil)
        #expect(
            try !HostClusterStatus.waitForEnd(
                of: found.slot,
                volume: volume,
                in: run,
                patience: 1_000_000
            )
        )
        first.tell("leave")
        #expect(
            try HostClusterStatus.waitForEnd(
                of: found.slot,
                volume: volume,
                in: run,
                patience: 30_000_000_000
            )
        )
        #expect(first.waitForEnd() == 0)
    }

    @Test func aGuardianHoldsTheFenceUp() throws {
        let first = try node()
        first.expect("joined")
        first.tell("replayed 1")
        let second = try node()
        second.expect("joined")
        let path = folder.path + "/run/\(volume)/guardian-1"
        let guardian = lockstep_open(path, O_RDWR | O_CREAT, 0o600)
        #expect(lockstep_try_lock(guardian) == 0)
        second.signal(SIGKILL)
        second.waitForEnd()
        first.expect("report n2 is gone, but its guardian is not")
        #expect(first.said("view 3").isEmpty)
        close(guardian)
        #expect(first.expect("view 3") == "view 3 members=1 replay=1")
    }

    @Test func aDamagedViewIsRefusedWhileSomebodyNeedsIt() throws {
        let first = try node()
        first.expect("joined")
        let view = folder.path + "/run/\(volume)/view"
        #expect(truncate(view, 20) == 0)
        #expect(try node().expect("error")?.contains("is damaged") == true)
        #expect(unlink(view) == 0)
        #expect(try node().expect("error")?.contains("is gone though") == true)
        first.end()
        let second = try node()
        #expect(second.expect("claim") == "claim 1 first")
    }

    /// This process as a node, for what must be looked at from inside.
    private func join(prepare: (SlotClaim) throws -> Void = { _ in }) throws -> HostCluster {
        var options = HostClusterOptions()
        options.runDirectory = folder.path + "/run"
        options.joinPatience = 0
        let client = HostClusterClient(
            onView: { _ in },
            onExpelled: { Issue.record("\($0)") },
            onReport: { _ in }
        )
        return try HostCluster.join(
            volume,
            slotCount: 2,
            options: options,
            client: client,
            prepare: prepare
        )
    }

    @Test func anotherFolderIsAnotherCluster() throws {
        let first = try join()
        try first.leave()
        let second = try join()
        #expect(second.claim.clusterHigh == first.claim.clusterHigh)
        #expect(second.claim.clusterLow == first.claim.clusterLow)
        #expect(second.member.incarnation != first.member.incarnation)
        try second.leave()
        #expect(rename(folder.path + "/run", folder.path + "/lost") == 0)
        let third = try join()
        #expect(third.claim.clusterHigh != first.claim.clusterHigh)
        try third.leave()
    }

    @Test func whatFailsInPreparationLeavesNothingBehind() throws {
        struct Refusal: Error {}
        #expect(throws: Refusal.self) { _ = try join { _ in throw Refusal() } }
        let status = try HostClusterStatus.read(volume, in: folder.path + "/run")
        #expect(status == nil)
        let next = try join { claim in #expect(claim.isFirst) }
        // A goodbye that fails is a death: the slot is free, the journal is not clean.
        #expect(throws: Refusal.self) { try next.leave { throw Refusal() } }
        let after = try #require(try HostClusterStatus.read(volume, in: folder.path + "/run"))
        #expect(!after.isInUse && after.members == [next.member])
        let last = try join { claim in #expect(claim.isFirst) }
        try last.leave()
    }

    @Test func aRelativeRunDirectoryIsRefused() throws {
        #expect(throws: HostClusterError.self) { _ = try RunDirectory(root: "run", volume: volume) }
    }

    @Test func aRunDirectoryThatOthersCanEnterIsRefused() throws {
        #expect(mkdir(folder.path + "/run", 0o755) == 0)
        do {
            _ = try join()
            Issue.record("joined in a public folder")
        } catch {
            #expect("\(error)".contains("closed to all others"))
        }
    }

    @Test func aHolderOfTheLockThatStandsStillIsKilled() throws {
        // Stopped while it holds the lock of the view: everybody would wait for ever.
        let run = try RunDirectory(root: folder.path + "/run", volume: volume)
        let first = try node()
        first.expect("joined")
        let lock = run.folder + "/view.lock"
        let text = "\(first.process)\n"
        // The lock is held through a description that the stopped process is said to own.
        let descriptor = lockstep_open(lock, O_RDWR, 0)
        #expect(lockstep_try_lock(descriptor) == 0)
        #expect(pwrite(descriptor, text, text.utf8.count, 0) == text.utf8.count)
        first.signal(SIGSTOP)
        let waiter = try runThread(name: "waiter") {
            do {
                try run.withLock(patience: 100_000_000) { () in }
            } catch { Issue.record("\(error)") }
        }
        #expect(first.waitForEnd() == SIGKILL)
        close(descriptor)
        waiter.join()
    }

    @Test func aFenceWithoutPermissionIsNoFence() throws {
        guard geteuid() == 0 else { return }
        let victim = try node()
        victim.expect("joined")
        let other = try Probe(["kill-as-nobody", "\(victim.process)"])
        #expect(other.expect("kill") == "kill \(EPERM)")
        victim.tell("status")
        victim.expect("status")
    }

    @Test func joinsAndLeavesInAStormEndInOneView() throws {
        let anchor = try node(slots: 8, slot: 7)
        anchor.expect("joined")
        anchor.tell("replayed 1")
        for round in 0..<4 {
            let crowd = try (0..<7).map { _ in try node(slots: 8) }
            for probe in crowd { probe.expect("joined") }
            var view: String?
            repeat {
                view = anchor.expect("view")
            } while view.map { !$0.contains("=1,2,3,4,5,6,7,8 ") } == true
            for (index, probe) in crowd.enumerated() {
                if (index + round) % 2 == 0 { probe.signal(SIGKILL) } else { probe.tell("leave") }
            }
            for probe in crowd {
                probe.waitForEnd()
                #expect(probe.said("expelled").isEmpty)
            }
            // All are gone from the view; then whatever is dirty is replayed.
            repeat {
                view = anchor.expect("view")
            } while view.map { !$0.contains("members=8 ") } == true
            let epoch = view?.split(separator: " ")[1] ?? "0"
            anchor.tell("replayed \(epoch)")
        }
        let epochs = anchor.said("view").compactMap { UInt64($0.split(separator: " ")[1]) }
        #expect(zip(epochs, epochs.dropFirst()).allSatisfy { $0 < $1 })
        // Four rounds of seven joins and seven ends, and the anchor's own join.
        #expect(epochs.last.map { $0 > 1 + 4 * 7 } == true)
        anchor.tell("leave")
        anchor.expect("last")
        anchor.expect("left")
    }
}
