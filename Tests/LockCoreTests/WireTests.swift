// Messages to bytes and back: golden bytes, every message, every truncation, random damage.

import LockCore
import Testing
import Vocabulary

@testable import ClusterWire

struct WireTests {
    static let name = ResourceName(
        kind: .inode,
        number: 0x0102_0304_0506_0708,
        generation: 0x1112_1314_1516_1718
    )
    static let lock = LockID(0x2122_2324_2526_2728)
    static let value = SequencedValue(
        value: ValueBlock(0x31, 0x32, 0x33, 0x34),
        sequence: 0x35,
        isValid: true
    )

    static let reference = LockReference(node: NodeID(4), lock: lock)
    static let hop = DeadlockHop(
        name: name.child(3),
        master: NodeID(2),
        waiter: reference,
        owner: LockOwner(0x51),
        requested: .exclusive,
        waited: 0x52,
        behind: reference,
        blocker: reference,
        blockerMode: .protectedRead,
        changes: (1, 2, 3)
    )
    static let probe = DeadlockProbe(
        origin: reference,
        originOwner: LockOwner(0x53),
        number: 0x54,
        hops: [hop]
    )
    static let things: [MovedThing] = [
        .lock(
            name,
            MovedLock(
                holder: reference,
                owner: LockOwner(0x55),
                state: .converting,
                granted: .null,
                requested: .exclusive,
                flags: [.valueBlock, .demoteOnDeadlock],
                told: 0x21,
                isDemoted: true,
                changes: 0x1234
            )
        ),
        .value(name.child(1).child(2), value),
        .lock(
            bytesName,
            MovedLock(
                holder: reference,
                owner: LockOwner(0x55),
                state: .waiting,
                granted: .null,
                requested: .exclusive,
                flags: [.noOrder],
                told: 0,
                isDemoted: false,
                changes: 1,
                bytes: bytes
            )
        ),
    ]
    static let bytesName = ResourceName(kind: .byteLocks, number: 0x61, generation: 0x62)
    static let bytes = LockedBytes(first: 0x63, last: 0x7FFF_FFFF_FFFF_FFFF, process: 0x64)

