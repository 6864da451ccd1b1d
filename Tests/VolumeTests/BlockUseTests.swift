import DiskFormat
import Testing
import Vocabulary
import VolumeChecking
import VolumeMaking

/// Searches by words, compared with looking at one block after the other.
@Suite struct BlockUseTests {
    private let searches: [BlockSearch] = [
        .lost, .mismarked, .marked(.free), .marked(.data), .marked(.metadata),
        .marked(.quarantined), .unclaimed(.metadata), .unclaimed(.data),
    ]

    private func isFound(_ search: BlockSearch, _ mark: BlockState, _ use: FoundUse) -> Bool {
        switch search {
        case .lost: (mark == .data || mark == .metadata) && use == .nothing
        case .marked(let state): mark == state
        case .unclaimed(let state): mark == state && use == .nothing
        case .mismarked: use != .nothing && mark.rawValue != use.rawValue
        }
    }

    /// Dense and nearly empty groups, whose length is no multiple of a word or of a chunk.
    @Test(arguments: [1, 3, 40, 2_000])
    func searchesAgreeWithTheNaiveOnes(oneIn: Int) throws {
        var options = VolumeOptions(
            deviceSize: 40 << 20,
            volume: VolumeID(high: 1, low: 2),
            created: .zero
        )
        options.blocksPerGroup = 2_500
        let superblock = try VolumePlan(options).superblock
        var dice = SeededGenerator(seed: UInt64(oneIn))
        for group in 0..<superblock.groupCount {
            let length = superblock.groupLength(group)
            var bits = [UInt8](repeating: 0, count: (Int(length) + 3) / 4)
            var use = BlockUse(superblock)
            for index in 0..<length where dice.oneIn(oneIn) {
                bits[Int(index / 4)] |= UInt8(dice.below(4)) << (2 * UInt8(index % 4))
            }
            use.setMarks(ofGroup: group, bits: bits)
            for index in 0..<length where dice.oneIn(oneIn) {
                use.setUse(dice.oneIn(2) ? .data : .metadata, group: group, index: index)
            }
            for search in searches {
                let wanted = (0..<length).filter {
                    isFound(
                        search,
                        use.mark(group: group, index: $0) ?? .free,
                        use.use(group: group, index: $0)
                    )
                }
                var found: [UInt32] = []
                var next: UInt32 = 0
                while let index = use.next(search, group: group, from: next) {
                    found.append(index)
                    next = index + 1
                }
                #expect(found == wanted, "\(search) in group \(group)")
            }
        }
    }
}
