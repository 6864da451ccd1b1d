// A counter in a file, for the workloads that hold a lock while they add one to it: the block says its value.
//
// Asserted: under the lock, the value is never below what anybody had made of it or seen before the lock was
// asked for, and nobody changes it; in the end it is the sum of all additions. An addition that failed with
// its mount counts as perhaps done; of an agent that lost its mount, what it had not synced may be lost
// unless somebody else saw it.
// Why: a lock that excludes others, and writes that who has the lock next must see.

import CLinux
import Glibc
import StressJudging
import Vocabulary

final class CounterFile {
    let lane: StressLane
    let count: Int
    private let size: Int
    private(set) var file: Int32 = -1
    private var done: [StressCounts]

    /// - Parameters:
    ///   - count: counters in the file.
    ///   - size: bytes of each.
    init(_ lane: StressLane, count: Int, size: Int) {
        self.lane = lane
        self.count = count
        self.size = size
        done = .init(repeating: StressCounts(), count: count)
    }

    func key(_ counter: Int) -> StressKey { StressKey(lane.workload, 0, counter) }
    func offset(_ counter: Int) -> Int { counter * size }

    func open() throws(StressFailure) {
        close()
        file = try lane.openSized(lane.workload.name, count * size, key(0))
        // The second time: something has been lost.
        for counter in done.indices where lane.epoch > 0 { done[counter].hasLost = true }
    }

    /// Reads a counter while the lock is held.
    func look(_ counter: Int, _ floor: StressFloor) throws(StressFailure) -> StressBlock? {
        let key = key(counter)
        let bytes = try lane.read(size, file, at: offset(counter), key)
        let found = bytes.withUnsafeBytes {
            StressBlock.version(in: $0, of: key, run: lane.agent.plan.run)
        }
        switch found {
        case .failure(let complaint):
            lane.complain(key, "\(complaint.words) (under the lock)")
            return nil
        case .success(let block):
            lane.judge(key, block.version, writer: block.writer, floor, "counted")
            return block
        }
    }

    /// Adds one while the lock is held, and now and then looks whether that stays.
    func add(_ counter: Int, _ floor: StressFloor) throws(StressFailure) {
        guard var block = try look(counter, floor) else { return }
        let key = key(counter)
        block.version += 1
        block.writer = lane.me
        done[counter].doubtful += 1
        let bytes = block.bytes(size: size)
        try lane.write(bytes, file, at: offset(counter), key, block.version)
        done[counter].doubtful -= 1
        done[counter].added += 1
        lane.claim(key, block.version, isFirm: false)
        if lane.dice.oneIn(16) {
            try lane.sync(file, key)
            lane.claim(key, block.version, isFirm: true)
        }
        guard lane.dice.oneIn(4) else { return }
        let again = try lane.read(size, file, at: offset(counter), key)
        if again != bytes { lane.complain(key, "changed by somebody else while it was locked") }
    }

    /// Compares all counters with what all agents have added.
    func verify() throws(StressFailure) {
        var values: [UInt64] = []
        for counter in 0..<count {
            values.append(try look(counter, lane.floor(key(counter)))?.version ?? 0)
        }
        var mine: [UInt64] = []
        for counts in done { mine += [counts.added, counts.doubtful, counts.hasLost ? 1 : 0] }
        let place = lane.workload.rawValue | StressLane.atTheEnd
        let told = try lane.meet(place, 0, mine)
        guard told.first?.agent == lane.me else { return }
        let known = told.map(\.numbers).filter { $0.count == 3 * count }
        for counter in 0..<count {
            var counts: [StressCounts] = []
            for numbers in known {
                let hasLost = numbers[counter * 3 + 2] == 1
                counts.append(
                    StressCounts(
                        added: numbers[counter * 3],
                        doubtful: numbers[counter * 3 + 1],
                        hasLost: hasLost
                    )
                )
            }
            let isComplete = counts.count == lane.agents
            if let words = StressCounts.judge(values[counter], counts, isComplete: isComplete) {
                lane.complain(key(counter), words)
            }
        }
    }

    func close() {
        if file >= 0 { Glibc.close(file) }
        file = -1
    }
}

extension StressLane {
    /// Added to the number of a place where agents meet at the end.
    static let atTheEnd: UInt8 = 0x80
}
