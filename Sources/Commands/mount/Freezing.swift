// Freezing and thawing for administrators: begun by one request, watched by others, so that the socket
// serves everybody meanwhile.

import Execution
import FileSystem
import HostCluster
import LockReports
import Vocabulary

/// The freezes that this mount was asked for. Engine-bound.
final class Freezing {
    private enum Outcome {
        case none, running, done
        case failed(String)
    }

    private var outcome = Outcome.none

    /// Begins to freeze; `status` tells how it ends.
    ///
    /// - Throws: `FreezeError.busy` while one is under way that was begun here.
    func start(_ volume: MountedVolume, seconds: UInt32) throws(FreezeError) {
        if case .running = outcome { throw .busy(volume.freezer.notice) }
        outcome = .running
        volume.engine.spawn {
            do throws(FreezeError) {
                try await volume.freezer.freeze(seconds: seconds)
                self.outcome = .done
            } catch {
                self.outcome = .failed("\(error)")
            }
        }
    }

    /// Begins to thaw; false if the volume is not frozen.
    func thaw(_ volume: MountedVolume) -> Bool {
        if volume.freezer.phase == .running { return false }
        volume.engine.spawn { _ = await volume.freezer.thaw() }
        return true
    }

    /// How the last freeze that was begun here ended, and how the volume is now.
    func json(_ volume: MountedVolume) -> JSONText {
        let request: [JSONText.Member]
        switch outcome {
        case .none: request = [.init("request", .string("none"))]
        case .running: request = [.init("request", .string("running"))]
        case .done: request = [.init("request", .string("done"))]
        case .failed(let why):
            request = [.init("request", .string("failed")), .init("error", .string(why))]
        }
        return .object(request + volume.freezer.description)
    }
}

extension Freezer {
    /// For people and programs: the phase, and unless the volume works who froze it, since when and for how long.
    var description: [JSONText.Member] {
        let phase = JSONText.Member("phase", .string(phase.rawValue))
        guard self.phase != .running, let notice else { return [phase] }
        return [
            phase, .init("by", .count(notice.node.rawValue)),
            .init("since", .string(civilText(notice.since))),
            .init("seconds", .count(notice.seconds)),
        ]
    }
}

/// Stops the heartbeat on the device while the volume is frozen.
final class GuardHeart: DeviceHeart {
    private let volumeGuard: VolumeGuard
    private let engine: Engine

    init(_ volumeGuard: VolumeGuard, _ engine: Engine) {
        self.volumeGuard = volumeGuard
        self.engine = engine
    }

    func hold() async {
        let outcome = EngineBound(Outcome<Void>())
        volumeGuard.hold { [engine] in engine.enter { outcome.value.deliver(()) } }
        await outcome.value.get()
    }

    func release() { volumeGuard.goOn() }
}
