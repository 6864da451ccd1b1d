// What the kernel takes for the size of a file, and who has been told another one and may not have taken it in
// (KERNEL F6).
//
// A read(2) that asks for the attributes because it reaches behind the end that the kernel knows goes on with the old
// end if an invalidation came in before the answer was taken in; and where the kernel's size is too large, a READ that is
// answered short says nothing then. So an invalidation waits for the next request of each thread that was
// answered so, whatever it asks for (a thread that waits for an answer asks for nothing): it has taken in the answer before it asks again. Where the size is what the kernel has anyway nothing is
// lost with the answer, and nodes that rewrite one file hand it over without that wait.
//
// Invariants
//   S1. If `known` is not nil, the kernel has that size while it knows the inode: it is set when a thread is heard of that was
//       told the size, with no invalidation in between, and forgotten at once with anything that may change the
//       kernel's size.
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

        /// In nanoseconds (S2).
        package var longestWait: UInt64 {
            switch self {
            case .attributes: 20_000_000
            case .shortRead: 2_000_000
            }
        }
    }

    /// More threads than this are not waited for.
    static let mostReaders = 64

    private struct Reader: Sendable {
        var thread: UInt32
        var size: UInt64
        var end: Tick
        /// Another reply may be taken in after this one.
        var isOvertaken = false
    }

    /// The kernel takes this for the size.
    package private(set) var known: UInt64?
    private var readers: [Reader] = []

    package init() {}

    /// The kernel has forgotten the inode, did not know it, or changes the size by itself.
    package mutating func isUnknown() {
        known = nil
        overtake { _ in true }
    }

    /// A reply says that the file has `size` bytes; `reader` is the thread that asked because it reads the file.
    package mutating func told(
        _ size: UInt64,
        to reader: UInt32?,
        _ reply: Reply = .attributes,
        at now: Tick
    ) {
        if let reader { isHeard(reader) }
        if known == size { return }
        known = nil
        overtake { $0 != size }
        guard let reader else { return }
        if readers.count == Self.mostReaders { readers.removeFirst() }
        let end = now.advanced(nanoseconds: reply.longestWait)
        readers.append(Reader(thread: reader, size: size, end: end))
    }

    /// Whether it is not known yet that a thread has taken in what it was told.
    package func isAwaited(_ thread: UInt32) -> Bool { readers.contains { $0.thread == thread } }

    private mutating func overtake(_ isOther: (UInt64) -> Bool) {
        for index in readers.indices where isOther(readers[index].size) {
            readers[index].isOvertaken = true
        }
    }

    /// A thread asks something: it has taken in what it was told. 0 stands for all threads of other namespaces of
    /// processes, of which the kernel does not say which it is: they are not heard of.
    package mutating func isHeard(_ thread: UInt32) {
        guard thread != 0 else { return }
        guard let index = readers.firstIndex(where: { $0.thread == thread }) else { return }
        if !readers[index].isOvertaken { known = readers[index].size }
        readers.remove(at: index)
    }

    /// A write made the file `end` bytes long, if it was not longer.
    package mutating func written(to end: UInt64) {
        guard let known else { return overtake { $0 < end } }
        if known < end { isUnknown() }
    }

    /// When an invalidation may begin, unless the readers are heard of before; nil: at once.
    package func waitBeforeInvalidation(at now: Tick) -> Tick? {
        guard let end = readers.lazy.map(\.end).max(), now < end else { return nil }
        return end
    }

    /// An invalidation begins: what has not been taken in by now may never be.
    package mutating func isInvalidated() { readers.removeAll() }
}
