// A program on the model of the kernel.

import Execution
import FileSystem
import SimulatedMachine
import SimulatedWorld
import Vocabulary

/// Runs programs on the model.
final class ModelKernelSide {
    let kernel: KernelModel
    let memory: MemoryFiles
    private var files: [Int: (file: KernelFile, kind: OpenKind)] = [:]
    /// The pages that the real kernel read in the present step, by inode.
    var reads: [(node: UInt64, pages: Range<UInt64>)] = []

    init(engine: Engine, seed: UInt64) {
        memory = MemoryFiles(engine: engine)
        kernel = KernelModel(
            engine: engine,
            volume: memory,
            name: "model",
            dice: SeededGenerator(seed: seed)
        )
        kernel.habits = KernelHabits { [unowned self] node, index in
            reads.first { $0.node == node.rawValue && $0.pages.contains(index) }?.pages
                ?? index..<index + 1
        }
    }

    /// Runs a program; `real` is what it led to on the real kernel, whose read-ahead the model
    /// follows.
    static func run(
        _ program: [KernelStep],
        seed: UInt64,
        following real: [StepOutcome]
    ) throws -> [StepOutcome] {
        try runSimulated(seed: seed, stepLimit: 1_000_000) { engine in
            let side = ModelKernelSide(engine: engine, seed: seed)
            return await side.run(program, following: real)
        }
    }

    private func run(_ program: [KernelStep], following real: [StepOutcome]) async -> [StepOutcome]
    {
        memory.time = Timestamp(seconds: 1, nanoseconds: 0)
        memory.plantTree()
        var recorded: [RecordedRequest] = []
        memory.onRequest = { recorded.append($0) }
        var outcomes: [StepOutcome] = []
        for (number, step) in program.enumerated() {
            memory.time = Timestamp(seconds: 1000 + Int64(number), nanoseconds: 0)
            reads = real[number].requests.compactMap(\.filledPages)
            var result = ""
            if step.isCall {
                do throws(FileError) {
                    result = try await perform(step)
                } catch {
                    result = "\(error)"
                }
                await finishReadAhead()
                kernel.forgetUnused()
            } else {
                await memory.happen(step, kernel)
                kernel.forgetUnused()
            }
            outcomes.append(StepOutcome(result: result, requests: recorded))
            recorded = []
        }
        return outcomes
    }

    /// The real kernel may have read on without anybody missing a page.
    private func finishReadAhead() async {
        for slot in 0..<ProgramWriter.slots {
            guard let file = files[slot]?.file, files[slot]?.kind.reads == true else { continue }
            for read in reads where read.node == file.node.rawValue {
                await kernel.readAhead(file, read.pages)
            }
        }
    }

    // MARK: Steps

    func perform(_ step: KernelStep) async throws(FileError) -> String {
        switch step {
        case .open(let slot, let path, let kind):
            guard files[slot] == nil else { return "-" }
            let file = try await kernel.open(
                TestPath.names(path),
                kind.intent,
                creates: kind.creates ? 0o644 : nil,
                isExclusive: kind == .createExclusive
            )
            files[slot] = (file, kind)
            return "open"
        case .close(let slot):
            guard let file = files.removeValue(forKey: slot) else { return "-" }
            try await kernel.close(file.file)
            return "0"
        case .read(let slot, let offset, let count):
            guard let file = files[slot], file.kind.reads else { return "-" }
            return Outcomes.bytes(
                try await kernel.read(file.file, at: UInt64(offset), count: count)
            )
        case .write(let slot, let offset, let count, let byte):
            guard let file = files[slot], file.kind.writes else { return "-" }
            let bytes = [UInt8](repeating: byte, count: count)
            return "\(try await kernel.write(file.file, at: UInt64(offset), bytes))"
        case .load(let slot, let pages):
            guard let file = files[slot], file.kind.reads else { return "-" }
            let range = UInt64(pages.lowerBound)..<UInt64(pages.upperBound)
            return Outcomes.bytes(try await kernel.load(file.file, range))
        case .store(let slot, let page, let byte):
            guard let file = files[slot], file.kind.reads, file.kind.writes else { return "-" }
            return "\(try await kernel.store(file.file, at: UInt64(page) * 4096, [byte]))"
        case .synchronize(let slot):
            guard let file = files[slot] else { return "-" }
            try await kernel.synchronize(file.file, dataOnly: false)
            return "0"
        case .truncateFile(let slot, let size):
            guard let file = files[slot], file.kind.writes else { return "-" }
            try await kernel.truncate(file.file, to: UInt64(size))
            return "0"
        case .fileStatus(let slot):
            guard let file = files[slot] else { return "-" }
            return attributes(try await kernel.status(file.file))
        default: return try await performOnPath(step)
        }
    }

