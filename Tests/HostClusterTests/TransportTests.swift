import CLinux
import DiskFormat
import Glibc
import HostCluster
import LinuxSystem
import Testing
import Transport
import Vocabulary

/// Several transports in this process, each with its own event loop, over real sockets.
@Suite(.serialized) struct TransportTests {
    /// What one node was told.
    final class Ear: @unchecked Sendable {
        // Sendable: guarded by the latch.
        private let latch = Latch()
        private let changed = WaitCondition()
        private var heard: [(node: NodeID, bytes: [UInt8])] = []
        private var lost: [Member] = []
        private var reports: [String] = []

        var client: TransportClient {
            TransportClient(
                onMessage: { [self] node, bytes in
                    note { heard.append((node, Array(bytes))) }
                },
                onPeerLost: { [self] member, _ in note { lost.append(member) } },
                onReport: { [self] line in note { reports.append(line) } }
            )
        }

        private func note(_ change: () -> Void) {
            latch.withLock(change)
            changed.broadcast()
        }

        /// Waits, thirty seconds at most, until something holds of what was heard.
        func wait(
            until holds: (
                _ heard: [(node: NodeID, bytes: [UInt8])], _ lost: [Member], _ reports: [String]
            )
                -> Bool,
            at location: SourceLocation = #_sourceLocation
        ) {
            var time = timespec()
            clock_gettime(CLOCK_MONOTONIC, &time)
            let deadline = Tick(UInt64(time.tv_sec + 30) * 1_000_000_000)
            latch.lock()
            defer { latch.unlock() }
            while !holds(heard, lost, reports) {
                if !changed.wait(latch, until: deadline) {
                    Issue.record(
                        "heard \(heard.count), lost \(lost), \(reports)",
                        sourceLocation: location
                    )
                    return
                }
            }
        }

        /// What came from one node, in order.
        func messages(from node: NodeID) -> [[UInt8]] {
            latch.withLock { heard.filter { $0.node == node }.map(\.bytes) }
        }

        var lostMembers: [Member] { latch.withLock { lost } }
    }

    let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    private func member(_ node: Int) -> Member {
        Member(node: NodeID(UInt32(node)), incarnation: UInt64(node) * 1000 + 1)
    }

    private func view(_ epoch: Int, _ nodes: [Int]) -> ClusterView {
        ClusterView(epoch: Epoch(UInt64(epoch)), members: nodes.map(member), slotsToReplay: [])
    }

    private func transport(_ node: Int, _ ear: Ear, volume: UInt64 = 7) throws -> UnixTransport {
        let path = folder.path
        return try UnixTransport(
            identity: TransportIdentity(volumeHigh: 1, volumeLow: volume, member: member(node)),
            listeningAt: "\(path)/\(node).sock",
            pathOf: { "\(path)/\($0.rawValue).sock" },
            client: ear.client
        )
    }

    @Test func messagesArriveOnceAndInOrder() throws {
        let ears = [Ear(), Ear(), Ear()]
        let nodes = try (0..<3).map { try transport($0 + 1, ears[$0]) }
        for node in nodes { node.adopt(view(1, [1, 2, 3])) }
        // Sent before any connection can stand, from two threads at each node.
        let senders = try nodes.enumerated().flatMap { index, node in
            try (0..<2).map { thread in
                try runThread(name: "sender") {
                    for number in 0..<1000 {
                        for target in 1...3 {
                            let text = "\(thread) \(number)"
                            node.send(Array(text.utf8), to: NodeID(UInt32(target)))
                        }
                    }
                }
            }
        }
        for sender in senders { sender.join() }
        for (index, ear) in ears.enumerated() {
            ear.wait { heard, _, _ in heard.count == 4000 }
            for other in 1...3 where other != index + 1 {
                let words = ear.messages(from: NodeID(UInt32(other))).map {
                    String(decoding: $0, as: UTF8.self).split(separator: " ").map { Int($0) ?? -1 }
                }
                for thread in 0..<2 {
                    let numbers = words.filter { $0[0] == thread }.map { $0[1] }
                    let isWhole = numbers == Array(0..<1000)
                    #expect(isWhole, "of thread \(thread) of \(other) came \(numbers.count)")
                }
            }
        }
        let counters = nodes[0].counters
        #expect(counters.messagesSent == 4000 && counters.messagesReceived == 4000)
        #expect(counters.messagesDropped == 2000)  // to itself
        #expect(counters.flushes < 4000)
        for node in nodes { node.close() }
        #expect(ears.allSatisfy { $0.lostMembers.count <= 2 })
    }

