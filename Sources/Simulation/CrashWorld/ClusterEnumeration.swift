// Crashes of several nodes, all of them: short scripts on two or three nodes, and at every moment of
// each the death of each node, or of all.
//
//   ClusterScript     steps of several nodes; ClusterScripts.swift says which scripts there are
//   ClusterRun        one run of a script, with deaths at chosen events; survivors recover
//   ClusterOracle     is the tree one that the steps so far may leave?
//
// The rest is that of one node: the record, the images, the judge (CrashEnumeration.swift).
//
// What happens to a cluster's nodes cannot be made from a record alone, because the survivors go on:
// the script is run anew for each death. Until the death it is the same run (N1, K1).
//
// Invariants
//   L1. One node dies (`ClusterCrash.death`): at each event of the record after the mounts each
//       node that is mounted dies once for each way in which what it had in flight may land. What
//       the survivors leave must be clean by itself (N5), and again for the judge (K4).
//   L2. Power fails (`ClusterCrash.power`): at each event the images of K3, with the logs of all
//       nodes to be replayed, in either order of the slots.
//   L3. The recoverer dies, too (`ClusterCrash.recovery`): for each first death in turn one
//       landing by dice, and then the death of whoever recovers, at each event while it does.

import Vocabulary

/// What happens to the nodes.
package enum ClusterCrash: String, Hashable, Sendable, CaseIterable {
    case death
    case power
    case recovery
}

/// A crash of a cluster that left what it may not leave.
package struct ClusterFailure: Hashable, Sendable {
    package var script: ClusterScript
    package var nodes: Int
    package var seed: UInt64
    /// Whose death it was, one after the other; empty if power failed.
    package var deaths: [NodeDeath]
    /// Events of the record before power failed, and the image.
    package var power: (point: Int, variant: Int)?
    package var complaint: String

    package static func == (left: Self, right: Self) -> Bool {
        left.arguments == right.arguments && left.complaint == right.complaint
    }

    package func hash(into hasher: inout Hasher) { hasher.combine(arguments) }

    /// The arguments of `lockstep-simulate` that repeat it.
    package var arguments: String {
        var text = "--crashes --nodes \(nodes) --workload \(script) --seeds \(seed)"
        if let power { text += " --point \(power.point) --variant \(power.variant)" }
        for death in deaths { text += " --death \(death.event):\(death.node):\(death.variant)" }
        return text
    }
}

