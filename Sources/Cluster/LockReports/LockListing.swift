// The table of `lockstep locks`.

import LockCore
import Vocabulary

extension ClusterPicture {
    /// The table: a line for each lock, in the order of the queues; then what is missing.
    package var table: String {
        var rows: [[String]] = []
        for resource in resources {
            for (place, lock) in resource.locks.enumerated() {
                let isFirst = place == 0
                rows.append([
                    isFirst ? "\(resource.name)" : "",
                    isFirst ? Self.master(resource) : "",
                    isFirst ? Self.value(resource) : "",
                    "\(lock.holder)", lock.modes, Words.age(lock.age), detail(lock, resource),
                ])
            }
        }
        var lines: [String] = []
        if rows.isEmpty {
            lines.append("no locks")
        } else {
            let head = ["RESOURCE", "MASTER", "VALUE", "NODE", "MODE", "AGE", ""]
            lines += Words.table([head] + rows)
        }
        if isCut { lines.append("there are more: see --limit, --type, --inode, --node") }
        lines += remarks
        return lines.map { $0 + "\n" }.joined()
    }

    private static func master(_ resource: ResourceReport) -> String {
        if resource.master == .none { return "?" }
        return resource.isFromMaster ? "\(resource.master)" : "\(resource.master)?"
    }

    private static func value(_ resource: ResourceReport) -> String {
        guard let value = resource.value else { return "-" }
        return value.isValid ? "#\(value.sequence)" : "#\(value.sequence) invalid"
    }

    private func detail(_ lock: LockReport, _ resource: ResourceReport) -> String {
        var text = lock.doing
        if !lock.isKnownToMaster && resource.isFromMaster {
            text += (text.isEmpty ? "" : ", ") + "its master has not heard of it yet"
        }
        if lock.isWaiting {
            let nodes = lock.blockers.map { "\($0.node)" }
            text = nodes.isEmpty ? "waits" : "waits for " + nodes.joined(separator: " ")
            let doing = lock.doing
            if !doing.isEmpty { text += "; \(doing)" }
        }
        return text
    }
}