    @Test func theLongestFrameAndTheShortest() throws {
        let (left, right) = (Ear(), Ear())
        let one = try transport(1, left)
        let two = try transport(2, right)
        one.adopt(view(1, [1, 2]))
        two.adopt(view(1, [1, 2]))
        let long = (0..<UnixTransport.maximumFrame).map { UInt8(truncatingIfNeeded: $0 / 251) }
        two.send(long, to: NodeID(1))
        two.send([9], to: NodeID(1))
        two.send(long, to: NodeID(1))
        left.wait { heard, _, _ in heard.count == 3 }
        #expect(left.messages(from: NodeID(2)) == [long, [9], long])
        one.close()
        two.close()
    }

    @Test func theEndOfAPeerIsToldOnceAndAfterItsLastMessage() throws {
        let (left, right) = (Ear(), Ear())
        let one = try transport(1, left)
        let two = try transport(2, right)
        one.adopt(view(1, [1, 2]))
        two.adopt(view(1, [1, 2]))
        for number in 0..<100 { two.send([UInt8(number)], to: NodeID(1)) }
        left.wait { heard, _, _ in heard.count == 100 }
        two.close()
        left.wait { _, lost, _ in lost == [self.member(2)] }
        // Until the view is without it, nothing brings it back, and nothing tells of it again.
        one.adopt(view(2, [1, 2, 3]))
        left.wait { _, lost, _ in lost.contains(self.member(3)) }  // nobody listens there
        one.send([1], to: NodeID(2))
        one.adopt(view(3, [1]))
        #expect(left.lostMembers == [member(2), member(3)])
        one.close()
    }

    @Test func aMessageMayComeBeforeItsView() throws {
        let (left, right) = (Ear(), Ear())
        let one = try transport(1, left)
        let two = try transport(2, right)
        two.adopt(view(1, [2]))
        one.adopt(view(2, [1, 2]))
        one.send([1, 2, 3], to: NodeID(2))
        right.wait { heard, _, _ in heard.count == 1 }
        two.adopt(view(2, [1, 2]))
        two.send([4], to: NodeID(1))
        left.wait { heard, _, _ in heard.count == 1 }
        #expect(left.lostMembers.isEmpty && right.lostMembers.isEmpty)
        one.close()
        two.close()
    }

