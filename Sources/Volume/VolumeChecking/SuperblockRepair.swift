// Stage "superblocks": the primary from the copy that the check went by, and the copies from the
// primary. They differ in the address alone, so all carry the same version.

import BlockIO
import DiskFormat
import Vocabulary

extension RepairRound {
    func repairSuperblocks(_ found: [Finding]) async throws(CheckError) -> [Finding] {
        let version = try await superblockVersion()
        var done: [Finding] = []
        // The primary first: it is what a mount reads.
        let order =
            found.filter { $0.kind == .superblockDamaged }
            + found.filter { $0.kind != .superblockDamaged }
        for finding in order {
            guard let address = finding.block else { continue }
            let buffer = makeBuffer()
            superblock.write(to: buffer.bytes, at: address, version: version)
            try await write(buffer, at: address)
            try await flush()
            done.append(finding)
        }
        return done
    }

    /// Writes another superblock, the primary first: until all copies follow they differ from it,
    /// which the next run puts right.
    func writeSuperblocks(_ changed: Superblock) async throws(CheckError) {
        let version = try await superblockVersion()
        let places =
            [Superblock.address(blockSize: superblock.blockSize)]
            + superblock.groupsWithCopy.map { superblock.copyAddress(inGroup: $0) }
        for address in places {
            let buffer = makeBuffer()
            changed.write(to: buffer.bytes, at: address, version: version)
            try await write(buffer, at: address)
            try await flush()
        }
    }

    /// The version of the primary, or of the first copy that says the same.
    private func superblockVersion() async throws(CheckError) -> UInt64 {
        let buffer = makeBuffer()
        let places =
            [Superblock.address(blockSize: superblock.blockSize)]
            + superblock.groupsWithCopy.map { superblock.copyAddress(inGroup: $0) }
        for address in places {
            try await read(address, into: buffer)
            guard let found = try? Superblock(verifying: buffer.readOnly, at: address),
                found == superblock
            else { continue }
            return BlockHeader.version(of: buffer.readOnly)
        }
        return 1
    }
}
