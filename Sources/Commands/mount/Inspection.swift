// The answers to administrators.

import DiskFormat
import Execution
import FileSystem
import FuseServer
import Glibc
import Journaling
import LinuxBlockIO
import LockCore
import NodeService
import Vocabulary

/// Makes answers, from a thread outside the engine.
struct Inspection: @unchecked Sendable {
    // Sendable: `mount` is.
    let mount: Mount

    func answer(_ request: String) -> String {
        let words = request.split(separator: " ").map(String.init)
        do {
            switch words.first {
            case "status": return try mount.waitInEngine { status() } + "\n"
            case "locks": return try mount.waitInEngine { locks() }
            case "trace":
                return try mount.waitInEngine { trace(words.count > 1 ? words[1] : nil) }
            case "sync":
                try mount.waitInEngine { try await mount.node?.volume?.synchronizeAll() }
                return "ok\n"
            default: return "error: unknown request '\(request)'\n"
            }
        } catch {
            return "error: \(error)\n"
        }
    }

    private func trace(_ name: String?) -> String {
        guard let node = mount.node else { return "" }
        return node.story.lines(of: node.locks.node, about: name)
    }

    private func status() -> String {
        guard let node = mount.node, let server = mount.server, let volume = node.volume else {
            return "{}"
        }
        var json = JSONText()
        json.object {
            $0.field("volume", "\(mount.file.superblock.volume)")
            $0.field("name", mount.file.superblock.volumeName)
            $0.field("device", mount.file.path)
            $0.field("mountPoint", server.options.mountPoint)
            $0.field("node", node.locks.node.rawValue)
            $0.field("slot", node.locks.node.slot.rawValue)
            $0.field("pid", getpid())
            $0.field("epoch", node.view?.epoch.rawValue ?? 0)
            $0.list("members", (node.view?.members ?? []).map { "\($0.node.rawValue)" })
            $0.list("slotsToReplay", (node.view?.slotsToReplay ?? []).map { "\($0.rawValue)" })
            $0.field("requests", server.requestCounts.total)
            $0.object("requestsByKind") { kinds in
                for opcode in Opcode.allCases where server.requestCounts[opcode] > 0 {
                    kinds.field("\(opcode)", server.requestCounts[opcode])
                }
            }
            volume.describe(&$0)
            let device = mount.file.device.counters
            $0.object("deviceCounters") {
                $0.field("reads", device.reads)
                $0.field("writes", device.writes)
                $0.field("flushes", device.flushes)
            }
            $0.list(
                "recoveries",
                node.recoveries.map {
                    "{\"slot\":\($0.slot.rawValue),\"epoch\":\($0.epoch.rawValue),"
                        + "\"transactions\":\($0.report.transactions),"
                        + "\"written\":\($0.report.written),"
                        + "\"microseconds\":\($0.nanoseconds / 1000)}"
                }
            )
        }
        return json.text
    }

    private func locks() -> String {
        guard let node = mount.node else { return "" }
        var text = ""
        for resource in node.locks.snapshot {
            text += "\(node.locks.node) \(resource.name) master \(resource.master)"
            for lock in resource.locks { text += " [\(lock)]" }
            text += "\n"
        }
        return text
    }
}

extension MountedVolume {
    /// The volume's part of the status.
    fileprivate func describe(_ json: inout JSONText) {
        let journal = journalStatistics
        let counters = counters
        let inodes = inodeCount
        let dirty = dirtyByteCount
        let glocks = locks.count
        json.field("withdrawn", isWithdrawn)
        json.field("inodes", inodes)
        json.field("glocks", glocks)
        json.field("dirtyBytes", dirty)
        json.object("journal") {
            $0.field("commits", journal.commits)
            $0.field("blocksLogged", journal.blocksLogged)
            $0.field("blocksWrittenHome", journal.blocksWrittenHome)
            $0.field("flushes", journal.flushes)
            $0.field("ringBlocks", journal.ringBlocks)
            $0.field("usedBlocks", journal.usedBlocks)
        }
        json.object("counters") {
            $0.field("demotions", counters.demotions)
            $0.field("invalidatedInodes", counters.invalidatedInodes)
            $0.field("invalidatedNames", counters.invalidatedNames)
            $0.field("repeatedInvalidations", counters.repeatedInvalidations)
            $0.field("strayWritebacks", counters.strayWritebacks)
            $0.field("orphansListed", counters.orphansListed)
            $0.field("orphansFreed", counters.orphansFreed)
            $0.field("storageErrors", counters.storageErrors)
        }
    }
}

/// A JSON text in the making: objects, fields, lists of finished values.
struct JSONText {
    private(set) var text = ""
    private var needsComma = false

    mutating func object(_ body: (inout JSONText) -> Void) {
        text += "{"
        needsComma = false
        body(&self)
        text += "}"
        needsComma = true
    }

    mutating func object(_ name: String, _ body: (inout JSONText) -> Void) {
        key(name)
        object(body)
    }

    mutating func field(_ name: String, _ value: some BinaryInteger) {
        key(name)
        text += "\(value)"
    }

    mutating func field(_ name: String, _ value: Bool) {
        key(name)
        text += value ? "true" : "false"
    }

    mutating func field(_ name: String, _ value: String) {
        key(name)
        text += Self.quoted(value)
    }

    mutating func list(_ name: String, _ values: [String]) {
        key(name)
        text += "[" + values.joined(separator: ",") + "]"
    }

    private mutating func key(_ name: String) {
        if needsComma { text += "," }
        needsComma = true
        text += Self.quoted(name) + ":"
    }

    static func quoted(_ value: String) -> String {
        var result = "\""
        for scalar in value.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case _ where scalar.value < 32:
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.utf8.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}
