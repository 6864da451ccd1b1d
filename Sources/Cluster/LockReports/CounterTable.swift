// Counters of all nodes side by side, and their rates between two looks.

package import Vocabulary

/// What the nodes count.
package struct CounterTable: Hashable, Sendable {
    /// Who answered, ascending.
    package var nodes: [NodeReport]
    package var silent: [NodeID]

    package init(_ nodes: [NodeReport], silent: [NodeID]) {
        self.nodes = nodes.sorted { $0.node < $1.node }
        self.silent = silent
    }

    /// What a daemon answered; nil if it is not understood.
    package init?(_ json: JSONText) {
        guard json["nodes"] != nil else { return nil }
        var found: [NodeReport] = []
        for text in json["nodes"]?.elements ?? [] {
            guard let report = NodeReport(text) else { return nil }
            found.append(report)
        }
        let silent = json["silent"]?.elements.compactMap(\.number) ?? []
        self.init(found, silent: silent.map { NodeID(UInt32(clamping: $0)) })
    }

    /// As JSON.
    package var json: JSONText {
        .object([
            .init("nodes", .array(nodes.map(\.json))),
            .init("silent", .array(silent.map { .count($0.rawValue) })),
        ])
    }

    /// All names, in the order of the first node that has them.
    private var names: [String] {
        var names: [String] = []
        for node in nodes {
            for counter in node.counters where !names.contains(counter.name) {
                names.append(counter.name)
            }
        }
        return names
    }

    private static func count(_ name: String, _ node: NodeReport?) -> UInt64? {
        node?.counters.first { $0.name == name }?.count
    }

    /// Counts since each node began; what is zero everywhere is left out.
    package var table: String {
        text { name, node in Self.count(name, node).map { ($0 > 0, "\($0)") } }
    }

    /// Rates per second since an earlier look, each by its node's own clock. A node that was not
    /// there then, or began anew, has none.
    package func rates(since earlier: CounterTable) -> String {
        text { name, node in
            tenths(name, node, earlier).map { ($0 > 0, "\($0 / 10).\($0 % 10)") }
        }
    }

    /// The same as JSON: per node the counts, and how many thousandths per second they grew.
    package func json(since earlier: CounterTable) -> JSONText {
        .object([
            .init(
                "nodes",
                .array(
                    nodes.map { node in
                        var members: [JSONText.Member] = [
                            .init("node", .count(node.node.rawValue)),
                            .init("nodeName", .string(node.name)),
                        ]
                        var growth: [JSONText.Member] = []
                        for name in names {
                            growth.append(
                                name,
                                perSecond(name, node, earlier, 1_000_000).map { .number($0) }
                            )
                        }
                        members.append("perThousandSeconds", .object(growth))
                        return .object(members)
                    }
                )
            ),
            .init("silent", .array(silent.map { .count($0.rawValue) })),
        ])
    }

    private func tenths(_ name: String, _ node: NodeReport, _ earlier: CounterTable) -> UInt64? {
        perSecond(name, node, earlier, 10_000)
    }

    /// Growth by the second, times `factor` / 1000.
    private func perSecond(
        _ name: String,
        _ node: NodeReport,
        _ earlier: CounterTable,
        _ factor: UInt64
    ) -> UInt64? {
        let before = earlier.nodes.first { $0.node == node.node }
        guard let before, let now = Self.count(name, node), let old = Self.count(name, before),
            now >= old, node.time > before.time
        else { return nil }
        return (now - old) &* factor / (node.time - before.time)
    }

    private func text(_ cell: (String, NodeReport) -> (isShown: Bool, text: String)?) -> String {
        var rows = [["COUNTER"] + nodes.map(\.label) + [""]]
        for name in names {
            let cells = nodes.map { cell(name, $0) }
            if cells.contains(where: { $0?.isShown == true }) {
                rows.append([name] + cells.map { $0?.text ?? "-" } + [""])
            }
        }
        var lines = Words.table(rows)
        if rows.count == 1 { lines.append("(nothing)") }
        for node in silent { lines.append("\(node) is silent: it did not answer in time") }
        return lines.map { $0 + "\n" }.joined()
    }
}
