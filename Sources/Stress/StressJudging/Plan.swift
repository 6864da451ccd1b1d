// What an agent is told at the beginning.

/// The settings of a run that agents need.
package struct StressPlan: Hashable, Sendable {
    /// This agent, from 0, and how many there are.
    package var agent = 0
    package var agents = 1
    /// What every choice of every agent follows from.
    package var seed: UInt64 = 1
    /// A number that no other run has.
    package var run: UInt64 = 0
    /// Steps of each workload in a second, at most.
    package var rate = 200
    /// Whether mounts may be lost in this run, and whether agents wait for them to come back.
    package var toleratesLoss = false
    package var rejoins = false
    /// Whether all must show the same directory before it begins.
    package var checksIdentity = true
    /// Seconds after which a call that has not returned hangs.
    package var patience = 60
    package var folder = ""
    package var workloads: [StressWorkload] = StressWorkload.allCases

    package init() {}

    /// As it is sent.
    package var message: StressMessage {
        StressMessage(
            .setup,
            [
                UInt64(agent), UInt64(agents), seed, run, UInt64(rate), toleratesLoss ? 1 : 0,
                rejoins ? 1 : 0, checksIdentity ? 1 : 0, UInt64(patience),
            ],
            texts: [folder] + workloads.map(\.name)
        )
    }

    /// Nil for a message that is none, or has values that no plan has.
    package init?(_ message: StressMessage) {
        guard message.kind == .setup, message.numbers.count == 9, let folder = message.texts.first
        else { return nil }
        let numbers = message.numbers
        guard numbers[1] <= 1024, numbers[0] < numbers[1], (1...1_000_000).contains(numbers[4]),
            (1...86_400).contains(numbers[8]), !folder.isEmpty, !folder.contains("/")
        else { return nil }
        agent = Int(numbers[0])
        agents = Int(numbers[1])
        seed = numbers[2]
        run = numbers[3]
        rate = Int(numbers[4])
        toleratesLoss = numbers[5] == 1
        rejoins = numbers[6] == 1
        checksIdentity = numbers[7] == 1
        patience = Int(numbers[8])
        self.folder = folder
        workloads = message.texts.dropFirst().compactMap { StressWorkload.named($0) }
        guard workloads.count == message.texts.count - 1, !workloads.isEmpty else { return nil }
    }
}
