package import DiskFormat
package import Vocabulary

/// One thing that is wrong: what, where, and the numbers that disagree. All of it is what a repair
/// would need, nothing is only text.
package struct Finding: Hashable, Sendable {
    package var kind: FindingKind
    /// The inode it is about.
    package var inode: InodeNumber?
    /// The block it is about, the first of several.
    package var block: BlockAddress?
    /// Blocks it is about, from `block` on.
    package var blockCount: UInt64 = 1
    /// A name, if it is about an entry of `inode`.
    package var name: [UInt8]?
    package var slot: SlotIndex?
    package var group: UInt32?
    /// What stands there.
    package var found: UInt64?
    /// What should.
    package var expected: UInt64?
    /// Why a structure was refused.
    package var error: FormatError?
    /// The user or group it is about.
    package var principal: QuotaPrincipal?

    package init(
        _ kind: FindingKind,
        inode: InodeNumber? = nil,
        block: BlockAddress? = nil,
        blockCount: UInt64 = 1,
        name: [UInt8]? = nil,
        slot: SlotIndex? = nil,
        group: UInt32? = nil,
        found: UInt64? = nil,
        expected: UInt64? = nil,
        error: FormatError? = nil,
        principal: QuotaPrincipal? = nil
    ) {
        self.kind = kind
        self.inode = inode
        self.block = block
        self.blockCount = blockCount
        self.name = name
        self.slot = slot
        self.group = group
        self.found = found
        self.expected = expected
        self.error = error
        self.principal = principal
    }

    /// One line.
    package var text: String {
        var places: [String] = []
        if let slot { places.append("\(slot)") }
        if let group { places.append("group \(group)") }
        if let principal { places.append("\(principal)") }
        if let inode { places.append("\(inode)") }
        if let name { places.append("name \"\(printable(name))\"") }
        if let block {
            places.append(
                blockCount == 1
                    ? "\(block)" : "blocks \(block.rawValue) to \(block.rawValue + blockCount - 1)"
            )
        }
        var text = "\(kind.rawValue): \(kind.summary)"
        if !places.isEmpty { text += " (" + places.joined(separator: ", ") + ")" }
        if let error { text += ": \(error)" }
        switch (found, expected) {
        case (let found?, let expected?): text += ": \(found) instead of \(expected)"
        case (let found?, nil): text += ": \(found)"
        default: break
        }
        return text
    }

    /// The same for scripts.
    package var json: JSONText {
        var members: [JSONText.Member] = [
            .init("finding", .string(kind.rawValue)), .init("text", .string(text)),
        ]
        func add(_ name: String, _ value: UInt64?) {
            if let value { members.append(.init(name, .number(value))) }
        }
        add("slot", slot.map { UInt64($0.rawValue) })
        add("group", group.map(UInt64.init))
        add("inode", inode?.address.rawValue)
        add("generation", inode?.generation)
        add("block", block?.rawValue)
        if block != nil { add("blocks", blockCount) }
        if let name { members.append(.init("name", .string(printable(name)))) }
        if let principal { members.append(.init("principal", .string("\(principal)"))) }
        add("found", found)
        add("expected", expected)
        return .object(members)
    }
}

/// Why a volume could not be checked at all.
package enum CheckError: Error, Hashable, Sendable, CustomStringConvertible {
    case device(DeviceFailure)
    /// No volume of this format, or one that this version must not judge.
    case format(FormatError)
    /// There are remains of a volume, but no superblock and no copy.
    case noSuperblock

    /// A device error in words: what a report can carry.
    package struct DeviceFailure: Hashable, Sendable {
        package var text: String

        package init(text: String) { self.text = text }
    }

    package var description: String {
        switch self {
        case .device(let failure): failure.text
        case .format(let error): "\(error)"
        case .noSuperblock:
            "neither the superblock nor any copy of it can be read: this is no Lockstep volume, or too "
                + "little is left of it"
        }
    }
}

/// A journal that was replayed, on the device or above it.
package struct ReplayedJournal: Hashable, Sendable {
    package var slot: SlotIndex
    /// Whole transactions in the log.
    package var transactions: Int
    /// Blocks that were older in place than in the log.
    package var written: Int
}

/// What a check has found.
package struct CheckReport: Hashable, Sendable {
    package var superblock: Superblock
    /// The first `CheckOptions.findingLimit`, in the order of the passes.
    package var findings: [Finding] = []
    /// All of them.
    package var findingCount: UInt64 = 0
    /// Journals that were not clean when the check began.
    package var uncleanJournals: [SlotIndex] = []
    /// What became of them, unless they are damaged.
    package var replays: [ReplayedJournal] = []
    package var guardMode: ClusterMode = .free
    package var directories: UInt64 = 0
    /// All inodes that can be reached, directories included, the file system's own not.
    package var inodes: UInt64 = 0
    package var orphans: UInt64 = 0
    package var usedBlocks: UInt64 = 0
    package var freeBlocks: UInt64 = 0
    package var quarantinedBlocks: UInt64 = 0
    /// Inodes of which more than two bits were remembered at the same time, at most (InodeTable).
    package var mostInodeRecords = 0

    package init(superblock: Superblock) { self.superblock = superblock }

    /// Whether nothing is wrong.
    package var isClean: Bool { findingCount == 0 }

    /// How many findings there are of a kind, among those kept.
    package func count(of kind: FindingKind) -> Int { findings.count { $0.kind == kind } }

    /// The same for scripts.
    package var json: JSONText {
        .object([
            .init("clean", .boolean(isClean)),
            .init("uuid", .string(superblock.volume.description)),
            .init("finding_count", .number(findingCount)),
            .init("findings", .array(findings.map(\.json))),
            .init(
                "unclean_journals",
                .array(uncleanJournals.map { .number(UInt64($0.rawValue)) })
            ),
            .init(
                "replays",
                .array(
                    replays.map {
                        .object([
                            .init("slot", .number(UInt64($0.slot.rawValue))),
                            .init("transactions", .number(UInt64($0.transactions))),
                            .init("blocks_written", .number(UInt64($0.written))),
                        ])
                    }
                )
            ),
            .init("inodes", .number(inodes)),
            .init("directories", .number(directories)),
            .init("orphans", .number(orphans)),
            .init("block_size", .number(UInt64(superblock.blockSize))),
            .init("used_blocks", .number(usedBlocks)),
            .init("free_blocks", .number(freeBlocks)),
            .init("quarantined_blocks", .number(quarantinedBlocks)),
        ])
    }
}
