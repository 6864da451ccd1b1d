// How long tests wait before they call something hung.

import Glibc

/// Time limits for the machine that the tests run on.
enum Patience {
    /// LOCKSTEP_PATIENCE: by how much all limits are longer. Daemons under a sanitizer take five to
    /// twenty times as long for everything.
    static let factor: Double = {
        let said = getenv("LOCKSTEP_PATIENCE").flatMap { Double(String(cString: $0)) }
        return max(1, said ?? 1)
    }()
}
