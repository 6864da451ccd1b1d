// The answers to administrators.

import ClusterNode
import DiskFormat
import Execution
import FileSystem
import FuseServer
import Glibc
import Journaling
import LinuxBlockIO
import LinuxSystem
import LockCore
import LockReports
import NodeService
import Vocabulary

/// Makes answers, from a thread outside the engine.
struct Inspection: @unchecked Sendable {
    // Sendable: `mount` is.
    let mount: Mount

    /// The bytes to send.
    func answer(_ request: String) -> [UInt8] {
        let word = request.prefix { $0 != " " }
        guard word == "recording" else { return Array(text(request).utf8) }
        do {
            return try recording(String(request.dropFirst(word.count).drop { $0 == " " }))
        } catch {
            return Array("error: \(error)\n".utf8)
        }
    }

    private func text(_ request: String) -> String {
        let words = request.split(separator: " ").map(String.init)
        let rest = String(request.drop { $0 != " " }.drop { $0 == " " })
        do {
            switch words.first {
            case "status": return try mount.waitInEngine { status() } + "\n"
            case "ping": return "ok\n"
            case "locks": return try locks(rest)
            case "counters": return try counters(rest)
            case "trace":
                return try mount.waitInEngine { trace(words.count > 1 ? words[1] : nil) }
            case "sync":
                try mount.waitInEngine { try await mount.node?.volume?.synchronizeAll() }
                return "ok\n"
            case "scrub": return try scrub(rest)
            case "freeze": return try freeze(rest)
            case "thaw": return try thaw()
            case "frozen": return try mount.waitInEngine { frozen() }
            case "quota": return try quota(rest)
            case "times": return try setTimes(words.dropFirst())
            default: return "error: unknown request '\(request)'\n"
            }
        } catch {
            return "error: \(error)\n"
        }
    }

    /// The rules for times of a mount that was mounted again.
    private func setTimes(_ words: ArraySlice<String>) throws -> String {
        guard let volume = mount.node?.volume else {
            return "error: the volume is not mounted yet\n"
        }
        let bound = EngineBound(volume)
        return try mount.waitInEngine {
            for word in words {
                switch word {
                case "ro": bound.value.times.isReadOnly = true
                case "rw": bound.value.times.isReadOnly = false
                default:
                    if !bound.value.times.take(word) {
                        return "error: '\(word)' is no rule for times\n"
                    }
                }
            }
            return "ok\n"
        }
    }

    private func scrub(_ request: String) throws -> String {
        guard let node = mount.node, let volume = node.volume else {
            return "error: the volume is not mounted yet\n"
        }
        switch request {
        case "start":
            let log = mount.log
            try mount.waitInEngine { try mount.scrubber.start(volume) { log.notice($0) } }
            return "ok\n"
        case "stop":
            try mount.waitInEngine { await mount.scrubber.stop() }
            return "ok\n"
        case "status": return try mount.waitInEngine { mount.scrubber.json.text } + "\n"
        default: return "error: unknown request 'scrub \(request)'\n"
        }
    }

    private func freeze(_ request: String) throws -> String {
        guard let volume = mount.node?.volume else {
            return "error: the volume is not mounted yet\n"
        }
        let words = request.split(separator: " ")
        switch words.first {
        case "start":
            guard words.count == 2, let seconds = UInt32(words[1]) else {
                return "error: 'freeze start' needs a number of seconds\n"
            }
            try mount.waitInEngine { try mount.freezing.start(volume, seconds: seconds) }
            return "ok\n"
        case "status": return try mount.waitInEngine { mount.freezing.json(volume).text } + "\n"
        default: return "error: unknown request 'freeze \(request)'\n"
        }
    }

    private func thaw() throws -> String {
        guard let volume = mount.node?.volume else {
            return "error: the volume is not mounted yet\n"
        }
        return try mount.waitInEngine { mount.freezing.thaw(volume) }
            ? "ok\n" : "error: the volume is not frozen\n"
    }

    /// For a mount that begins: since when and by whom the volume is frozen; empty if it is not.
    private func frozen() -> String {
        guard let freezer = mount.node?.volume?.freezer, freezer.phase != .running else {
            return ""
        }
        guard let notice = freezer.notice else { return "by another node" }
        return "by \(notice.node) since \(civilText(notice.since))"
    }

    private func quota(_ request: String) throws -> String {
        guard let node = mount.node, let volume = node.volume else {
            return "error: the volume is not mounted yet\n"
        }
        return try mount.waitInEngine { try await volume.quota(request) }
    }

    private func trace(_ name: String?) -> String {
        guard let node = mount.node else { return "" }
        return mount.story.lines(of: node.locks.node, about: name)
    }

