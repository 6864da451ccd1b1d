// Calls of the conformance suite about what is in a file: reading and writing, holes, mappings.

import CLinux
import Glibc

extension ConformanceStage {
    static let dataCalls: [String: ConformanceCall] =
        readingCalls.merging(writingCalls) { first, _ in first }
        .merging(mappingCalls) { first, _ in first }

    /// Bytes in short: "3*a 4096*\x00".
    static func short(_ bytes: some Collection<UInt8>) -> String {
        var runs: [(UInt8, Int)] = []
        for byte in bytes {
            if let last = runs.last, last.0 == byte {
                runs[runs.count - 1].1 += 1
            } else {
                runs.append((byte, 1))
            }
        }
        if runs.isEmpty { return "nothing" }
        var text = ""
        for (byte, count) in runs {
            let shown =
                byte > 32 && byte < 127
                ? String(UnicodeScalar(byte)) : "<" + String(byte, radix: 16) + ">"
            text += count > 2 ? "(\(count)*\(shown))" : String(repeating: shown, count: count)
        }
        return text
    }

    private static let readingCalls: [String: ConformanceCall] = [
        "read": { words in
            var bytes = [UInt8](repeating: 0, count: try words.number(1))
            return short(bytes[..<(try check(read(try words.descriptor(0), &bytes, bytes.count)))])
        },
        "pread": { words in
            var bytes = [UInt8](repeating: 0, count: try words.number(2))
            let count = pread(try words.descriptor(0), &bytes, bytes.count, try words.number(1))
            return short(bytes[..<(try check(count))])
        },
        // The length that was read, of a large piece or into an address that is none.
        "pread-nowhere": { words in
            let nowhere = UnsafeMutableRawPointer(bitPattern: 0x1000)
            return "\(try check(pread(try words.descriptor(0), nowhere, 100, 0)))"
        },
        "cat": { words in
            let descriptor = try words.withPath(0) { path in
                return try check(lockstep_open(path, O_RDONLY, 0))
            }
            defer { close(descriptor) }
            return short(try Files.contents(of: descriptor))
        },
        "seek": { words in
            let whence: [String: Int32] = ["set": 0, "cur": 1, "end": 2, "data": 3, "hole": 4]
            guard let whence = whence[words[1]] ?? Int32(words[1]) else { throw Trouble("whence") }
            return "\(try check(lseek(try words.descriptor(0), try signed(words[2]), whence)))"
        },
        // Data and holes, as runs: rounded to 4 KiB, since what a hole is is the file system's business.
        "map": { words in
            let descriptor = try words.descriptor(0)
            var text: [String] = []
            var place = 0
            while true {
                let data = lseek(descriptor, place, 3)
                if data < 0 { break }
                place = try check(lseek(descriptor, data, 4))
                text.append("\(data)-\(place)")
            }
            return text.isEmpty ? "nothing" : text.joined(separator: " ")
        },
    ]

    private static func signed(_ word: String) throws -> Int {
        word.hasPrefix("-")
            ? -(try ConformanceWord.number(String(word.dropFirst())))
            : try ConformanceWord.number(word)
    }

    private static let modes = [
        "keep": 1, "punch": 2, "collapse": 8, "zero": 16, "insert": 32, "unshare": 64, "none": 0,
    ]

