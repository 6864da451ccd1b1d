import StressJudging
import Testing

/// Blocks, logs, sizes: each fault that they are for is put in, and must be noticed.
@Suite struct ContentTests {
    private let run: UInt64 = 77

    private func block(_ version: UInt64, _ key: StressKey = StressKey(.registers, 0, 3))
        -> StressBlock
    {
        StressBlock(run: run, key: key, version: version, writer: 1)
    }

    private func read(_ bytes: [UInt8], _ key: StressKey = StressKey(.registers, 0, 3)) -> Result<
        StressBlock, StressComplaint
    > {
        bytes.withUnsafeBytes { StressBlock.version(in: $0, of: key, run: run) }
    }

    @Test func aBlockSaysWhatItIs() throws {
        let found = try read(block(9).bytes(size: 4096)).get()
        #expect(found == block(9))
        #expect(try read([UInt8](repeating: 0, count: 4096)).get().version == 0)
    }

    /// Halves of two versions, wherever the seam is, and any byte changed.
    @Test func aTornBlockIsNoticed() {
        let (one, two) = (block(9).bytes(size: 4096), block(10).bytes(size: 4096))
        for seam in stride(from: 32, to: 4096, by: 8) {
            let found = read(Array(one[..<seam] + two[seam...]))
            guard case .failure(let complaint) = found else {
                Issue.record("torn at \(seam): \(found)")
                return
            }
            #expect(complaint.isTorn)
        }
        for place in stride(from: 0, to: 4096, by: 61) {
            var bytes = one
            bytes[place] ^= 0x10
            #expect(throws: StressComplaint.self) { try read(bytes).get() }
        }
        let zeroTail = Array(one[..<2048]) + [UInt8](repeating: 0, count: 2048)
        #expect(throws: StressComplaint.self) { try read(zeroTail).get() }
    }

    @Test func aForeignBlockIsNoticed() {
        let other = StressKey(.registers, 0, 4)
        guard case .failure(let complaint) = read(block(9, other).bytes(size: 4096)) else {
            Issue.record("taken for its neighbour")
            return
        }
        #expect(!complaint.isTorn)
        let old = StressBlock(run: 76, key: StressKey(.registers, 0, 3), version: 1, writer: 0)
        #expect(throws: StressComplaint.self) { try read(old.bytes(size: 64)).get() }
    }

    // MARK: Logs

    private func record(_ writer: Int, _ number: UInt64) -> [UInt8] {
        let key = StressKey(.logs, 2, writer)
        return StressBlock(run: run, key: key, version: number, writer: writer)
            .bytes(size: StressLogReader.recordSize)
    }

    /// What a reader says of a log of these records.
    private func complaint(_ records: [[UInt8]]) -> String? {
        var reader = StressLogReader(run: run, group: 2, writers: 2)
        return records.flatMap { $0 }.withUnsafeBytes { reader.take($0)?.words }
    }

    @Test func aLogIsReadInPieces() {
        var reader = StressLogReader(run: run, group: 2, writers: 2)
        let bytes = record(0, 1) + record(1, 1) + record(0, 2)
        let first = bytes[..<200].withUnsafeBytes { reader.take($0)?.words }
        #expect(first == nil)
        #expect(reader.offset == 128)
        let rest = bytes[128...].withUnsafeBytes { reader.take($0)?.words }
        #expect(rest == nil)
        #expect(reader.counts == [2, 1])
    }

    @Test func faultsOfLogsAreNoticed() {
        let good = [record(0, 1), record(1, 1), record(0, 2), record(1, 2)]
        #expect(complaint(good) == nil)
        // Lost, twice, in another order, overwritten by a hole, torn, of another log.
        var lost = good
        lost.remove(at: 0)
        #expect(complaint(lost)?.hasPrefix("lost") == true)
        #expect(complaint(good + [record(0, 2)])?.hasPrefix("duplicate") == true)
        #expect(complaint([good[2], good[1], good[0]])?.hasPrefix("lost or out of order") == true)
        let hole = [UInt8](repeating: 0, count: 128)
        #expect(complaint([good[0], hole, good[1]])?.hasPrefix("torn: zeros") == true)
        var torn = good
        torn[1][100] ^= 1
        #expect(complaint(torn)?.hasPrefix("torn") == true)
        let foreign = StressBlock(run: run, key: StressKey(.logs, 3, 0), version: 1, writer: 0)
        #expect(complaint([foreign.bytes(size: 128)])?.hasPrefix("foreign") == true)
    }

    // MARK: Sizes

    @Test func sizesFollowFromVersions() {
        let model = StressSizeModel(StressKey(.sizes, 1, 0))
        var changes: Set<String> = []
        for version: UInt64 in 1..<400 {
            let before = model.content(version - 1).count
            let content = model.content(version)
            #expect(content.count <= StressSizeModel.largest + 5000)
            switch model.change(version, from: before) {
            case .truncate(let size):
                #expect(content.count == size)
                changes.insert(size > before ? "extend" : "cut")
            case .write(let offset, let count):
                #expect(content.count == max(before, offset + count))
                changes.insert(offset == before ? "append" : "overwrite")
            }
            #expect(model.difference(content, at: version) == nil)
            #expect(model.allows(size: content.count, from: version, to: version))
            #expect(!model.allows(size: content.count + 1, from: version, to: version))
        }
        #expect(changes == ["extend", "cut", "append", "overwrite"])
        #expect(model.content(16).isEmpty)
    }

    @Test func aWrongSizeOrByteIsNoticed() {
        let model = StressSizeModel(StressKey(.sizes, 0, 1))
        let version = (1...7).map(UInt64.init).first { model.content($0).count > 100 }
        guard let version else {
            Issue.record("no version has bytes")
            return
        }
        var content = model.content(version)
        content[50] ^= 1
        #expect(model.difference(content, at: version)?.hasPrefix("byte 50") == true)
        content.removeLast()
        #expect(model.difference(content, at: version)?.contains("bytes, and version") == true)
    }
}
