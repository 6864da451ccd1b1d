// What is measured, on one directory of any file system. Nothing here knows Lockstep.
//
//   create        create, write 4 KiB, close: one file
//   stat-warm     stat of a name that was just created
//   stat-cold     the same after the kernel has dropped its names and inodes (root only)
//   readdir       list the directory of all the files, once
//   write         write 1 MiB at the end of a file; the fsync at the end is in the rate
//   read-cold     read 1 MiB of that file, after its pages have been dropped
//   read-warm     read 4 KiB at a random place of it that is cached
//   fsync         append 4 KiB and fsync
//   unlink        remove one file

import CLinux
import Glibc
import Vocabulary

/// How much of everything.
struct WorkloadSize {
    var files = 10_000
    /// Bytes of the large file.
    var fileBytes = 1 << 30
    var listings = 10
    var randomReads = 20_000
    var synchronisations = 200

    static let piece = 1 << 20
    static let page = 4096
}

/// One run of all tests in one directory, which must exist and be empty of names that begin with
/// `bench`.
struct Workload {
    let directory: String
    let size: WorkloadSize
    private let buffer: UnsafeMutableRawBufferPointer
    private var folder: String { directory + "/bench-files" }
    private var file: String { directory + "/bench-data" }

    init(directory: String, size: WorkloadSize) {
        self.directory = directory
        self.size = size
        buffer = .allocate(byteCount: WorkloadSize.piece, alignment: 4096)
        // No zeros: a file system may store those as holes.
        for index in buffer.indices {
            buffer[index] = UInt8(truncatingIfNeeded: index &* 131 >> 3 | 1)
        }
    }

    /// Runs all tests in order; removes what it made, also when one fails.
    func run(_ report: (Measurement) -> Void) throws {
        defer {
            cleanUp()
            buffer.deallocate()
        }
        guard mkdir(folder, 0o755) == 0 else { throw BenchFailure.last("make", folder) }
        report(try create())
        report(try status("stat-warm"))
        if dropCaches() { report(try status("stat-cold")) }
        report(try list())
        report(try writeSequentially())
        report(try readSequentially())
        report(try readRandomly())
        report(try synchronise())
        report(try unlinkAll())
    }

    private func cleanUp() {
        for index in 0..<size.files { unlink(name(index)) }
        rmdir(folder)
        unlink(file)
        unlink(file + "-fsync")
    }

    private func name(_ index: Int) -> String { "\(folder)/file-\(index)" }

    /// Whether the kernel could be told to forget names, inodes and pages (only root may).
    private func dropCaches() -> Bool {
        sync()
        let descriptor = lockstep_open("/proc/sys/vm/drop_caches", O_WRONLY, 0)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return Glibc.write(descriptor, "3", 1) == 1
    }

    private func opened<Result>(
        _ path: String,
        _ flags: Int32,
        _ body: (Int32) throws -> Result
    ) throws -> Result {
        let descriptor = lockstep_open(path, flags, 0o644)
        guard descriptor >= 0 else { throw BenchFailure.last("open", path) }
        defer { close(descriptor) }
        return try body(descriptor)
    }

    private func create() throws -> Measurement {
        var watch = Stopwatch()
        for index in 0..<size.files {
            let path = name(index)
            try watch.time {
                try opened(path, O_WRONLY | O_CREAT | O_EXCL) { descriptor in
                    guard
                        Glibc.write(descriptor, buffer.baseAddress, WorkloadSize.page)
                            == WorkloadSize.page
                    else { throw BenchFailure.last("write", path) }
                }
            }
        }
        return watch.measurement("create", unit: "files")
    }

    private func status(_ test: String) throws -> Measurement {
        var watch = Stopwatch()
        var raw = stat()
        for index in 0..<size.files {
            let path = name(index)
            let code = watch.time { lstat(path, &raw) }
            guard code == 0 else { throw BenchFailure.last("stat", path) }
        }
        return watch.measurement(test, unit: "names")
    }

    private func list() throws -> Measurement {
        var watch = Stopwatch()
        var count = 0
        for _ in 0..<size.listings {
            try watch.time {
                guard let stream = opendir(folder) else { throw BenchFailure.last("list", folder) }
                while readdir(stream) != nil { count += 1 }
                closedir(stream)
            }
        }
        guard count == (size.files + 2) * size.listings else {
            throw BenchFailure(
                "\(folder) lists \(count / size.listings) names, not \(size.files + 2)"
            )
        }
        return watch.measurement("readdir", unit: "names", count: count)
    }

    private func writeSequentially() throws -> Measurement {
        var watch = Stopwatch()
        try opened(file, O_WRONLY | O_CREAT | O_TRUNC) { descriptor in
            for _ in 0..<(size.fileBytes / WorkloadSize.piece) {
                let count = watch.time {
                    Glibc.write(descriptor, buffer.baseAddress, WorkloadSize.piece)
                }
                guard count == WorkloadSize.piece else { throw BenchFailure.last("write", file) }
            }
            guard fsync(descriptor) == 0 else { throw BenchFailure.last("fsync", file) }
        }
        return watch.measurement("write", unit: "MiB", bytes: size.fileBytes)
    }

    private func readSequentially() throws -> Measurement {
        try opened(file, O_RDONLY) { descriptor in
            posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED)
            _ = dropCaches()
            var watch = Stopwatch()
            for _ in 0..<(size.fileBytes / WorkloadSize.piece) {
                let count = watch.time {
                    Glibc.read(descriptor, buffer.baseAddress, WorkloadSize.piece)
                }
                guard count == WorkloadSize.piece else { throw BenchFailure.last("read", file) }
            }
            return watch.measurement("read-cold", unit: "MiB", bytes: size.fileBytes)
        }
    }

    private func readRandomly() throws -> Measurement {
        let region = min(size.fileBytes, 64 << 20)
        return try opened(file, O_RDONLY) { descriptor in
            for start in stride(from: 0, to: region, by: WorkloadSize.piece) {
                _ = pread(descriptor, buffer.baseAddress, WorkloadSize.piece, start)
            }
            var dice = SeededGenerator(seed: 1)
            var watch = Stopwatch()
            for _ in 0..<size.randomReads {
                let offset = dice.below(region / WorkloadSize.page) * WorkloadSize.page
                let count = watch.time {
                    pread(descriptor, buffer.baseAddress, WorkloadSize.page, offset)
                }
                guard count == WorkloadSize.page else { throw BenchFailure.last("read", file) }
            }
            return watch.measurement(
                "read-warm",
                unit: "calls",
                bytes: size.randomReads * WorkloadSize.page
            )
        }
    }

    private func synchronise() throws -> Measurement {
        let path = file + "-fsync"
        return try opened(path, O_WRONLY | O_CREAT | O_APPEND) { descriptor in
            var watch = Stopwatch()
            for _ in 0..<size.synchronisations {
                let done = watch.time {
                    Glibc.write(descriptor, buffer.baseAddress, WorkloadSize.page)
                        == WorkloadSize.page && fsync(descriptor) == 0
                }
                guard done else { throw BenchFailure.last("append to", path) }
            }
            return watch.measurement("fsync", unit: "calls")
        }
    }

    private func unlinkAll() throws -> Measurement {
        var watch = Stopwatch()
        for index in 0..<size.files {
            let path = name(index)
            let code = watch.time { unlink(path) }
            guard code == 0 else { throw BenchFailure.last("remove", path) }
        }
        return watch.measurement("unlink", unit: "files")
    }
}
