import ArgumentParser
import LockWorld

/// `lockstep-lockcheck scale`: what locks cost in clusters of several sizes.
struct ScaleReport: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "scale",
        abstract: "Counts messages, waits and memory in clusters of several sizes.",
        discussion: """
            Every message takes one round. Private: names of a node's own, new ones (fresh) and old \
            ones; shared: all nodes read the same names; contended: all write one name by turns.
            """
    )

    @Option(help: "Sizes of clusters, separated by commas.")
    var nodes = "2,8,32,128,256"

    @Option(help: "Names of each node.")
    var names = 32

    @Flag(
        help:
            "Show what a death takes: names of each node, and of the dead one that two others use."
    )
    var deaths = false

    func run() async throws {
        let sizes = nodes.split(separator: ",").map { Int($0) ?? 0 }
        guard sizes.allSatisfy({ (1...1024).contains($0) }) else {
            throw ValidationError("--nodes is a list of 1 to 1024")
        }
        if deaths {
            print("| nodes | names of each | of the dead, in use | messages | barriers | rounds |")
            print("|---|---|---|---|---|---|")
            for size in sizes where size > 2 { reportDeaths(size) }
            return
        }
        print("| nodes | load | messages per operation | waited for | rounds when waited (most) |")
        print("|---|---|---|---|---|")
        for size in sizes { report(size) }
    }

    private func reportDeaths(_ size: Int) {
        for (each, shared) in [(names, 0), (names * 16, 0), (names, names), (names, names * 16)] {
            let world = ScaleWorld(nodes: size)
            _ = world.privateLoad(names: each, uses: 0, isFresh: true)
            world.shareOfLast(names: shared)
            let death = world.death()
            print(
                "| \(size) | \(each) | \(shared) | \(death.messages) | \(death.barrierMessages) | "
                    + "\(death.rounds) |"
            )
        }
    }

    private func report(_ size: Int) {
        let world = ScaleWorld(nodes: size)
        let fresh = world.privateLoad(names: names, uses: 4, isFresh: true)
        row(size, "private, fresh: first touch", fresh.first)
        row(size, "private, fresh: later", fresh.later)
        let old = world.privateLoad(names: names, uses: 4, isFresh: false)
        row(size, "private, old: first touch", old.first)
        row(size, "private, old: later", old.later)
        row(size, "shared read: first touch", world.sharedLoad(names: 4))
        row(size, "contended: hand-off", world.contendedLoad(turns: 200))
        let bytes = world.bytesPerNode
        let death = world.death()
        print(
            "| \(size) | death of a node with \(death.locks) locks | \(death.messages) in all | - | "
                + "\(death.rounds) |"
        )
        print("| \(size) | memory per node | \(bytes) bytes | - | - |")
    }

    private func row(_ size: Int, _ load: String, _ figures: ScaleFigures) {
        print(
            "| \(size) | \(load) | \(Self.text(figures.messagesPerOperation)) | "
                + "\(Self.text(figures.awaitedPercent)) % | "
                + "\(Self.text(figures.roundsPerWait)) (\(figures.mostRounds)) |"
        )
    }

    /// With two decimals.
    private static func text(_ value: Double) -> String {
        let hundredths = Int((value * 100).rounded())
        let rest = hundredths % 100
        return "\(hundredths / 100).\(rest < 10 ? "0" : "")\(rest)"
    }
}