    /// At least one of each kind.
    static let all: [NodeMessage] = [
        .lock(.lookup(name, denied: NodeID(9))), .lock(.lookup(name, denied: .none)),
        .lock(.lookupReply(name, master: NodeID(3))), .lock(.claim(name)),
        .lock(.claimReply(name, master: NodeID(3))), .lock(.confirm(name)),
        .lock(.confirmReply(name, isMaster: false)), .lock(.confirmReply(name, isMaster: true)),
        .lock(.remove(name)),
        .lock(.entry(name, master: NodeID(3))), .lock(.entryIs(name)),
        .lock(
            .request(
                name,
                lock: lock,
                owner: LockOwner(0x41),
                mode: .exclusive,
                flags: [.noQueue, .freshName]
            )
        ),
        .lock(
            .request(
                name.child(5).child(6),
                lock: lock,
                owner: .none,
                mode: .exclusive,
                flags: .known
            )
        ),
        .lock(
            .request(
                bytesName,
                lock: lock,
                owner: LockOwner(0x41),
                mode: .exclusive,
                flags: [.noOrder, .question],
                bytes: bytes
            )
        ),
        .lock(
            .refused(
                bytesName,
                lock: lock,
                status: .wouldBlock,
                remarks: [],
                obstacle: LockObstacle(node: NodeID(3), mode: .protectedRead, bytes: bytes)
            )
        ),
        .lock(
            .rebuild(
                bytesName,
                RebuiltLock(
                    lock: lock,
                    state: .granted,
                    granted: .exclusive,
                    requested: .exclusive,
                    flags: [],
                    value: nil,
                    isVouched: false,
                    bytes: bytes
                )
            )
        ),
        .lock(.convert(name, lock: lock, mode: .null, flags: [.valueBlock], value: value)),
        .lock(.convert(name, lock: lock, mode: .protectedRead, flags: [], value: nil)),
        .lock(.unlock(name, lock: lock, value: value)),
        .lock(.unlock(name, lock: lock, value: nil)), .lock(.cancel(name, lock: lock)),
        .lock(.granted(name, lock: lock, mode: .protectedWrite, remarks: [], value: value)),
        .lock(.granted(name.child(9), lock: lock, mode: .null, remarks: .known, value: nil)),
        .lock(.refused(name, lock: lock, status: .wouldBlock, remarks: [])),
        .lock(.refused(name, lock: lock, status: .deadlock, remarks: .demoted)),
        .lock(.purge(LockOwner(7))), .lock(.stagedMasters([name])),
        .lock(.claimedMasters([name])), .lock(.disclaim(name)),
        .lock(.seek(name, lock: lock, waited: 77, probe)),
        .lock(.chase(LockOwner(8), probe)), .lock(.cycle([hop])),
        .lock(.cycle([DeadlockHop](repeating: hop, count: LockMessage.longestSearch))),
        .lock(.verify(9, place: 1, hop)), .lock(.verified(9, place: 1, stands: true)),
        .lock(.condemn(9, place: 1, [hop, hop])), .lock(.condemned(9, wasWaiting: false)),
        .lock(.deadlocked(name, lock: lock, [hop])),
        .lock(.moving(name, to: NodeID(2))), .lock(.movingSeen(name)), .lock(.taken(name)),
        .lock(.moved(name, to: NodeID(2))),
        .lock(.transfer(name, things, moves: 3, isLast: true)),
        .lock(
            .transfer(
                name,
                [MovedThing](repeating: things[1], count: LockMessage.thingsPerMessage),
                moves: 0,
                isLast: false
            )
        ),
        .lock(.unlocked(name, lock: lock)), .lock(.notMaster(name, lock: lock)),
        .lock(.blocking(name, lock: lock, wanted: .concurrentWrite)),
        .lock(.handover(name, value: value)), .lock(.masters([])),
        .lock(.masters([name, ResourceName(kind: .live, number: 0)])),
        .lock(.masters([ResourceName](repeating: name, count: LockMessage.namesPerMessage))),
        .lock(
            .rebuild(
                name,
                RebuiltLock(
                    lock: lock,
                    state: .converting,
                    granted: .protectedRead,
                    requested: .exclusive,
                    flags: [.queueConversion],
                    owner: LockOwner(0x42),
                    value: value,
                    isVouched: true
                )
            )
        ),
        .lock(
            .rebuild(
                name,
                RebuiltLock(
                    lock: lock,
                    state: .waiting,
                    granted: .null,
                    requested: .exclusive,
                    flags: [],
                    value: nil,
                    isVouched: false
                )
            )
        ),
        .lock(.sent(.directory, [])), .lock(.expect(.locks, 7)),
        .lock(.sent(.locks, [MessageCount(node: NodeID(2), count: 3)])),
        .lock(.reached(.masters)), .lock(.proceed(.locks)),
        .replayed(Epoch(77)), .goodbye,
        .inquiry(0x0102_0304, Array("{}".utf8)), .inquiry(1, []),
        .inquiry(2, [UInt8](repeating: 7, count: WireFormat.largestInquiry)),
        .report(0x0102_0304, part: 5, isLast: true, [1, 2, 3]),
        .askLastWrite(5, InodeNumber(address: BlockAddress(0x99), generation: 3), takes: true),
        .lastWrite(6, nil), .lastWrite(7, Timestamp(seconds: -5, nanoseconds: 999_999_999)),
        .askAttributes(8, InodeNumber(address: BlockAddress(0x99), generation: 3)),
        .attributes(9, nil), .attributes(10, glimpsed),
        .accessed(
            InodeNumber(address: BlockAddress(0x99), generation: 3),
            Timestamp(seconds: -5, nanoseconds: 999_999_999)
        ),
        .freezes(
            FreezeNotice(node: NodeID(3), since: Timestamp(seconds: 9, nanoseconds: 8), seconds: 60)
        ),
        .report(3, part: 0, isLast: false, [UInt8](repeating: 9, count: WireFormat.largestPart)),
    ]

    static let glimpsed = GlimpsedAttributes(
        mode: 0o100_644,
        user: 1,
        group: 2,
        linkCount: 3,
        device: 4,
        size: 5,
        blockCount: 6,
        accessed: Timestamp(seconds: 7, nanoseconds: 8),
        modified: Timestamp(seconds: -9, nanoseconds: 10),
        changed: Timestamp(seconds: 11, nanoseconds: 12),
        born: Timestamp(seconds: 13, nanoseconds: 14),
        hasExtendedAttributes: true
    )

