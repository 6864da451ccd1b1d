// The images that a loss of power may leave at each point of a record.

package import Vocabulary

/// Goes through a record, from before its first event to after its last, and makes at each point
/// the images that a crash there may leave (K2, K3).
package struct CrashPoint {
    private let events: [DeviceEvent]
    private let seed: UInt64
    private let randomImages: Int
    private var durable: CrashImage
    private var unflushed: [RecordedWrite] = []

    /// Events that have happened.
    package private(set) var index = 0

    /// Before the first event on a disk that holds `base`, all of it durable. `randomImages` are made at each point
    /// besides those that are always made.
    package init(base: CrashImage, events: [DeviceEvent], seed: UInt64, randomImages: Int) {
        self.events = events
        self.seed = seed
        self.randomImages = randomImages
        durable = base
    }

    /// Whether the record ends here.
    package var isLast: Bool { index == events.count }

    /// Goes on by one event.
    package mutating func advance() {
        precondition(!isLast, "a point behind the record")
        switch events[index] {
        case .wrote(let write): unflushed.append(write)
        case .flushed(let covered):
            let ids = Set(covered)
            for write in unflushed where ids.contains(write.id) { durable.land(write) }
            unflushed.removeAll { ids.contains($0.id) }
        }
        index += 1
    }

    /// How many images there are to make here; some of them may be the same.
    package var variantCount: Int {
        Landing.variantCount(unflushed.count, random: randomImages)
    }

    /// One of them. All of it follows from the record, the seed and the number.
    package func image(_ variant: Int) -> CrashImage {
        var dice = SeededGenerator(
            seed: seed &+ UInt64(index) &* 0x1_0001_0001 &+ UInt64(variant) << 40
        )
        var image = durable
        Landing.land(unflushed, variant, on: &image, &dice)
        return image
    }
}

/// What becomes of writes that may have reached the medium or not: the same choices for a loss of
/// power and for the death of one node.
package enum Landing {
    /// Variants with a meaning of their own; those behind them are chosen by dice.
    private static let namedVariants = 4
    /// Up to so many writes every subset is made.
    private static let mostForAllSubsets = 3

    private static func subsets(_ count: Int) -> Int {
        count <= mostForAllSubsets ? 1 << count : 0
    }

    /// How many ways there are for `count` writes, `random` of them by dice; some are the same.
    package static func variantCount(_ count: Int, random: Int) -> Int {
        count == 0 ? 1 : namedVariants + subsets(count) + random
    }

    /// Lands the writes in one of these ways: none, all, all with the last torn twice, each subset,
    /// and by dice.
    package static func land(
        _ writes: [RecordedWrite],
        _ variant: Int,
        on image: inout CrashImage,
        _ dice: inout SeededGenerator
    ) {
        guard let last = writes.last else { return }
        switch variant {
        case 0: break
        case 1: for write in writes { image.land(write) }
        case 2:
            for write in writes.dropLast() { image.land(write) }
            let sectors = dice.below(last.bytes.count / CrashImage.sector)
            image.land(last) { $0 < sectors }
        case 3:
            for write in writes.dropLast() { image.land(write) }
            image.land(last) { _ in dice.oneIn(2) }
        case namedVariants..<namedVariants + subsets(writes.count):
            let subset = variant - namedVariants
            for (number, write) in writes.enumerated() where subset >> number & 1 == 1 {
                image.land(write)
            }
        default:
            for write in writes {
                switch dice.below(3) {
                case 0: break
                case 1: image.land(write)
                default: image.land(write) { _ in dice.oneIn(2) }
                }
            }
        }
    }
}
