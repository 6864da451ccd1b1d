// The lock manager's state machine by itself: one node, one thread, no engine. Seconds are those of
// the thread's processor time.

import Glibc
import LockCore
import Vocabulary

/// Name number `index` of the benchmark.
func benchName(_ index: UInt64) -> ResourceName {
    ResourceName(kind: .application, number: index, generation: 1)
}

/// The loads of the core alone.
struct CoreLoad {
    /// Names in use: as many as are busy at a time, and more than the processor's caches hold.
    static let few: UInt64 = 1_000
    static let many: UInt64 = 100_000
    /// Operations of one test.
    let count: Int

    func run(_ report: (LockFigure) -> Void) {
        report(besideHeldLocks(.coreHeld, names: Self.few))
        report(besideHeldLocks(.coreHeldCold, names: Self.many))
        report(conversions(.coreConversion, names: Self.few))
        report(conversions(.coreConversionCold, names: Self.many))
        report(newNames())
    }

    private static func makeSpace(names: UInt64, _ mode: LockMode) -> (LoneSpace, [LockID]) {
        let lone = LoneSpace()
        let locks = (0..<names).map { index in
            let lock = lone.space.request(
                benchName(index),
                mode,
                [],
                cookie: index,
                effects: &lone.effects
            )
            lone.effects.removeAll(keepingCapacity: true)
            return lock
        }
        return (lone, locks)
    }

    private func time(_ test: LockTest, _ body: () -> Void) -> LockFigure {
        let start = processorNanoseconds()
        body()
        let took = processorNanoseconds() - start
        return LockFigure(test, count: count, seconds: Double(took) * 1e-9)
    }

    /// The node has another lock on each name, as a file system has on what it caches.
    private func besideHeldLocks(_ test: LockTest, names: UInt64) -> LockFigure {
        let (lone, _) = Self.makeSpace(names: names, .protectedRead)
        var dice = SeededGenerator(seed: 1)
        return time(test) {
            for _ in 0..<count {
                lone.pair(benchName(dice.next() % names), .protectedRead)
            }
        }
    }

    private func conversions(_ test: LockTest, names: UInt64) -> LockFigure {
        let (lone, locks) = Self.makeSpace(names: names, .null)
        var dice = SeededGenerator(seed: 2)
        return time(test) {
            for _ in 0..<count {
                lone.thereAndBack(locks[Int(dice.next() % names)])
            }
        }
    }

    /// The resource comes into being and goes again.
    private func newNames() -> LockFigure {
        let (lone, _) = Self.makeSpace(names: Self.few, .null)
        return time(.coreNewName) {
            for index in 0..<UInt64(count) {
                lone.pair(benchName(Self.few + index), .exclusive)
            }
        }
    }

    /// What a million resources with one lock each occupy.
    static func memory(count: UInt64 = 1_000_000) throws -> LockMemory {
        let before = try residentBytes()
        let (lone, locks) = makeSpace(names: count, .exclusive)
        // The names of the locks are the caller's.
        let own = locks.capacity * MemoryLayout<LockID>.stride
        let grown = try residentBytes() - before - own
        return withExtendedLifetime((lone, locks)) {
            LockMemory(
                counted: Double(lone.space.byteCount) / Double(count),
                resident: Double(grown) / Double(count)
            )
        }
    }

    private static func residentBytes() throws -> Int {
        guard let file = fopen("/proc/self/statm", "re") else {
            throw BenchFailure.last("read", "/proc/self/statm")
        }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 256)
        guard fgets(&line, Int32(line.count), file) != nil else {
            throw BenchFailure.last("read", "/proc/self/statm")
        }
        let words = String(
            decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) },
            as: UTF8.self
        )
        .split(separator: " ")
        guard words.count > 1, let pages = Int(words[1]) else {
            throw BenchFailure("/proc/self/statm is not understood")
        }
        return pages * Int(getpagesize())
    }
}

/// A lockspace alone in its view.
private final class LoneSpace {
    // Behind a pointer, as in LockNode: no dynamic exclusivity checks.
    private let pointer: UnsafeMutablePointer<Lockspace>
    private let effectsPointer: UnsafeMutablePointer<[LockEffect]>

    var space: Lockspace {
        _read { yield pointer.pointee }
        _modify { yield &pointer.pointee }
    }

    var effects: [LockEffect] {
        _read { yield effectsPointer.pointee }
        _modify { yield &effectsPointer.pointee }
    }

    init() {
        pointer = .allocate(capacity: 1)
        pointer.initialize(to: Lockspace(node: NodeID(1), incarnation: 1))
        effectsPointer = .allocate(capacity: 1)
        effectsPointer.initialize(to: [])
        effects.reserveCapacity(64)
        space.viewChanged(
            ClusterView(
                epoch: Epoch(1),
                members: [Member(node: NodeID(1), incarnation: 1)],
                slotsToReplay: []
            ),
            effects: &effects
        )
        effects.removeAll(keepingCapacity: true)
    }

    deinit {
        pointer.deinitialize(count: 1)
        pointer.deallocate()
        effectsPointer.deinitialize(count: 1)
        effectsPointer.deallocate()
    }

    @inline(__always)
    func pair(_ name: ResourceName, _ mode: LockMode) {
        let lock = space.request(name, mode, [], cookie: 0, effects: &effects)
        space.unlock(lock, [], value: nil, effects: &effects)
        effects.removeAll(keepingCapacity: true)
    }

    @inline(__always)
    func thereAndBack(_ lock: LockID) {
        space.convert(lock, to: .exclusive, [], value: nil, effects: &effects)
        space.convert(lock, to: .null, [], value: nil, effects: &effects)
        effects.removeAll(keepingCapacity: true)
    }
}
