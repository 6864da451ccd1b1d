// What a node gives back of what it keeps for later: locks that nobody here uses, with all that is cached under them
// (the kernel's names and pages of an inode, its decoded form, blocks of metadata), and blocks of metadata alone.
// This is the policy, a value; Shrinking.swift carries it out.
//
// Three reasons, and what goes for each
//   age        what nobody has used for `age`
//   bound      of more locks than `bound`, and an eighth, the least recently used down to `bound`
//   pressure   the machine is short of memory: the older half of what is idle
//
// All three are the same *pass*: a walk over everything once, from one end to the other, in which goes what was
// last used at or before a moment, the *cutoff*, until so many have gone. The walk is made of steps with pauses between, so
// that giving back a large cache stalls nobody. To find the cutoff all ages would have to be sorted; a sample of
// some thousands, evenly spread, does as well and takes the same short time whatever the size of the cache.
//
// Invariants
// S1. At most one pass is under way. Pressure takes the place of any other; nothing takes the place of pressure.
// S2. A pass gives back at most as many as it was begun for, and nothing that was used after its cutoff.
// S3. A pass looks at every place once: it ends, however many are in use.
// S4. What is in use, or would be missed at once, is never given back (`GlockOwner.isSpare`).
// S5. The time of a use is known to within the interval of the timer, and never later than the use: what was used in
//     this moment may count as used a moment before.

package import Vocabulary

/// Why something is given back.
package enum ShrinkReason: Hashable, Sendable {
    case age
    case bound
    case pressure
}

/// Which of the things that nobody uses are given back. A value, driven by its owner's clock.
package struct CacheShrinking: Sendable {
    /// A walk over everything.
    package struct Pass: Hashable, Sendable {
        package let reason: ShrinkReason
        /// What was last used at this moment or before goes.
        package let cutoff: Tick
        /// So many more may go.
        package fileprivate(set) var left: Int
        /// Where the next step begins.
        package fileprivate(set) var place = 0
        /// Blocks of metadata that are looked at yet, oldest first.
        package fileprivate(set) var blocks: Int
    }

    /// Places that one step looks at, and the most that it gives back: some tenths of a millisecond.
    package static let looksPerStep = 2048
    package static let giftsPerStep = 128
    /// Blocks of metadata that one step looks at.
    package static let blocksPerStep = 1024
    /// Nanoseconds between two steps.
    package static let pause: UInt64 = 10_000_000
    /// About so many ages make a sample.
    package static let sampleSize = 4096

    /// Nanoseconds after which what nobody uses is given back; 0: never.
    package let age: UInt64
    /// The most locks that stay.
    package let bound: Int
    package private(set) var pass: Pass?
    private var nextAgePass = Tick(0)

    /// Nothing is under way.
    package init(age: UInt64, bound: Int) {
        precondition(bound > 0, "a cache without room")
        self.age = age
        self.bound = bound
    }

    /// How many places one look for the sample passes over.
    package static func stride(over places: Int) -> Int { places / sampleSize + 1 }

    /// Whether it is time to look for what is old. At most eight times within the age.
    package func isAgePassDue(at now: Tick) -> Bool {
        pass == nil && age > 0 && now.rawValue > age && now >= nextAgePass
    }

    /// Begins to give back what is old, `blocks` blocks of metadata at most.
    package mutating func beginAgePass(at now: Tick, blocks: Int) {
        precondition(isAgePassDue(at: now), "Shrinking S1: a pass for age that is not due")
        nextAgePass = now.advanced(nanoseconds: age / 8)
        pass = Pass(
            reason: .age,
            cutoff: Tick(now.rawValue - age),
            left: .max,
            blocks: blocks
        )
    }

    /// How many of `held` locks are too many; 0 until they are an eighth above the bound, or while
    /// something is given back already.
    package func excess(of held: Int) -> Int {
        pass == nil && held > bound + bound / 8 ? held - bound : 0
    }

    /// Begins to give back the oldest `count`. `sample`: when some of those that might go were last used, one of
    /// every `stride`.
    package mutating func beginBoundPass(_ count: Int, sample: [Tick], stride: Int) {
        precondition(pass == nil, "Shrinking S1: two passes at a time")
        precondition(count > 0 && stride > 0, "a pass for nothing")
        guard !sample.isEmpty else { return }
        let rank = min(sample.count, (count + stride - 1) / stride)
        pass = Pass(
            reason: .bound,
            cutoff: sample.sorted()[rank - 1],
            left: count,
            blocks: 0
        )
    }

    /// Begins to give back the older half of those that might go, and of `blocks` blocks of metadata.
    package mutating func beginPressurePass(sample: [Tick], stride: Int, blocks: Int) {
        precondition(stride > 0, "a sample of nothing")
        guard pass?.reason != .pressure else { return }
        let half = (sample.count + 1) / 2
        pass = Pass(
            reason: .pressure,
            cutoff: half > 0 ? sample.sorted()[half - 1] : Tick(0),
            left: (sample.count * stride + 1) / 2,
            blocks: (blocks + 1) / 2
        )
    }

    /// Whether what was last used at `used` goes. Counts it if so.
    package mutating func gives(usedAt used: Tick) -> Bool {
        guard let running = pass, running.left > 0, used <= running.cutoff else { return false }
        pass?.left -= 1
        return true
    }

    /// A step has looked at everything before `place` and at `blocks` blocks, which were the last that matter if
    /// `hasNoMoreBlocks`; at the end of the walk `place` is nil.
    package mutating func stepEnded(at place: Int?, blocks: Int, hasNoMoreBlocks: Bool) {
        guard var running = pass else { preconditionFailure("Shrinking S1: a step of no pass") }
        precondition(blocks <= running.blocks, "Shrinking S3: more looks than there is to look at")
        if let place {
            precondition(place >= running.place, "Shrinking S3: the walk goes back")
            running.place = place
        } else {
            running.left = 0
        }
        running.blocks = hasNoMoreBlocks ? 0 : running.blocks - blocks
        pass = running.left > 0 || running.blocks > 0 ? running : nil
    }

    /// Gives up what is under way.
    package mutating func cancel() { pass = nil }
}
