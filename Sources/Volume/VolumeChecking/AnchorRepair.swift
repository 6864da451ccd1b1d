// The root and the orphan directories, which are found by the superblock and the slots, not by an
// entry. One that is damaged is made anew, empty, in its place; one whose place a sound block of
// somebody else has taken gets another place. What was in it is found by pass 5 and comes into
// `lost+found`.

import BlockIO
import DiskFormat
import Vocabulary

extension RepairRound {
    func isAnchor(_ number: InodeNumber) -> Bool {
        number == superblock.root
            || checker.slots.contains { $0?.orphanDirectory == number }
    }

    /// Makes the root or an orphan directory anew; false if there is no room.
    func remakeAnchor(_ number: InodeNumber) async throws(CheckError) -> Bool {
        let isRoot = number == superblock.root
        let address = number.address
        guard let version = try await versionForAnchor(number) else {
            if isRoot { return try await replaceRoot() }
            let slot = checker.slots.lazy.compactMap { $0 }
                .first { $0.orphanDirectory == number }?.slot
            guard let slot else { return false }
            return try await replaceOrphanDirectory(of: slot)
        }
        precondition(checker.place(of: address) != nil, "an anchor outside the groups")
        try await writeDirectory(
            number,
            mode: isRoot ? 0o040755 : 0o040700,
            flags: isRoot ? [] : .system,
            version: version
        )
        return true
    }

    /// The version with which an anchor can be written in its place (V1); nil if it cannot, because
    /// a sound block of another kind or inode stands there, or none can.
    private func versionForAnchor(_ number: InodeNumber) async throws(CheckError) -> UInt64? {
        let address = number.address
        guard let (group, _) = checker.place(of: address),
            (1...BlockHeader.largestNumber).contains(number.generation)
        else { return nil }
        let buffer = makeBuffer()
        try await read(address, into: buffer)
        let header = try? BlockHeader(
            verifying: buffer.readOnly,
            at: address,
            volume: superblock.volume
        )
        if let header {
            // A tombstone is nobody's.
            guard header.kind == .inode,
                header.generation == 0 || header.generation == number.generation
            else { return nil }
        }
        let highest = checker.groups[Int(group)]?.highestVersion ?? 0
        return Self.nextVersion(max(claimedVersion(buffer.readOnly, at: address), highest))
    }

    /// Makes an empty root in another place, and lets the superblock and its copies lead there.
    private func replaceRoot() async throws(CheckError) -> Bool {
        guard let (number, version) = try await takeInode() else { return false }
        try await writeDirectory(number, mode: 0o040755, flags: [], version: version)
        // V2: the directory is there before anything leads to it.
        try await flush()
        var changed = superblock
        changed.root = number
        try await writeSuperblocks(changed)
        return true
    }
}
