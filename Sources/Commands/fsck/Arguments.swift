// fsck.lockstep: what the user may say, and what the answer is. The exit codes are e2fsck's, which
// fsck(8) and boot scripts know.

import ArgumentParser
import VolumeChecking

/// What a run of fsck ends with.
enum ExitCode {
    /// Nothing is wrong (journals may have been replayed).
    static let clean: Int32 = 0
    /// Something was wrong and has been repaired.
    static let corrected: Int32 = 1
    /// Something is wrong and was left as it is.
    static let uncorrected: Int32 = 4
    /// There was nothing to check, or it could not be checked: no volume, in use, the device
    /// failed.
    static let operational: Int32 = 8
    static let usage: Int32 = 16
}

struct Arguments: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fsck.lockstep",
        abstract: "Check and repair a Lockstep file system that nobody has mounted.",
        discussion: """
            Without -n the journals of nodes that did not leave in order are replayed first, as the next \
            mount would do. With -n nothing is written; the volume is judged as if they had been replayed. \
            Without -n, -p and -y damage is named and left.
            Files that nothing leads to come into the directory lost+found of the root. Copy a damaged \
            device before you repair it with -y: what a repair removes is gone.
            Exit codes: 0 clean, 1 damage was repaired, 4 damage was found and left, 8 the check could \
            not be done (no volume, mounted, device failed), 16 wrong usage.
            """
    )

    @Flag(name: .customShort("n"), help: "Write nothing.")
    var readOnly = false

    @Flag(
        name: .customShort("p"),
        help: """
            Repair what needs no question (counts, marks of blocks, copies of the superblock); for boot \
            scripts.
            """
    )
    var preen = false

    @Flag(name: .customShort("y"), help: "Repair everything that is found.")
    var yes = false

    @Flag(
        name: .customShort("f"),
        help: """
            Go on although another host had the volume mounted and did not unmount it: only if that host \
            cannot come back.
            """
    )
    var force = false

    @Flag(name: .customLong("json"), help: "Print the result as one line of JSON.")
    var json = false

    @Flag(name: .customShort("C"), help: "Show progress.")
    var progress = false

    @Argument(help: ArgumentHelp("Block device or image file.", valueName: "DEVICE"))
    var device: String

    /// What may be repaired; nil for nothing.
    var repairMode: RepairMode? {
        if preen { return .preen }
        return yes ? .everything : nil
    }

    func validate() throws {
        guard [readOnly, preen, yes].count(where: { $0 }) <= 1 else {
            throw ValidationError("only one of -n, -p and -y can be given")
        }
    }
}