    private static let writingCalls: [String: ConformanceCall] = [
        "write": { words in
            let bytes = words[1] == "''" ? [] : try words.bytes(1)
            return "\(try check(write(try words.descriptor(0), bytes, bytes.count)))"
        },
        "pwrite": { words in
            let bytes = try words.bytes(2)
            let offset = try signed(words[1])
            return "\(try check(pwrite(try words.descriptor(0), bytes, bytes.count, offset)))"
        },
        "write-nowhere": { words in
            let nowhere = UnsafeRawPointer(bitPattern: 0x1000)
            return "\(try check(write(try words.descriptor(0), nowhere, 100)))"
        },
        // Several pieces with one call, none of them whole pages.
        "writev": { words in
            var pieces = try (1..<words.count).map { try words.bytes($0) }
            var vectors: [iovec] = []
            for index in pieces.indices {
                let count = pieces[index].count
                let copy = UnsafeMutableRawPointer.allocate(byteCount: max(1, count), alignment: 1)
                pieces[index].withUnsafeMutableBytes { bytes in
                    if let base = bytes.baseAddress {
                        copy.copyMemory(from: base, byteCount: count)
                    }
                }
                vectors.append(iovec(iov_base: copy, iov_len: count))
            }
            defer { for vector in vectors { vector.iov_base.deallocate() } }
            return "\(try check(writev(try words.descriptor(0), vectors, Int32(vectors.count))))"
        },
        "direct": { words in
            // `direct H read|write OFFSET LENGTH [SKEW]`: with memory that is aligned but for SKEW bytes.
            let (offset, length) = (try words.number(2), try words.number(3))
            let skew = words.count > 4 ? try words.number(4) : 0
            let memory = UnsafeMutableRawPointer.allocate(byteCount: length + 4096, alignment: 4096)
            defer { memory.deallocate() }
            memset(memory, 0x64, length + 4096)
            let descriptor = try words.descriptor(0)
            if words[1] == "read" {
                let count = try check(pread(descriptor, memory + skew, length, offset))
                return short(UnsafeRawBufferPointer(start: memory + skew, count: count))
            }
            return "\(try check(pwrite(descriptor, memory + skew, length, offset)))"
        },
        "fallocate": { words in
            let mode = try words.flags(1, modes)
            return try done(
                lockstep_allocate(
                    try words.descriptor(0),
                    Int32(mode),
                    Int64(try signed(words[2])),
                    Int64(try signed(words[3]))
                )
            )
        },
        "posix-fallocate": { words in
            let code = posix_fallocate(
                try words.descriptor(0),
                try signed(words[1]),
                try signed(words[2])
            )
            if code != 0 { throw SystemFailure(code) }
            return "ok"
        },
        "fsync": { words in try done(fsync(try words.descriptor(0))) },
        "fdatasync": { words in try done(fdatasync(try words.descriptor(0))) },
        // `copy FROM AT TO AT LENGTH`: copy_file_range(2).
        "copy": { words in
            var (from, to) = (Int64(try words.number(1)), Int64(try words.number(3)))
            let (source, target) = (try words.descriptor(0), try words.descriptor(2))
            let length = try words.number(4)
            let flags = words.count > 5 ? try words.number(5) : 0
            return try withUnsafeMutablePointer(to: &from) { from in
                try withUnsafeMutablePointer(to: &to) { to in
                    let count = lockstep_system_call(
                        326,
                        Int(source),
                        Int(bitPattern: from),
                        Int(target),
                        Int(bitPattern: to),
                        length,
                        flags
                    )
                    return "\(try check(count))"
                }
            }
        },
        "sendfile": { words in
            var offset = off_t(try words.number(2))
            let (target, source) = (try words.descriptor(0), try words.descriptor(1))
            let count = lockstep_system_call(
                Int(SYS_sendfile),
                Int(target),
                Int(source),
                withUnsafeMutablePointer(to: &offset) { Int(bitPattern: $0) },
                try words.number(3),
                0,
                0
            )
            return "\(try check(count))"
        },
        // `splice FROM TO LENGTH`: through a pipe, at the files' positions.
        "splice": { words in
            var ends: [Int32] = [0, 0]
            try check(pipe(&ends))
            defer { for end in ends { close(end) } }
            let length = try words.number(2)
            let call = { (from: Int32, to: Int32) in
                lockstep_system_call(Int(SYS_splice), Int(from), 0, Int(to), 0, length, 0)
            }
            let taken = try check(call(try words.descriptor(0), ends[1]))
            let given = try check(call(ends[0], try words.descriptor(1)))
            return "\(taken) \(given)"
        },
        "position": { words in "\(try check(lseek(try words.descriptor(0), 0, 1)))" },
    ]

    // MARK: Mappings

    /// What is between two addresses is moved by read(2) and write(2) of a file in memory: what a touch would answer
    /// with SIGBUS they answer with EFAULT.
    private static func move(
        _ mapping: UnsafeMutableRawBufferPointer,
        at offset: Int,
        _ bytes: [UInt8]?,
        count: Int
    ) throws -> String {
        guard let base = mapping.baseAddress, offset + count <= mapping.count else {
            throw Trouble("not in the mapping")
        }
        let between = try check(lockstep_memory_file("between"))
        defer { close(between) }
        if let bytes {
            try Files.write(bytes, to: between, at: 0)
            return "\(try check(pread(between, base + offset, count, 0)))"
        }
        try check(pwrite(between, base + offset, count, 0))
        return short(try Files.contents(of: between))
    }

    private static func mapping(_ words: ConformanceArguments) throws
        -> UnsafeMutableRawBufferPointer
    {
        guard let mapping = words.stage.mappings[words[0]] else { throw Trouble("no such mapping") }
        return mapping
    }

    private static let mappingCalls: [String: ConformanceCall] = [
        // `mmap M H r|rw shared|private LENGTH [OFFSET]`
        "mmap": { words in
            let protection = words[2] == "rw" ? PROT_READ | PROT_WRITE : PROT_READ
            let length = try words.number(4)
            let address = mmap(
                nil,
                length,
                protection,
                words[3] == "shared" ? MAP_SHARED : MAP_PRIVATE,
                try words.descriptor(1),
                words.count > 5 ? try words.number(5) : 0
            )
            guard address != MAP_FAILED, let address else { throw SystemFailure(errno) }
            if let old = words.stage.mappings[words[0]] { munmap(old.baseAddress, old.count) }
            words.stage.mappings[words[0]] = UnsafeMutableRawBufferPointer(
                start: address,
                count: length
            )
            return "ok"
        },
        "munmap": { words in
            let mapping = try mapping(words)
            words.stage.mappings[words[0]] = nil
            return try done(munmap(mapping.baseAddress, mapping.count))
        },
        "msync": { words in
            let mapping = try mapping(words)
            return try done(msync(mapping.baseAddress, mapping.count, Int32(MS_SYNC)))
        },
        "store": { words in
            let bytes = try words.bytes(2)
            return try move(
                try mapping(words),
                at: try words.number(1),
                bytes,
                count: bytes.count
            )
        },
        "load": { words in
            try move(
                try mapping(words),
                at: try words.number(1),
                nil,
                count: try words.number(2)
            )
        },
    ]
}
