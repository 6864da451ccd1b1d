// Processes that make files without a name (O_TMPFILE) in a concurrent run: written, read, given a name that is looked at
// from anywhere, or not, and closed. What was written is there; whatever has no name in the end is freed, which the
// checker of the image says, also when nodes die meanwhile.

import Execution
import FileSystem
import SimulatedMachine
import Vocabulary

extension ConcurrentRun {
    /// Makes a file without a name, writes and reads it, perhaps links to it, and closes it.
    func useTemporary(_ process: inout SimulatedProcess) async throws {
        try process.demandDaemon()
        let kernel = process.node.kernel
        let file: KernelFile
        do throws(FileError) {
            file = try await kernel.makeTemporary(below: [Array("shared".utf8)], .both)
        } catch .noSpace {
            return
        }
        do {
            try await fill(file, &process)
        } catch {
            try await kernel.close(file)
            throw error
        }
        try await kernel.close(file)
    }

    private func fill(_ file: KernelFile, _ process: inout SimulatedProcess) async throws {
        let kernel = process.node.kernel
        let bytes = (0..<1 + process.dice.below(9000)).map { UInt8(truncatingIfNeeded: $0 * 7) }
        do throws(FileError) {
            try await process.node.write(file, 0, bytes)
        } catch .noSpace {
            return
        }
        try await demand(bytes, file, process)
        guard process.dice.oneIn(2) else { return }
        // A name that nobody else uses, and that does not stay.
        let name = Array("t\(process.number).\(process.life)".utf8)
        let path: PathNames = [Array("shared".utf8), name]
        do throws(FileError) {
            try await kernel.link(file, as: path)
        } catch .noSpace {
            return
        }
        await engine.sleep(nanoseconds: UInt64(process.dice.below(500_000)))
        try await demand(bytes, file, process)
        let again = try await kernel.open(path, .reading)
        do {
            try await demand(bytes, again, process)
        } catch {
            try await kernel.close(again)
            throw error
        }
        try await kernel.close(again)
        try await kernel.remove(path, isDirectory: false)
    }

    private func demand(
        _ bytes: [UInt8],
        _ file: KernelFile,
        _ process: SimulatedProcess
    ) async throws {
        let found = try await process.node.kernel.read(file, at: 0, count: bytes.count + 1)
        try process.demandDaemon()
        if found != bytes {
            throw SimulationFailure(
                "\(process): of \(bytes.count) bytes of a file without a name \(found.count) are there, or others"
            )
        }
    }
}
