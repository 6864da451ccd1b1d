// Names: rounds in which all agents make, move, link or remove the same name at once (Races.swift).
//
// Asserted: of a round with one winner exactly one agent is told that it succeeded and the others that they were
// late; afterwards every agent sees the outcome: which names there are, and how many links files have.
// Why: names change in one step (POSIX: rename, link, unlink, mkdir and O_EXCL). Agents meet between the parts of
// a round, so what one did before a meeting all must see after it.
// Who loses its mount in a round may have been the winner, and what it won may be undone, also after it has told
// of it and while the others look: nothing of a name is durable until a node asks for it (the dead node's journal
// ends before). So what seems wrong is kept until all have looked and everybody's daemon has answered once more
// after that: it is told if all who began the round are there then, and let go with the loss otherwise.

import CLinux
import Glibc
import StressJudging
import Vocabulary

final class NameWork: StressWork {
    /// Meetings of a round: all is prepared, all have run, all have looked, all their daemons live.
    static let meetings: UInt64 = 4

    private unowned let lane: StressLane
    /// The number of the next meeting.
    private var next: UInt64 = 0
    /// Who came to the last meeting; nil: this agent was not there.
    private var present: [Int]?
    /// What seems wrong in this round.
    private var suspicions: [String] = []

    init(_ lane: StressLane) {
        self.lane = lane
        present = Array(0..<lane.agents)
    }

    private func key(_ round: UInt64) -> StressKey { StressKey(.names, 0, Int(round % (1 << 32))) }

    func open() throws(StressFailure) {
        let folder = lane.folder
        _ = try lane.call("mkdir names", key(0), allowing: [EEXIST]) {
            Int(mkdirat(folder, "names", 0o700))
        }
        guard lane.epoch > 0 else { return }
        next = try lane.join(lane.workload.rawValue)
        present = nil
    }

    private func meet(_ numbers: [UInt64]) throws(StressFailure) -> [(
        agent: Int, numbers: [UInt64]
    )] {
        let told = try lane.meet(lane.workload.rawValue, next, numbers)
        next += 1
        return told
    }

    func step() throws(StressFailure) {
        let round = next / Self.meetings
        suspicions = []
        let race = StressRace(
            rawValue: stressMix(lane.agent.plan.seed, round) % UInt64(StressRace.allCases.count)
        )
        guard let race else { return }
        try prepare(race, round)
        let before = try meet([]).map(\.agent)
        let result = try run(race, round)
        let told = try meet([result.rawValue])
        let isComplete = told.map(\.agent) == before && present.map { $0 == before } == true
        let results = told.compactMap { agent, numbers in
            numbers.first.flatMap { StressRaceResult(rawValue: $0) }.map {
                (agent: agent, result: $0)
            }
        }
        if told.first?.agent == lane.me, let words = race.judge(results, isComplete: isComplete) {
            suspect(round, words)
        }
        if isComplete { try check(race, round, results) }
        _ = try meet([])
        try proveAlive(round)
        present = try meet([]).map(\.agent)
        if present == before { for words in suspicions { lane.complain(key(round), words) } }
        if present?.first == lane.me { try clear(round) }
    }

    // MARK: Names of a round

    private func common(_ round: UInt64) -> String { "names/\(round)" }
    private func own(_ round: UInt64, _ agent: Int) -> String { "names/\(round)-\(agent)" }

    private func make(_ name: String, _ round: UInt64) throws(StressFailure) {
        let file = try lane.openFile(name, O_WRONLY | O_CREAT, key(round))
        close(file)
    }

    /// What must be there before the race: common things are made by one agent.
    private func prepare(_ race: StressRace, _ round: UInt64) throws(StressFailure) {
        switch race {
        case .create, .makeDirectory: return
        case .unlink, .renameFrom, .link:
            if present?.first == lane.me { try make(common(round), round) }
        case .renameTo, .linkTo: try make(own(round, lane.me), round)
        }
    }

    private func run(_ race: StressRace, _ round: UInt64) throws(StressFailure) -> StressRaceResult
    {
        let (folder, common, own) = (lane.folder, common(round), own(round, lane.me))
        let late: Set<Int32> = race == .unlink || race == .renameFrom ? [ENOENT] : [EEXIST]
        // Who had to prepare the round may have lost his mount.
        let isPrepared = race == .renameTo || !lane.agent.plan.toleratesLoss
        let allowed = race.hasOneWinner ? late : isPrepared ? [] : [ENOENT]
        let result = try lane.call(race.name, key(round), round, allowing: allowed) {
            switch race {
            case .create:
                let file = openat(folder, common, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
                if file >= 0 { Glibc.close(file) }
                return Int(min(file, 0))
            case .makeDirectory: return Int(mkdirat(folder, common, 0o700))
            case .unlink: return Int(unlinkat(folder, common, 0))
            case .renameFrom: return Int(renameat(folder, common, folder, own))
            case .renameTo: return Int(renameat(folder, own, folder, common))
            case .link: return Int(linkat(folder, common, folder, own, 0))
            case .linkTo: return Int(linkat(folder, own, folder, common, 0))
            }
        }
        return result >= 0 ? .won : .late
    }

    /// Links of a name; 0 if there is none.
    private func links(_ name: String, _ round: UInt64) throws(StressFailure) -> Int {
        var status = stat()
        let folder = lane.folder
        let result = try lane.call("lstat \(name)", key(round), allowing: [ENOENT]) {
            Int(fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW))
        }
        return result < 0 ? 0 : Int(status.st_nlink)
    }

    /// Looks at the outcome, at which all must look alike.
    private func check(
        _ race: StressRace,
        _ round: UInt64,
        _ results: [(agent: Int, result: StressRaceResult)]
    ) throws(StressFailure) {
        let winners = results.filter { $0.result == .won }.map(\.agent)
        try expect(common(round), round, race.linksOfCommonName(agents: results.count), race)
        for (agent, _) in results {
            let expected = race.linksOfOwnName(
                hasWon: winners.contains(agent),
                agents: results.count
            )
            try expect(own(round, agent), round, expected, race)
        }
    }

    private func expect(_ name: String, _ round: UInt64, _ expected: Int?, _ race: StressRace)
        throws(StressFailure)
    {
        guard let expected else { return }
        let found = try links(name, round)
        if found != expected {
            suspect(
                round,
                "\(race.name): \(name) has \(found) links and must have \(expected)"
            )
        }
    }

    private func suspect(_ round: UInt64, _ words: String) {
        lane.note(key(round), "suspicion", 0, 0)
        suspicions.append(words)
    }

    /// A request that only the daemon answers, never the kernel from its caches: a mount whose daemon died while
    /// others looked fails it.
    private func proveAlive(_ round: UInt64) throws(StressFailure) {
        var status = statvfs()
        let folder = lane.folder
        _ = try lane.call("fstatvfs", key(round)) { Int(fstatvfs(folder, &status)) }
    }

    private func clear(_ round: UInt64) throws(StressFailure) {
        let folder = lane.folder
        let names = [common(round)] + (0..<lane.agents).map { own(round, $0) }
        for name in names {
            let key = key(round)
            let result = try lane.call("unlink \(name)", key, allowing: [ENOENT, EISDIR]) {
                Int(unlinkat(folder, name, 0))
            }
            if result == -Int(EISDIR) {
                _ = try lane.call("rmdir \(name)", key) {
                    Int(unlinkat(folder, name, AT_REMOVEDIR))
                }
            }
        }
    }

    func verify() throws(StressFailure) {}
    func close() {}

    private func close(_ file: Int32) { Glibc.close(file) }
}
