// Registers: blocks of 4096 bytes, each with one agent that writes it, in files that all share.
//
// Asserted: a read shows of each block a version that is not older than the greatest that anybody had completed
// or seen before the read began; each block is whole and is the one that belongs there; in the end no version
// is found that was never written.
// Why: a write that has returned is seen by every later read (POSIX); a reader's claim says that its read has
// ended, and who begins later must not see less. Whole: a block is one request, and one page, which a
// coherent file system hands over as a whole; only agents that share a page cache with the writer may see it
// change under their hands, so they look again.
// What was read through the page cache that the writer uses, too, is not claimed: Linux shows the bytes of a
// write(2) there before the file system has heard of it, so they prove nothing yet; the writer claims them when
// the call has returned.
// Written through the page cache and past it (O_DIRECT), now and then synced; read block by block, several at
// once, and past the cache.

import CLinux
import Glibc
import LinuxSystem
import StressJudging
import Vocabulary

final class RegisterWork: StressWork {
    private static let files = 3
    private static let blocks = 24
    private static let blockSize = 4096
    /// Times that a block is read again whose writer shares the cache.
    private static let attempts = 1000

    private unowned let lane: StressLane
    private var buffered: [Int32] = []
    private var direct: [Int32] = []
    private var begun: [StressKey: UInt64] = [:]
    private let memory = AlignedMemory(bytes: 4 * blockSize)

    init(_ lane: StressLane) { self.lane = lane }

    private func key(_ file: Int, _ block: Int) -> StressKey { StressKey(.registers, file, block) }
    private func owner(_ file: Int, _ block: Int) -> Int { (file + block) % lane.agents }

    func open() throws(StressFailure) {
        close()
        for file in 0..<Self.files {
            let name = "registers-\(file)"
            let key = key(file, 0)
            buffered.append(try lane.openSized(name, Self.blocks * Self.blockSize, key))
            let flags = O_RDWR | lockstep_o_direct
            // Not every file system has it.
            direct.append(try lane.openFile(name, flags, key, allowing: [EINVAL, EOPNOTSUPP]))
        }
    }

    func step() throws(StressFailure) {
        let file = lane.dice.below(Self.files)
        if lane.number == 0, lane.dice.oneIn(3) {
            let block = lane.dice.below(Self.blocks)
            if owner(file, block) == lane.me { try write(file, block) }
            return
        }
        let count = lane.dice.oneIn(3) ? 1 + lane.dice.below(4) : 1
        let first = lane.dice.below(Self.blocks - count + 1)
        let isDirect = direct[file] >= 0 && lane.dice.oneIn(5)
        try look(file, first, count, isDirect ? direct[file] : buffered[file])
    }

    private func write(_ file: Int, _ block: Int) throws(StressFailure) {
        let key = key(file, block)
        let version = begun[key, default: 0] + 1
        begun[key] = version
        let content = StressBlock(
            run: lane.agent.plan.run,
            key: key,
            version: version,
            writer: lane.me
        )
        memory.raw.copyBytes(from: content.bytes(size: Self.blockSize))
        let isDirect = direct[file] >= 0 && lane.dice.oneIn(4)
        let target = isDirect ? direct[file] : buffered[file]
        let call = isDirect ? "pwrite direct" : "pwrite"
        let count = try lane.call(call, key, version) {
            pwrite(target, memory.raw.baseAddress, Self.blockSize, block * Self.blockSize)
        }
        guard count == Self.blockSize else {
            return lane.complain(key, "short write: \(count) bytes")
        }
        lane.claim(key, version, isFirm: false)
        if lane.dice.oneIn(6) {
            try lane.sync(target, key, data: lane.dice.oneIn(2))
            lane.claim(key, version, isFirm: true)
        }
    }

    private func look(_ file: Int, _ first: Int, _ count: Int, _ descriptor: Int32)
        throws(StressFailure)
    {
        for _ in 0..<Self.attempts {
            let floors = (0..<count).map { lane.floor(key(file, first + $0)) }
            let length = count * Self.blockSize
            let isDirect = descriptor == direct[file]
            let got = try lane.call(isDirect ? "pread direct" : "pread", key(file, first)) {
                pread(descriptor, memory.raw.baseAddress, length, first * Self.blockSize)
            }
            guard got == length else {
                return lane.complain(key(file, first), "short read: \(got) of \(length) bytes")
            }
            var isUnsettled = false
            for place in 0..<count {
                if !judge(file, first, place, floors[place], isDirect) { isUnsettled = true }
            }
            if !isUnsettled { return }
        }
        lane.complain(key(file, first), "torn: not whole in \(Self.attempts) attempts")
    }

    /// Judges one block of those that were read. False if it shall be read again.
    private func judge(
        _ file: Int,
        _ first: Int,
        _ place: Int,
        _ floor: StressFloor,
        _ isDirect: Bool
    )
        -> Bool
    {
        let key = key(file, first + place)
        let bytes = memory.raw[place * Self.blockSize..<(place + 1) * Self.blockSize]
        let raw = UnsafeRawBufferPointer(rebasing: bytes)
        switch StressBlock.version(in: raw, of: key, run: lane.agent.plan.run) {
        case .success(let block):
            let writer = owner(file, first + place)
            lane.judge(
                key,
                block.version,
                writer: writer,
                floor,
                isDirect ? "direct read" : "read",
                claims: !lane.sharesCache(with: writer)
            )
        case .failure(let complaint):
            if complaint.isTorn, lane.sharesCache(with: owner(file, first + place)) { return false }
            lane.complain(key, complaint.words)
        }
        return true
    }

    func verify() throws(StressFailure) {
        for file in 0..<Self.files {
            for block in 0..<Self.blocks {
                try look(file, block, 1, buffered[file])
                let key = key(file, block)
                guard lane.number == 0, owner(file, block) == lane.me else { continue }
                let seen = lane.agent.latch.withLock { lane.agent.claims.firm(key) }
                let last = begun[key, default: 0]
                if seen > last {
                    lane.complain(
                        key,
                        "invented: version \(seen) was seen, the last written is \(last)"
                    )
                }
            }
        }
    }

    func close() {
        closeFiles(&buffered)
        closeFiles(&direct)
    }
}
