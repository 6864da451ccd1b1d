// Mappings: records in pages that all agents map shared and store into, each agent its own records; two agents'
// records stand side by side in one page.
//
// Asserted: who loads, or reads with pread, sees of each record a version that is not older than the greatest
// anybody had stored or seen before; and a record whose first and last word agree is whole.
// Why: on a coherent file system a page is either writable at one node or readable at several, so a store that
// was done is seen by every later load, and a page is handed over with all stores made before. The first word
// of a record is stored first and loaded last, the last word is stored last and loaded first (release and
// acquire): if both are the same version, what stands in between is of that version, too.
// A store into a mount that has gone away fails (SIGBUS) and is told as a loss.

import CLinux
import Glibc
import LinuxSystem
import StressJudging
import Vocabulary

final class MappingWork: StressWork {
    private static let pages = 4
    private static let pageSize = 4096
    private static let records = 12
    private static let words = 8
    private static let attempts = 10_000

    private unowned let lane: StressLane
    private var file: Int32 = -1
    private var map: UnsafeMutableRawPointer?
    private var begun: [Int: UInt64] = [:]

    init(_ lane: StressLane) { self.lane = lane }

    private func key(_ record: Int) -> StressKey { StressKey(.mmap, 0, record) }
    private func owner(_ record: Int) -> Int { record % lane.agents }
    private func offset(_ record: Int) -> Int {
        record / Self.records * Self.pageSize + record % Self.records * 320
    }
    private var all: Range<Int> { 0..<Self.pages * Self.records }

    func open() throws(StressFailure) {
        close()
        let size = Self.pages * Self.pageSize
        file = try lane.openSized("mapped", size, key(0))
        let target = file
        var result: UnsafeMutableRawPointer?
        _ = try lane.call("mmap", key(0)) {
            result = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED, target, 0)
            return result == MAP_FAILED ? -1 : 0
        }
        map = result
    }

    func step() throws(StressFailure) {
        let record = lane.dice.below(all.count)
        if owner(record) == lane.me, lane.dice.oneIn(2) { return try store(record) }
        if lane.dice.oneIn(4) { return try readPage(record / Self.records) }
        try load(record)
    }

    private func word(_ record: Int, _ place: Int) throws(StressFailure)
        -> UnsafeMutablePointer<UInt64>
    {
        guard let map else { throw .ended }
        return map.advanced(by: offset(record) + place * 8).assumingMemoryBound(to: UInt64.self)
    }

    private func payload(_ record: Int, _ version: UInt64, _ place: Int) -> UInt64 {
        version == 0 ? 0 : stressMix(key(record).rawValue ^ version << 20, UInt64(place))
    }

    private func store(_ record: Int) throws(StressFailure) {
        let key = key(record)
        let version = begun[record, default: 0] + 1
        begun[record] = version
        var targets: [(UnsafeMutablePointer<UInt64>, UInt64)] = [(try word(record, 0), version)]
        for place in 1..<Self.words - 1 {
            targets.append((try word(record, place), payload(record, version, place)))
        }
        targets.append((try word(record, Self.words - 1), version))
        _ = try lane.call("store", key, version) {
            let isDone = targets.allSatisfy { lockstep_store_word($0.0, $0.1) == 0 }
            if !isDone { errno = ENOTCONN }
            return isDone ? 0 : -1
        }
        lane.claim(key, version, isFirm: false)
        if lane.dice.oneIn(8) {
            let page = map?.advanced(by: record / Self.records * Self.pageSize)
            _ = try lane.call("msync", key) { Int(msync(page, Self.pageSize, MS_SYNC)) }
            lane.claim(key, version, isFirm: true)
        }
    }

    private func load(_ record: Int) throws(StressFailure) {
        let key = key(record)
        for _ in 0..<Self.attempts {
            let floor = lane.floor(key)
            var places: [UnsafeMutablePointer<UInt64>] = []
            for place in (0..<Self.words).reversed() { places.append(try word(record, place)) }
            var found: [UInt64] = []
            _ = try lane.call("load", key) {
                for place in places {
                    var value: UInt64 = 0
                    guard lockstep_load_word(place, &value) == 0 else {
                        errno = ENOTCONN
                        return -1
                    }
                    found.append(value)
                }
                return 0
            }
            found.reverse()
            if judge(record, found, floor, "loaded") { return }
            // Changing under our hands, or left half stored by an agent whose mount died.
            if isHalfStored(record) { return }
        }
        lane.complain(key, "torn: first and last word never agree")
    }

    private func isHalfStored(_ record: Int) -> Bool {
        lane.agent.latch.withLock { lane.agent.claims.epochs[owner(record)] > 0 }
    }

    /// Judges a record. False if it says nothing, because it was being stored.
    private func judge(_ record: Int, _ found: [UInt64], _ floor: StressFloor, _ how: String)
        -> Bool
    {
        guard let version = found.first, version == found.last else { return false }
        let key = key(record)
        for place in 1..<Self.words - 1 where found[place] != payload(record, version, place) {
            lane.complain(
                key,
                "torn: word \(place) of version \(version) is \(found[place]) (\(how))"
            )
            return true
        }
        lane.judge(key, version, writer: owner(record), floor, how)
        return true
    }

    /// Reads a page as a file. A record that is being stored meanwhile says nothing.
    private func readPage(_ page: Int) throws(StressFailure) {
        let records = all.filter { $0 / Self.records == page }
        let floors = records.map { lane.floor(key($0)) }
        let bytes = try lane.read(
            Self.pageSize,
            file,
            at: page * Self.pageSize,
            key(page * Self.records)
        )
        guard bytes.count == Self.pageSize else {
            return lane.complain(key(page * Self.records), "short read: \(bytes.count) bytes")
        }
        for (record, floor) in zip(records, floors) {
            let start = offset(record) - page * Self.pageSize
            let found = bytes.withUnsafeBytes { raw in
                (0..<Self.words).map {
                    raw.loadUnaligned(fromByteOffset: start + $0 * 8, as: UInt64.self)
                }
            }
            // The bytes of a copy have no order: only what is whole says something.
            guard found.first == found.last, let version = found.first,
                (1..<Self.words - 1).allSatisfy({ found[$0] == payload(record, version, $0) })
            else { continue }
            lane.judge(key(record), version, writer: owner(record), floor, "pread")
        }
    }

    func verify() throws(StressFailure) {
        for record in all { try load(record) }
        for page in 0..<Self.pages { try readPage(page) }
    }

    func close() {
        if let map { munmap(map, Self.pages * Self.pageSize) }
        map = nil
        if file >= 0 { Glibc.close(file) }
        file = -1
    }
}
