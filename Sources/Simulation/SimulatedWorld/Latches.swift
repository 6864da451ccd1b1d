// Small things the model of the kernel needs.

import Execution
import Vocabulary

/// The kernel's `i_rwsem`: any number of readers or one writer, first come first served, so that a
/// waiting writer keeps later readers out.
final class ReaderWriterLatch {
    private var queue: [(isWriter: Bool, waiter: UnsafeContinuation<Void, Never>)] = []
    private(set) var readers = 0
    private(set) var hasWriter = false

    /// Nobody inside, nobody waiting.
    var isIdle: Bool { readers == 0 && !hasWriter && queue.isEmpty }

    func enterShared() async {
        if !hasWriter, queue.isEmpty {
            readers += 1
            return
        }
        await withUnsafeContinuation { (waiter: UnsafeContinuation<Void, Never>) in
            queue.append((false, waiter))
            admit()  // it may have become free meanwhile (Waiting.swift, W1)
        }
    }

    func enterExclusive() async {
        if !hasWriter, readers == 0, queue.isEmpty {
            hasWriter = true
            return
        }
        await withUnsafeContinuation { (waiter: UnsafeContinuation<Void, Never>) in
            queue.append((true, waiter))
            admit()
        }
    }

    func leaveShared() {
        precondition(readers > 0, "a reader left that was not inside")
        readers -= 1
        admit()
    }

    func leaveExclusive() {
        precondition(hasWriter, "a writer left that was not inside")
        hasWriter = false
        admit()
    }

    private func admit() {
        while let head = queue.first, !hasWriter {
            if head.isWriter && readers > 0 { return }
            queue.removeFirst()
            if head.isWriter { hasWriter = true } else { readers += 1 }
            head.waiter.resume()
        }
    }
}

/// Memory that stays where it is for as long as the object lives: what a request carries.
final class StableBytes {
    let bytes: UnsafeMutableRawBufferPointer

    init(count: Int) { bytes = .allocate(byteCount: max(count, 1), alignment: 4096) }

    convenience init(_ content: [UInt8]) {
        self.init(count: content.count)
        length = content.count
        content.withUnsafeBytes { bytes.copyMemory(from: $0) }
    }

    private var length: Int?

    var readOnly: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: bytes[..<(length ?? bytes.count)])
    }

    func array(_ count: Int) -> [UInt8] { [UInt8](bytes[..<count]) }

    deinit { bytes.deallocate() }
}

/// The lock of one page.
final class PageLock {
    private var queue: [UnsafeContinuation<Void, Never>] = []
    private(set) var isTaken = false

    /// Enters if nobody is inside.
    func enterIfFree() -> Bool {
        if isTaken { return false }
        isTaken = true
        return true
    }

    func enter() async {
        if enterIfFree() { return }
        await withUnsafeContinuation { (waiter: UnsafeContinuation<Void, Never>) in
            if enterIfFree() { waiter.resume() } else { queue.append(waiter) }
        }
    }

    func leave() {
        precondition(isTaken, "unlocking a page that is not locked")
        if queue.isEmpty { isTaken = false } else { queue.removeFirst().resume() }
    }
}
