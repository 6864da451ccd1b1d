// What a node counts, as `lockstep status --json` tells it.

enum Counters {
    /// The counter of that name of the node that is mounted at `root`.
    static func value(_ name: String, _ root: String) throws -> Int {
        let result = try Commands.run("lockstep", ["status", "--json", root])
        let rest = result.output.split(separator: "\"\(name)\"").dropFirst().first
        let number = rest?.drop { !$0.isNumber }.prefix { $0.isNumber }
        guard result.succeeded, let number, let count = Int(number) else {
            throw Trouble("no \(name) in \(result)")
        }
        return count
    }
}