    static func bytes(_ message: NodeMessage) -> [UInt8] {
        var bytes: [UInt8] = []
        encode(message, epoch: Epoch(0x0A0B), into: &bytes)
        return bytes
    }

    static func decode(_ bytes: [UInt8]) throws(WireError) -> DecodedMessage {
        let result = bytes.withUnsafeBytes { raw -> Result<DecodedMessage, WireError> in
            do throws(WireError) { return .success(try decodeMessage(raw)) } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    @Test("Every kind is among the samples")
    func complete() {
        let kinds = Set(Self.all.map { Self.bytes($0)[5] })
        #expect(kinds == Set(WireKind.allCases.map(\.rawValue)))
    }

    @Test("Golden bytes of a grant with a value")
    func golden() {
        let bytes = Self.bytes(
            .lock(
                .granted(
                    Self.name,
                    lock: Self.lock,
                    mode: .protectedWrite,
                    remarks: .alternateMode,
                    value: Self.value
                )
            )
        )
        let expected: [UInt8] =
            [0x4C, 0x4B, 0x53, 0x4D, 6, 32, 0, 0, 70, 0, 0, 0]  // magic, version, kind, length
            + [0x0B, 0x0A, 0, 0, 0, 0, 0, 0]  // epoch
            + [1, 8, 7, 6, 5, 4, 3, 2, 1]  // name
            + [0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 0]
            + [0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21]  // lock
            + [4, 2, 1]  // mode, remarks, a value follows
            + [0x31, 0, 0, 0, 0, 0, 0, 0, 0x32, 0, 0, 0, 0, 0, 0, 0]
            + [0x33, 0, 0, 0, 0, 0, 0, 0, 0x34, 0, 0, 0, 0, 0, 0, 0]
            + [0x35, 0, 0, 0, 0, 0, 0, 0, 1]  // sequence, valid
        #expect(bytes == expected)
    }

    @Test("Golden bytes of a count")
    func goldenCount() {
        #expect(
            Self.bytes(.lock(.expect(.locks, 0x0C0D))) == [
                0x4C, 0x4B, 0x53, 0x4D, 6, 54, 0, 0, 5, 0, 0, 0, 0x0B, 0x0A, 0, 0, 0, 0, 0, 0, 2,
                0x0D, 0x0C, 0, 0,
            ]
        )
    }

    @Test("Golden bytes of an inquiry and of a part of its answer")
    func goldenInquiry() {
        #expect(
            Self.bytes(.inquiry(0x0102_0304, Array("why".utf8))) == [
                0x4C, 0x4B, 0x53, 0x4D, 6, 66, 0, 0, 9, 0, 0, 0, 0x0B, 0x0A, 0, 0, 0, 0, 0, 0,
                4, 3, 2, 1, 3, 0, 0x77, 0x68, 0x79,
            ]
        )
        #expect(
            Self.bytes(.report(0x0102_0304, part: 0x0506, isLast: true, [0xAA, 0xBB])) == [
                0x4C, 0x4B, 0x53, 0x4D, 6, 67, 0, 0, 13, 0, 0, 0, 0x0B, 0x0A, 0, 0, 0, 0, 0, 0,
                4, 3, 2, 1, 6, 5, 0, 0, 1, 2, 0, 0xAA, 0xBB,
            ]
        )
    }

    @Test("Golden bytes of a question for a time and of its answer")
    func goldenTimes() {
        let file = InodeNumber(address: BlockAddress(0x0708), generation: 0x09)
        #expect(
            Self.bytes(.askLastWrite(0x0102_0304, file, takes: true)) == [
                0x4C, 0x4B, 0x53, 0x4D, 6, 68, 0, 0, 21, 0, 0, 0, 0x0B, 0x0A, 0, 0, 0, 0, 0, 0,
                4, 3, 2, 1, 8, 7, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1,
            ]
        )
        #expect(
            Self.bytes(.lastWrite(2, Timestamp(seconds: 3, nanoseconds: 4))) == [
                0x4C, 0x4B, 0x53, 0x4D, 6, 69, 0, 0, 17, 0, 0, 0, 0x0B, 0x0A, 0, 0, 0, 0, 0, 0,
                2, 0, 0, 0, 1, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0,
            ]
        )
    }

    @Test("Golden bytes of a question for attributes and of its answer")
    func goldenAttributes() {
        let file = InodeNumber(address: BlockAddress(0x0708), generation: 0x09)
        #expect(
            Self.bytes(.askAttributes(0x0102_0304, file)) == [
                0x4C, 0x4B, 0x53, 0x4D, 6, 70, 0, 0, 20, 0, 0, 0, 0x0B, 0x0A, 0, 0, 0, 0, 0, 0,
                4, 3, 2, 1, 8, 7, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0,
            ]
        )
        #expect(
            Self.bytes(.attributes(2, Self.glimpsed)) == [
                0x4C, 0x4B, 0x53, 0x4D, 6, 71, 0, 0, 90, 0, 0, 0, 0x0B, 0x0A, 0, 0, 0, 0, 0, 0,
                2, 0, 0, 0, 1, 0xA4, 0x81, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0,
                5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0,
                7, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0,
                0xF7, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 10, 0, 0, 0,
                11, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0, 14, 0, 0, 0, 1,
            ]
        )
    }

    @Test("Golden bytes of who freezes")
    func goldenFreeze() {
        let notice = FreezeNotice(
            node: NodeID(2),
            since: Timestamp(seconds: 3, nanoseconds: 4),
            seconds: 5
        )
        #expect(
            Self.bytes(.freezes(notice)) == [
                0x4C, 0x4B, 0x53, 0x4D, 6, 72, 0, 0, 20, 0, 0, 0, 0x0B, 0x0A, 0, 0, 0, 0, 0, 0,
                2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0,
            ]
        )
    }

    @Test("Every message survives, alone and with another behind it", arguments: all)
    func roundTrip(message: NodeMessage) throws {
        let bytes = Self.bytes(message)
        let decoded = try Self.decode(bytes)
        #expect(decoded.message == message)
        #expect(decoded.epoch == Epoch(0x0A0B) && decoded.byteCount == bytes.count)
        let followed = try Self.decode(bytes + Self.bytes(.goodbye))
        #expect(followed == decoded)
    }

    @Test("Every truncation is an error", arguments: all)
    func truncation(message: NodeMessage) {
        let bytes = Self.bytes(message)
        for length in 0..<bytes.count {
            let error = #expect(throws: WireError.self) {
                try Self.decode(Array(bytes[..<length]))
            }
            guard case .truncated = error else {
                Issue.record("\(length) bytes of \(bytes.count): \(String(describing: error))")
                return
            }
        }
    }

    @Test("A payload shorter or longer than its message is an error", arguments: all)
    func wrongLength(message: NodeMessage) {
        var bytes = Self.bytes(message)
        bytes.append(0)
        let length = bytes.count - WireFormat.headerLength
        bytes[8] = UInt8(truncatingIfNeeded: length)
        bytes[9] = UInt8(truncatingIfNeeded: length >> 8)
        #expect(throws: WireError.self) { try Self.decode(bytes) }
    }

    @Test("Damaged bytes throw, or mean exactly what they say", arguments: all)
    func damage(message: NodeMessage) throws {
        var dice = SeededGenerator(seed: 4711)
        let good = Self.bytes(message)
        for _ in 0..<400 {
            var bytes = good
            for _ in 0...dice.below(3) {
                bytes[dice.below(bytes.count)] = UInt8(dice.below(256))
            }
            do throws(WireError) {
                let decoded = try Self.decode(bytes)
                var again: [UInt8] = []
                encode(decoded.message, epoch: decoded.epoch, into: &again)
                #expect(again == Array(bytes[..<decoded.byteCount]), "W1")
            } catch {
                continue
            }
        }
    }

    @Test("Headers of others are refused")
    func headers() {
        let good = Self.bytes(.goodbye)
        for (place, byte, expected) in [
            (0, UInt8(0), WireError.badMagic(0x4D53_4B00)), (4, 1, .unsupportedVersion(1)),
            (5, 200, .unknownKind(200)), (6, 1, .badValue(.reserved)),
            (11, 1, .badLength(0x0100_0000)),
        ] {
            var bytes = good
            bytes[place] = byte
            #expect(throws: expected) { try Self.decode(bytes) }
        }
    }
}
