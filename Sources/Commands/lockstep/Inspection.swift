// `lockstep inspect`: from what was asked to an answer and an exit code.

import BlockIO
import CLinux
import DiskFormat
import Glibc
import HostCluster
import LinuxBlockIO
import LinuxSystem
import VolumeInspection

/// One run of `lockstep inspect`.
struct Inspection {
    private enum Code {
        static let sound: Int32 = 0
        static let damaged: Int32 = 1
        static let unanswered: Int32 = 2
    }

    private let arguments: Inspect
    private let output = ByteOutput(STDOUT_FILENO, "standard output")

    init(_ arguments: Inspect) { self.arguments = arguments }

    /// Answers; returns the exit code.
    func run() async -> Int32 {
        var subject = arguments.device
        // What was said before an answer failed may tell why; half an object is of no use.
        defer { if !arguments.json { try? output.flush() } }
        do {
            let request = try arguments.request()
            let sheet = makeSheet(request)
            if case .restore(let file, let image) = request {
                subject = file
                try await restore(file, to: image, sheet)
            } else {
                try await answer(request, sheet)
            }
            // A device that was asked for its bytes says so by itself.
            if !isRaw(request) || sheet.damageCount > 0 { sheet.finish() }
            try output.flush()
            return sheet.damageCount == 0 ? Code.sound : Code.damaged
        } catch let error as DeviceOpenError {
            complain("\(error)")
        } catch let error as SystemError {
            complain("\(error)")
        } catch {
            complain("\(subject): \(error)")
        }
        return Code.unanswered
    }

    private func complain(_ text: String) {
        let line = text.split(separator: "\n").joined(separator: " ")
        writeToStandardError("lockstep inspect: \(line)\n")
    }

    /// Whether the answer is bytes, so that everything else goes to standard error.
    private func isRaw(_ request: Inspect.Request) -> Bool {
        if case .cat = request { return true }
        return arguments.hex
    }

    private func makeSheet(_ request: Inspect.Request) -> Sheet {
        if isRaw(request) { return Sheet(TextRenderer(writeToStandardError)) }
        let output = output
        if arguments.json { return Sheet(JSONRenderer { output.add($0) }) }
        return Sheet(TextRenderer { output.add($0) })
    }

    private func answer(_ request: Inspect.Request, _ sheet: Sheet) async throws {
        let path = arguments.device
        var options = FileBlockDevice.Options()
        options.readOnly = true
        options.allowsBuffered = true
        options.threadCount = 1
        let device = try FileBlockDevice(path: path, options: options)
        defer { device.close() }
        if case .superblock = request {
            try await Inspector.showSuperblock(of: device, copy: arguments.copy, sheet: sheet)
            return
        }
        let inspector = try await Inspector.open(
            device,
            sheet: sheet,
            replayed: arguments.replayed
        )
        if let use = await use(of: path, inspector) {
            complain(
                "note: \(path) \(use): what is shown may be changing, and older than what is in memory"
            )
        }
        try await answer(request, inspector)
    }

    /// Who may be writing to the volume; nil if nobody is known.
    private func use(of path: String, _ inspector: Inspector) async -> String? {
        if deviceUse(path) != nil { return "is in use on this host" }
        // Without a run directory nobody of this host has mounted it; the guard tells of others.
        let status = try? HostClusterStatus.read(inspector.superblock.volume, in: nil)
        if status?.isInUse == true { return "is mounted on this host" }
        return await inspector.user().map { "is mounted by \($0), or was not unmounted" }
    }

    private func answer(_ request: Inspect.Request, _ inspector: Inspector) async throws {
        let output = output
        switch request {
        case .superblock, .restore: preconditionFailure("answered without a volume")
        case .slots: await inspector.showSlots()
        case .groups: await inspector.showGroups()
        case .quotas: try await inspector.showQuotas()
        case .group(let index): try await inspector.showGroup(index)
        case .journal(let slot):
            try await inspector.showJournal(slot, blocks: arguments.blocks)
        case .block(let number):
            if arguments.hex {
                try await inspector.hexadecimalDump(ofBlock: number) { output.add($0) }
            } else {
                try await inspector.showBlock(number)
            }
        case .owner(let number): try await inspector.showOwner(number)
        case .inode(let question, let text):
            try await answer(question, InodeReference(text), inspector)
        case .cat(let text):
            try await inspector.writeContent(InodeReference(text)) { output.write($0) }
        case .save(let file): try await save(inspector, to: file)
        }
    }