/// Enumerates the crashes of scripts on one prepared volume.
package final class ClusterEnumeration {
    package let seed: UInt64
    package let nodes: Int
    /// Images by dice at each point of a loss of power, and landings by dice for each death.
    package var randomImages = 2
    /// Failures that are kept; more are only counted.
    package var failureLimit = 100
    /// A fault of the disk under the nodes.
    package var defect: DeviceDefect?
    /// Every so many events of a recovery one death of the recoverer, and of points before it.
    package var stride = 1

    package private(set) var counts = CrashCounts()
    package private(set) var failures: [ClusterFailure] = []
    /// Images that recoveries of survivors brought home, and names in footprints that others held.
    package private(set) var broughtHome = 0
    package private(set) var settled = 0
    /// Deaths after which a survivor met a full volume: the checker's word alone stands then.
    package private(set) var unjudged = 0

    private let volume: PreparedVolume
    private let judge: CrashJudge

    /// Makes and prepares the volume for 2 or 3 nodes.
    package init(seed: UInt64, nodes: Int) throws {
        self.seed = seed
        self.nodes = nodes
        volume = try PreparedVolume(seed: seed, nodes: nodes)
        judge = CrashJudge(volume.plan, seed: seed)
    }

    /// Runs a script and judges crashes of it. A script that the model refuses is left out, and the
    /// answer is false.
    @discardableResult
    package func run(_ script: ClusterScript, _ crashes: [ClusterCrash]) -> Bool {
        guard script.isPossible else { return false }
        guard let outcome = undisturbed(script) else { return true }
        counts.workloads += 1
        for crash in crashes {
            switch crash {
            case .power: losePower(script, outcome)
            case .death:
                forEachDeath(outcome) { death in
                    counts.points += 1
                    for variant in 0..<death.ways { kill(script, [death.with(variant)]) }
                }
            case .recovery: interruptRecoveries(script, outcome)
            }
        }
        finishCounts()
        return true
    }

    /// Only these deaths.
    package func run(_ script: ClusterScript, deaths: [NodeDeath]) {
        counts.workloads += 1
        counts.points += 1
        kill(script, deaths)
        finishCounts()
    }

    /// Only this loss of power.
    package func run(_ script: ClusterScript, point: Int?, variant: Int?) {
        guard let outcome = undisturbed(script) else { return }
        counts.workloads += 1
        losePower(script, outcome, onlyPoint: point, onlyVariant: variant)
        finishCounts()
    }

    private func finishCounts() {
        counts.distinctImages = judge.imageCount
        counts.distinctTrees = judge.trees.count
    }

    // MARK: One node dies

    /// A death whose landing is yet to be chosen.
    private struct Chance {
        var event: Int
        var node: Int
        /// How many landings there are.
        var ways: Int

        func with(_ variant: Int) -> NodeDeath {
            NodeDeath(event: event, node: node, variant: variant)
        }
    }

    /// The run without a crash: it must end in order, and as the model says.
    private func undisturbed(_ script: ClusterScript) -> ClusterOutcome? {
        do {
            let outcome = try ClusterRun.run(
                script,
                on: volume,
                nodes: nodes,
                seed: seed,
                defect: defect
            )
            if let complaint = complaint(outcome) { throw CrashComplaint(complaint) }
            return outcome
        } catch {
            fail(script, [], nil, "the run itself: \(error)")
            return nil
        }
    }

    private func forEachDeath(_ outcome: ClusterOutcome, _ body: (Chance) -> Void) {
        for (place, inFlight) in outcome.inFlight.enumerated() {
            let event = outcome.mountedAt + place + 1
            for node in 1...nodes where !isUnmounted(node, outcome, event) {
                let ways = Landing.variantCount(inFlight[node - 1], random: randomImages)
                body(Chance(event: event, node: node, ways: ways))
            }
        }
    }

    private func isUnmounted(_ node: Int, _ outcome: ClusterOutcome, _ event: Int) -> Bool {
        outcome.steps.contains {
            $0.step == ClusterStep(node: node, operation: .unmount) && $0.endedAt < event
        }
    }

    /// One run with deaths; what came of it, if nothing was wrong.
    @discardableResult
    private func kill(_ script: ClusterScript, _ deaths: [NodeDeath]) -> ClusterOutcome? {
        counts.images += 1
        do {
            let outcome = try ClusterRun.run(
                script,
                on: volume,
                nodes: nodes,
                seed: seed,
                deaths: deaths,
                defect: defect
            )
            broughtHome += outcome.broughtHome
            settled += outcome.settled
            if let complaint = complaint(outcome) { throw CrashComplaint(complaint) }
            return outcome
        } catch {
            fail(script, deaths, nil, "\(error)")
            return nil
        }
    }

    private func complaint(_ outcome: ClusterOutcome) -> String? {
        switch judge.look(at: outcome.image) {
        case .broken(let complaint): return complaint
        case .tree(let number):
            let tree = judge.trees[number]
            if let observed = outcome.observed, observed != tree {
                return "the survivors saw another tree than the next mount"
            }
            let oracle = ClusterOracle(steps: outcome.steps, deaths: outcome.deaths)
            if oracle.knowsNothing { unjudged += 1 }
            return oracle.complaint(about: tree)
        }
    }

    /// L3.
    private func interruptRecoveries(_ script: ClusterScript, _ outcome: ClusterOutcome) {
        var dice = SeededGenerator(seed: seed ^ 0xDEAD)
        var number = 0
        forEachDeath(outcome) { chance in
            number += 1
            guard number % stride == 0 else { return }
            counts.points += 1
            let first = chance.with(dice.below(chance.ways))
            guard let recovered = kill(script, [first]) else { return }
            for (event, node) in recovered.recovering where event > first.event {
                let second = NodeDeath(event: event, node: node, variant: dice.below(6))
                kill(script, [first, second])
            }
        }
    }

    // MARK: Power fails

    private func losePower(
        _ script: ClusterScript,
        _ outcome: ClusterOutcome,
        onlyPoint: Int? = nil,
        onlyVariant: Int? = nil
    ) {
        var point = CrashPoint(
            base: CrashImage(base: volume.base),
            events: outcome.events,
            seed: seed,
            randomImages: randomImages
        )
        while true {
            if onlyPoint == nil || onlyPoint == point.index {
                counts.points += 1
                let oracle = ClusterOracle(
                    steps: outcome.steps,
                    nodes: nodes,
                    powerLostAt: point.index
                )
                var known: [Int: String?] = [:]
                for variant in 0..<point.variantCount
                where onlyVariant == nil || onlyVariant == variant {
                    counts.images += 1
                    let complaint = complaint(point.image(variant), oracle, &known)
                    if let complaint { fail(script, [], (point.index, variant), complaint) }
                }
            }
            if point.isLast { break }
            point.advance()
        }
    }

    private func complaint(
        _ image: CrashImage,
        _ oracle: ClusterOracle,
        _ known: inout [Int: String?]
    ) -> String? {
        switch judge.look(at: image) {
        case .broken(let complaint): return complaint
        case .tree(let number):
            if let known = known[number] { return known }
            let complaint = oracle.complaint(about: judge.trees[number])
            known[number] = .some(complaint)
            return complaint
        }
    }

    private func fail(
        _ script: ClusterScript,
        _ deaths: [NodeDeath],
        _ power: (point: Int, variant: Int)?,
        _ complaint: String
    ) {
        counts.failures += 1
        guard failures.count < failureLimit else { return }
        failures.append(
            ClusterFailure(
                script: script,
                nodes: nodes,
                seed: seed,
                deaths: deaths,
                power: power,
                complaint: complaint
            )
        )
    }
}
