// One file used in every way there is, by one node or by several in turn, against bytes in memory: what fsx does.
//
// Invariants, checked after each operation through the handle of a node that is drawn by the dice:
//
//     X1  The size is the model's.
//     X2  What is read, by whichever way, is what the model holds.
//     X3  No byte but zero lies in a hole (SEEK_DATA, SEEK_HOLE).
//
// The dice are seeded: a failure names its seed, the number of the operation, and the last operations.

import CLinux
import Glibc
import Vocabulary

/// A run over one file.
final class FileExercise {
    /// Where one node has the file open.
    private struct Door {
        let path: String
        var plain: Int32
        var direct: Int32
        var appending: Int32
        /// All of the longest file, mapped shared; touched only where the file is.
        var map: UnsafeMutableRawPointer
    }

    private static let longest = 256 * 1024
    private static let page = 4096

    private var doors: [Door] = []
    private var model: [UInt8] = []
    private var dice: SeededGenerator
    private let seed: UInt64
    private var history: [String] = []
    private var marker: UInt8 = 0
    /// Bytes go into mappings and out of them by read(2) and write(2) of this: where a store would be answered with
    /// SIGBUS these say EFAULT.
    private let between: Int32

    /// Makes the file `name` below the first root, and opens it below each.
    init(roots: [String], name: String, seed: UInt64) throws {
        self.seed = seed
        dice = SeededGenerator(seed: seed)
        between = lockstep_memory_file("between")
        try Files.write([], to: "\(roots[0])/\(name)")
        for root in roots { doors.append(try Self.open("\(root)/\(name)")) }
    }

    deinit {
        for door in doors { Self.close(door) }
        Glibc.close(between)
    }

    private static func open(_ path: String) throws -> Door {
        let plain = try Files.open(path, O_RDWR)
        let direct = try Files.open(path, O_RDWR | lockstep_o_direct)
        let appending = try Files.open(path, O_WRONLY | O_APPEND)
        let map = mmap(nil, longest, PROT_READ | PROT_WRITE, MAP_SHARED, plain, 0)
        guard let map, map != MAP_FAILED else { throw SystemFailure(errno) }
        return Door(path: path, plain: plain, direct: direct, appending: appending, map: map)
    }

    private static func close(_ door: Door) {
        munmap(door.map, longest)
        for descriptor in [door.plain, door.direct, door.appending] { Glibc.close(descriptor) }
    }

    /// Does `count` operations.
    func run(_ count: Int) throws {
        for number in 0..<count {
            let index = dice.below(doors.count)
            do {
                try step(index)
                try check(through: dice.below(doors.count))
            } catch {
                let last = history.suffix(30).joined(separator: "\n  ")
                throw Trouble("seed \(seed), operation \(number): \(error); after\n  \(last)")
            }
        }
        for index in doors.indices { try compare(index, 0..<model.count, mapped: false) }
    }

    /// The result of a call that returns a negative number when it fails.
    @discardableResult
    private func succeed<Number: SignedInteger>(_ result: Number) throws -> Number {
        if result < 0 { throw SystemFailure(errno) }
        return result
    }

    // MARK: Operations

    private func step(_ index: Int) throws {
        let door = doors[index]
        switch dice.below(20) {
        case 0...2: try write(door, index)
        case 3...5: try store(door, index)
        case 6: try append(door, index)
        case 7, 8: try resize(door, index)
        case 9: try punch(door, index)
        case 10: try zero(door, index)
        case 11: try allocate(door, index)
        case 12: try copy(door, index)
        case 13: try note("node \(index): fsync") { try succeed(fsync(door.plain)) }
        case 14: try reopen(index)
        case 15: try writeDirect(door, index)
        case 16, 17: try compare(index, range(within: model.count), mapped: true)
        case 18: try compare(index, range(within: model.count), mapped: false)
        default: try compareHoles(door, index)
        }
    }

    private func note(_ what: String, _ body: () throws -> Void) throws {
        history.append(what)
        try body()
    }

    /// Small ones, large ones, and ones that begin or end where a page does.
    private func range(within size: Int) -> Range<Int> {
        guard size > 0 else { return 0..<0 }
        var start = dice.below(size)
        var length = 1 + dice.below(dice.below(3) == 0 ? 60_000 : 5_000)
        if dice.below(4) == 0 { start -= start % Self.page }
        if dice.below(4) == 0 { length = max(Self.page, length - (start + length) % Self.page) }
        return start..<min(size, start + length)
    }

