// The last events of this node's locks, for people: who held what, who asked, what was flushed and
// invalidated, who was granted. `lockstep trace` shows them.

import CLinux
import FileSystem
import Glibc
import Vocabulary

/// A ring of lines. Engine-bound.
final class Story {
    private struct Entry {
        var seconds: Int64
        var nanoseconds: Int64
        var name: ResourceName?
        var event: GlockEvent?
        var text: String?
    }

    private static let capacity = 8192
    private var entries: [Entry] = []
    private var next = 0

    private func add(_ entry: Entry) {
        if entries.count < Self.capacity {
            entries.append(entry)
        } else {
            entries[next] = entry
        }
        next = (next + 1) % Self.capacity
    }

    private func stamp() -> timespec {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return time
    }

    /// An event of a lock.
    func note(_ name: ResourceName, _ event: GlockEvent) {
        let time = stamp()
        add(
            Entry(
                seconds: Int64(time.tv_sec),
                nanoseconds: Int64(time.tv_nsec),
                name: name,
                event: event
            )
        )
    }

    /// Anything else.
    func note(_ text: String) {
        let time = stamp()
        add(
            Entry(
                seconds: Int64(time.tv_sec),
                nanoseconds: Int64(time.tv_nsec),
                text: text
            )
        )
    }

    /// The lines, oldest first: `SECONDS.MICROSECONDS NODE RESOURCE EVENT`. With `filter`, only
    /// those about that resource.
    func lines(of node: NodeID, about filter: String?) -> String {
        var text = ""
        let start = entries.count < Self.capacity ? 0 : next
        for offset in 0..<entries.count {
            let entry = entries[(start + offset) % entries.count]
            let name = entry.name?.description ?? "-"
            if let filter, name != filter { continue }
            let fraction = String(entry.nanoseconds / 1000)
            let padding = String(repeating: "0", count: 6 - fraction.utf8.count)
            let what = entry.event.map(Self.words) ?? entry.text ?? ""
            text += "\(entry.seconds).\(padding)\(fraction) \(node) \(name) \(what)\n"
        }
        return text
    }

    private static func words(_ event: GlockEvent) -> String {
        switch event {
        case .requested(let mode, let isUpgrade):
            isUpgrade ? "asks to convert to \(mode)" : "asks for \(mode)"
        case .granted(let mode): "granted \(mode)"
        case .refused(let mode): "refused \(mode): others hold it; empties its cache and queues"
        case .blocking(let wanted): "blocking notice: another node wants \(wanted)"
        case .demoting(let from, let to): "gives way: \(from) to \(to)"
        case .flushed(let bytes): "flushed \(bytes) bytes of data"
        case .committed: "committed its journal and wrote metadata home"
        case .invalidated(let names):
            names.map {
                $0 == 0
                    ? "invalidated names in the kernel" : "invalidated \($0) names in the kernel"
            }
                ?? "invalidated pages and attributes in the kernel"
        case .lowered(let mode): "lowered to \(mode)"
        }
    }
}
