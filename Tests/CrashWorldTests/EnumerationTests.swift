import CrashWorld
import Testing
import Vocabulary

/// The part of the enumeration that always runs; `lockstep-simulate --crashes` has all of it.
@Suite struct EnumerationTests {
    @Test func allOfOneOperation() throws {
        let enumeration = try CrashEnumeration(seed: 1)
        for workload in CrashWorkload.all(operations: 1) { enumeration.run(workload) }
        #expect(enumeration.failures == [])
        #expect(enumeration.counts.workloads >= 180)
        #expect(enumeration.counts.points >= 1200)
        #expect(enumeration.counts.distinctImages >= 400)
    }

    @Test func sampleOfTwoOperations() throws {
        let enumeration = try CrashEnumeration(seed: 2)
        for workload in CrashWorkload.sample(30, operations: 2, seed: 2) {
            enumeration.run(workload)
        }
        #expect(enumeration.failures == [])
        #expect(enumeration.counts.workloads == 30)
        #expect(enumeration.counts.distinctImages >= 60)
    }

    @Test func sampleOfThreeOperationsWithLargeBlocks() throws {
        let enumeration = try CrashEnumeration(seed: 3, blockSize: 16_384)
        for workload in CrashWorkload.sample(5, operations: 3, seed: 3) {
            enumeration.run(workload)
        }
        #expect(enumeration.failures == [])
        #expect(enumeration.counts.workloads == 5)
    }

    @Test func interruptedReplays() throws {
        let enumeration = try CrashEnumeration(seed: 4)
        let plain = try CrashEnumeration(seed: 4)
        enumeration.interruptsReplays = true
        for workload in CrashWorkload.sample(6, operations: 2, seed: 4) {
            enumeration.run(workload)
            plain.run(workload)
        }
        #expect(enumeration.failures == [])
        #expect(enumeration.counts.distinctImages > plain.counts.distinctImages)
    }

    /// Sequences too long for the enumeration of one operation that alone noticed something broken
    /// on purpose (Docs/TESTING.md).
    @Test(arguments: [
        "truncate:A/foo:100+truncate:A/foo:20000+sync",
        "truncate:A/foo:100+write:A/foo:30000:3000+fsync:A/foo",
        "write:A/foo:1000:6000+mkdir:B/dir+fsync:B+fsync:A/foo",
    ])
    func sequencesThatNoticedDefects(_ text: String) throws {
        let enumeration = try CrashEnumeration(seed: 1)
        #expect(enumeration.run(try #require(CrashWorkload(text))))
        #expect(enumeration.failures == [])
        #expect(enumeration.counts.points > 5)
    }

    @Test func sameSeedSameImages() throws {
        let workload = try #require(CrashWorkload("append:A/foo:5000+rename:A/foo:B/bar+sync"))
        let first = try CrashEnumeration(seed: 7)
        let second = try CrashEnumeration(seed: 7)
        let other = try CrashEnumeration(seed: 8)
        for each in [first, second, other] { #expect(each.run(workload)) }
        #expect(first.counts == second.counts)
        #expect(first.failures + second.failures + other.failures == [])
        #expect(first.counts.points > 5)
    }

    /// What the enumeration is there for: a disk that does not do what it says is noticed, and the
    /// line that is printed repeats exactly that crash.
    @Test(arguments: DeviceDefect.allCases)
    func forgottenFlushesAreFound(_ defect: DeviceDefect) throws {
        let enumeration = try CrashEnumeration(seed: 1)
        enumeration.defect = defect
        let workloads = CrashWorkload.sample(20, operations: 1, seed: 5)
        for workload in workloads where enumeration.failures.isEmpty { enumeration.run(workload) }
        let failure = try #require(enumeration.failures.first)
        let again = try CrashEnumeration(seed: failure.seed, blockSize: failure.blockSize)
        again.defect = defect
        again.run(failure.workload, onlyPoint: failure.point, onlyVariant: failure.variant)
        #expect(again.failures == [failure])
        #expect(again.counts.images == 1)
        let sound = try CrashEnumeration(seed: failure.seed)
        sound.run(failure.workload)
        #expect(sound.failures == [])
    }

    @Test func whatTheModelRefusesIsLeftOut() throws {
        let enumeration = try CrashEnumeration(seed: 1)
        for text in ["unlink:A/none", "rename:A:A/empty/x", "unmount+sync", "rmdir:A"] {
            #expect(!enumeration.run(try #require(CrashWorkload(text))))
        }
        #expect(enumeration.counts == CrashCounts())
    }

    @Test func everyOperationHasItsText() {
        let ends: [CrashOperation] = [.pause, .unmount, .synchronize("")]
        for operation in CrashWorkload.alphabet + ends {
            #expect(CrashOperation(operation.text) == operation)
        }
        for text in ["", "create", "truncate:A/foo", "truncate:A/foo:-1", "sync:A", "copy:A:B"] {
            #expect(CrashOperation(text) == nil)
        }
    }

    @Test func everySequenceIsThereOnceWithItsEnds() {
        let one = CrashWorkload.all(operations: 1)
        #expect(Set(one).count == one.count)
        for workload in one {
            #expect(workload.operations.count == 2)
            #expect(workload.operations.first != workload.operations.last)
        }
        let renames = one.filter { $0.operations[0] == .rename("A/foo", to: "B/bar") }
        #expect(
            renames.map(\.operations[1]) == [
                .synchronize("A"), .synchronize("B/bar"), .synchronize("B"), .synchronizeAll,
                .pause, .unmount,
            ]
        )
    }
}