    private func answer(
        _ question: String,
        _ reference: InodeReference,
        _ inspector: Inspector
    ) async throws {
        switch question {
        case "inode": try await inspector.showInode(reference)
        case "extents": try await inspector.showExtents(reference)
        case "list": try await inspector.showList(reference, long: arguments.long)
        case "tree": try await inspector.showTree(reference)
        case "attributes": try await inspector.showAttributes(reference)
        default: try await inspector.showNames(reference)
        }
    }

    // MARK: metadata images

    /// Makes a file that must not be there; whoever may read it learns names and attributes.
    private func makeFile(_ path: String) throws -> Int32 {
        let descriptor = lockstep_open(path, O_WRONLY | O_CREAT | O_EXCL, 0o600)
        guard descriptor >= 0 else {
            guard errno != EEXIST else {
                throw InspectionError("\(path) is there already; remove it or name another")
            }
            throw SystemError.last("open", path)
        }
        return descriptor
    }

    private func save(_ inspector: Inspector, to path: String) async throws {
        let descriptor = try makeFile(path)
        do {
            let file = ByteOutput(descriptor, path)
            let summary = try await inspector.save { bytes throws(InspectionError) in
                guard file.write(bytes) else { throw InspectionError(file.complaint) }
            }
            try file.flush()
            guard close(descriptor) == 0 else { throw SystemError.last("close", path) }
            summary.show(on: inspector.sheet)
        } catch {
            unlink(path)
            throw error
        }
    }

    private func restore(_ path: String, to image: String, _ sheet: Sheet) async throws {
        guard let file = fopen(path, "re") else { throw SystemError.last("open", path) }
        defer { fclose(file) }
        let reader = try MetadataImageReader { buffer throws(InspectionError) in
            let count = fread(buffer.baseAddress, 1, buffer.count, file)
            if count < buffer.count, ferror(file) != 0 {
                throw InspectionError("cannot be read: \(errnoText(errno))")
            }
            return count
        }
        let descriptor = try makeFile(image)
        do {
            let length = off_t(reader.header.deviceSize)
            let isLong = ftruncate(descriptor, length) == 0
            guard close(descriptor) == 0, isLong else {
                throw InspectionError(
                    "an image of \(reader.header.deviceSize) bytes cannot be made: \(errnoText(errno))"
                )
            }
            var options = FileBlockDevice.Options()
            options.allowsBuffered = true
            options.threadCount = 1
            let device = try FileBlockDevice(path: image, options: options)
            defer { device.close() }
            let summary = try await reader.restore(to: device)
            try await device.flush()
            summary.show(on: sheet)
        } catch {
            unlink(image)
            throw error
        }
    }
}

/// As it is, at once; nothing can be done if nobody listens.
private func writeToStandardError(_ text: String) {
    var text = text
    text.withUTF8 { bytes in
        _ = Glibc.write(STDERR_FILENO, bytes.baseAddress, bytes.count)
    }
}

/// Bytes on their way to a file, gathered; the first failure is kept, and nothing is written behind it.
private final class ByteOutput {
    private let descriptor: Int32
    private let name: String
    private var gathered: [UInt8] = []
    private var code: Int32 = 0

    private static let limit = 65_536

    init(_ descriptor: Int32, _ name: String) {
        self.descriptor = descriptor
        self.name = name
    }

    /// What went wrong, in words.
    var complaint: String { "\(name) cannot be written: \(errnoText(code))" }

    func add(_ text: String) {
        gathered += text.utf8
        if gathered.count >= Self.limit { push() }
    }

    /// Whether all was well so far.
    func write(_ bytes: UnsafeRawBufferPointer) -> Bool {
        gathered += bytes
        if gathered.count >= Self.limit { push() }
        return code == 0
    }

    private func push() {
        var rest = gathered[...]
        while !rest.isEmpty, code == 0 {
            let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0 && errno != EINTR { code = errno }
            rest = rest.dropFirst(max(count, 0))
        }
        gathered.removeAll(keepingCapacity: true)
    }

    func flush() throws {
        push()
        guard code == 0 else { throw InspectionError(complaint) }
    }
}
