// Quotas for administrators: requests of the control socket and their answers.
//
//   quota report                                   JSON: usage in bytes and inodes, limits, grace
//   quota set user|group ID BLOCKS INODES          limits as SOFT:HARD, in bytes and inodes; - leaves them
//   quota grace BLOCKS INODES                      seconds; - leaves them

import DiskFormat
import FileSystem
import Vocabulary

/// What is wrong with a request, in one line.
struct QuotaRefusal: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }

    init(_ error: FileError) {
        switch error {
        case .notSupported:
            self.init("the volume has no quotas: they come with mkfs.lockstep -O quota")
        case .notPermitted: self.init("user 0 and group 0 have no limits")
        case .invalid:
            self.init("a soft limit cannot be above the hard one, nor a limit above 2^61")
        case .readOnly: self.init("the volume is mounted read-only here")
        case .noSpace: self.init("the table of quotas has no room for one more user or group")
        default: self.init("\(error)")
        }
    }
}

extension MountedVolume {
    /// Answers one request.
    func quota(_ request: String) async throws(QuotaRefusal) -> String {
        let words = request.split(separator: " ")
        do throws(FileError) {
            switch words.first {
            case "report": return try await quotaReport().json(superblock).text + "\n"
            case "set" where words.count == 5:
                guard let principal = Self.principal(words[1], words[2]) else { break }
                try await setQuota(
                    of: principal,
                    blocks: try Self.limit(words[3], unit: UInt64(superblock.blockSize)),
                    inodes: try Self.limit(words[4], unit: 1)
                )
                return "ok\n"
            case "grace" where words.count == 3:
                try await setQuotaGrace(blocks: UInt64(words[1]), inodes: UInt64(words[2]))
                return "ok\n"
            default: break
            }
        } catch {
            throw QuotaRefusal(error)
        }
        throw QuotaRefusal("unknown request 'quota \(request)'")
    }

    private static func principal(_ kind: Substring, _ identity: Substring) -> QuotaPrincipal? {
        guard let identity = UInt32(identity) else { return nil }
        switch kind {
        case "user": return .user(identity)
        case "group": return .group(identity)
        default: return nil
        }
    }

    /// Whole units, rounded up: 1 byte is a block, not no limit.
    private static func limit(_ text: Substring, unit: UInt64) throws(FileError) -> QuotaLimit? {
        if text == "-" { return nil }
        let parts = text.split(separator: ":").map { UInt64($0) }
        guard parts.count == 2, let soft = parts[0], let hard = parts[1] else { throw .invalid }
        func units(_ amount: UInt64) -> UInt64 { amount / unit + (amount % unit == 0 ? 0 : 1) }
        return QuotaLimit(soft: units(soft), hard: units(hard))
    }
}

extension QuotaReport {
    fileprivate func json(_ superblock: Superblock) -> JSONText {
        let unit = UInt64(superblock.blockSize)
        func member(_ record: QuotaRecord) -> JSONText {
            .object([
                .init("kind", .string(record.principal.kind == .user ? "user" : "group")),
                .init("id", .number(UInt64(record.principal.identity))),
                .init("bytes", .number(UInt64(clamping: record.usage.blocks) &* unit)),
                .init("softBytes", .number(record.blockLimit.soft &* unit)),
                .init("hardBytes", .number(record.blockLimit.hard &* unit)),
                .init("bytesGraceEnds", .number(record.blockDeadline)),
                .init("inodes", .number(UInt64(clamping: record.usage.inodes))),
                .init("softInodes", .number(record.inodeLimit.soft)),
                .init("hardInodes", .number(record.inodeLimit.hard)),
                .init("inodesGraceEnds", .number(record.inodeDeadline)),
            ])
        }
        return .object([
            .init("blockGrace", .number(blockGrace)),
            .init("inodeGrace", .number(inodeGrace)),
            .init("blockSize", .number(unit)),
            .init("principals", .array(records.map(member))),
        ])
    }
}
