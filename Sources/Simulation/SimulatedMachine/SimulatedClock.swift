package import Execution
package import Vocabulary

/// The clock of one simulated node: the executor's virtual time, and a time of day derived from it
/// that may be off by a constant.
package final class SimulatedClock: EngineClock {
    private let executor: SeededExecutor
    private let civilOffset: Int64

    /// 1 January 2026, 00:00 UTC: the time of day at virtual time zero.
    package static let epoch: Int64 = 1_767_225_600

    /// A clock whose time of day is ahead by `civilOffset` seconds (or behind, if negative).
    package init(executor: SeededExecutor, civilOffset: Int64 = 0) {
        self.executor = executor
        self.civilOffset = civilOffset
    }

    package var now: Tick { executor.now }

    package var civilTime: Timestamp {
        let (seconds, nanoseconds) = executor.now.rawValue.quotientAndRemainder(
            dividingBy: 1_000_000_000
        )
        return Timestamp(
            seconds: Self.epoch + civilOffset + Int64(seconds),
            nanoseconds: UInt32(nanoseconds)
        )
    }

    package func schedule(at tick: Tick, in engine: Engine, _ body: EngineBound<() -> Void>) {
        executor.schedule(at: tick, of: engine.lane, body)
    }
}
