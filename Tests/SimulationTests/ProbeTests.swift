import Execution
import Foundation
import SimulatedWorld
import Testing

/// Every rare branch is taken by some run (`Probe`).
@Suite struct ProbeTests {
    /// Seeds that reach them at present. A change of the simulation, or of what it runs, changes what a
    /// seed does; then others are tried. `lockstep-simulate --seeds 1..400 --probes` tells which are best.
    private static let hints: [UInt64] = [770, 353, 95, 84, 64, 63, 43, 29, 27, 25, 22]
    /// Others that are tried.
    private static let more: ClosedRange<UInt64> = 1...60
    /// What one run in thousands reaches, or none; the tests of the parts named here do.
    private static let elsewhere: [Probe: String] = [
        .waitForClosing: "JournalTests", .imageGivenUp: "JournalTests",
        .nodeSplit: "DirectoryTests",
        .treeShrinks: "DirectoryTests",
        .quotaSettled: "QuotaTests",
        .replacedOpened: "ReplacedFileTests", .roomByReaping: "ReplacedFileTests",
        // The simulated kernel takes an answer in when it arrives.
        .readerAwaited: "StressTests",
    ]

    @Test func runsReachEveryProbe() throws {
        var missing = Probe.allCases.filter { Self.elsewhere[$0] == nil }
        for seed in Self.hints + Array(Self.more) where !missing.isEmpty {
            let report = try Simulation.run(.drawn(seed: seed))
            missing.removeAll { report.probes.contains($0) }
        }
        #expect(missing.isEmpty, "no run reaches \(missing)")
    }

    /// Tests run side by side, and simulated clusters with them.
    @Test func aThreadTakesWhatItHasReachedItself() {
        _ = Probes.take()
        reached(.orphanMade)
        nonisolated(unsafe) var others: [ProbeSet] = []
        let ended = NSCondition()
        nonisolated(unsafe) var isOver = false
        let other = Thread {
            others.append(Probes.take())
            reached(.withdrawal)
            others.append(Probes.take())
            ended.lock()
            isOver = true
            ended.broadcast()
            ended.unlock()
        }
        other.start()
        ended.lock()
        while !isOver { ended.wait() }
        ended.unlock()
        #expect(others.map { $0.probes(contained: true) } == [[], [.withdrawal]])
        #expect(Probes.take().probes(contained: true) == [.orphanMade])
        #expect(Probes.take() == ProbeSet())
    }

    @Test func aSetHasWhatWasPutIn() {
        var set = ProbeSet()
        for probe in Probe.allCases {
            #expect(!set.contains(probe) && probe.rawValue < 64)
            set.insert(probe)
            #expect(set.contains(probe))
        }
        #expect(set.probes(contained: true) == Probe.allCases && set.probes(contained: false) == [])
        #expect(ProbeSet(bits: set.bits) == set)
    }
}