    private func performOnPath(_ step: KernelStep) async throws(FileError) -> String {
        var change = AttributeChange()
        switch step {
        case .truncate(let path, let size):
            change.size = UInt64(size)
            try await kernel.setAttributes(TestPath.names(path), change)
        case .setTimes(let path, let seconds):
            let time = Timestamp(seconds: Int64(seconds), nanoseconds: 7)
            change.accessed = .at(time)
            change.modified = .at(time)
            try await kernel.setAttributes(TestPath.names(path), change)
        case .setMode(let path, let mode):
            change.mode = mode
            try await kernel.setAttributes(TestPath.names(path), change)
        case .status(let path):
            return attributes(try await kernel.status(TestPath.names(path)))
        case .access(let path):
            try await kernel.access(TestPath.names(path))
        case .list(let path):
            return Outcomes.names(
                try await kernel.list(TestPath.names(path)).map {
                    ($0.name, $0.inode.address.rawValue, $0.typeBits >> 12)
                }
            )
        case .readLink(let path):
            return String(
                decoding: try await kernel.readLink(TestPath.names(path)),
                as: UTF8.self
            )
        default: return try await performOnName(step)
        }
        return "0"
    }

    private func performOnName(_ step: KernelStep) async throws(FileError) -> String {
        switch step {
        case .makeDirectory(let path):
            try await kernel.make(.directory(mode: 0o040755), TestPath.names(path))
        case .makeNode(let path):
            try await kernel.make(.node(mode: 0o100644, device: 0), TestPath.names(path))
        case .makeSymlink(let path, let target):
            try await kernel.make(.symlink(target: Array(target.utf8)), TestPath.names(path))
        case .link(let path, let new):
            try await kernel.link(TestPath.names(path), as: TestPath.names(new))
        case .unlink(let path): try await kernel.remove(TestPath.names(path), isDirectory: false)
        case .removeDirectory(let path):
            try await kernel.remove(TestPath.names(path), isDirectory: true)
        case .rename(let path, let new, let kind):
            try await kernel.rename(TestPath.names(path), to: TestPath.names(new), kind)
        case .setExtended(let path, let name):
            let bytes = Array(name.utf8)
            try await kernel.setExtendedAttribute(TestPath.names(path), bytes, bytes)
        case .getExtended(let path, let name):
            return String(
                decoding: try await kernel.extendedAttribute(
                    TestPath.names(path),
                    Array(name.utf8)
                ),
                as: UTF8.self
            )
        case .listExtended(let path):
            return String(
                decoding: try await kernel.extendedAttributeNames(TestPath.names(path)),
                as: UTF8.self
            )
        case .removeExtended(let path, let name):
            try await kernel.removeExtendedAttribute(TestPath.names(path), Array(name.utf8))
        default: preconditionFailure("no step of a process: \(step)")
        }
        return "0"
    }

    private func attributes(_ known: FileAttributes) -> String {
        Outcomes.attributes(
            inode: known.inode.address.rawValue,
            mode: known.mode,
            links: UInt64(known.linkCount),
            size: known.size,
            times: [
                known.accessed.seconds, known.modified.seconds, Int64(known.modified.nanoseconds),
                known.changed.seconds,
            ]
        )
    }
}

extension RecordedRequest {
    /// The pages that a READ into the page cache covers.
    var filledPages: (node: UInt64, pages: Range<UInt64>)? {
        guard kind == .fill, let pages else { return nil }
        return (node, pages)
    }

    /// The pages of a range of bytes.
    var pages: Range<UInt64>? {
        let parts = what.split(separator: "+").compactMap { UInt64($0) }
        guard parts.count == 2, parts[1] > 0 else { return nil }
        return parts[0] / 4096..<(parts[0] + parts[1] + 4095) / 4096
    }
}
