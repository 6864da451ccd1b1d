import CrashWorld
import Testing
import Vocabulary

/// The part of the enumeration with several nodes that always runs; `lockstep-simulate --crashes
/// --nodes 3` has all of it.
@Suite struct ClusterEnumerationTests {
    static func script(_ text: String, nodes: Int = 3) throws -> ClusterScript {
        try #require(ClusterScript(text, nodes: nodes))
    }

    @Test(arguments: [2, 3])
    func sampleOfTwoOperations(_ nodes: Int) throws {
        let enumeration = try ClusterEnumeration(seed: 1, nodes: nodes)
        let sample = ClusterScript.sample(3, operations: 2, nodes: nodes, seed: 1)
        for script in sample { #expect(enumeration.run(script, [.death, .power])) }
        #expect(enumeration.failures == [])
        #expect(enumeration.counts.workloads == 3)
        #expect(enumeration.counts.distinctImages > 25)
        #expect(enumeration.broughtHome > 0)
    }

    @Test func recoverersDieToo() throws {
        let enumeration = try ClusterEnumeration(seed: 2, nodes: 3)
        enumeration.stride = 9
        let script = try Self.script("1.create:A/new+2.rename:A/new:B/bar+3.append:B/bar:5000")
        enumeration.run(script, [.recovery])
        #expect(enumeration.failures == [])
        #expect(enumeration.counts.images > 2 * enumeration.counts.points)
    }

    /// Scripts that alone noticed something broken on purpose, or a defect (Docs/TESTING.md).
    @Test(arguments: [
        "1.create:A/new+2.unlink:A/new+2.sync+3.create:B/c",
        "1.write:A/foo:1000:6000+1.mkdir:B/dir+1.fsync:B+2.fsync:A/foo",
    ])
    func scriptsThatNoticedDefects(_ text: String) throws {
        let enumeration = try ClusterEnumeration(seed: 1, nodes: 3)
        enumeration.randomImages = 0
        #expect(enumeration.run(try Self.script(text), [.power]))
        #expect(enumeration.failures == [])
    }

    /// One group was never looked at by who began in the next one.
    @Test(arguments: 1...3)
    func everyNodeFindsAllTheRoom(_ node: Int) throws {
        let enumeration = try ClusterEnumeration(seed: 1, nodes: 3)
        enumeration.run(try Self.script("\(node).append:A/foo:80000"), point: 0, variant: 0)
        #expect(enumeration.failures == [])
        #expect(enumeration.counts.images == 1)
    }

    @Test func sameSeedSameCrashes() throws {
        let script = try Self.script("1.create:A/new+2.fsync:A/new", nodes: 2)
        let runs = try (0..<2).map { _ in
            let enumeration = try ClusterEnumeration(seed: 5, nodes: 2)
            enumeration.randomImages = 0
            enumeration.run(script, [.death])
            return enumeration
        }
        #expect(runs[0].counts == runs[1].counts)
        #expect(runs[0].broughtHome == runs[1].broughtHome)
        #expect(runs[0].failures + runs[1].failures == [])
    }

    /// A disk that does not do what it says is noticed, and what is printed repeats that crash.
    @Test func forgottenFlushesAreFound() throws {
        let enumeration = try ClusterEnumeration(seed: 1, nodes: 2)
        enumeration.defect = .forgetsFlushes
        let script = try Self.script("1.create:A/new+2.fsync:A/new", nodes: 2)
        enumeration.run(script, [.power])
        let failure = try #require(enumeration.failures.first)
        let power = try #require(failure.power)
        let again = try ClusterEnumeration(seed: 1, nodes: 2)
        again.defect = .forgetsFlushes
        again.run(script, point: power.point, variant: power.variant)
        #expect(again.failures == [failure])
        #expect(again.counts.images == 1)
    }

    @Test func whatTheModelRefusesIsLeftOut() throws {
        let enumeration = try ClusterEnumeration(seed: 1, nodes: 2)
        for text in ["1.unlink:A/none", "1.unmount+1.sync", "2.rmdir:A"] {
            #expect(!enumeration.run(try Self.script(text, nodes: 2), [.death]))
        }
        for text in ["", "create:A/x", "3.sync", "0.sync", "1.copy:A"] {
            #expect(ClusterScript(text, nodes: 2) == nil)
        }
        for (_, script) in ClusterScript.families(nodes: 3) {
            #expect(script.isPossible)
            #expect(ClusterScript(script.description, nodes: 3) == script)
        }
    }
}
