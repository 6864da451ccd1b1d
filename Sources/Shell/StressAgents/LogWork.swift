// Logs: all agents append records to one file with O_APPEND; when it is large, to the next.
//
// Asserted: every record is whole and stands behind another; those of one writer are there in order, each once;
// what was appended or seen before a look began is there at its end (LogReader L1 to L3).
// Why: O_APPEND puts each write behind all others, whoever made them, in one step (POSIX). A writer waits for
// one record before it begins the next. Only who shares a page cache with writers may see the last record
// grow.

import CLinux
import Glibc
import LinuxSystem
import StressJudging
import Vocabulary

final class LogWork: StressWork {
    /// Bytes after which a log is left for the next.
    private static let enough = 2 << 20
    private static let piece = 256 << 10
    /// Where agents tell in which log they are.
    private static let progress = 1 << 20

    private unowned let lane: StressLane
    private var file: Int32 = -1
    private var group = 0
    private var reader: StressLogReader
    /// This agent's records in the present log.
    private var written: UInt64 = 0
    private var removed = 0

    init(_ lane: StressLane) {
        self.lane = lane
        reader = StressLogReader(run: lane.agent.plan.run, group: 0, writers: lane.agents)
    }

    private func key(_ writer: Int) -> StressKey { StressKey(.logs, group, writer) }
    private func name(_ group: Int) -> String { "log-\(group)" }

    func open() throws(StressFailure) {
        try enter(group)
        // What this agent had appended and was not told of may be there or not: the log itself says.
        try look(fromStart: true)
        written = reader.counts[lane.me]
    }

    private func enter(_ group: Int) throws(StressFailure) {
        close()
        self.group = group
        written = 0
        reader = StressLogReader(run: lane.agent.plan.run, group: group, writers: lane.agents)
        file = try lane.openFile(name(group), O_RDWR | O_APPEND | O_CREAT, key(lane.me))
    }

    func step() throws(StressFailure) {
        switch lane.dice.below(8) {
        case 0: try look(fromStart: lane.dice.oneIn(20))
        case 1: try look(fromStart: false)
        default: try append()
        }
        if reader.offset > Self.enough { try next() }
    }

    private func append() throws(StressFailure) {
        let key = key(lane.me)
        let record = StressBlock(
            run: lane.agent.plan.run,
            key: key,
            version: written + 1,
            writer: lane.me
        )
        let bytes = record.bytes(size: StressLogReader.recordSize)
        let count = try lane.call("append", key, written + 1) {
            Glibc.write(file, bytes, bytes.count)
        }
        guard count == bytes.count else {
            return lane.complain(key, "short append: \(count) of \(bytes.count) bytes")
        }
        written += 1
        lane.claim(key, written, isFirm: false)
        if lane.dice.oneIn(16) {
            try lane.sync(file, key)
            lane.claim(key, written, isFirm: true)
        }
    }

    /// Reads what is new, or everything, and judges how much is there.
    private func look(fromStart: Bool) throws(StressFailure) {
        if fromStart {
            let run = lane.agent.plan.run
            reader = StressLogReader(run: run, group: group, writers: lane.agents)
        }
        let floors = (0..<lane.agents).map { lane.floor(key($0)) }
        while true {
            let bytes = try lane.read(Self.piece, file, at: reader.offset, key(lane.me))
            let before = reader.offset
            if let (writer, words) = bytes.withUnsafeBytes({ reader.take($0) }) {
                return try blame(writer, words)
            }
            let rest = bytes.count - (reader.offset - before)
            if bytes.count < Self.piece {
                if rest > 0, !othersShareTheCache {
                    lane.complain(key(lane.me), "torn: \(rest) bytes at the end of the log")
                }
                break
            }
        }
        for writer in 0..<lane.agents {
            lane.judge(key(writer), reader.counts[writer], writer: writer, floors[writer], "read")
        }
    }

    /// Complains about what was read. From there on nothing fits: the next log rather than the same complaint
    /// again and again.
    private func blame(_ writer: Int?, _ words: String) throws(StressFailure) {
        lane.complain(key(writer ?? lane.me), words)
        try next()
    }

    /// Whether others append through the page cache that this agent reads from.
    private var othersShareTheCache: Bool {
        (0..<lane.agents).contains { $0 != lane.me && lane.sharesCache(with: $0) }
    }

    /// Leaves the log for the next one.
    private func next() throws(StressFailure) {
        try enter(group + 1)
        lane.claim(StressKey(.logs, Self.progress, lane.me), UInt64(group), isFirm: true)
        guard lane.me == 0 else { return }
        let least = lane.agent.latch.withLock {
            (0..<lane.agents).map { agent in
                lane.agent.claims.firm(StressKey(.logs, Self.progress, agent))
            }.min()
        }
        // Logs that everybody has left.
        while removed + 1 < Int(least ?? 0) {
            let folder = lane.folder
            let name = name(removed)
            _ = try lane.call("unlink \(name)", key(lane.me), allowing: [ENOENT]) {
                Int(unlinkat(folder, name, 0))
            }
            removed += 1
        }
    }

    func verify() throws(StressFailure) { try look(fromStart: true) }

    func close() {
        if file >= 0 { Glibc.close(file) }
        file = -1
    }
}
