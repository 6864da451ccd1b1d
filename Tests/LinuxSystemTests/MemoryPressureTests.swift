// Where the kernel tells of memory pressure, and that watching begins and ends.

import Glibc
import LinuxSystem
import Synchronization
import Testing

@Suite struct MemoryPressureTests {
    private static let mounts =
        "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n"

    @Test func theGroupsFileIsFound() {
        let groups = "4:memory:/old\n0::/system.slice/lockstep.service\n"
        #expect(
            MemoryPressure.controlGroupPressure(groups: groups, mounts: Self.mounts)
                == "/sys/fs/cgroup/system.slice/lockstep.service/memory.pressure"
        )
    }

    @Test(arguments: ["0::/\n", "4:memory:/old\n", "", "0::relative\n"]) func theMachinesWillDo(
        groups: String
    ) {
        #expect(MemoryPressure.controlGroupPressure(groups: groups, mounts: Self.mounts) == nil)
    }

    @Test func withoutTheSecondVersionThereIsNone() {
        #expect(
            MemoryPressure.controlGroupPressure(groups: "0::/a\n", mounts: "x /x proc rw") == nil
        )
    }

    @Test func whereThereIsNoneItIsSaid() {
        #expect(throws: SystemError.self) {
            _ = try MemoryPressure(["/proc/self/no-such-file", "/dev/full"]) {}
        }
    }

    @Test(.enabled(if: access("/proc/pressure/memory", R_OK | W_OK) == 0))
    func watchingBeginsAndEnds() throws {
        for _ in 1...3 { try MemoryPressure {}.stop() }
        let open = try MemoryPressure(["/proc/self/no-such-file", "/proc/pressure/memory"]) {}
        open.stop()
    }

    /// Processors are made short, not memory: it is the same interface.
    @Test(.enabled(if: access("/proc/pressure/cpu", R_OK | W_OK) == 0))
    func whatTheKernelSaysIsHeard() throws {
        let isHeard = Atomic(false)
        let isOver = Atomic(false)
        let pressure = try MemoryPressure(["/proc/pressure/cpu"]) {
            isHeard.store(true, ordering: .releasing)
        }
        let processors = max(sysconf(Int32(_SC_NPROCESSORS_ONLN)), 1)
        let threads = try (0..<3 * processors).map { _ in
            try runThread(name: "busy") {
                while !isHeard.load(ordering: .acquiring), !isOver.load(ordering: .relaxed) {}
            }
        }
        for _ in 0..<200 where !isHeard.load(ordering: .acquiring) { poll(nil, 0, 100) }
        isOver.store(true, ordering: .relaxed)
        for thread in threads { thread.join() }
        pressure.stop()
        let wasHeard = isHeard.load(ordering: .acquiring)
        #expect(wasHeard, "nothing was heard in 20 s")
    }
}