    private func status() -> String {
        guard let node = mount.node, let server = mount.server, let volume = node.volume else {
            return "{}"
        }
        let mountPoint = server.options.mountPoint
        let view = node.view
        let requests = server.requestCounts
        let device = mount.file.device.counters
        let members: [JSONText.Member] = [
            .init("volume", .string("\(mount.file.superblock.volume)")),
            .init("name", .string(mount.file.superblock.volumeName)),
            .init("device", .string(mount.file.path)),
            .init("mountPoint", .string(mountPoint)),
            .init("node", .count(node.locks.node.rawValue)),
            .init("nodeName", .string(mount.arguments.nodeName ?? "\(node.locks.node)")),
            .init("slot", .count(node.locks.node.slot.rawValue)),
            .init("pid", .count(getpid())),
            .init("epoch", .count(view?.epoch.rawValue ?? 0)),
            .init("members", .array((view?.members ?? []).map { .count($0.node.rawValue) })),
            .init(
                "slotsToReplay",
                .array((view?.slotsToReplay ?? []).map { .count($0.rawValue) })
            ),
            .init("requests", .count(requests.total)),
            .init(
                "requestsByKind",
                .object(
                    Opcode.allCases.filter { requests[$0] > 0 }.map {
                        .init("\($0)", .count(requests[$0]))
                    }
                )
            ),
        ]
        let rest: [JSONText.Member] = [
            .init(
                "deviceCounters",
                .counts([
                    ("reads", device.reads), ("writes", device.writes), ("flushes", device.flushes),
                ])
            ),
            .init("replaying", .boolean(node.isReplaying)),
            .init("recoveries", .array(node.recoveries.map(\.json))),
            .init("lockCounters", .counts(node.locks.allCounters.map { ($0.name, $0.count) })),
            .init("lockBytes", .count(node.locks.byteCount)),
        ]
        return JSONText.object(members + volume.description + rest).text
    }
}

extension MountedVolume {
    /// The volume's part of the status.
    fileprivate var description: [JSONText.Member] {
        let journal = journalStatistics
        let counters = counters
        return [
            .init("withdrawn", .boolean(isWithdrawn)),
            .init("freeze", .object(freezer.description)),
            .init("inodes", .count(inodeCount)),
            .init("glocks", .count(locks.count)),
            .init("heldLocks", .count(locks.heldCount)),
            .init("cachedBlocks", .count(cachedBlockCount)),
            .init("dirtyBytes", .count(dirtyByteCount)),
            .init(
                "journal",
                .counts([
                    ("commits", journal.commits), ("blocksLogged", journal.blocksLogged),
                    ("blocksWrittenHome", journal.blocksWrittenHome), ("flushes", journal.flushes),
                    ("waitsForSpace", journal.waitsForSpace),
                    ("ringBlocks", journal.ringBlocks),
                    ("usedBlocks", journal.usedBlocks),
                ])
            ),
            .init(
                "counters",
                .counts([
                    ("demotions", counters.demotions),
                    ("minimumHolds", counters.minimumHolds),
                    ("regionDemotions", counters.regionDemotions),
                    ("regionRequests", counters.regionRequests),
                    ("glimpses", counters.glimpses), ("glimpsesTold", counters.glimpsesTold),
                    ("invalidatedInodes", counters.invalidatedInodes),
                    ("invalidatedNames", counters.invalidatedNames),
                    ("repeatedInvalidations", counters.repeatedInvalidations),
                    ("strayWritebacks", counters.strayWritebacks),
                    ("doubtfulPages", counters.doubtfulPages),
                    ("orphansListed", counters.orphansListed),
                    ("orphansFreed", counters.orphansFreed),
                    ("orphansLeft", counters.orphansLeft),
                    ("reclaimedInodes", counters.reclaimedInodes),
                    ("locksGivenBackForAge", counters.locksGivenBackForAge),
                    ("locksGivenBackForNumber", counters.locksGivenBackForNumber),
                    ("locksGivenBackForPressure", counters.locksGivenBackForPressure),
                    ("blocksGivenBack", counters.blocksGivenBack),
                    ("pressures", counters.pressures),
                    ("storageErrors", counters.storageErrors),
                ])
            ),
        ]
    }
}

extension RecoveryReport {
    /// What the log says of it; nothing if there was nothing to replay.
    var line: String? {
        let report = journal.report
        if report.transactions == 0 { return nil }
        return "replayed the journal of \(journal.slot): \(report.transactions) transactions, "
            + "\(report.written) of \(report.blocks) blocks written; others went on after "
            + "\(journal.untilCovered / 1_000_000) ms but for \(journal.covered - journal.settled) "
            + "names, and those after \(journal.untilClean / 1_000_000) ms"
    }

    fileprivate var json: JSONText {
        let report = journal.report
        return .counts([
            ("slot", journal.slot.rawValue), ("epoch", epoch.rawValue),
            ("transactions", report.transactions),
            ("written", report.written),
            ("names", journal.covered),
            ("namesSettled", journal.settled),
            ("microsecondsUntilOthersGoOn", journal.untilCovered / 1000),
            ("microseconds", journal.untilClean / 1000),
        ])
    }
}
