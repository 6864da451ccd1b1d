// mount.lockstep: mounts a volume. The program appears in three roles: the command that people and
// mount(8) call, which starts the daemon and waits until the mount answers; the daemon itself; and
// the guardian that outlives a killed daemon.

import Glibc
import HostCluster
import LinuxSystem

/// Exit codes as mount(8) has them.
enum ExitCode {
    static let success: Int32 = 0
    static let usage: Int32 = 1
    static let system: Int32 = 2
    static let mountFailed: Int32 = 32
}

let programName = "mount.lockstep"
var words = CommandLine.arguments
if words.count > 1, words[1] == Guardian.argument {
    exit(runGuardian(log: LineLog(name: programName, destinations: [.standardError, .systemLog])))
}
if words.contains("--help") || words.contains("-h") {
    print(MountArguments.usage)
    exit(ExitCode.success)
}
if words.contains("--version") || words.contains("-V") {
    print("mount.lockstep, format version 1")
    exit(ExitCode.success)
}
let console = LineLog(name: programName)
do {
    let arguments = try MountArguments(Array(words.dropFirst()))
    if arguments.isRemount { exit(remount(arguments, console)) }
    if !arguments.isForeground {
        for remark in arguments.remarks { console.warning(remark) }
    }
    exit(
        arguments.isForeground
            ? runDaemon(arguments) : startDaemon(words, arguments, console)
    )
} catch {
    console.error("\(error); see mount.lockstep --help")
    exit(ExitCode.usage)
}
