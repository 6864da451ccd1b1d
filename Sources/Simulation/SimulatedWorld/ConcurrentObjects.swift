// What the processes of a concurrent run fight over, and what a node that has died may have taken
// with it.
//
// A change that had returned is *certain*, and stays so when its node lives on. When the node dies,
// what it had changed is *in doubt* (it may be there or not) unless it was *secured* before:
//
//   D1. fsync of the file returned, and the change had returned before the fsync began; or
//   D2. a process of another life met the object, and the change had returned before that meeting
//       began: the lock was given up, and with it went everything that it protects.
//
// What is in doubt may also have reached the disk in part, by sectors: a write that nothing had made
// durable is not atomic.
//
// A doubt ends with the first look after the death that can tell (nothing else under way). From then
// on it is certain, one way or the other, for everybody.
//
// Time is counted in steps of the executor, which no two events share.

/// One mount of one node, by a number of its own: what dies at once.
typealias Life = Int

/// One write of a register, from when it began to when it had returned.
private struct RegisterWrite {
    let value: UInt64
    let life: Life
    let begin: Int
    var end = Int.max
    var isSecured = false
    /// Its node's disk fails: it may be lost although the node goes on and gives its lock up.
    var isUncertain = false
    /// When its node died, if nobody knows whether it was.
    var doubtfulSince: Int?
}

/// What was written where, and what may be read.
final class Register {
    private var writes = [RegisterWrite(value: 0, life: 0, begin: 0, end: 0, isSecured: true)]
    private var history = RegisterHistory(0)
    private let clock: HistoryClock

    init(_ clock: HistoryClock) { self.clock = clock }

    /// What was read and written since the last death that left doubts is possible in some order.
    func violation() -> String? { history.violation() }

    /// A write begins.
    func begin(_ value: UInt64, by life: Life, at step: Int) {
        history.begin(value, by: life, at: clock.next())
        writes.append(RegisterWrite(value: value, life: life, begin: step))
    }

    /// The disk fails for a node: what its processes store through mappings from now on, and what they had and
    /// was not written back, may be lost although the node gives its locks up in order. (The program is
    /// told by msync.) `begin` of such a node's writes is to be followed by this.
    func diskFails(for life: Life) {
        for index in writes.indices
        where writes[index].life == life && !writes[index].isSecured
            && writes[index].doubtfulSince == nil
        {
            writes[index].isUncertain = true
            history.doubt(writes[index].value)
        }
    }

    /// It has returned. Whoever writes has the lock, and what others wrote before is secured (D2).
    func end(_ value: UInt64, at step: Int) {
        guard let index = writes.lastIndex(where: { $0.value == value }) else { return }
        history.end(value, at: clock.next())
        writes[index].end = step
        secure(meeting: writes[index].life, from: writes[index].begin)
    }

    /// fsync of `life`, begun at `step`, has returned (D1).
    func synchronized(_ life: Life, from step: Int) {
        for index in writes.indices
        where writes[index].life == life && writes[index].end < step && !writes[index].isUncertain {
            writes[index].isSecured = true
        }
    }

    private func secure(meeting life: Life, from step: Int) {
        for index in writes.indices
        where writes[index].life != life && writes[index].end < step && !writes[index].isUncertain {
            writes[index].isSecured = true
        }
    }

    /// A node is dead. What was read and written up to now must be possible.
    func died(_ life: Life, at step: Int) throws(SimulationFailure) {
        if let violation = history.violation() { throw SimulationFailure(violation) }
        for index in writes.indices where writes[index].life == life && !writes[index].isSecured {
            writes[index].doubtfulSince = step
        }
        if mayBeTorn { history.restart(at: clock.next()) }
    }

    /// What a read that began at `step` may return.
    func candidates(readFrom step: Int) -> [UInt64] {
        writes.filter { found in
            !writes.contains {
                $0.doubtfulSince == nil && !$0.isUncertain && $0.end < step && found.end < $0.begin
            }
        }.map(\.value)
    }

    /// Whether a read that ends now may return parts of several values: some write is in doubt. (A read
    /// that began before the death may have waited for the dead node's lock.)
    var mayBeTorn: Bool { writes.contains { $0.doubtfulSince != nil || $0.isUncertain } }

