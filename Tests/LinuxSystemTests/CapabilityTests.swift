// What /proc says of other processes' capabilities.

import Glibc
import LinuxSystem
import Testing

@Suite struct CapabilityTests {
    @Test func theSetIsReadFromTheText() {
        let status = "Name:\tx\nCapInh:\t0000000000000000\nCapEff:\t0000000000000208\nSeccomp:\t0\n"
        #expect(effectiveCapabilities(status) == 0x208)
        #expect(effectiveCapabilities("Name:\tx\n") == nil)
        #expect(effectiveCapabilities("CapEff:\t0xyz\n") == nil)
    }

    @Test func nobodyHasNone() {
        #expect(!hasCapability(.immutable, thread: 0))
        #expect(!hasCapability(.immutable, thread: -1))
        // The largest number a process can have is smaller.
        #expect(!hasCapability(.immutable, thread: .max))
    }

    @Test(.enabled(if: geteuid() == 0)) func rootHasThem() {
        #expect(hasCapability(.fileOwner, thread: getpid()))
    }
}
