// Rounds in which all agents do the same thing at once, of which exactly one can succeed, or all.

/// What a round is about.
package enum StressRace: UInt64, CaseIterable, Sendable {
    /// open(O_CREAT | O_EXCL) of one name: one makes it.
    case create = 0
    /// mkdir of one name: one makes it.
    case makeDirectory
    /// unlink of one name: one removes it.
    case unlink
    /// rename of one name, each to a name of its own: one moves it.
    case renameFrom
    /// rename of a file of one's own to one name: all do it, the file of one is left.
    case renameTo
    /// link of one file to a name of one's own: all do it, and the file has as many links more.
    case link
    /// link of a file of one's own to one name: one does it.
    case linkTo

    /// As reports call it.
    package var name: String {
        switch self {
        case .create: "create with O_EXCL"
        case .makeDirectory: "mkdir"
        case .unlink: "unlink"
        case .renameFrom: "rename from one name"
        case .renameTo: "rename to one name"
        case .link: "link of one file"
        case .linkTo: "link to one name"
        }
    }

    /// Whether exactly one succeeds; else all do.
    package var hasOneWinner: Bool { self != .renameTo && self != .link }
}

/// How one agent fared.
package enum StressRaceResult: UInt64, Sendable {
    case won = 0
    /// It was told that somebody else was first.
    case late
}

extension StressRace {
    /// Judges a round.
    ///
    /// - Parameters:
    ///   - results: of the agents that tell one.
    ///   - isComplete: nobody lost his mount in it; else he may have been the one.
    /// - Returns: what is wrong, in words.
    package func judge(_ results: [(agent: Int, result: StressRaceResult)], isComplete: Bool)
        -> String?
    {
        let winners = results.filter { $0.result == .won }.map(\.agent)
        let words =
            winners.isEmpty
            ? "nobody" : "agents " + winners.map(String.init).joined(separator: ", ")
        if hasOneWinner {
            if winners.count > 1, isComplete { return "\(name): \(words) succeeded, all at once" }
            if winners.isEmpty, isComplete { return "\(name): nobody succeeded" }
            return nil
        }
        guard isComplete, winners.count < results.count else { return nil }
        return "\(name): only \(words) succeeded, of \(results.count)"
    }
}

extension StressRace {
    /// Links of the name that all fought for when the round is over; 0: it must be gone; nil: they follow from
    /// other things than the race (a directory's).
    package func linksOfCommonName(agents: Int) -> Int? {
        switch self {
        case .create, .renameTo: 1
        case .makeDirectory: nil
        case .unlink, .renameFrom: 0
        case .link: agents + 1
        case .linkTo: 2
        }
    }

    /// Links of an agent's own name when the round is over; 0: there must be none.
    package func linksOfOwnName(hasWon: Bool, agents: Int) -> Int? {
        switch self {
        case .create, .makeDirectory, .unlink, .renameTo: 0
        case .renameFrom: hasWon ? 1 : 0
        case .link: agents + 1
        case .linkTo: hasWon ? 2 : 1
        }
    }
}