    /// Whether a read by `life` that began at `step` may return `value`; if so, what follows.
    /// Nothing does if the reader's daemon is dead: what it sees may be lost. `moment`: when it began.
    func read(
        _ value: UInt64,
        by life: Life,
        from step: Int,
        _ moment: Int,
        isOrphan: Bool
    ) -> Bool {
        guard candidates(readFrom: step).contains(value),
            let found = writes.firstIndex(where: { $0.value == value })
        else { return false }
        if isOrphan { return true }
        history.read(value, by: life, from: moment, at: clock.next())
        let (begin, end) = (writes[found].begin, writes[found].end)
        // Another node has got it with the lock.
        if writes[found].isUncertain, writes[found].life != life {
            writes[found].isUncertain = false
            writes[found].isSecured = true
        }
        // A doubt that is older than the look ends with it: what was read was written, and what
        // would have overwritten it was not.
        if let death = writes[found].doubtfulSince, death < step {
            writes[found].doubtfulSince = nil
            writes[found].end = min(end, death)
        }
        writes.removeAll {
            guard let death = $0.doubtfulSince else { return false }
            return death < step && end < $0.begin && $0.begin > begin
        }
        secure(meeting: life, from: step)
        return true
    }
}

/// A name that processes make and remove.
final class ContestedName {
    /// Whether it is there, unless that is in doubt.
    var isThere = false
    /// Nobody knows whether it is there: who had changed it last has died.
    private(set) var isDoubtful = false
    /// The process that made it, and that alone removes it.
    var owner: Int?
    /// Grows with every beginning and end of an operation that may change it, and with a death.
    private(set) var version = 0
    /// The lives of such operations that have begun and not ended.
    private var changers: [Life] = []
    private var lastLife: Life = 0
    private var isSecured = true

    /// Nobody is changing it.
    var isQuiet: Bool { changers.isEmpty }

    /// An operation begins that may change it.
    func begin(_ life: Life) {
        version += 1
        changers.append(life)
    }

    /// It has ended without changing anything.
    func end(_ life: Life) {
        version += 1
        if let index = changers.firstIndex(of: life) { changers.remove(at: index) }
    }

    /// It has made the name, or taken it away.
    func changed(by life: Life, isThere: Bool) {
        self.isThere = isThere
        isDoubtful = false
        lastLife = life
        isSecured = false
        end(life)
    }

    /// A process of `life` has met it as it is known to be, with nothing under way (D2).
    func met(by life: Life) {
        if life != lastLife { isSecured = true }
    }

    /// A look has found out what nobody knew, with nothing under way.
    func settle(isThere: Bool) {
        self.isThere = isThere
        if !isThere { owner = nil }
        isDoubtful = false
        isSecured = true
    }

    /// A node is dead.
    func died(_ life: Life) {
        if changers.contains(life) || (lastLife == life && !isSecured) { isDoubtful = true }
        changers.removeAll { $0 == life }
        version += 1
    }
}

/// A file that is appended to: which records must be in it.
struct AppendedRecords {
    private struct Record {
        let process: Int
        let number: Int
        let life: Life
        let end: Int
        var isSecured = false
    }

    private var records: [Record] = []

    /// An append that began at `begin` has returned at `step`.
    mutating func append(
        _ process: Int,
        _ number: Int,
        by life: Life,
        from begin: Int,
        at step: Int
    ) {
        secure(meeting: life, from: begin)
        records.append(Record(process: process, number: number, life: life, end: step))
    }

    /// All that had been appended before `step` was met by `life` (D2).
    mutating func secure(meeting life: Life, from step: Int) {
        for index in records.indices where records[index].life != life && records[index].end < step
        {
            records[index].isSecured = true
        }
    }

    /// A node is dead: what of it was not secured may be missing.
    mutating func died(_ life: Life) {
        records.removeAll { $0.life == life && !$0.isSecured }
    }

    /// A record that was appended before `step` and is not in a log whose last record of each process
    /// is `last`.
    func missing(before step: Int, _ last: [Int: Int]) -> (process: Int, number: Int)? {
        records.first { $0.end < step && last[$0.process, default: 0] < $0.number }
            .map { ($0.process, $0.number) }
    }
}
