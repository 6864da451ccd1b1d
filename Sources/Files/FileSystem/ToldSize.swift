// What the kernel takes for the size of a file, and who has been told another one and may not have taken it in
// (KERNEL F6).
//
// The kernel changes the size that it knows with an answer that it takes in, and with a write of its own. An answer is lost if
// an invalidation comes between the question and the moment in which the thread that asked takes the answer in. A read(2) that asks
// for the attributes because it reaches behind the end that the kernel knows goes on with the old end then; and where the kernel's
// size is too large, a READ that is answered short says nothing. So
//
//   - an invalidation waits for the threads that have asked for attributes to read, and for those that were told a
//     size that the kernel may not have, until they have taken it in: until the thread asks for anything else (a thread that
//     waits for an answer asks for nothing), or has been on a processor since;
//   - where the size is what the kernel certainly has nothing is lost with the answer, and nothing is waited for: nodes that
//     rewrite one file hand it over without that. What the kernel has is known within bounds.
//
//             asks ──▶ told ──▶ heard of, or seen to have run: the size is the bounds
//               │        └────▶ lost, or nobody knows: the bounds have been widened by `told`
//               └ an invalidation begins meanwhile: what it is told may be lost, whatever is heard of it later
//
// Invariants
//   S1. The kernel's size is within `bounds` while it knows the inode. They are narrowed only when a thread is heard of that was
//       told a size and that no invalidation, no write and no other answer can have come before; a short READ makes the
//       size smaller and never larger. Everything else that may change the kernel's size widens them at once.
//   S2. No wait is long: a thread may be killed, or find its pages read by another one, and never ask again.

package import Vocabulary

