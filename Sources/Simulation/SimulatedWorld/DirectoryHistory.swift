// Whether what processes did to the names of a directory, and were told of them, is what a sequence
// of the same operations gives that keeps the order of those that did not overlap
// (linearizability). Renames and listings touch several names: the names cannot be judged one by one.
//
// The search is that of Wing and Gong (Testing and Verifying Concurrent Objects, 1993) with Lowe's
// memory of configurations (Testing for Linearizability, 2017): a configuration is the set of
// operations that have taken effect with the names as they are then. The next to take effect is any
// that began before all of the others ended.
//
//   L1. An operation that has returned has taken effect between its begin and its end, and its answer
//       is what the names gave.
//   L2. One that has not returned may take effect or not. So does one that was under way when a node
//       died, and its answer does not count.
//   L3. After a death nobody knows the names (`restart`) until somebody has been told.
//
// A search that takes too long says so instead of guessing (`Verdict.undecided`).

import FileSystem

/// What a process asks of a directory whose names are numbered.
enum DirectoryCall: Hashable {
    case make(Int)
    /// Opens the file, which is made if nothing is there.
    case open(Int)
    case remove(Int)
    case rename(Int, Int, RenameKind)
    case look(Int)
    case list
}

/// What it is told.
enum DirectoryAnswer: Hashable {
    /// Made: the inode.
    case made(Int)
    /// Removed or renamed; made, and nobody has seen which inode it is.
    case done
    /// The kernel has found one inode under both names, one after the other, and nothing to rename
    /// (Docs/CAVEATS.md).
    case same
    case absent
    case exists
    /// What `look` found or `open` opened.
    case found(Int)
    /// All names, by number, with their inodes; nil for an absent one.
    case names([Int?])
    /// The same, read in several parts: each name as it was at some moment.
    case parts([Int?])
    /// It has not returned, or that does not count.
    case unknown
}

/// What a name is known to lead to.
enum NamedObject: Hashable {
    case absent
    case inode(Int)
    /// To something.
    case anything
    /// It may be absent.
    case unknown

    var mayBeAbsent: Bool { self == .absent || self == .unknown }
    var mayBeThere: Bool { self != .absent }
    func mayBe(_ inode: Int) -> Bool {
        switch self {
        case .absent: false
        case .inode(let known): known == inode
        case .anything, .unknown: true
        }
    }

    /// The same, if something is there.
    var there: NamedObject { self == .unknown ? .anything : self }
}

/// What processes did to one directory.
struct DirectoryHistory {
    private struct Operation {
        let call: DirectoryCall
        var answer = DirectoryAnswer.unknown
        let begin: Int
        var end = Int.max
    }

    /// What the search found.
    enum Verdict: Hashable {
        case possible
        case impossible
        case undecided
    }

    private var operations: [Operation] = []
    private var names: [NamedObject]
    private var numbers = 0
    /// Numbers of operations by their place.
    private var places: [Int: Int] = [:]

    /// Configurations that a search looks at before it gives up.
    static let patience = 100_000

    /// A directory with `count` names, none of which is there.
    init(count: Int) { names = Array(repeating: .absent, count: count) }

    /// Operations since the last `restart`.
    var count: Int { operations.count }

    /// An operation begins; comes back with its number.
    mutating func begin(_ call: DirectoryCall, at moment: Int) -> Int {
        numbers += 1
        places[numbers] = operations.count
        operations.append(Operation(call: call, begin: moment))
        return numbers
    }

    /// It has returned.
    mutating func end(_ number: Int, _ answer: DirectoryAnswer, at moment: Int) {
        guard let place = places[number] else { return }
        operations[place].end = moment
        if case .parts(let names) = answer, operations[place].begin >= 0 {
            let begin = operations[place].begin
            for (name, inode) in names.enumerated() {
                var look = Operation(call: .look(name), begin: begin)
                look.answer = inode.map { .found($0) } ?? .absent
                look.end = moment
                operations.append(look)
            }
            return
        }
        // What was asked before a death may have been answered before it.
        if operations[place].begin >= 0 { operations[place].answer = answer }
    }

