// mkfs.lockstep: what the user may say.

import ArgumentParser
import DiskFormat
import VolumeMaking

/// What a run of mkfs ends with.
enum ExitCode {
    static let success: Int32 = 0
    static let failure: Int32 = 1
    static let usage: Int32 = 16
}

struct Arguments: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mkfs.lockstep",
        abstract: "Make a Lockstep file system on a device or in an image file.",
        discussion: """
            Every node that mounts the volume at the same time needs a journal of its own: -j says how \
            many can. A device that holds something else is refused unless -f is given; a volume that is \
            mounted on this host is always refused.

            Exit codes: 0 made, 1 failed (one line says what, on what and what to do), 16 wrong usage.
            """
    )

    @Option(
        name: .customShort("t", allowingJoined: true),
        help: ArgumentHelp(
            "Cluster and volume name; 31 bytes each. (default: local:, then the UUID's first digits)",
            valueName: "CLUSTER:NAME"
        )
    )
    var table: String?

    @Option(
        name: .customShort("j", allowingJoined: true),
        help: ArgumentHelp(
            "Journals: how many nodes can mount at once, 1 to 64.",
            valueName: "JOURNALS"
        )
    )
    var journals: UInt32 = 4

    @Option(
        name: .customShort("J", allowingJoined: true),
        help: ArgumentHelp(
            "Size of each journal. (default: by the volume's size, 8 to 64; less on tiny ones)",
            valueName: "MiB"
        )
    )
    var journalMebibytes: UInt64?

    @Option(
        name: .customShort("b", allowingJoined: true),
        help: ArgumentHelp("Block size: 4096 to 65536.", valueName: "BYTES")
    )
    var blockSize: UInt32 = 4096

    @Option(
        name: .customShort("L", allowingJoined: true),
        help: ArgumentHelp("Label, up to 63 bytes.", valueName: "LABEL")
    )
    var label: String = ""

    @Option(
        name: .customShort("U", allowingJoined: true),
        help: ArgumentHelp(
            "UUID; must be new to the device. (default: random)",
            valueName: "UUID"
        )
    )
    var uuid: String?

    @Option(
        name: .customShort("s", allowingJoined: true),
        help: ArgumentHelp(
            "Create an image file of this size, or extend one to it; suffixes K, M, G, T.",
            valueName: "SIZE"
        )
    )
    var size: String?

    @Option(
        name: .customShort("O", allowingJoined: true),
        help: ArgumentHelp(
            """
            Feature that not every volume has: quota counts what each user and group uses, and can limit it \
            (lockstep quota); quota=COUNT has room for so many users and groups. (default: none; quota: by the \
            volume's size)
            """,
            valueName: "FEATURE"
        )
    )
    var features: [String] = []

    @Flag(name: .customShort("f"), help: "Format even if the device holds something.")
    var force = false

    @Flag(name: .customShort("q"), help: "Say nothing but errors.")
    var quiet = false

    @Flag(name: .customLong("json"), help: "Print the result as one line of JSON.")
    var json = false

    @Argument(help: ArgumentHelp("Block device or image file.", valueName: "DEVICE"))
    var device: String
}

/// A request that makes no sense: one line, exit code 16.
struct UsageError: Error {
    var text: String
}

extension Arguments {
    /// The size that `-s` asks for, in bytes.
    func wantedSize() throws(UsageError) -> UInt64? {
        guard let size else { return nil }
        let factors: [Character: UInt64] = [
            "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "k": 1 << 10, "m": 1 << 20,
            "g": 1 << 30, "t": 1 << 40,
        ]
        let factor = size.last.flatMap { factors[$0] }
        let digits = factor == nil ? size[...] : size.dropLast()
        guard digits.utf8.allSatisfy({ (48...57).contains($0) }), let number = UInt64(digits) else {
            throw UsageError(
                text: "-s \(size): not a size; give a number with K, M, G or T behind it"
            )
        }
        let (bytes, overflows) = number.multipliedReportingOverflow(by: factor ?? 1)
        guard !overflows, bytes > 0, bytes <= UInt64(Int64.max) else {
            throw UsageError(text: "-s \(size): not a possible size")
        }
        return bytes
    }

    /// The features that `-O` gives.
    func apply(to options: inout VolumeOptions) throws(UsageError) {
        for feature in features.flatMap({ $0.split(separator: ",") }) {
            let parts = feature.split(separator: "=", maxSplits: 1)
            guard parts.first == "quota" else {
                throw UsageError(text: "-O \(feature): no such feature; there is quota")
            }
            options.hasQuotas = true
            guard parts.count > 1 else { continue }
            guard let count = UInt32(parts[1]) else {
                throw UsageError(text: "-O \(feature): not a number of users and groups")
            }
            options.quotaPrincipals = count
        }
    }

    /// The names that `-t` gives.
    func names(uuid: VolumeID) throws(UsageError) -> (cluster: String, volume: String) {
        guard let table else {
            return ("local", String(uuid.description.prefix(8)))
        }
        let parts = table.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, !parts[0].isEmpty, !parts[1].isEmpty else {
            throw UsageError(text: "-t \(table): give CLUSTER:NAME, as in lab:data")
        }
        return (String(parts[0]), String(parts[1]))
    }

    /// The UUID that `-U` gives, or nil.
    func wantedUUID() throws(UsageError) -> VolumeID? {
        guard let uuid else { return nil }
        guard let volume = VolumeID(uuid) else {
            throw UsageError(
                text: "-U \(uuid): not a UUID; give 8-4-4-4-12 hexadecimal digits"
            )
        }
        guard volume != VolumeID(high: 0, low: 0) else {
            throw UsageError(text: "-U \(uuid): the zero UUID belongs to nobody; give another")
        }
        return volume
    }
}
