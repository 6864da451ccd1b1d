// What an inspection tells, in both forms, and everything that can be asked.

import BlockIO
import DiskFormat
import Testing
import Vocabulary
import VolumeChecking
import VolumeInspection
import VolumeMaking

/// An answer.
struct Told {
    var text: String
    var json: JSONText
    var damageCount: UInt64

    /// The rows of a table.
    func rows(_ names: String...) -> [JSONText] {
        let found = names.reduce(json as JSONText?) { $0?[$1] }
        guard case .array(let rows)? = found else { return [] }
        return rows
    }

    /// The column of a table.
    func column(_ name: String, of table: String...) -> [JSONText] {
        let found = table.reduce(json as JSONText?) { $0?[$1] }
        guard case .array(let rows)? = found else { return [] }
        return rows.compactMap { $0[name] }
    }
}

extension JSONText {
    /// The number of a member.
    func number(_ name: String) -> UInt64? {
        guard case .number(let number)? = self[name] else { return nil }
        return number
    }

    /// The text of a member.
    func string(_ name: String) -> String? {
        guard case .string(let text)? = self[name] else { return nil }
        return text
    }
}

private final class Collected {
    var text = ""
}

/// Asks twice, for text and for JSON, which must count the same damage.
func told(
    _ device: any BlockDevice,
    replayed: Bool = false,
    _ ask: (Inspector) async throws -> Void
) async throws -> Told {
    var answers: [String] = []
    var counts: [UInt64] = []
    for isText in [true, false] {
        let collected = Collected()
        let sheet =
            isText
            ? Sheet(TextRenderer { collected.text += $0 })
            : Sheet(JSONRenderer { collected.text += $0 })
        let inspector = try await Inspector.open(device, sheet: sheet, replayed: replayed)
        try await ask(inspector)
        sheet.finish()
        answers.append(collected.text)
        counts.append(sheet.damageCount)
    }
    #expect(counts[0] == counts[1])
    let json = try JSONText(parsing: answers[1])
    #expect(json["sound"] == .boolean(counts[0] == 0))
    #expect(json.number("damage_count") == counts[0])
    #expect(counts[0] == 0 || answers[0].contains("! "))
    return Told(text: answers[0], json: json, damageCount: counts[0])
}

/// As `told`, and nothing is wrong.
func sound(
    _ device: any BlockDevice,
    replayed: Bool = false,
    _ ask: (Inspector) async throws -> Void
) async throws -> Told {
    let answer = try await told(device, replayed: replayed, ask)
    #expect(answer.damageCount == 0, "\(answer.text)")
    return answer
}

/// Why a question is refused.
func refusal(
    _ device: any BlockDevice,
    _ ask: (Inspector) async throws -> Void
) async throws -> String {
    do {
        _ = try await told(device, ask)
    } catch let error as InspectionError {
        #expect(!error.description.contains("\n"))
        return error.description
    }
    Issue.record("it was answered")
    return ""
}

/// The superblock, which needs no volume.
func toldSuperblock(_ device: any BlockDevice, copy: UInt32? = nil) async throws -> Told {
    let (text, json) = (Collected(), Collected())
    let first = Sheet(TextRenderer { text.text += $0 })
    let second = Sheet(JSONRenderer { json.text += $0 })
    for sheet in [first, second] {
        try await Inspector.showSuperblock(of: device, copy: copy, sheet: sheet)
        sheet.finish()
    }
    return Told(
        text: text.text,
        json: try JSONText(parsing: json.text),
        damageCount: first.damageCount
    )
}

extension VolumeSketch {
    /// Pages that hold anything, outside the journals' rings: superblocks, tables, groups, trees.
    var interestingBlocks: [BlockAddress] {
        device.writtenPages.map { BlockAddress($0) }.filter { $0.rawValue >= 16 }
    }

    /// Everything that can be asked of a volume, damaged or not; returns how many things are wrong.
    /// What is refused is refused in one line.
    func askEverything(replayed: Bool = false) async throws -> UInt64 {
        let sheet = Sheet(TextRenderer { _ in })
        let inspector: Inspector
        do {
            inspector = try await Inspector.open(device, sheet: sheet, replayed: replayed)
        } catch {
            return 1
        }
        var refusals: UInt64 = 0
        func ask(_ question: () async throws -> Void) async throws {
            do {
                try await question()
            } catch let error as InspectionError {
                #expect(!error.description.contains("\n"))
                refusals += 1
            }
        }
        await inspector.showSlots()
        await inspector.showGroups()
        for group in 0..<inspector.superblock.groupCount {
            try await inspector.showGroup(group)
        }
        for slot in 0..<inspector.superblock.slotCount {
            try await ask { try await inspector.showJournal(slot, blocks: true) }
        }
        for address in interestingBlocks where address.rawValue < superblock.blockCount {
            try await ask { try await inspector.showBlock(address.rawValue) }
        }
        for name in inodes.keys.sorted() {
            guard let number = inodes[name] else { continue }
            try await askAbout(number.address.rawValue, inspector)
        }
        try await askAbout(root.address.rawValue, inspector)
        for name in blocks.keys.sorted() {
            guard let address = blocks[name] else { continue }
            try await ask { try await inspector.showOwner(address.rawValue) }
        }
        return sheet.damageCount
    }

    /// Everything about one inode.
    func askAbout(_ number: UInt64, _ inspector: Inspector) async throws {
        let inode = InodeReference.number(number, generation: nil)
        let questions: [(Inspector) async throws -> Void] = [
            { try await $0.showInode(inode) }, { try await $0.showExtents(inode) },
            { try await $0.showList(inode, long: true) }, { try await $0.showTree(inode) },
            { try await $0.showAttributes(inode) },
            { inspector in
                var count = 0
                try await inspector.writeContent(inode) { bytes in
                    count += bytes.count
                    return count < 100 << 20
                }
            },
            { try await $0.showNames(inode) },
        ]
        for question in questions {
            do {
                try await question(inspector)
            } catch let error as InspectionError {
                #expect(!error.description.contains("\n"))
            }
        }
    }
}