    /// It has ended and nobody knows how.
    mutating func abandon(_ number: Int) { places[number] = nil }

    /// A node has died (L3). To be judged before.
    mutating func restart() {
        var left: [Operation] = []
        var kept: [Int: Int] = [:]
        for number in places.keys.sorted() {
            guard let place = places[number], operations[place].end == .max else { continue }
            kept[number] = left.count
            left.append(Operation(call: operations[place].call, begin: -1))
        }
        places = kept
        operations = left
        names = names.map { _ in .unknown }
    }

    /// Whether some sequence explains all that was answered.
    func verdict() -> Verdict {
        // Who only looks and has not been told has changed nothing.
        let relevant = operations.filter { operation in
            switch operation.call {
            case .look, .list: operation.answer != .unknown
            default: true
            }
        }.sorted { $0.begin < $1.begin }
        var search = Search(relevant, names)
        return search.run()
    }

    /// The shortest beginning of the history that no sequence explains: its last operations.
    var story: String {
        var low = 0
        let ends = operations.map(\.end).filter { $0 != .max }.sorted()
        var high = ends.count
        // What ends later cannot explain what was answered before: it may only have taken effect.
        while low < high {
            let middle = (low + high) / 2
            if cut(at: ends[middle]).verdict() == .impossible {
                high = middle
            } else {
                low = middle + 1
            }
        }
        guard low < ends.count else { return "" }
        let shown = operations.filter { $0.begin <= ends[low] }.sorted { $0.begin < $1.begin }
        return shown.suffix(14).map { operation in
            let isKnown = operation.end <= ends[low]
            return
                "\(operation.begin)..\(isKnown ? "\(operation.end)" : "") \(operation.call): \(isKnown ? "\(operation.answer)" : "under way")"
        }.joined(separator: "; ")
    }

    /// The history as it was at a moment.
    private func cut(at moment: Int) -> DirectoryHistory {
        var history = self
        history.operations = operations.filter { $0.begin <= moment }.map { operation in
            var cut = operation
            if cut.end > moment {
                cut.end = .max
                cut.answer = .unknown
            }
            return cut
        }
        return history
    }

    // MARK: The search

    private struct Configuration: Hashable {
        var done: [UInt64]
        var names: [NamedObject]

        func has(_ index: Int) -> Bool { done[index / 64] & (1 << UInt64(index % 64)) != 0 }
    }

    private struct Search {
        let operations: [Operation]
        var seen: Set<Configuration> = []
        var stack: [Configuration]

        init(_ operations: [Operation], _ names: [NamedObject]) {
            self.operations = operations
            let words = (operations.count + 63) / 64
            stack = [Configuration(done: Array(repeating: 0, count: words), names: names)]
        }

        mutating func run() -> Verdict {
            while let next = stack.popLast() {
                guard seen.insert(next).inserted else { continue }
                if seen.count > DirectoryHistory.patience { return .undecided }
                if isOver(next) { return .possible }
                expand(next)
            }
            return .impossible
        }

        /// All that have returned have taken effect.
        private func isOver(_ configuration: Configuration) -> Bool {
            operations.indices.allSatisfy {
                configuration.has($0) || operations[$0].end == .max
            }
        }

        private mutating func expand(_ configuration: Configuration) {
            var candidates: [Int] = []
            var limit = Int.max
            for index in operations.indices where !configuration.has(index) {
                if operations[index].begin > limit { break }
                candidates.append(index)
                limit = min(limit, operations[index].end)
            }
            // The one that ends first is tried first: it is put last on the stack.
            candidates.sort { operations[$0].end > operations[$1].end }
            for index in candidates where operations[index].begin < limit {
                var done = configuration.done
                done[index / 64] |= 1 << UInt64(index % 64)
                let operation = operations[index]
                for names in operation.call.effects(operation.answer, on: configuration.names) {
                    stack.append(Configuration(done: done, names: names))
                }
            }
        }
    }
}

