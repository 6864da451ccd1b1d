import StressJudging
import Testing

/// What may be seen after what was claimed: histories with a fault in them, and the same without.
@Suite struct ClaimTests {
    private let key = StressKey(.registers, 1, 7)

    private func claims() -> StressClaims { StressClaims(agents: 3) }

    @Test func aReadMustNotBeOlderThanACompletedWrite() {
        var claims = claims()
        claims.note(key, 5, by: 0, isFirm: false, epoch: 0)
        let floor = claims.floor(key)
        #expect(floor.value == 5)
        #expect(floor.judge(5) == .sound)
        #expect(floor.judge(6) == .sound)
        #expect(floor.judge(4) == .staleUnless(lost: [0]))
        #expect(claims.floor(StressKey(.registers, 1, 8)).value == 0)
    }

    @Test func aReadMustNotBeOlderThanWhatAnotherHasSeen() {
        var claims = claims()
        claims.note(key, 5, by: 0, isFirm: false, epoch: 0)
        claims.note(key, 6, by: 1, isFirm: true, epoch: 0)
        #expect(claims.floor(key).judge(5) == .stale)
        #expect(claims.floor(key).judge(6) == .sound)
    }

    @Test func aLossLowersTheFloorToWhatIsFirm() {
        var claims = claims()
        claims.note(key, 3, by: 0, isFirm: true, epoch: 0)
        claims.note(key, 5, by: 0, isFirm: false, epoch: 0)
        let before = claims.floor(key)
        claims.lose(0, epoch: 1)
        #expect(claims.floor(key).value == 3)
        #expect(claims.floor(key).judge(3) == .sound)
        #expect(claims.floor(key).judge(2) == .stale)
        // Who had noted the floor before must ask.
        #expect(before.judge(4) == .staleUnless(lost: [0]))
        #expect(before.judge(2) == .stale)
        // What is said of the former life comes too late; of the new one not.
        claims.note(key, 6, by: 0, isFirm: false, epoch: 0)
        #expect(claims.floor(key).value == 3)
        claims.note(key, 7, by: 0, isFirm: false, epoch: 1)
        #expect(claims.floor(key).value == 7)
        // What an agent that lost nothing has written stays.
        claims.note(key, 9, by: 2, isFirm: false, epoch: 0)
        claims.lose(0, epoch: 2)
        #expect(claims.floor(key).value == 9)
        #expect(claims.ceiling(key) == 9)
    }

    @Test func claimsOfStrangersAreNotNoted() {
        var claims = claims()
        let isNews = claims.note(key, 5, by: 3, isFirm: true, epoch: 0)
        #expect(!isNews)
        claims.lose(7, epoch: 1)
        #expect(claims.floor(key).value == 0)
    }

    @Test func existenceIsJudgedByTheTurnsOfVersions() {
        var claims = claims()
        // Version 3 exists and is complete; nothing else was announced.
        claims.note(key, 3, by: 0, isFirm: false, epoch: 0)
        let floor = claims.floor(key)
        #expect(floor.judge(exists: true, ceiling: 3) == (.sound, 3))
        #expect(floor.judge(exists: false, ceiling: 3) == (.staleUnless(lost: [0]), 0))
        // Version 4, its removal, was announced meanwhile: both are right.
        #expect(floor.judge(exists: false, ceiling: 4) == (.sound, 4))
        #expect(floor.judge(exists: true, ceiling: 4) == (.sound, 3))
        // Firm: no loss excuses its absence.
        claims.note(key, 3, by: 1, isFirm: true, epoch: 0)
        #expect(claims.floor(key).judge(exists: false, ceiling: 3) == (.stale, 4))
        #expect(claims.floor(key).verdictOnOlder == .stale)
        #expect(floor.verdictOnOlder == .staleUnless(lost: [0]))
    }
}

private func == (
    left: (verdict: StressVerdict, version: UInt64),
    right: (StressVerdict, UInt64)
) -> Bool {
    left.verdict == right.0 && left.version == right.1
}
