// Scrubs that administrators ask for: one at a time, in the background of the mount.

import Execution
import FileSystem
import LockReports
import Vocabulary
import VolumeChecking
import VolumeScrubbing

/// The scrub of a mount, if one was ever asked for. Engine-bound.
final class Scrubber {
    private var scrub: Scrub?
    private var failure: FileError?
    private var isRunning = false
    private let ended = Signal()

    /// Begins one.
    ///
    /// - Throws: `ScrubRefusal` while another is running.
    func start(_ volume: MountedVolume, log: @escaping (String) -> Void) throws(ScrubRefusal) {
        if isRunning { throw ScrubRefusal() }
        let begun = Scrub(volume)
        scrub = begun
        failure = nil
        isRunning = true
        volume.engine.spawn {
            do throws(FileError) {
                try await begun.run()
            } catch {
                self.failure = error
            }
            self.isRunning = false
            log("scrub: \(Self.summary(begun.report, self.failure))")
            self.ended.notify()
        }
    }

    /// Ends the one that is running, if any, and waits for its end.
    func stop() async {
        scrub?.stop()
        while isRunning { await ended.wait() }
    }

    private static func summary(_ report: ScrubReport, _ failure: FileError?) -> String {
        if let failure { return "not finished: \(failure)" }
        let looked = "\(report.inodes) inodes, \(report.metadataBlocks) blocks of metadata"
        if report.wasStopped { return "stopped after \(looked)" }
        return "\(looked), \(report.findingCount) findings, \(report.unreadable.count) unreadable"
    }

    /// How far it is, and what it has found.
    var json: JSONText {
        guard let scrub else { return .object([.init("state", .string("none"))]) }
        let report = scrub.report
        let state =
            isRunning
            ? "running" : failure != nil ? "failed" : report.wasStopped ? "stopped" : "finished"
        return .object([
            .init("state", .string(state)), .init("stage", .string("\(report.stage)")),
            .init("stageNumber", .count(report.stage.rawValue)),
            .init("stages", .count(ScrubStage.allCases.count)),
            .init("done", .count(report.done)), .init("total", .count(report.total)),
            .init("inodes", .count(report.inodes)),
            .init("directories", .count(report.directories)),
            .init("entries", .count(report.entries)),
            .init("metadataBlocks", .count(report.metadataBlocks)),
            .init("milliseconds", .count(report.duration / 1_000_000)),
            .init("changedGroups", .count(report.changedGroups)),
            .init("changedInodes", .count(report.changedInodes)),
            .init("newEntries", .count(report.newEntries)),
            .init("findingCount", .count(report.findingCount)),
            .init("findings", .array(report.findings.map(\.json))),
            .init("unreadable", .array(report.unreadable.map(JSONText.string))),
        ])
    }
}

/// A scrub is running already.
struct ScrubRefusal: Error, CustomStringConvertible {
    var description: String {
        "a scrub is running already on this node; see 'lockstep scrub --status', or stop it"
    }
}
