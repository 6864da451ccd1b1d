package import Execution
package import Vocabulary

/// What a run that ended well has done.
package struct SimulationReport: Hashable, Sendable {
    package var operations = 0
    /// Operations that had to fail, and did.
    package var refused = 0
    /// Requests of the kernels.
    package var requests = 0
    /// Names, and reads of pages, that the kernels answered themselves.
    package var cachedNames = 0
    package var cachedPages = 0
    package var demotions = 0
    /// Between lock managers.
    package var messages = 0
    /// Scrubs that ran to the end, and inodes they looked at.
    package var scrubs = 0
    package var scrubbedInodes = 0
    /// Scrubs that met changes which they could not judge.
    package var unjudgedScrubs = 0
    /// Nodes whose disk failed, or that met damage, and that withdrew.
    package var withdrawals = 0
    /// Nodes that died or were killed.
    package var deaths = 0
    /// Looks into pages that a dead node's kernel still had.
    package var orphanReads = 0
    /// How often nodes asked each other for the times of a file.
    package var timeQuestions = 0
    package var glimpses = 0
    package var glimpseQuestions = 0
    /// Grants of locks that an observer of all nodes has judged.
    package var grants = 0
    /// Writes into logs, of which the observer was asked what they overwrite.
    package var records = 0
    /// Grants at which the observer of the disk looked for writes on their way.
    package var diskGrants = 0
    /// Operations on names whose order was searched for, and histories of which the search was given up.
    package var judged = 0
    package var undecided = 0
    /// Power failures of all nodes.
    package var crashes = 0
    /// Nodes that stood still for a while.
    package var pauses = 0
    /// Pairs of nodes that did not hear each other for a while.
    package var partitions = 0
    /// Times that the volume stood still.
    package var freezes = 0
    /// Locks, and blocks of metadata, that nobody used and that were given back.
    package var givenBack = 0
    /// Bits that turned over.
    package var rotted = 0
    /// Operations for which there was no space.
    package var withoutSpace = 0
    /// Bytes of which the origin was asked after a disaster.
    package var traced = 0
    /// Steps of the executor.
    package var jobs = 0
    /// Nanoseconds of the nodes' time.
    package var virtualTime: UInt64 = 0
    package var scheduleHash: UInt64 = 0
    /// Rare branches that were taken.
    package var probes = ProbeSet()

    package init() {}

    /// What is counted, by name.
    package static let figures:
        [(name: String, path: any WritableKeyPath<SimulationReport, Int> & Sendable)] =
            [
                ("operations", \.operations), ("refused", \.refused), ("requests", \.requests),
                ("cachedNames", \.cachedNames), ("cachedPages", \.cachedPages),
                ("demotions", \.demotions), ("messages", \.messages), ("scrubs", \.scrubs),
                ("scrubbedInodes", \.scrubbedInodes), ("unjudgedScrubs", \.unjudgedScrubs),
                ("withdrawals", \.withdrawals), ("deaths", \.deaths), ("crashes", \.crashes),
                ("pauses", \.pauses), ("partitions", \.partitions), ("rotted", \.rotted),
                ("freezes", \.freezes), ("givenBack", \.givenBack),
                ("withoutSpace", \.withoutSpace), ("orphanReads", \.orphanReads),
                ("grants", \.grants), ("records", \.records), ("diskGrants", \.diskGrants),
                ("traced", \.traced), ("timeQuestions", \.timeQuestions),
                ("glimpses", \.glimpses), ("glimpseQuestions", \.glimpseQuestions),
                ("judged", \.judged), ("undecided", \.undecided), ("jobs", \.jobs),
            ]

    /// The sum of two runs; the hash is that of neither.
    package mutating func add(_ other: SimulationReport) {
        for (_, path) in Self.figures { self[keyPath: path] += other[keyPath: path] }
        virtualTime += other.virtualTime
        scheduleHash ^= other.scheduleHash
        probes.formUnion(other.probes)
    }

    /// For another process.
    package var json: JSONText {
        let counts = Self.figures.map {
            JSONText.Member($0.name, .number(UInt64(self[keyPath: $0.path])))
        }
        return .object(
            counts + [
                .init("virtualTime", .number(virtualTime)), .init("hash", .number(scheduleHash)),
                .init("probes", .number(probes.bits)),
            ]
        )
    }

    /// From another process.
    package init(_ json: JSONText) {
        for (name, path) in Self.figures { self[keyPath: path] = Int(clamping: json.number(name)) }
        virtualTime = json.number("virtualTime")
        scheduleHash = json.number("hash")
        probes = ProbeSet(bits: json.number("probes"))
    }

    /// One line for people: what there was.
    package var summary: String {
        let words = [
            "\(operations) operations (\(refused) refused)",
            "\(virtualTime / 1_000_000) ms of virtual time", "\(requests) requests",
            "\(cachedNames) names and \(cachedPages) pages from the kernel's caches",
            "\(demotions) demotions", "\(grants) grants and \(records) log writes judged",
            "\(messages) messages",
        ]
        let events = [
            ("deaths", deaths), ("looks into pages of the dead", orphanReads),
            ("power failures", crashes), ("withdrawals", withdrawals),
            ("nodes that stood still", pauses), ("partitions", partitions),
            ("names put in order", judged), ("histories without a verdict", undecided),
            ("without space", withoutSpace),
            ("freezes", freezes), ("locks and blocks given back", givenBack),
            ("turned bits", rotted), ("scrubs", scrubs),
        ].filter { $0.1 > 0 }.map { "\($0.1) \($0.0)" }
        let count = probes.probes(contained: true).count
        return (words + events).joined(separator: ", ")
            + ", \(count) of \(Probe.allCases.count) probes, hash \(String(scheduleHash, radix: 16))"
    }
}
