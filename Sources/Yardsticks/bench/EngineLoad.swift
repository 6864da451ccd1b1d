// Pairs of lock and unlock that threads bring into the engine, as the threads that receive from the
// kernel do: whoever finds it idle enters, whoever finds somebody inside leaves the work there and
// goes on. No other node; all is decided here.

import Execution
import Glibc
import LinuxSystem
import LockCache
import NodeService
import Synchronization
import Vocabulary

/// Pairs through the engine of one node.
final class EngineLoad {
    private static let names: UInt64 = 1_000
    /// Pairs that a thread leaves before it waits for some to be done.
    private static let window: UInt64 = 64

    private let node: BenchNode
    private let count: Int

    init(count: Int) throws {
        self.count = count
        node = try BenchNode(node: NodeID(1)) { _ in }
        node.join(count: 1)
        let node = node
        node.run {
            let cookie = node.takeCookie()
            for index in 0..<Self.names {
                node.locks.request(benchName(index), .protectedRead, [], cookie: cookie)
            }
        }
    }

    func run(_ report: (LockFigure) -> Void) throws {
        for (test, threads) in [(LockTest.engine1, 1), (.engine2, 2), (.engine8, 8)] {
            report(try measure(test, threads: threads))
        }
        node.end()
    }

    private func measure(_ test: LockTest, threads: Int) throws -> LockFigure {
        let share = count / threads
        let work = (0..<threads).map { Visitor(node, seed: UInt64($0), count: share) }
        let start = nanoseconds()
        let running = try work.map { visitor in try runThread(name: "visitor") { visitor.run() } }
        for thread in running { thread.join() }
        let took = nanoseconds() - start
        var figure = LockFigure(test, count: share * threads, seconds: Double(took) * 1e-9)
        if threads == 1 {
            let spread = Spread(work[0].samples)
            (figure.median, figure.percentile99) = (spread.median, spread.percentile99)
        }
        return figure
    }

    /// What one thread brings.
    private final class Visitor: @unchecked Sendable {
        // Sendable: `done` is atomic, `samples` belongs to the thread and is read after its end,
        // `queue` is under the latch.
        private let node: BenchNode
        /// What was left there while somebody was inside; under the latch.
        private var queue: [UInt64] = []
        private let latch = Latch()
        private let count: Int
        private var dice: SeededGenerator
        private let done = Atomic<UInt64>(0)
        /// Nanoseconds of every 64th pair.
        private(set) var samples: [UInt64] = []

        init(_ node: BenchNode, seed: UInt64, count: Int) {
            self.node = node
            self.count = count
            dice = SeededGenerator(seed: seed)
            samples.reserveCapacity(count / 64 + 1)
        }

        func run() {
            var sent: UInt64 = 0
            for index in 0..<count {
                let number = dice.next() % EngineLoad.names
                let start = index & 63 == 0 ? nanoseconds() : 0
                if !node.engine.executor.enterIfIdle({ pair(number) }) { leave(number) }
                if start != 0 { samples.append(nanoseconds() - start) }
                sent += 1
                while sent - done.load(ordering: .acquiring) >= EngineLoad.window { sched_yield() }
            }
            while done.load(ordering: .acquiring) != sent { sched_yield() }
        }

        /// One job for however many pairs gather until it runs.
        private func leave(_ number: UInt64) {
            latch.lock()
            queue.append(number)
            let isFirst = queue.count == 1
            latch.unlock()
            if isFirst { node.engine.spawn { self.takeQueue() } }
        }

        private func takeQueue() {
            latch.lock()
            let numbers = queue
            queue = []
            latch.unlock()
            for number in numbers { pair(number) }
        }

        /// Inside the engine.
        private func pair(_ number: UInt64) {
            let locks = node.locks
            let lock = locks.request(benchName(number), .protectedRead, [], cookie: 0)
            locks.unlock(lock, [], value: nil)
            done.add(1, ordering: .releasing)
        }
    }
}
