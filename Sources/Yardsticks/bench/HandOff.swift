// 4 KiB that one node writes and the other reads, then the other way round: what a program on the second node waits for
// what a program on the first has just written. Beside it the sum of what cannot be left out, each measured by itself in
// the same round: the messages, and the requests of the device that were counted.

import CLinux
import Glibc
import LinuxSystem
import Vocabulary

extension SharingBench {
    private static let block = 4096

    func handoff(_ round: Int) throws -> [SharingFigure] {
        let paths = roots.map { "\($0)/handoff\(round)" }
        let file = try open(paths[0], O_WRONLY | O_CREAT)
        let bytes = [UInt8](repeating: 1, count: 16 * Self.block)
        guard write(file, bytes, bytes.count) == bytes.count, fsync(file) == 0 else {
            throw BenchFailure.last("write", paths[0])
        }
        close(file)
        let device = try deviceTimes()
        let message = try messageTime()
        let files = try paths.map { try open($0, O_RDWR) }
        defer { for file in files { close(file) } }
        let before = try cluster.deviceCounts()
        var samples: [Double] = []
        var value: UInt64 = 0
        let perSecond = try rate {
            let (writer, reader) = (files[Int(value % 2)], files[Int((value + 1) % 2)])
            value += 1
            let begin = nanoseconds()
            try put(value, writer)
            guard try take(reader) == value else {
                throw BenchFailure("what a node has written is not what the other reads")
            }
            samples.append(Double(nanoseconds() - begin) / 1_000_000)
        }
        let counts = try cluster.deviceCounts() - before
        let turns = Double(value)
        let perTurn = (
            reads: Double(counts.reads) / turns, writes: Double(counts.writes) / turns,
            flushes: Double(counts.flushes) / turns
        )
        let needed =
            perTurn.reads * device.read + perTurn.writes * device.write + perTurn.flushes
            * device.flush
        samples.sort()
        unlink(paths[0])
        return [
            SharingFigure(
                name: "4 KiB written here, read there",
                value: samples[samples.count / 2],
                unit: "ms",
                yardstick: "ms, its messages and device requests",
                beside: 2 * message + needed,
                remark:
                    "\(rounded(perSecond)) /s; each: \(rounded(perTurn.writes)) writes, \(rounded(perTurn.flushes)) flushes, \(rounded(perTurn.reads)) reads of the device, \(rounded(needed)) ms; a round trip \(rounded(message * 1_000)) µs"
            )
        ]
    }

    private func put(_ value: UInt64, _ file: Int32) throws {
        let words = [UInt64](repeating: value, count: Self.block / 8)
        let written = words.withUnsafeBytes { pwrite(file, $0.baseAddress, $0.count, 0) }
        guard written == Self.block else { throw BenchFailure.last("write", "a block") }
    }

    /// The value of a block that was written whole.
    private func take(_ file: Int32) throws -> UInt64? {
        var words = [UInt64](repeating: 0, count: Self.block / 8)
        let found = words.withUnsafeMutableBytes { pread(file, $0.baseAddress, $0.count, 0) }
        guard found == Self.block else { throw BenchFailure.last("read", "a block") }
        return words.allSatisfy { $0 == words[0] } ? words[0] : nil
    }

    /// Milliseconds of one request of 4 KiB to a file beside the image, past the page cache, and of a flush after a write;
    /// the middle of many.
    private func deviceTimes() throws -> (read: Double, write: Double, flush: Double) {
        let path = cluster.folder + "/device"
        let file = try open(path, O_RDWR | O_CREAT | lockstep_o_direct)
        defer {
            close(file)
            unlink(path)
        }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 4096)
        defer { buffer.deallocate() }
        buffer.initializeMemory(as: UInt8.self, repeating: 3)
        var times: [[Double]] = [[], [], []]
        func time(_ place: Int, _ body: () -> Bool) throws {
            let begin = nanoseconds()
            guard body() else { throw BenchFailure.last("use", path) }
            times[place].append(Double(nanoseconds() - begin) / 1_000_000)
        }
        for number in 0..<300 {
            let offset = off_t(number % 64 * 4096)
            try time(1) { pwrite(file, buffer.baseAddress, 4096, offset) == 4096 }
            try time(2) { fdatasync(file) == 0 }
            try time(0) { pread(file, buffer.baseAddress, 4096, offset) == 4096 }
        }
        let middle = times.map { $0.sorted()[$0.count / 2] }
        return (middle[0], middle[1], middle[2])
    }

    /// Milliseconds of one message there and one back.
    private func messageTime() throws -> Double {
        let line = try Programs.output(
            "\(bin)/lockstep-ping-pong",
            ["unix", "--bytes", "64", "--count", "5000"]
        )
        return Double(try JSONText(parsing: line).number("median")) / 1_000_000
    }
}