/// See the head of the file.
package struct ToldSize: Sendable {
    /// How a thread was told, which says for how long it is waited for.
    package enum Reply: Sendable {
        /// Attributes, before it reads: usually it asks for data next.
        case attributes
        /// Fewer bytes than it asked for.
        case shortRead
        /// Attributes, which it may only look at.
        case look

        /// For a thread of which nobody can say whether it has run, in nanoseconds (S2).
        package var longestWait: UInt64 {
            switch self {
            case .attributes: 20_000_000
            case .shortRead: 2_000_000
            case .look: 0
            }
        }
    }

    /// The same for one of which that can be said: it is waiting for a processor, in nanoseconds (S2).
    package static let longestStarvation: UInt64 = 2_000_000_000
    /// So often it is looked at, in nanoseconds.
    package static let lookInterval: UInt64 = 500_000
    /// After an invalidation that may have met questions not yet received, answers say nothing for so long, in nanoseconds.
    private static let longestDoubt: UInt64 = 20_000_000
    /// More threads than this are not waited for.
    static let mostReaders = 64

    private struct Reader: Sendable {
        var thread: UInt32
        var size: UInt64
        var reply: Reply
        var end: Tick
        /// How often it had been on a processor when it was told; nil if that cannot be said.
        var runs: UInt64?
        /// When it was first seen to have been since.
        var ranBefore: Tick?
        /// The answer may not have been taken in, or not as the last.
        var isDoubtful: Bool
    }

    private struct Question: Sendable {
        var thread: UInt32
        var reply: Reply
        var begun: UInt64
        /// The kernel may have asked before an invalidation that had begun.
        var isDoubtful: Bool
    }

    /// What the kernel may take for the size (S1).
    package private(set) var bounds: ClosedRange<UInt64> = 0...UInt64.max
    private var readers: [Reader] = []
    private var questions: [Question] = []
    /// Invalidations that have begun, and those among them that have not ended.
    private var begun: UInt64 = 0
    private var underWay = 0
    private var doubtEnd = Tick(0)
    /// What somebody was told last of whom nothing is heard.
    private var lookedAt: (size: UInt64, end: Tick)?

    package init() {}

    // MARK: What the kernel has

    /// Whether the kernel certainly has this size.
    package func isCertain(of size: UInt64) -> Bool { bounds == size...size }

    /// The kernel has forgotten the inode, did not know it, or changes the size by itself.
    package mutating func isUnknown() {
        bounds = 0...UInt64.max
        for index in readers.indices { readers[index].isDoubtful = true }
    }

    /// A write made the file `end` bytes long, if it was not longer.
    package mutating func written(to end: UInt64) {
        if bounds.upperBound < end { bounds = bounds.lowerBound...end }
        makeDoubtful { $0 < end }
    }

    private mutating func makeDoubtful(_ isOther: (UInt64) -> Bool) {
        for index in readers.indices where isOther(readers[index].size) {
            readers[index].isDoubtful = true
        }
    }

    private mutating func widen(to size: UInt64) {
        bounds = min(bounds.lowerBound, size)...max(bounds.upperBound, size)
    }

    // MARK: Questions and answers

    /// A thread asks, for what `reply` says.
    package mutating func asks(_ thread: UInt32, _ reply: Reply, at now: Tick) {
        questions.append(
            Question(thread: thread, reply: reply, begun: begun, isDoubtful: isInDoubt(now))
        )
    }

    /// Whether what arrives now may have been asked before an invalidation, and be disregarded.
    private func isInDoubt(_ now: Tick) -> Bool { underWay > 0 || now < doubtEnd }

    /// The thread has its answer.
    package mutating func isAnswered(_ thread: UInt32, _ reply: Reply) {
        let index = questions.firstIndex { $0.thread == thread && $0.reply == reply }
        if let index { questions.remove(at: index) }
    }

    /// Whether somebody waits for attributes, to read.
    package var isAsked: Bool { questions.contains { $0.reply == .attributes } }

    /// An answer says that the file has `size` bytes; `reader` is the thread that asked because it reads the file, and
    /// `runs` says how often that has been on a processor, if that can be said.
    package mutating func told(
        _ size: UInt64,
        to reader: UInt32?,
        _ reply: Reply,
        runs: () -> UInt64? = { nil },
        at now: Tick
    ) {
        if let reader { isHeard(reader) }
        switch reply {
        case .attributes where isCertain(of: size), .look where isCertain(of: size): return
        case .shortRead where bounds.upperBound <= size: return
        case .attributes, .look: widen(to: size)
        case .shortRead: widen(to: min(size, bounds.lowerBound))
        }
        makeDoubtful { $0 != size }
        let before = reader == nil ? nil : runs()
        guard let reader, reply != .look || before != nil else {
            lookedAt = (size, now.advanced(nanoseconds: Self.longestDoubt))
            return
        }
        let isDoubtful =
            isInDoubt(now)
            || questions.contains {
                $0.thread == reader && ($0.isDoubtful || $0.begun != begun)
            }
            || readers.contains { $0.size != size }
            || lookedAt.map { $0.size != size && now < $0.end } ?? false
        if readers.count == Self.mostReaders { readers.removeFirst() }
        let wait = before == nil ? reply.longestWait : Self.longestStarvation
        readers.append(
            Reader(
                thread: reader,
                size: size,
                reply: reply,
                end: now.advanced(nanoseconds: wait),
                runs: before,
                isDoubtful: isDoubtful
            )
        )
    }

    /// Whether it is not known yet that a thread has taken in what it was told.
    package func isAwaited(_ thread: UInt32) -> Bool { readers.contains { $0.thread == thread } }

    /// A thread asks something: it has taken in what it was told. 0 stands for all threads of other namespaces of
    /// processes, of which the kernel does not say which it is: they are not heard of.
    package mutating func isHeard(_ thread: UInt32) {
        guard thread != 0, let index = readers.firstIndex(where: { $0.thread == thread }) else {
            return
        }
        hasTaken(readers.remove(at: index))
    }

    private mutating func hasTaken(_ reader: Reader) {
        if reader.isDoubtful { return }
        switch reader.reply {
        case .attributes, .look: bounds = reader.size...reader.size
        case .shortRead where bounds.lowerBound < reader.size:
            bounds = bounds.lowerBound...min(bounds.upperBound, reader.size)
        case .shortRead: bounds = reader.size...reader.size
        }
    }

    /// Asks `runs` how often the threads that are waited for have been on a processor. Who has been has taken in what it was
    /// told `lookInterval` later: it may have been put there this very moment.
    package mutating func look(at now: Tick, _ runs: (UInt32) -> UInt64?) {
        var index = 0
        while index < readers.count {
            let reader = readers[index]
            if let ran = reader.ranBefore {
                if now >= ran.advanced(nanoseconds: Self.lookInterval) {
                    hasTaken(readers.remove(at: index))
                    continue
                }
            } else if let before = reader.runs, runs(reader.thread) != before {
                // Or it is not there any more, and has ended.
                readers[index].ranBefore = now
            }
            index += 1
        }
    }

    // MARK: Invalidations

    /// When to see again whether an invalidation may begin, unless a reader is heard of before; nil: it may.
    package func waitBeforeInvalidation(at now: Tick) -> Tick? {
        let waiting = readers.lazy.filter { now < $0.end }
        guard let end = waiting.map(\.end).max() else { return nil }
        let isSeen = waiting.contains { $0.runs != nil }
        return isSeen ? min(end, now.advanced(nanoseconds: Self.lookInterval)) : end
    }

    /// The kernel is told now: what has not been taken in may never be.
    package mutating func invalidationBegins() {
        readers.removeAll()
        begun += 1
        underWay += 1
    }

    /// The kernel has done it; `isDoubtful` if it may have asked before it was told what has not been received yet.
    package mutating func invalidationEnds(isDoubtful: Bool, at now: Tick) {
        precondition(underWay > 0, "ToldSize: an invalidation ends that had not begun")
        underWay -= 1
        makeDoubtful { _ in true }
        if isDoubtful { doubtEnd = now.advanced(nanoseconds: Self.longestDoubt) }
    }
}
