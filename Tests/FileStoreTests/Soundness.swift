import Testing
import VolumeChecking

extension TestVolume {
    /// Expects the checker to find nothing. Everything is home: after `remount`.
    func expectSound(sourceLocation: SourceLocation = #_sourceLocation) async throws {
        let report = try await VolumeChecker.check(device)
        for finding in report.findings.prefix(5) {
            Issue.record("\(finding.text)", sourceLocation: sourceLocation)
        }
        #expect(report.findingCount == 0, sourceLocation: sourceLocation)
    }
}
