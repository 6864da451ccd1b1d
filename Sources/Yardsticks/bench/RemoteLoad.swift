// Locks whose master is another process: what one request costs, and one lock that everybody wants.

import Execution
import Glibc
import LinuxSystem
import LockCache
import NodeService
import Transport
import Vocabulary

/// A cluster of processes on this machine; this one is node 1.
final class RemoteLoad {
    private static let names: UInt64 = 64

    private let node: BenchNode
    private var peers: [PeerProcess] = []
    private let folder: String
    private let nodes: UInt32
    private let isEnding = Counter()

    init(nodes: UInt32) throws {
        self.nodes = nodes
        var template = Array("/tmp/lockstep-locks-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw BenchFailure.last("make a folder in", "/tmp") }
        folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let isEnding = isEnding
        node = try BenchNode(node: NodeID(1)) { why in
            if isEnding.value == 0 {
                complain("lockstep-bench: \(why)")
                exit(1)
            }
        }
        try node.listen(in: folder)
        for number in 2...nodes { peers.append(try PeerProcess(node: number, folder: folder)) }
        for peer in peers { try peer.say("join \(nodes)") }
        node.join(count: nodes)
        for peer in peers { _ = try peer.hear() }
    }

    func end() {
        isEnding.value = 1
        for peer in peers { peer.end() }
        node.end()
        for number in 1...nodes { unlink("\(folder)/node-\(number)") }
        rmdir(folder)
    }

    // MARK: Requests

    /// All tests of one request, on names that node 2 masters.
    func requests(count: Int, _ report: (LockFigure) -> Void) throws {
        try peers[0].say("master \(Self.names)")
        _ = try peers[0].hear()
        report(asking(.remoteUnknown, count: count / 4))
        report(many(count: count))
        let node = node
        // From here on the master of each name is known.
        node.run {
            for index in 0..<Self.names {
                _ = await node.request(benchName(index), .null, cookie: node.takeCookie())
            }
        }
        let unlocks = Samples()
        report(asking(.remoteAwaited, count: count, unlocks))
        report(LockFigure(.remoteUnlock, samples: unlocks.values))
        let (entered, woken) = fromThread(count: count)
        report(entered)
        report(woken)
    }

    /// One after the other, by a task of the engine: it goes on wherever the answer arrives.
    private func asking(_ test: LockTest, count: Int, _ unlocks: Samples = Samples()) -> LockFigure
    {
        let node = node
        let before = node.run { node.messageCount }
        let received = node.carried?.messagesReceived ?? 0
        let samples = node.run {
            let cookie = node.takeCookie()
            var samples: [UInt64] = []
            for index in 0..<UInt64(count) {
                let start = nanoseconds()
                let lock = await node.request(
                    benchName(index % Self.names),
                    .protectedRead,
                    cookie: cookie
                ).lock
                let middle = nanoseconds()
                await node.unlock(lock, cookie: cookie)
                samples.append(middle - start)
                unlocks.values.append(nanoseconds() - middle)
            }
            return samples
        }
        var figure = LockFigure(test, samples: samples)
        let sent = node.run { node.messageCount } - before
        let answers = (node.carried?.messagesReceived ?? 0) - received
        figure.messages = Double(sent + answers) / Double(2 * count)
        return figure
    }

    /// By a thread that is woken when the answer is there: until the grant, and until it is awake.
    private func fromThread(count: Int) -> (LockFigure, LockFigure) {
        let node = node
        let cookie = node.run { node.takeCookie() }
        let answered = Bell()
        let grant = GrantNote()
        var entered: [UInt64] = []
        var woken: [UInt64] = []
        for index in 0..<UInt64(count) {
            let start = nanoseconds()
            node.engine.enter {
                node.expect(cookie) { completion in
                    grant.time = nanoseconds()
                    grant.lock = completion.lock
                    answered.signal()
                }
                node.locks.request(
                    benchName(index % Self.names),
                    .protectedRead,
                    [],
                    cookie: cookie
                )
            }
            answered.wait()
            woken.append(nanoseconds() - start)
            entered.append(grant.time - start)
            node.engine.enter {
                node.expect(cookie) { _ in answered.signal() }
                node.locks.unlock(grant.lock, [], value: nil)
            }
            answered.wait()
        }
        return (
            LockFigure(.remoteEntered, samples: entered), LockFigure(.remoteWoken, samples: woken)
        )
    }

    /// Many tasks at once, each one after the other.
    private func many(count: Int) -> LockFigure {
        let node = node
        let share = count / Int(Self.names)
        let start = nanoseconds()
        let finished = Bell()
        for index in 0..<Self.names {
            node.engine.spawnImmediately {
                let cookie = node.takeCookie()
                for _ in 0..<share {
                    let lock = await node.request(benchName(index), .protectedRead, cookie: cookie)
                        .lock
                    await node.unlock(lock, cookie: cookie)
                }
                finished.signal()
            }
        }
        for _ in 0..<Self.names { finished.wait() }
        return LockFigure(
            .remoteMany,
            count: share * Int(Self.names),
            seconds: Double(nanoseconds() - start) * 1e-9
        )
    }

    // MARK: Contention

    func handOffs(_ test: LockTest, milliseconds: UInt64) throws -> LockFigure {
        let start = nanoseconds()
        for peer in peers { try peer.say("contend \(milliseconds)") }
        var result = Contention.run(on: node, milliseconds: milliseconds)
        for peer in peers {
            let numbers = try peer.hear().split(separator: " ").compactMap { UInt64($0) }
            result.messages += numbers.first ?? 0
            result.samples += numbers.dropFirst()
        }
        let took = nanoseconds() - start
        var figure = LockFigure(test, count: result.samples.count, seconds: Double(took) * 1e-9)
        let spread = Spread(result.samples)
        (figure.median, figure.percentile99) = (spread.median, spread.percentile99)
        figure.messages = Double(result.messages) / Double(max(result.samples.count, 1))
        return figure
    }
}

/// Nanoseconds that a task leaves for whoever waits for its end.
private final class Samples {
    var values: [UInt64] = []
}

/// A grant, as the engine leaves it for the thread that is woken.
private final class GrantNote: @unchecked Sendable {
    // Sendable: written before `Bell.signal`, read after `wait`.
    var time: UInt64 = 0
    var lock = LockID.none
}
