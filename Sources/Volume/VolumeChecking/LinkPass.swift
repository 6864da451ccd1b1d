// Pass 5: inodes that nothing leads to; links and orphans of all others.

import BlockIO
import DiskFormat
import Vocabulary

/// An inode that pass 4 did not reach.
private struct Candidate {
    var number: InodeNumber
    var isDirectory: Bool
    var parent: BlockAddress
}

extension VolumeChecker {
    func checkLinks() async throws(CheckError) {
        try await findUnreachable()
        // Nothing is wrong with those that have no record any more (InodeTable T1).
        let open = inodes.open
        for (index, inode) in open.enumerated() {
            checkLinks(of: inode)
            show(.links, UInt64(index) + 1, of: UInt64(open.count))
        }
    }

    private func checkLinks(of inode: SeenInode) {
        if inode.listedIn != nil { report.orphans += 1 }
        guard !inode.isDamaged, !inode.isUnreachable else { return }
        let isMarked = inode.flags.contains(.orphan)
        if let slot = inode.listedIn {
            if !isMarked || inode.orphanSlot != slot || inode.links > 0 || inode.linkCount > 0 {
                add(
                    Finding(
                        .inodeOrphanWrong,
                        inode: inode.number,
                        slot: slot,
                        found: UInt64(inode.linkCount)
                    )
                )
            }
            return
        }
        if isMarked {
            add(Finding(.inodeOrphanWrong, inode: inode.number, slot: inode.orphanSlot))
            return
        }
        guard !inode.isIncomplete else { return }
        if UInt64(inode.linkCount) != inode.expectedLinks {
            add(
                Finding(
                    .inodeLinkCountWrong,
                    inode: inode.number,
                    found: UInt64(inode.linkCount),
                    expected: inode.expectedLinks
                )
            )
        }
    }

    /// Looks into every block that is marked as metadata and was not reached. A lost directory is
    /// walked, so that what lies below it is not called lost as well: the topmost first.
    private func findUnreachable() async throws(CheckError) {
        let candidates = try await collectCandidates()
        let addresses = Set(candidates.map(\.number.address))
        var rounds: [[Candidate]] = [[], [], []]
        for candidate in candidates {
            if !candidate.isDirectory {
                rounds[2].append(candidate)
            } else {
                rounds[addresses.contains(candidate.parent) ? 1 : 0].append(candidate)
            }
        }
        for candidate in rounds.joined() {
            let address = candidate.number.address
            guard inodes.state(of: address) == .unknown,
                try await admit(candidate.number) == .seen
            else { continue }
            inodes.update(address) { $0.isUnreachable = true }
            add(Finding(.inodeUnreachable, inode: candidate.number, block: address))
            try await walkPending()
        }
    }

    private func collectCandidates() async throws(CheckError) -> [Candidate] {
        var candidates: [Candidate] = []
        let buffer = makeBuffer()
        for group in 0..<superblock.groupCount where use.isKnown(group: group) {
            var next: UInt32 = 1
            while let index = use.next(.unclaimed(.metadata), group: group, from: next) {
                next = index + 1
                let address = superblock.groupStart(group) + UInt64(index)
                try await read(address, into: buffer)
                guard
                    let header = try? BlockHeader(
                        verifying: buffer.readOnly,
                        at: address,
                        volume: superblock.volume,
                        kind: .inode
                    ),
                    // A tombstone, of generation 0, is no inode.
                    header.owner == address.rawValue,
                    (1...BlockHeader.largestNumber).contains(header.generation),
                    let record = try? InodeRecord(fields: buffer.readOnly, at: address),
                    (try? checkShape(record, address)) != nil
                else { continue }
                candidates.append(
                    Candidate(
                        number: InodeNumber(address: address, generation: header.generation),
                        isDirectory: record.isDirectory,
                        parent: record.parent.address
                    )
                )
            }
        }
        return candidates
    }
}
