// Reports as JSON and back. What is not said is zero, none or false; members that a reader does not
// know are passed over. A text that lacks what every report has is none.

import LockCache
import LockCore
package import Vocabulary

extension NodeReport {
    /// The report as JSON.
    package var json: JSONText {
        var members: [JSONText.Member] = [
            .init("version", .number(LockQuestion.version)), .init("node", .count(node.rawValue)),
            .init("nodeName", .string(name)), .init("epoch", .number(epoch.rawValue)),
            .init("phase", .string(phase.rawValue)), .init("time", .number(time)),
        ]
        members.append(mark: "waitsForReplay", waitsForReplay)
        members.append(mark: "isReplaying", isReplaying)
        members.append("resources", .array(resources.map(\.json)))
        members.append(nonzero: "omitted", omitted)
        if !counters.isEmpty {
            members.append("counters", .object(counters.map { .init($0.name, .number($0.count)) }))
        }
        return .object(members)
    }

    /// A report that was received; nil if it is none.
    package init?(_ json: JSONText) {
        guard json["version"]?.number == LockQuestion.version,
            let node = json["node"]?.number, let epoch = json["epoch"]?.number,
            let phase = json["phase"]?.string.flatMap(Phase.init(rawValue:))
        else { return nil }
        self.init(
            node: NodeID(UInt32(clamping: node)),
            name: json["nodeName"]?.string ?? "",
            epoch: Epoch(epoch),
            phase: phase,
            waitsForReplay: json.flag("waitsForReplay"),
            isReplaying: json.flag("isReplaying"),
            time: json.number("time")
        )
        for text in json["resources"]?.elements ?? [] {
            guard let resource = ResourceReport(text, by: self.node) else { return nil }
            resources.append(resource)
        }
        omitted = Int(clamping: json.number("omitted"))
        if case .object(let members)? = json["counters"] {
            counters = members.compactMap { member in
                member.value.number.map { NamedCount(member.name, $0) }
            }
        }
    }
}

extension ResourceReport {
    /// The resource as JSON.
    package var json: JSONText {
        var members: [JSONText.Member] = [
            .init("name", .string(name.description)), .init("master", .count(master.rawValue)),
            .init("directory", .count(directory.rawValue)),
        ]
        members.append("value", value?.json)
        members.append("locks", .array(locks.map(\.json)))
        return .object(members)
    }

    init?(_ json: JSONText, by node: NodeID) {
        guard let name = json["name"]?.string.flatMap(ResourceName.init(_:)) else { return nil }
        let master = json.node("master")
        var locks: [LockReport] = []
        for text in json["locks"]?.elements ?? [] {
            guard var lock = LockReport(text) else { return nil }
            lock.isKnownToMaster = master == node
            lock.isKnownToHolder = lock.holder == node
            locks.append(lock)
        }
        self.name = name
        self.master = master
        self.directory = json.node("directory")
        value = json["value"].flatMap(SequencedValue.init(_:))
        self.locks = locks
        isFromMaster = master == node
    }
}

extension SequencedValue {
    fileprivate var json: JSONText {
        let words = [value.word0, value.word1, value.word2, value.word3]
        return .object([
            .init("sequence", .number(sequence)), .init("valid", .boolean(isValid)),
            .init("words", .array(words.map { .number($0) })),
        ])
    }

    fileprivate init?(_ json: JSONText) {
        let words = json["words"]?.elements.compactMap(\.number) ?? []
        guard words.count == 4 else { return nil }
        self.init(
            value: ValueBlock(words[0], words[1], words[2], words[3]),
            sequence: json.number("sequence"),
            isValid: json.flag("valid")
        )
    }
}

extension LockedBytes {
    /// As JSON.
    fileprivate var json: JSONText {
        var members: [JSONText.Member] = [
            .init("first", .number(first)), .init("last", .number(last)),
        ]
        members.append(nonzero: "process", process)
        return .object(members)
    }

    fileprivate init?(_ json: JSONText) {
        let (first, last) = (json.number("first"), json.number("last"))
        if first > last { return nil }
        self.init(first: first, last: last, process: UInt32(clamping: json.number("process")))
    }
}