extension DirectoryCall {
    /// What the names may be after the operation has given that answer; none if it cannot.
    func effects(_ answer: DirectoryAnswer, on names: [NamedObject]) -> [[NamedObject]] {
        switch self {
        case .make(let name): return made(name, answer, names)
        case .open(let name): return opened(name, answer, names)
        case .remove(let name):
            let (isThere, isAbsent) = (names[name].mayBeThere, names[name].mayBeAbsent)
            switch answer {
            case .done: return isThere ? [setting(names, [(name, .absent)])] : []
            case .absent: return isAbsent ? [setting(names, [(name, .absent)])] : []
            case .unknown: return [names] + (isThere ? [setting(names, [(name, .absent)])] : [])
            default: return []
            }
        case .rename(let from, let to, let kind): return renamed(from, to, kind, answer, names)
        case .look(let name):
            switch answer {
            case .found(let inode) where names[name].mayBe(inode):
                return [setting(names, [(name, .inode(inode))])]
            case .absent where names[name].mayBeAbsent:
                return [setting(names, [(name, .absent)])]
            default: return []
            }
        case .list:
            guard case .names(let shown) = answer else { return [] }
            var result = names
            for (index, inode) in shown.enumerated() {
                guard inode.map({ names[index].mayBe($0) }) ?? names[index].mayBeAbsent else {
                    return []
                }
                result[index] = inode.map { .inode($0) } ?? .absent
            }
            return [result]
        }
    }

    private func made(
        _ name: Int,
        _ answer: DirectoryAnswer,
        _ names: [NamedObject]
    ) -> [[NamedObject]] {
        switch answer {
        case .made(let inode) where names[name].mayBeAbsent:
            [setting(names, [(name, .inode(inode))])]
        case .done where names[name].mayBeAbsent: [setting(names, [(name, .anything)])]
        case .exists where names[name].mayBeThere: [setting(names, [(name, names[name].there)])]
        case .unknown:
            [names] + (names[name].mayBeAbsent ? [setting(names, [(name, .anything)])] : [])
        default: []
        }
    }

    private func opened(
        _ name: Int,
        _ answer: DirectoryAnswer,
        _ names: [NamedObject]
    ) -> [[NamedObject]] {
        switch answer {
        case .found(let inode):
            // A new one has no name yet.
            let isNew = names[name].mayBeAbsent && !names.contains(.inode(inode))
            return isNew || names[name].mayBe(inode)
                ? [setting(names, [(name, .inode(inode))])] : []
        case .exists, .unknown: return made(name, answer, names)
        default: return []
        }
    }

    private func renamed(
        _ from: Int,
        _ to: Int,
        _ kind: RenameKind,
        _ answer: DirectoryAnswer,
        _ names: [NamedObject]
    ) -> [[NamedObject]] {
        let success: [[NamedObject]]
        if !names[from].mayBeThere {
            success = []
        } else {
            switch kind {
            case .replace: success = [setting(names, [(to, names[from].there), (from, .absent)])]
            case .noReplace:
                success =
                    names[to].mayBeAbsent
                    ? [setting(names, [(to, names[from].there), (from, .absent)])] : []
            case .exchange:
                success =
                    names[to].mayBeThere
                    ? [setting(names, [(to, names[from].there), (from, names[to].there)])] : []
            }
        }
        switch answer {
        case .done: return success
        case .absent:
            var results: [[NamedObject]] = []
            if names[from].mayBeAbsent { results.append(setting(names, [(from, .absent)])) }
            if kind == .exchange, names[to].mayBeAbsent {
                results.append(setting(names, [(to, .absent)]))
            }
            return results
        case .same: return names[to].mayBeThere ? [setting(names, [(to, names[to].there)])] : []
        case .exists where kind == .noReplace && names[to].mayBeThere:
            return [setting(names, [(to, names[to].there)])]
        case .unknown: return [names] + success
        default: return []
        }
    }

    private func setting(
        _ names: [NamedObject],
        _ changes: [(Int, NamedObject)]
    ) -> [NamedObject] {
        var result = names
        for (name, object) in changes { result[name] = object }
        return result
    }
}
