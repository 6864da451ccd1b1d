// Rules about the source itself, which neither the compiler nor the formatter checks.
// RuleSamples.swift shows each rule a sample that breaks it.

import Testing

/// The tree keeps the rules; what does not yet is counted in allowances.txt and may only become
/// less.
@Suite struct SourceRules {
    let tree = SourceTree.shared

    private var allowances: Allowances {
        Allowances(tree.texts.first { $0.path == "Tests/allowances.txt" }?.lines ?? [])
    }

    private func demand(_ rule: Rule, _ findings: [Finding]) {
        let complaints = allowances.complaints(about: findings, of: rule)
        #expect(complaints.isEmpty, "\n\(complaints.joined(separator: "\n"))")
    }

    @Test func theTreeWasFound() {
        #expect(tree.swift.count > 30, "found \(tree.swift.count) Swift files below \(tree.root)")
        #expect(tree.manifest["Vocabulary"]?.grade == .pure)
        #expect(tree.manifest["Engine"] == nil)
        #expect(tree.manifest["FuseServer"]?.uses.contains("CFuse3") == true)
        for target in tree.manifest.targets where target.grade != .system {
            let isThere =
                tree.swift.contains { $0.path.hasPrefix(target.folder + "/") }
                || tree.texts.contains { $0.path.hasPrefix(target.folder + "/") }
            #expect(isThere, "\(target.name) should be in \(target.folder)")
        }
    }

    @Test func targetsUseOnlyWhatIsAboveThem() {
        demand(.layers, LayerRules.check(tree.manifest))
    }

    @Test func filesImportOnlyWhatTheirGradeAllows() {
        demand(.imports, tree.swift.flatMap { LayerRules.checkImports($0, tree.manifest) })
    }

    @Test func nothingBannedIsCalled() {
        let sources = tree.sources([.pure, .closed, .shell, .command, .yardstick])
        demand(.bannedCall, sources.flatMap { TextRules.checkBans($0.file, grade: $0.grade) })
    }

    @Test func filesAndFunctionsAreShort() {
        demand(.fileLength, tree.swift.flatMap(TextRules.checkLength))
        demand(.functionLength, tree.swift.flatMap(TextRules.checkFunctionLength))
    }

    @Test func declarationsAreDocumented() {
        let sources = tree.sources([.pure, .closed, .shell]).map(\.file)
        let requirements = DeclarationRules.requirements(of: sources)
        demand(
            .documentation,
            sources.flatMap {
                DeclarationRules.checkDocumentation($0, requirements: requirements)
            }
        )
    }

    @Test func nothingIteratesInAnOrderThatChanges() {
        let sources = tree.sources([.pure, .closed]).map(\.file)
        demand(.unorderedIteration, sources.flatMap(DeclarationRules.checkUnorderedIteration))
    }

    @Test func closuresThatWaitCaptureWithoutAList() {
        let sources = tree.sources([.pure, .closed, .shell, .command]).map(\.file)
        demand(.captureList, sources.flatMap(ClosureRules.checkCaptureLists))
    }

    @Test func nothingIsLeftUnfinished() {
        let texts = tree.swift.map { ($0.path, $0.lines) } + tree.texts.map { ($0.path, $0.lines) }
        demand(
            .unfinished,
            texts.flatMap { TextRules.checkUnfinished(path: $0.0, lines: $0.1) }
        )
        demand(
            .foreignPath,
            texts.flatMap { TextRules.checkForeignPaths(path: $0.0, lines: $0.1) }
        )
    }

    @Test func linksInDocumentsLeadSomewhere() {
        let dead = tree.texts.filter { $0.path.hasSuffix(".md") }.flatMap { text in
            TextRules.links(in: text.lines, of: text.path).filter { !tree.exists($0) }
                .map { "\(text.path) links to \($0)" }
        }
        #expect(dead.isEmpty, "\n\(dead.joined(separator: "\n"))")
    }

    /// Pure code checks itself: the style asks for 20 assertions per 1000 lines, over all pure
    /// targets.
    @Test func pureCodeAssertsWhatItBelieves() {
        let sources = tree.sources([.pure]).map(\.file)
        let lines = sources.reduce(0) { $0 + $1.lines.count }
        let words = ["precondition", "preconditionFailure", "assert", "assertionFailure", "check"]
        let assertions = sources.reduce(0) { sum, file in
            sum + words.reduce(0) { $0 + file.matches(of: [$1, "("]).count }
        }
        let density = lines == 0 ? 0 : assertions * 1000 / lines
        #expect(density >= 4, "\(assertions) assertions in \(lines) lines of pure code")
    }
}