extension LockReport {
    /// The lock as JSON.
    package var json: JSONText {
        var members: [JSONText.Member] = [
            .init("holder", .count(holder.rawValue)), .init("lock", .number(lock.rawValue)),
            .init("state", .string(state.rawValue)),
        ]
        members.append("granted", granted.map { .string($0.description) })
        members.append("requested", requested.map { .string($0.description) })
        members.append("age", .number(age))
        members.append(nonzero: "owner", owner.rawValue)
        members.append(nonzero: "flags", flags.rawValue)
        members.append(mark: "orphan", isOrphan)
        members.append("bytes", bytes?.json)
        members.append(nonzero: "parent", parent.rawValue)
        if !blockers.isEmpty { members.append("blockers", .array(blockers.map(\.json))) }
        if !blocked.isEmpty { members.append("blocked", .array(blocked.map(\.json))) }
        members.append("activity", activity?.json)
        // Only a picture says these: a report's reader knows who wrote it.
        members.append(mark: "unknownToMaster", !isKnownToMaster)
        members.append(mark: "unconfirmed", !isKnownToHolder)
        return .object(members)
    }

    init?(_ json: JSONText) {
        guard let holder = json["holder"]?.number, let lock = json["lock"]?.number,
            let state = json["state"]?.string.flatMap(LockDescription.State.init(rawValue:))
        else { return nil }
        self.holder = NodeID(UInt32(clamping: holder))
        self.lock = LockID(lock)
        self.state = state
        granted = json.mode("granted")
        requested = json.mode("requested")
        owner = LockOwner(UInt32(clamping: json.number("owner")))
        flags = LockFlags(rawValue: UInt32(clamping: json.number("flags")))
        age = json.number("age")
        isOrphan = json.flag("orphan")
        bytes = json["bytes"].flatMap(LockedBytes.init(_:))
        parent = LockID(json.number("parent"))
        blockers = json["blockers"]?.elements.compactMap(LockReference.init(_:)) ?? []
        blocked = json["blocked"]?.elements.compactMap(LockReference.init(_:)) ?? []
        activity = json["activity"].map(HolderActivity.init(_:))
        isKnownToMaster = false
        isKnownToHolder = false
    }
}

extension LockReference {
    fileprivate var json: JSONText { .array([.count(node.rawValue), .number(lock.rawValue)]) }

    fileprivate init?(_ json: JSONText) {
        let parts = json.elements.compactMap(\.number)
        guard parts.count == 2 else { return nil }
        self.init(node: NodeID(UInt32(clamping: parts[0])), lock: LockID(parts[1]))
    }
}

extension HolderActivity {
    /// The activity as JSON.
    var json: JSONText {
        var members: [JSONText.Member] = []
        members.append(nonzero: "shared", shared)
        members.append(nonzero: "exclusive", exclusive)
        members.append(nonzero: "queued", queued)
        members.append("phase", .string(phase.rawValue))
        members.append("target", target.map { .string($0.description) })
        members.append(nonzero: "phaseAge", phaseAge)
        members.append("step", step.map { .string($0.rawValue) })
        members.append("toldAge", toldAge.map { .number($0) })
        if !asked.isEmpty {
            members.append("asked", .array(asked.map { .count($0.rawValue) }))
            members.append("askedAge", .number(askedAge))
        }
        members.append(nonzero: "dirtyBytes", dirtyBytes)
        members.append(mark: "unsettledMetadata", hasUnsettledMetadata)
        members.append(mark: "committing", isCommitting)
        return .object(members)
    }

    init(_ json: JSONText) {
        self.init()
        shared = Int(clamping: json.number("shared"))
        exclusive = Int(clamping: json.number("exclusive"))
        queued = Int(clamping: json.number("queued"))
        phase = json["phase"]?.string.flatMap(Phase.init(rawValue:)) ?? .steady
        target = json.mode("target")
        phaseAge = json.number("phaseAge")
        step = json["step"]?.string.flatMap(Step.init(rawValue:))
        toldAge = json["toldAge"]?.number
        asked = (json["asked"]?.elements ?? []).compactMap(\.number).map {
            NodeID(UInt32(clamping: $0))
        }
        askedAge = json.number("askedAge")
        dirtyBytes = json.number("dirtyBytes")
        hasUnsettledMetadata = json.flag("unsettledMetadata")
        isCommitting = json.flag("committing")
    }
}
