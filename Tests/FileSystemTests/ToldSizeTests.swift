// When an invalidation waits for what the kernel was told (KERNEL F6, ToldSize S1 and S2).

import FileSystem
import Testing
import Vocabulary

@Suite struct ToldSizeTests {
    private static func tick(_ milliseconds: UInt64) -> Tick { Tick(milliseconds * 1_000_000) }

    @Test func aReaderOfAnotherSizeIsWaitedFor() {
        var size = ToldSize()
        size.told(100, to: 7, at: Self.tick(5))
        let end = Self.tick(5).advanced(nanoseconds: ToldSize.Reply.attributes.longestWait)
        #expect(size.waitBeforeInvalidation(at: Self.tick(5)) == end)
        size.isHeard(8)
        #expect(size.waitBeforeInvalidation(at: Self.tick(6)) == end)
        size.isHeard(7)
        #expect(size.waitBeforeInvalidation(at: Self.tick(6)) == nil)
        #expect(size.known == 100)
        for other in [UInt64(40), 200] {
            size.told(other, to: 7, at: Self.tick(7))
            #expect(size.waitBeforeInvalidation(at: Self.tick(7)) != nil)
            size.isHeard(7)
            #expect(size.known == other)
        }
    }

    @Test(arguments: [ToldSize.Reply.attributes, .shortRead]) func notForEver(
        reply: ToldSize.Reply
    ) {
        var size = ToldSize()
        size.told(100, to: 7, reply, at: Self.tick(5))
        let end = Self.tick(5).advanced(nanoseconds: reply.longestWait)
        #expect(size.waitBeforeInvalidation(at: Self.tick(5)) == end)
        #expect(size.waitBeforeInvalidation(at: end) == nil)
    }

    /// Threads of other namespaces are all number 0: one of them says nothing about another.
    @Test func whoHasNoNumberIsNotHeardOf() {
        var size = ToldSize()
        size.told(100, to: 0, at: Self.tick(5))
        size.isHeard(0)
        #expect(size.isAwaited(0))
        size.told(50, to: 0, at: Self.tick(6))
        size.isHeard(0)
        let end = Self.tick(6).advanced(nanoseconds: ToldSize.Reply.attributes.longestWait)
        #expect(size.waitBeforeInvalidation(at: Self.tick(6)) == end)
        #expect(size.known == nil)
    }

    /// Looks of others, and the size that the kernel has anyway.
    @Test func whoOnlyLooksIsNotWaitedFor() {
        var size = ToldSize()
        size.told(100, to: nil, at: Self.tick(5))
        #expect(size.waitBeforeInvalidation(at: Self.tick(5)) == nil)
        #expect(size.known == nil)
        size.told(100, to: 7, at: Self.tick(6))
        size.isHeard(7)
        for moment in UInt64(11)..<20 {
            size.isInvalidated()
            size.told(100, to: 7, at: Self.tick(moment))
            #expect(size.waitBeforeInvalidation(at: Self.tick(moment)) == nil)
        }
    }

    /// An answer that may be lost says nothing for the next time.
    @Test func whatMayBeLostIsWaitedForAgain() {
        var size = ToldSize()
        size.told(100, to: 7, at: Self.tick(5))
        size.isInvalidated()
        size.isHeard(7)
        #expect(size.known == nil)
        size.told(100, to: 7, at: Self.tick(6))
        #expect(size.waitBeforeInvalidation(at: Self.tick(6)) != nil)
    }

    /// A reply to another thread, a write, and an inode that is forgotten.
    @Test func whatChangesTheSizeMakesItUnknown() {
        var size = ToldSize()
        size.told(100, to: 7, at: Self.tick(5))
        size.told(40, to: nil, at: Self.tick(5))
        size.isHeard(7)
        #expect(size.known == nil)
        size.told(100, to: 7, at: Self.tick(6))
        size.isHeard(7)
        size.written(to: 100)
        #expect(size.known == 100)
        size.written(to: 101)
        #expect(size.known == nil)
        size.told(100, to: 7, at: Self.tick(7))
        size.written(to: 101)
        size.isHeard(7)
        #expect(size.known == nil)
        size.told(100, to: 7, at: Self.tick(8))
        size.isUnknown()
        size.isHeard(7)
        #expect(size.known == nil)
    }
}
