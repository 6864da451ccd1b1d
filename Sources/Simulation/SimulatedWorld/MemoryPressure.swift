// Memory that gets short: what a node keeps for later is given back at moments that follow from the seed, and by age and
// number (FileSystem/CacheShrinking.swift).

import Execution
import FileSystem
import SimulatedMachine
import Vocabulary

extension SimulatedNode {
    /// Says now and then that memory is short, as long as the node lives.
    func runShort(_ dice: SeededGenerator) {
        var dice = dice
        // Now every few operations, now hardly ever.
        let longest = [1_000_000, 20_000_000, 200_000_000][dice.below(3)]
        engine.spawn {
            while !self.hasEnded {
                await self.engine.sleep(nanoseconds: UInt64(1 + dice.below(longest)))
                if !self.hasEnded { self.volume.relieve() }
            }
        }
    }

    private var hasEnded: Bool { isDead || hasLeft || withdrawal != nil }

    /// At rest no more locks are held than may be, but for those that are needed; nothing is kept that has not been
    /// used for long.
    func demandShrunkenCache() throws(SimulationFailure) {
        let found = volume.spareLocks()
        let needed = found.held - found.spare
        guard found.spare == 0 || found.held <= found.most || needed >= found.most else {
            throw SimulationFailure("\(kernel.name) at rest keeps \(found)")
        }
        let limit = volume.options.cacheAge
        guard limit > 0, let oldest = found.oldestUse else { return }
        // Looked for eight times within the age, at the tick of a timer, and a step takes its time.
        let latest = limit + limit / 8 + volume.options.commitInterval + 100_000_000
        let age = engine.clock.now.rawValue - oldest.rawValue
        if age > latest {
            throw SimulationFailure(
                "\(kernel.name) at rest keeps \(found), unused for \(age) ns; it may be \(latest)"
            )
        }
    }
}
