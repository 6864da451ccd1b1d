// One lock that all nodes want exclusively, all the time.
//
// Each node keeps a null lock and converts it upwards; when it has EX and somebody waits for it, it
// goes back to null and asks again. A hand-off is a grant; its time is that from the asking to the
// grant, so that with N nodes it spans N - 1 turns of others.

import Execution
import Glibc
import LinuxSystem
import Vocabulary

/// What one node saw of the contention.
struct ContentionResult {
    /// Lock and directory messages that it sent.
    var messages: UInt64 = 0
    /// Nanoseconds from each request to its grant.
    var samples: [UInt64] = []
}

/// The part of one node.
final class Contention {
    /// Of no other test.
    private static let name = ResourceName(kind: .application, number: 1, generation: 2)

    private let node: BenchNode
    private let end: UInt64
    private var isWanted = false
    private let wanted = Signal()
    private var result = ContentionResult()

    private init(_ node: BenchNode, milliseconds: UInt64) {
        self.node = node
        end = nanoseconds() + milliseconds * 1_000_000
    }

    /// Takes part for a time. From outside the engine.
    static func run(on node: BenchNode, milliseconds: UInt64) -> ContentionResult {
        node.run {
            let contention = Contention(node, milliseconds: milliseconds)
            return await contention.run()
        }
    }

    private func run() async -> ContentionResult {
        let cookie = node.takeCookie()
        let before = node.messageCount
        node.onBlocking = { [unowned self] blocked, _ in
            guard blocked == cookie else { return }
            isWanted = true
            wanted.notify()
        }
        // Whoever holds the lock when the time is over must not wait for a notice.
        node.engine.clock.schedule(
            at: Tick(end),
            in: node.engine,
            EngineBound { [wanted] in wanted.notify() }
        )
        let lock = await node.request(Self.name, .null, cookie: cookie).lock
        while nanoseconds() < end {
            isWanted = false
            let start = nanoseconds()
            await node.convert(lock, to: .exclusive, cookie: cookie)
            result.samples.append(nanoseconds() - start)
            while !isWanted && nanoseconds() < end { await wanted.wait() }
            await node.convert(lock, to: .null, cookie: cookie)
        }
        node.onBlocking = nil
        result.messages = node.messageCount - before
        return result
    }
}