    /// A raw connection to a node.
    private func call(_ node: Int) throws -> Int32 {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let path = Array("\(folder.path)/\(node).sock".utf8)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path) }
        let size = socklen_t(MemoryLayout<sockaddr_un>.size)
        let code = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, size) }
        }
        guard code == 0 else {
            close(descriptor)
            throw Trouble("connect: \(errnoText(errno))")
        }
        return descriptor
    }

    /// A raw client that says what it likes.
    private func speak(_ bytes: [UInt8], to node: Int) throws {
        let descriptor = try call(node)
        defer { close(descriptor) }
        #expect(write(descriptor, bytes, bytes.count) == bytes.count)
        // The other side must hang up.
        var answer = [UInt8](repeating: 0, count: 256)
        while read(descriptor, &answer, answer.count) > 0 {}
    }

    @Test(arguments: [
        [UInt8](repeating: 0xFF, count: 64), [0, 0, 0, 0], [1, 0, 0, 0, 65],
        Array("\u{28}\0\0\0LKSTWIRE".utf8) + [UInt8](repeating: 9, count: 32),
    ])
    func nonsenseIsDroppedAndHurtsNobody(_ bytes: [UInt8]) throws {
        let ear = Ear()
        let two = try transport(2, ear)
        two.adopt(view(1, [1, 2]))
        try speak(bytes, to: 2)
        ear.wait { _, _, reports in reports.count == 1 }
        #expect(ear.lostMembers.isEmpty)
        // And it still serves who is polite.
        let other = Ear()
        let one = try transport(1, other)
        one.adopt(view(1, [1, 2]))
        one.send([5], to: NodeID(2))
        ear.wait { heard, _, _ in heard.count == 1 }
        one.close()
        two.close()
    }

    /// The kernel resets a connection whose end had not read everything yet when it closed.
    @Test func whoLeavesWithoutReadingSaidNothingWrong() throws {
        let ear = Ear()
        let two = try transport(2, ear)
        two.adopt(view(1, [1, 2]))
        func bytes<N: FixedWidthInteger>(_ number: N) -> [UInt8] {
            withUnsafeBytes(of: number.littleEndian) { Array($0) }
        }
        let hello =
            bytes(UInt32(40)) + Array("LKSTWIRE".utf8) + bytes(UInt32(1)) + bytes(UInt32(1))
            + bytes(member(1).incarnation) + bytes(UInt64(1)) + bytes(UInt64(7))
        let descriptor = try call(2)
        #expect(write(descriptor, hello, hello.count) == hello.count)
        #expect(write(descriptor, bytes(UInt32(1)) + [42], 5) == 5)
        // The answer to the hello is there by now, and stays unread.
        ear.wait { heard, _, _ in heard.count == 1 }
        close(descriptor)
        ear.wait { _, lost, _ in lost == [self.member(1)] }
        ear.wait { heard, _, reports in heard.count == 1 && reports.isEmpty }
        two.close()
    }

    @Test func anotherVolumeIsNotLetIn() throws {
        let (left, right) = (Ear(), Ear())
        let two = try transport(2, right)
        let one = try transport(1, left, volume: 8)
        two.adopt(view(1, [1, 2]))
        one.adopt(view(1, [1, 2]))
        one.send([1], to: NodeID(2))
        right.wait { _, _, reports in reports.contains { $0.contains("another volume") } }
        left.wait { _, lost, _ in lost == [self.member(2)] }
        #expect(right.messages(from: NodeID(1)).isEmpty)
        one.close()
        two.close()
    }

    @Test func oneLifeHasOneLine() throws {
        let (left, imposter, right) = (Ear(), Ear(), Ear())
        let two = try transport(2, right)
        let one = try transport(1, left)
        two.adopt(view(1, [1, 2]))
        one.adopt(view(1, [1, 2]))
        one.send([1], to: NodeID(2))
        right.wait { heard, _, _ in heard.count == 1 }
        // The same node in the same life again, as a process that was copied would do.
        #expect(unlink("\(folder.path)/1.sock") == 0)
        let copy = try transport(1, imposter)
        copy.adopt(view(1, [1, 2]))
        copy.send([66], to: NodeID(2))
        imposter.wait { _, lost, _ in lost == [self.member(2)] }
        right.wait { _, _, reports in reports.contains { $0.contains("calls a second time") } }
        one.send([2], to: NodeID(2))
        right.wait { heard, _, _ in heard.count == 2 }
        #expect(right.messages(from: NodeID(1)) == [[1], [2]])
        #expect(right.lostMembers.isEmpty && left.lostMembers.isEmpty)
        copy.close()
        one.close()
        two.close()
    }

    @Test func betweenProcesses() throws {
        #expect(chmod(folder.path, 0o700) == 0)
        let volume = VolumeID(high: 3, low: 4).description
        let first = try Probe(["join", folder.path + "/run", volume, "2", "-", "0"])
        first.expect("joined")
        first.tell("replayed 1")
        let second = try Probe(["join", folder.path + "/run", volume, "2", "-", "0"])
        second.expect("joined")
        first.expect("view 2")
        first.tell("send 2 500 x")
        second.expect("got 1 x499")
        second.tell("send 1 500 y")
        first.expect("got 2 y499")
        #expect(second.said("got") == (0..<500).map { "got 1 x\($0)" })
        first.signal(SIGKILL)
        second.expect("lost 1")
        #expect(second.expect("view 3") == "view 3 members=2 replay=0")
        // Goodbye, on the other hand, loses nobody.
        let doubts = second.said("report n1 closed").count
        let third = try Probe(["join", folder.path + "/run", volume, "2", "-", "0"])
        second.tell("replayed 3")
        third.expect("joined 1")
        third.expect("view 4")  // before it, nobody knows whom a message is for
        third.tell("send 2 1 z")
        second.expect("got 1 z0")
        third.tell("leave")
        third.expect("left")
        #expect(second.expect("view 5") == "view 5 members=2 replay=-")
        #expect(second.said("report n1 closed").count == doubts)
    }
}
