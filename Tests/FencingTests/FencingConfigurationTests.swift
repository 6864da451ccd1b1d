import Fencing
import Testing

@Suite struct FencingConfigurationTests {
    @Test func aFileIsRead() throws {
        let text = """
            # who fences whom
            defaults timeout=30 attempts=3

            host alpha
              level 2 fence_apc ip=10.0.0.20 plug=3
              level 1 fence_ipmilan ip=10.0.0.11 \\
                  username="the \\"root\\" user" password-file=/etc/lockstep/alpha timeout=5   # quick
              level 2 fence_apc ip=10.0.0.21 plug=3 attempts=9 verify=no
            host beta
            \tlevel 7 /opt/agent action=reboot key==x
            """
        let configuration = try FencingConfiguration(text: text)
        #expect(configuration.plans.map(\.host) == ["alpha", "beta"])
        let alpha = try #require(configuration.plan(for: "alpha"))
        #expect(alpha.levels.map(\.number) == [1, 2])
        let first = alpha.levels[0].devices[0]
        #expect(first.agent == "fence_ipmilan")
        #expect(
            first.parameters == [
                FenceParameter(key: "ip", value: "10.0.0.11"),
                FenceParameter(key: "username", value: "the \"root\" user"),
            ]
        )
        #expect(first.passwordFile == "/etc/lockstep/alpha")
        #expect(first.timeout == 5 && first.attempts == 3 && first.isVerified)
        #expect(alpha.levels[1].devices.map(\.attempts) == [3, 9])
        #expect(alpha.levels[1].devices.map(\.isVerified) == [true, false])
        let beta = try #require(configuration.plan(for: "beta")?.levels[0].devices[0])
        #expect(beta.action == .reboot && beta.timeout == 30)
        #expect(beta.parameters == [FenceParameter(key: "key", value: "=x")])
        #expect(configuration.plan(for: "gamma") == nil)
        #expect(try FencingConfiguration(text: "").plans.isEmpty)
    }

    @Test(arguments: [
        ("host", "line 1: 'host' needs one name, as corosync has it"),
        ("hosts alpha", "line 1: 'hosts' is none of 'defaults', 'host' and 'level'"),
        ("host a\nhost b", "line 1: host a has no level: it could never be fenced"),
        ("\nhost a", "line 2: host a has no level: it could never be fenced"),
        ("host a\nlevel 1 x\nhost a", "line 3: host a was named before"),
        ("level 1 x", "line 1: a level before the first host"),
        ("host a\nlevel 1", "line 2: 'level' needs a number and an agent"),
        ("host a\nlevel 0 x", "line 2: level is a number from 1 to 100, not '0'"),
        ("host a\nlevel one x", "line 2: level is a number from 1 to 100, not 'one'"),
        ("host a\nlevel 1 ip=4", "line 2: 'ip=4' stands where the agent should"),
        ("host a\nlevel 1 x ip", "line 2: 'ip' should be KEY=VALUE"),
        ("host a\nlevel 1 x =4", "line 2: '=4' should be KEY=VALUE"),
        ("host a\nlevel 1 x ip=1 ip=2", "line 2: 'ip' is given twice"),
        ("host a\nlevel 1 x action=on", "line 2: action is 'off' or 'reboot', not 'on'"),
        ("host a\nlevel 1 x verify=maybe", "line 2: verify is 'yes' or 'no', not 'maybe'"),
        ("host a\nlevel 1 x timeout=0", "line 2: timeout is a number from 1 to 3600, not '0'"),
        (
            "host a\nlevel 1 \\\nx attempts=-1",
            "line 2: attempts is a number from 1 to 100, not '-1'"
        ),
        ("host a\nlevel 1 x k=\"v", "line 2: a quotation mark is not closed"),
        ("defaults verify=no", "line 1: 'defaults' knows timeout and attempts, not 'verify'"),
        (
            "host a\nlevel 1 x\ndefaults timeout=3",
            "line 3: 'defaults' must stand before the first host"
        ),
    ])
    func whatCannotBeUsedIsSaid(text: String, complaint: String) {
        let error = #expect(throws: FencingConfigurationError.self) {
            try FencingConfiguration(text: text)
        }
        #expect(error?.description == complaint)
    }
}
