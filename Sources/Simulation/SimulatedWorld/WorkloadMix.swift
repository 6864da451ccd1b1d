// Workloads as data: how often each kind of operation comes, and among how many names.

/// What a process may do in one go, by kind.
enum OperationKind: CaseIterable {
    case create, directory, special, link, rename, truncate, allocate, mode, attribute, write,
        append, store,
        read, synchronize, remove
}

/// What processes do most of the time.
package struct WorkloadMix: Hashable, Sendable {
    /// The word of the command line.
    package let name: String
    /// How often each kind comes.
    let weights: [OperationKind: Int]
    /// Names in a directory.
    let names: Int
    /// How often a new directory is the place of the next thing, one in so many.
    let deepOneIn: Int
    /// Bytes of a write, at most; 0 for all sizes.
    let longestWrite: Int

    private init(
        _ name: String,
        names: Int = 14,
        deepOneIn: Int = 1,
        longestWrite: Int = 0,
        _ weights: [OperationKind: Int]
    ) {
        self.name = name
        self.names = names
        self.deepOneIn = deepOneIn
        self.longestWrite = longestWrite
        self.weights = weights
    }

    /// A little of everything.
    package static let mixed = WorkloadMix(
        "mixed",
        [
            .create: 3, .directory: 1, .special: 1, .link: 1, .rename: 2, .truncate: 1,
            .allocate: 2, .mode: 1,
            .attribute: 1, .write: 6, .append: 1, .store: 2, .read: 5, .synchronize: 1, .remove: 3,
        ]
    )

    /// All of them.
    package static let all: [WorkloadMix] = [
        mixed,
        // Many small files come and go, as in a mail spool.
        WorkloadMix(
            "churn",
            names: 60,
            longestWrite: 3000,
            [.create: 8, .write: 5, .read: 3, .remove: 7, .synchronize: 2, .rename: 1]
        ),
        // A few names are moved about, over each other, between directories.
        WorkloadMix(
            "renames",
            names: 5,
            [
                .create: 3, .directory: 3, .rename: 12, .link: 4, .remove: 3, .read: 2, .write: 2,
                .synchronize: 1,
            ]
        ),
        // One directory grows and shrinks beyond a block and beyond its hash table.
        WorkloadMix(
            "storm",
            names: 2_000,
            deepOneIn: 40,
            [.create: 16, .special: 3, .link: 4, .rename: 3, .remove: 6, .mode: 1]
        ),
        // Logs.
        WorkloadMix(
            "logs",
            names: 4,
            [.create: 1, .append: 14, .read: 6, .synchronize: 4, .truncate: 1, .rename: 1]
        ),
        // Several nodes write the same few files, through write(2) and through mappings.
        WorkloadMix(
            "writers",
            names: 3,
            [
                .create: 1, .write: 9, .store: 8, .read: 9, .truncate: 2, .allocate: 3,
                .synchronize: 2,
            ]
        ),
        // Extended attributes of everything.
        WorkloadMix(
            "attributes",
            [.create: 3, .directory: 1, .attribute: 12, .mode: 3, .read: 1, .remove: 1, .write: 1]
        ),
    ]

    /// The kinds in the order of their declaration, each with its weight.
    var table: [(kind: OperationKind, weight: Int)] {
        OperationKind.allCases.compactMap { kind in
            weights[kind].map { (kind, $0) }
        }
    }
}