    private func bytes(_ count: Int) -> [UInt8] {
        marker = marker % 255 + 1
        let first = marker
        // No zeros: a byte that is lost would look like a hole.
        return (0..<count).map { UInt8((Int(first) + $0 / 64) % 255 + 1) }
    }

    private func put(_ bytes: [UInt8], at offset: Int) {
        if model.count < offset + bytes.count {
            model += [UInt8](repeating: 0, count: offset + bytes.count - model.count)
        }
        model.replaceSubrange(offset..<(offset + bytes.count), with: bytes)
    }

    private func write(_ door: Door, _ index: Int) throws {
        let range = range(within: Self.longest)
        let data = bytes(range.count)
        try note("node \(index): write \(range) of \(model.count)") {
            try Files.write(data, to: door.plain, at: range.lowerBound)
        }
        put(data, at: range.lowerBound)
    }

    private func writeDirect(_ door: Door, _ index: Int) throws {
        let start = dice.below(Self.longest / Self.page) * Self.page
        let count = min(Self.longest - start, (1 + dice.below(8)) * Self.page)
        let data = bytes(count)
        let memory = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: Self.page)
        defer { memory.deallocate() }
        data.withUnsafeBytes { source in
            if let base = source.baseAddress { memory.copyMemory(from: base, byteCount: count) }
        }
        try note("node \(index): write \(start)..<\(start + count) of \(model.count) directly") {
            let written = try succeed(pwrite(door.direct, memory, count, start))
            if written != count { throw Trouble("\(written) of \(count) written") }
        }
        put(data, at: start)
    }

    private func append(_ door: Door, _ index: Int) throws {
        let count = min(Self.longest - model.count, 1 + dice.below(6000))
        guard count > 0 else { return }
        let data = bytes(count)
        try note("node \(index): append \(count) to \(model.count)") {
            try Files.write(data, to: door.appending, at: nil)
        }
        put(data, at: model.count)
    }

    private func store(_ door: Door, _ index: Int) throws {
        let range = range(within: model.count)
        let data = bytes(range.count)
        try note("node \(index): store \(range) of \(model.count)") {
            try learnSize(door)
            try Files.write(data, to: between, at: 0)
            let count = try succeed(pread(between, door.map + range.lowerBound, range.count, 0))
            if count != range.count { throw Trouble("only \(count) bytes could be stored") }
            if dice.below(3) == 0 { try succeed(msync(door.map, Self.longest, Int32(MS_SYNC))) }
        }
        put(data, at: range.lowerBound)
    }

    /// Linux asks nobody for the size when a mapping is touched, or copied from: behind an end that another node has
    /// moved it answers with SIGBUS, or copies nothing, until somebody here asks (Docs/CAVEATS.md).
    private func learnSize(_ door: Door) throws { _ = try Files.status(of: door.plain) }

    private func resize(_ door: Door, _ index: Int) throws {
        let size = dice.below(3) == 0 ? dice.below(8000) : dice.below(Self.longest)
        try note("node \(index): truncate \(model.count) to \(size)") {
            try succeed(ftruncate(door.plain, size))
        }
        if size < model.count {
            model.removeLast(model.count - size)
        } else {
            model += [UInt8](repeating: 0, count: size - model.count)
        }
    }

    private func punch(_ door: Door, _ index: Int) throws {
        let range = range(within: Self.longest)
        try note("node \(index): punch \(range) of \(model.count)") {
            try succeed(
                lockstep_allocate(door.plain, 3, Int64(range.lowerBound), Int64(range.count))
            )
        }
        for place in range where place < model.count { model[place] = 0 }
    }

    private func zero(_ door: Door, _ index: Int) throws {
        let range = range(within: Self.longest)
        let keeps = dice.below(2) == 0
        try note("node \(index): zero \(range) of \(model.count)\(keeps ? ", same size" : "")") {
            let mode: Int32 = keeps ? 17 : 16
            try succeed(
                lockstep_allocate(door.plain, mode, Int64(range.lowerBound), Int64(range.count))
            )
        }
        if !keeps, range.upperBound > model.count {
            model += [UInt8](repeating: 0, count: range.upperBound - model.count)
        }
        for place in range where place < model.count { model[place] = 0 }
    }

    private func allocate(_ door: Door, _ index: Int) throws {
        let range = range(within: Self.longest)
        let keeps = dice.below(2) == 0
        try note("node \(index): allocate \(range) of \(model.count)\(keeps ? ", same size" : "")")
        {
            let mode: Int32 = keeps ? 1 : 0
            try succeed(
                lockstep_allocate(door.plain, mode, Int64(range.lowerBound), Int64(range.count))
            )
        }
        if !keeps, range.upperBound > model.count {
            model += [UInt8](repeating: 0, count: range.upperBound - model.count)
        }
    }

    /// Within the file, where the two do not overlap.
    private func copy(_ door: Door, _ index: Int) throws {
        let source = range(within: model.count)
        let count = source.count
        var to = dice.below(Self.longest - count)
        if to + count > source.lowerBound, to < source.upperBound { to = source.upperBound }
        guard count > 0, to + count <= Self.longest else { return }
        try note("node \(index): copy \(source) of \(model.count) to \(to)") {
            try learnSize(door)
            var (in64, out64) = (Int64(source.lowerBound), Int64(to))
            var rest = count
            while rest > 0 {
                let done = try withUnsafeMutablePointer(to: &in64) { from in
                    try withUnsafeMutablePointer(to: &out64) { target in
                        try succeed(
                            lockstep_system_call(
                                Int(SYS_copy_file_range),
                                Int(door.plain),
                                Int(bitPattern: from),
                                Int(door.plain),
                                Int(bitPattern: target),
                                rest,
                                0
                            )
                        )
                    }
                }
                if done == 0 { throw Trouble("copy_file_range copies nothing of \(rest)") }
                rest -= done
            }
        }
        put(Array(model[source]), at: to)
    }

    private func reopen(_ index: Int) throws {
        try note("node \(index): close and open") {
            let path = doors[index].path
            Self.close(doors[index])
            doors[index] = try Self.open(path)
        }
    }

    // MARK: Checks

    private func check(through index: Int) throws {
        let size = try Files.status(of: doors[index].plain).size
        if size != model.count {
            throw Trouble("X1: node \(index) says \(size), not \(model.count)")
        }
        if dice.below(4) == 0 {
            try compare(index, range(within: model.count), mapped: dice.below(2) == 0)
        }
    }

    private func compare(_ index: Int, _ range: Range<Int>, mapped: Bool) throws {
        guard !range.isEmpty else { return }
        history.append("node \(index): \(mapped ? "load" : "read") \(range) of \(model.count)")
        var found = [UInt8](repeating: 0, count: range.count)
        if mapped {
            try learnSize(doors[index])
            let count = try succeed(
                pwrite(between, doors[index].map + range.lowerBound, range.count, 0)
            )
            if count != range.count { throw Trouble("only \(count) bytes could be loaded") }
            _ = try succeed(pread(between, &found, range.count, 0))
        } else {
            let count = try succeed(
                pread(doors[index].plain, &found, range.count, range.lowerBound)
            )
            if count != range.count {
                throw Trouble("X2: node \(index) reads \(count) of \(range)")
            }
        }
        try demandSame(found, range, index)
    }

    private func demandSame(_ found: [UInt8], _ range: Range<Int>, _ index: Int) throws {
        guard !found.elementsEqual(model[range]) else { return }
        let wrong = range.filter { found[$0 - range.lowerBound] != model[$0] }
        let first = wrong[0]
        throw Trouble(
            "X2: node \(index), \(wrong.count) bytes of \(range) differ, from \(first) to "
                + "\(wrong[wrong.count - 1]): \(found[first - range.lowerBound]), not \(model[first])"
        )
    }

    private func compareHoles(_ door: Door, _ index: Int) throws {
        history.append("node \(index): look for holes of \(model.count)")
        var place = 0
        while place < model.count {
            let data = lseek(door.plain, place, 3)
            if data < 0, errno != ENXIO { throw SystemFailure(errno) }
            let end = data < 0 ? model.count : Int(data)
            if let wrong = (place..<end).first(where: { model[$0] != 0 }) {
                throw Trouble("X3: node \(index), a hole from \(place) to \(end), but \(wrong)")
            }
            if data < 0 { return }
            place = Int(lseek(door.plain, data, 4))
            if place <= end {
                throw Trouble("X3: node \(index), the hole after \(data) at \(place)")
            }
        }
    }
}
