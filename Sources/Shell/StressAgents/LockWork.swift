// Locks of programs: counters under flock, under locks of bytes of a process, and a lock that goes round.
//
// flock: one counter; whole-file locks of an open file, exclusive to add, shared to look twice.
// ranges: eight counters in blocks of a file, each under a lock of its own bytes (F_SETLKW, F_SETLK; POSIX: the
// locks of a process, which is why every agent is one), sometimes of two at once.
// pingpong: agents go from byte to byte in a ring, take the next lock before they give the present one back,
// and add one at each (locks of the open file, F_OFD_*: the kernel looks for circles among processes, and a
// process that waits in one file while it holds a lock in another would be taken for a circle).
//
// What is asserted is said at the head of Counter.swift.

import CLinux
import Glibc
import LinuxSystem
import StressJudging
import Vocabulary

final class FlockWork: StressWork {
    private unowned let lane: StressLane
    private let counter: CounterFile

    init(_ lane: StressLane) {
        self.lane = lane
        counter = CounterFile(lane, count: 1, size: 64)
    }

    func open() throws(StressFailure) { try counter.open() }

    func step() throws(StressFailure) {
        let key = counter.key(0)
        let file = counter.file
        let floor = lane.floor(key)
        if lane.dice.oneIn(6) {
            _ = try lane.call("flock shared", key) { Int(flock(file, LOCK_SH)) }
            let one = try counter.look(0, floor)
            let two = try counter.look(0, floor)
            if one != two { lane.complain(key, "changed while it was locked shared") }
        } else {
            let isPatient = !lane.dice.oneIn(4)
            let mode = isPatient ? LOCK_EX : LOCK_EX | LOCK_NB
            let result = try lane.call("flock", key, allowing: isPatient ? [] : [EWOULDBLOCK]) {
                Int(flock(file, mode))
            }
            if result < 0 { return }
            try counter.add(0, floor)
        }
        try rest()
    }

    func rest() throws(StressFailure) {
        let file = counter.file
        _ = try lane.call("unlock", counter.key(0)) { Int(flock(file, LOCK_UN)) }
    }

    func verify() throws(StressFailure) { try counter.verify() }
    func close() { counter.close() }
}

final class RangeWork: StressWork {
    private static let cells = 8
    private static let size = 4096
    private unowned let lane: StressLane
    private let counter: CounterFile

    init(_ lane: StressLane) {
        self.lane = lane
        counter = CounterFile(lane, count: Self.cells, size: Self.size)
    }

    func open() throws(StressFailure) { try counter.open() }

    func step() throws(StressFailure) {
        let count = lane.dice.oneIn(4) ? 2 : 1
        let first = lane.dice.below(Self.cells - count + 1)
        let key = counter.key(first)
        let start = counter.offset(first)
        let length = count * Self.size
        let floors = (0..<count).map { lane.floor(counter.key(first + $0)) }
        let isShared = lane.dice.oneIn(6)
        let command = lane.dice.oneIn(4) ? F_SETLK : F_SETLKW
        let type = isShared ? F_RDLCK : F_WRLCK
        guard try lane.lockBytes(counter.file, command, type, start, length, key) else { return }
        for place in 0..<count {
            if isShared {
                let one = try counter.look(first + place, floors[place])
                let two = try counter.look(first + place, floors[place])
                if one != two {
                    lane.complain(counter.key(first + place), "changed while it was locked shared")
                }
            } else {
                try counter.add(first + place, floors[place])
            }
        }
        try rest()
    }

    func rest() throws(StressFailure) {
        _ = try lane.lockBytes(counter.file, F_SETLK, F_UNLCK, 0, 0, counter.key(0))
    }

    func verify() throws(StressFailure) { try counter.verify() }
    func close() { counter.close() }
}

final class PingPongWork: StressWork {
    private unowned let lane: StressLane
    private let counter: CounterFile
    /// The place whose lock is held; nil before the first.
    private var place: Int?

    /// One place more than agents, or they would wait for each other in a circle.
    init(_ lane: StressLane) {
        self.lane = lane
        counter = CounterFile(lane, count: lane.agents + 1, size: 64)
    }

    func open() throws(StressFailure) {
        try counter.open()
        place = nil
    }

    /// Where the lock of a place is: far behind the counters, where there is no data.
    private func byte(_ place: Int) -> Int { 1 << 30 + place }

    private func lock(_ place: Int) throws(StressFailure) {
        _ = try lane.lockBytes(
            counter.file,
            lockstep_f_ofd_setlkw,
            F_WRLCK,
            byte(place),
            1,
            counter.key(place)
        )
    }

    private func unlock(_ place: Int) throws(StressFailure) {
        _ = try lane.lockBytes(
            counter.file,
            lockstep_f_ofd_setlk,
            F_UNLCK,
            byte(place),
            1,
            counter.key(place)
        )
    }

    func step() throws(StressFailure) {
        let next = ((place ?? lane.me) + (place == nil ? 0 : 1)) % counter.count
        let floor = lane.floor(counter.key(next))
        try lock(next)
        if let place { try unlock(place) }
        place = next
        try counter.add(next, floor)
    }

    func rest() throws(StressFailure) {
        guard let held = place else { return }
        place = nil
        try unlock(held)
    }

    func verify() throws(StressFailure) { try counter.verify() }
    func close() { counter.close() }
}
