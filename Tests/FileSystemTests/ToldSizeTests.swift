// When an invalidation waits for what the kernel was told, and what is known of the size it has (KERNEL F6, ToldSize S1 and S2).

import FileSystem
import Testing
import Vocabulary

@Suite struct ToldSizeTests {
    private static func tick(_ milliseconds: UInt64) -> Tick { Tick(milliseconds * 1_000_000) }

    /// A kernel that has a size, of which it was told by thread 7.
    private func known(_ size: UInt64) -> ToldSize {
        var told = ToldSize()
        told.told(size, to: 7, .attributes, at: Self.tick(1))
        told.isHeard(7)
        #expect(told.isCertain(of: size))
        return told
    }

    @Test func aReaderOfAnotherSizeIsWaitedFor() {
        var size = ToldSize()
        size.told(100, to: 7, .attributes, at: Self.tick(5))
        let end = Self.tick(5).advanced(nanoseconds: ToldSize.Reply.attributes.longestWait)
        #expect(size.waitBeforeInvalidation(at: Self.tick(5)) == end)
        size.isHeard(8)
        #expect(size.waitBeforeInvalidation(at: Self.tick(6)) == end)
        size.isHeard(7)
        #expect(size.waitBeforeInvalidation(at: Self.tick(6)) == nil)
        #expect(size.isCertain(of: 100))
        for other in [UInt64(40), 200] {
            size.told(other, to: 7, .attributes, at: Self.tick(7))
            #expect(size.waitBeforeInvalidation(at: Self.tick(7)) != nil)
            size.isHeard(7)
            #expect(size.isCertain(of: other))
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
        size.told(100, to: 0, .attributes, at: Self.tick(5))
        size.isHeard(0)
        #expect(size.isAwaited(0))
        size.told(50, to: 0, .attributes, at: Self.tick(6))
        size.isHeard(0)
        let end = Self.tick(6).advanced(nanoseconds: ToldSize.Reply.attributes.longestWait)
        #expect(size.waitBeforeInvalidation(at: Self.tick(6)) == end)
        #expect(!size.isCertain(of: 100) && !size.isCertain(of: 50))
    }

    /// Looks of which nobody can say when they have been taken in, and the size that the kernel has anyway.
    @Test func whatTheKernelHasIsNotWaitedFor() {
        var size = ToldSize()
        size.told(100, to: nil, .look, at: Self.tick(5))
        size.told(100, to: 7, .look, at: Self.tick(5))
        #expect(size.waitBeforeInvalidation(at: Self.tick(5)) == nil)
        #expect(!size.isCertain(of: 100))
        size = known(100)
        for moment in UInt64(11)..<20 {
            size.invalidationBegins()
            size.invalidationEnds(isDoubtful: false, at: Self.tick(moment))
            size.told(100, to: 7, .attributes, at: Self.tick(moment))
            size.told(100, to: 7, .shortRead, at: Self.tick(moment))
            #expect(size.waitBeforeInvalidation(at: Self.tick(moment)) == nil)
        }
    }

    /// A look is waited for where it can be seen to be over: the next reader would be lost with it.
    @Test func aLookIsWaitedForWhileItsThreadHasNotRun() {
        var size = ToldSize()
        size.told(100, to: 7, .look, runs: { 5 }, at: Self.tick(5))
        let soon = Self.tick(5).advanced(nanoseconds: ToldSize.lookInterval)
        #expect(size.waitBeforeInvalidation(at: Self.tick(5)) == soon)
        size.isHeard(7)
        #expect(size.isCertain(of: 100))
    }

    /// Who waits for a processor is waited for; who has had it since, only until the next look.
    @Test func whoHasRunHasTakenItIn() {
        var size = ToldSize()
        size.told(100, to: 7, .attributes, runs: { 5 }, at: Self.tick(5))
        for moment in UInt64(5)..<1000 {
            size.look(at: Self.tick(moment)) { _ in 5 }
            #expect(size.waitBeforeInvalidation(at: Self.tick(moment)) != nil)
        }
        // However often it is looked at.
        for _ in 0..<3 { size.look(at: Self.tick(1000)) { $0 == 7 ? 6 : nil } }
        #expect(size.waitBeforeInvalidation(at: Self.tick(1000)) != nil)
        size.look(at: Self.tick(1001)) { _ in 6 }
        #expect(size.waitBeforeInvalidation(at: Self.tick(1001)) == nil)
        #expect(size.isCertain(of: 100))
        // Not for ever either.
        size.told(50, to: 7, .attributes, runs: { 6 }, at: Self.tick(2000))
        let end = Self.tick(2000).advanced(nanoseconds: ToldSize.longestStarvation)
        #expect(size.waitBeforeInvalidation(at: end) == nil)
    }

    /// Who has ended takes nothing in, and is not waited for.
    @Test func whoHasEndedIsNotWaitedFor() {
        var size = ToldSize()
        size.told(100, to: 7, .attributes, runs: { 5 }, at: Self.tick(5))
        size.look(at: Self.tick(5)) { _ in nil }
        size.look(at: Self.tick(6)) { _ in nil }
        #expect(size.waitBeforeInvalidation(at: Self.tick(6)) == nil)
    }

    /// Linux makes a file shorter when a READ is short, and never longer.
    @Test func aShortReadMakesNothingLonger() {
        var size = known(60)
        size.told(100, to: 7, .shortRead, at: Self.tick(6))
        #expect(size.waitBeforeInvalidation(at: Self.tick(6)) == nil)
        size.isHeard(7)
        #expect(size.isCertain(of: 60))
        size.told(40, to: 7, .shortRead, at: Self.tick(7))
        #expect(size.waitBeforeInvalidation(at: Self.tick(7)) != nil)
        #expect(size.bounds == 40...60)
        size.isHeard(7)
        #expect(size.isCertain(of: 40))
        size.isUnknown()
        size.told(100, to: 7, .shortRead, at: Self.tick(8))
        size.isHeard(7)
        #expect(size.bounds == 0...100)
        #expect(!size.isCertain(of: 100))
    }

    /// An invalidation before the answer is taken in, before it is given, and before the question is received.
    @Test func whatMayBeLostSaysNothing() {
        var size = known(60)
        size.told(100, to: 7, .attributes, at: Self.tick(5))
        size.invalidationBegins()
        size.isHeard(7)
        #expect(size.bounds == 60...100)
        // Asked while it is under way, and answered afterwards.
        size.asks(7, .attributes, at: Self.tick(6))
        #expect(size.isAsked)
        size.invalidationEnds(isDoubtful: false, at: Self.tick(6))
        size.told(100, to: 7, .attributes, at: Self.tick(6))
        size.isAnswered(7, .attributes)
        #expect(size.waitBeforeInvalidation(at: Self.tick(6)) != nil && !size.isAsked)
        size.isHeard(7)
        #expect(size.bounds == 60...100)
        // Asked before it begins, and answered when it has ended.
        size.asks(7, .look, at: Self.tick(7))
        #expect(!size.isAsked)
        size.invalidationBegins()
        size.invalidationEnds(isDoubtful: false, at: Self.tick(7))
        size.told(100, to: 7, .look, runs: { 1 }, at: Self.tick(7))
        size.isAnswered(7, .look)
        size.isHeard(7)
        #expect(size.bounds == 60...100)
        // Told while it is under way.
        size.invalidationBegins()
        size.told(100, to: 7, .attributes, at: Self.tick(8))
        size.isHeard(7)
        #expect(size.bounds == 60...100)
        // Perhaps asked before it, and received long after.
        size.invalidationEnds(isDoubtful: true, at: Self.tick(8))
        size.told(100, to: 7, .attributes, at: Self.tick(9))
        size.isHeard(7)
        #expect(size.bounds == 60...100)
        size.told(100, to: 7, .attributes, at: Self.tick(30))
        size.isHeard(7)
        #expect(size.isCertain(of: 100))
    }

    /// An answer to another thread, a write, and an inode that is forgotten.
    @Test func whatChangesTheSizeMakesItUnknown() {
        var size = ToldSize()
        size.told(100, to: 7, .attributes, at: Self.tick(5))
        size.told(40, to: nil, .look, at: Self.tick(5))
        size.isHeard(7)
        #expect(!size.isCertain(of: 100))
        // The other one may be taken in after it.
        size.told(100, to: 7, .attributes, at: Self.tick(6))
        size.isHeard(7)
        #expect(!size.isCertain(of: 100))
        size.told(100, to: 7, .attributes, at: Self.tick(60))
        size.isHeard(7)
        size.written(to: 100)
        #expect(size.isCertain(of: 100))
        size.written(to: 101)
        #expect(size.bounds == 100...101)
        size.told(100, to: 7, .attributes, at: Self.tick(70))
        size.written(to: 101)
        size.isHeard(7)
        #expect(size.bounds == 100...101)
        size.told(100, to: 7, .attributes, at: Self.tick(80))
        size.isUnknown()
        size.isHeard(7)
        #expect(size.bounds == 0...UInt64.max)
    }
}
