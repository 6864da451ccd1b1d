// What the core costs. Off by default:
//   LOCKSTEP_BENCH=1 swift test -c release -Xswiftc -enable-testing --filter Yardstick

import Glibc
import LockCore
import Testing
import Vocabulary

struct Yardstick {

    @Test(
        "Lock and unlock pairs, bytes per lock",
        .enabled(if: environment("LOCKSTEP_BENCH") != nil)
    )
    func pairs() {
        let box = LockNodeBox()
        var effects: [LockEffect] = []
        effects.reserveCapacity(64)
        var dice = SeededGenerator(seed: 1)
        for number in 0..<50_000 as Range<UInt64> {
            box.space.request(
                ResourceName(kind: .inode, number: number, generation: 1),
                .protectedRead,
                [],
                cookie: number,
                effects: &effects
            )
            effects.removeAll(keepingCapacity: true)
        }
        let count = 2_000_000
        let start = processorTime()
        for _ in 0..<count {
            let number = dice.next() % 100_000
            let lock = box.space.request(
                ResourceName(kind: .inode, number: number, generation: 1),
                .protectedRead,
                [],
                cookie: number,
                effects: &effects
            )
            box.space.unlock(lock, [], value: nil, effects: &effects)
            effects.removeAll(keepingCapacity: true)
        }
        let seconds = processorTime() - start
        print("lock and unlock: \(Int(Double(count) / seconds)) pairs per second of processor time")
        let full = LockNodeBox()
        for number in 0..<1_000_000 as Range<UInt64> {
            full.space.request(
                ResourceName(kind: .inode, number: number, generation: 1),
                .exclusive,
                [],
                cookie: number,
                effects: &effects
            )
            effects.removeAll(keepingCapacity: true)
        }
        print("resource with one lock: \(full.space.byteCount / 1_000_000) bytes")
        #expect(full.space.counters.grants == 1_000_000)
    }
}

/// Seconds of processor time this process has used: other work on the machine does not count.
private func processorTime() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
}

/// A lockspace alone in its view, behind a reference.
private final class LockNodeBox {
    var space = Lockspace(node: NodeID(1), incarnation: 1)

    init() {
        var effects: [LockEffect] = []
        space.viewChanged(
            ClusterView(
                epoch: Epoch(1),
                members: [Member(node: NodeID(1), incarnation: 1)],
                slotsToReplay: []
            ),
            effects: &effects
        )
    }
}
