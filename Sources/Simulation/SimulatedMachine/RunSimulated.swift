package import Execution
import Vocabulary

/// Why a simulated run did not come to its end.
package enum SimulationError: Error, Hashable, Sendable, CustomStringConvertible {
    /// Nothing is ready, no timer is set, and the body has not returned.
    case deadlock(seed: UInt64, steps: Int)
    /// The step limit was reached.
    case noProgress(seed: UInt64, steps: Int)

    package var description: String {
        switch self {
        case .deadlock(let seed, let steps):
            "seed \(seed): everybody waits for ever after \(steps) steps"
        case .noProgress(let seed, let steps): "seed \(seed): no end after \(steps) steps"
        }
    }
}

/// Runs `body` inside a new engine on a new `SeededExecutor`, and everything it spawns, on the
/// calling thread until `body` returns. What is still waiting then is abandoned.
///
/// - Throws: what `body` throws, or a `SimulationError`.
@discardableResult
package func runSimulated<Result>(
    seed: UInt64,
    stepLimit: Int = 20_000_000,
    _ body: @escaping (Engine) async throws -> Result
) throws -> Result {
    let executor = SeededExecutor(seed: seed)
    executor.stepLimit = stepLimit
    let engine = Engine(executor: executor, clock: SimulatedClock(executor: executor))
    var outcome: Swift.Result<Result, any Error>?
    engine.spawn {
        do {
            outcome = .success(try await body(engine))
        } catch {
            outcome = .failure(error)
        }
    }
    switch executor.run(until: { outcome != nil }) {
    case .done: break
    case .idle: throw SimulationError.deadlock(seed: seed, steps: executor.steps)
    case .outOfSteps: throw SimulationError.noProgress(seed: seed, steps: executor.steps)
    }
    guard let outcome else { throw SimulationError.deadlock(seed: seed, steps: executor.steps) }
    return try outcome.get()
}

extension Engine {
    /// The executor of a simulated engine. Traps for any other.
    package nonisolated var seededExecutor: SeededExecutor {
        if let lane { return lane.machine }
        guard let seeded = executor as? SeededExecutor else {
            preconditionFailure("the engine is not simulated")
        }
        return seeded
    }

    /// The part of the executor that serves this engine alone, if it has one.
    package nonisolated var lane: SeededLane? { executor as? SeededLane }

    /// Waits for `nanoseconds` of virtual time.
    package nonisolated func sleep(nanoseconds: UInt64) async {
        await sleep(until: clock.now.advanced(nanoseconds: nanoseconds))
    }
}
