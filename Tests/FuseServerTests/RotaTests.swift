import Glibc
import LinuxSystem
import Testing
import Vocabulary

@testable import FuseServer

/// A watch whose calls can stand in an expectation.
private final class WatchBench {
    private var watch: Watch

    init(length: UInt64) { watch = Watch(length: length) }

    func begin(at now: UInt64) { watch.begin(at: Tick(now)) }
    func goesOn(at now: UInt64) -> Bool { watch.goesOn(at: Tick(now)) }
    func succeeded() { watch.succeeded() }
}

@Suite struct WatchTests {
    @Test func aWatchEndsAndIsNotRepeatedAtOnce() {
        let watch = WatchBench(length: 100)
        watch.begin(at: 1000)
        #expect(watch.goesOn(at: 1099))
        #expect(!watch.goesOn(at: 1100))
        #expect(!watch.goesOn(at: 1100), "once it sleeps it sleeps")
        watch.succeeded()
        // One wait without, then a watch; after the next failure two, and so on.
        for skipped in [1, 2, 4, 8, 16, 32, 64, 64] {
            for _ in 0..<skipped {
                watch.begin(at: 2000)
                #expect(!watch.goesOn(at: 2000))
                watch.succeeded()
            }
            watch.begin(at: 3000)
            #expect(watch.goesOn(at: 3000))
            #expect(!watch.goesOn(at: 3100))
        }
    }

    @Test func successIsRewarded() {
        let watch = WatchBench(length: 100)
        func waitsUntilItWatches() -> Int {
            for wait in 1... {
                watch.begin(at: 0)
                if watch.goesOn(at: 0) { return wait }
            }
            return 0
        }
        for expected in [1, 2, 3, 5, 9] {
            #expect(waitsUntilItWatches() == expected)
            #expect(!watch.goesOn(at: 100))
        }
        #expect(waitsUntilItWatches() == 17)
        watch.succeeded()
        #expect(waitsUntilItWatches() == 1)
        #expect(!watch.goesOn(at: 100))
        #expect(waitsUntilItWatches() == 2, "the penalty began at one again")
    }

    @Test func withoutLengthNobodyWatches() {
        let watch = WatchBench(length: 0)
        for _ in 0..<3 {
            watch.begin(at: 5)
            #expect(!watch.goesOn(at: 5))
        }
    }
}

@Suite struct RotaTests {
    @Test func oneStandsAndTheOthersRestUntilTheyAreCalled() throws {
        let rota = Rota()
        #expect(rota.standOrRest())
        let other = try background { rota.standOrRest() ? 1 : 0 }
        while rota.restingCount == 0 { sched_yield() }
        rota.leave(needsAnother: false)
        #expect(rota.standOrRest(), "the post was free again")
        rota.leave(needsAnother: true)
        #expect(other.result() == 0, "it shall look again")
        #expect(rota.restingCount == 0)
    }

    @Test func nobodyIsCalledWhileThereIsASentry() throws {
        let rota = Rota()
        #expect(rota.standOrRest())
        let other = try background { rota.standOrRest() ? 1 : 0 }
        while rota.restingCount == 0 { sched_yield() }
        rota.callAnother()
        #expect(rota.restingCount == 1)
        rota.end()
        #expect(other.result() == 0)
        #expect(rota.hasEnded)
    }

    @Test func callsAreNotSavedUp() throws {
        let rota = Rota()
        #expect(rota.standOrRest())
        rota.leave(needsAnother: true)
        rota.callAnother()
        #expect(rota.standOrRest())
        let other = try background { rota.standOrRest() ? 1 : 0 }
        while rota.restingCount == 0 { sched_yield() }
        rota.end()
        #expect(other.result() == 0)
    }
}
