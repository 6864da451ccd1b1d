// umount.lockstep: unmounts a volume and waits until its node is gone.

import Glibc
import LinuxSystem

/// Exit codes as umount(8) has them.
enum ExitCode {
    static let success: Int32 = 0
    static let usage: Int32 = 1
    static let system: Int32 = 2
    static let notUnmounted: Int32 = 32
}

let words = CommandLine.arguments.dropFirst()
if words.contains("--help") || words.contains("-h") {
    print(Arguments.usage)
    exit(ExitCode.success)
}
let console = LineLog(name: "umount.lockstep")
do {
    exit(run(try Arguments(Array(words)), console))
} catch {
    console.error("\(error); see umount.lockstep --help")
    exit(ExitCode.usage)
}
