// mkfs.lockstep: from arguments to a made volume. The order is the order in which a mistake is
// cheapest: arguments, plan, then the device is looked at, and only then is anything written.

import ArgumentParser
import BlockIO
import CLinux
import DiskFormat
import Glibc
import HostCluster
import LinuxBlockIO
import LinuxSystem
import Vocabulary
import VolumeMaking

/// Runs the command; returns the exit code.
func runMkfs(_ words: [String]) async -> Int32 {
    let arguments: Arguments
    do {
        var parsed = try Arguments.parseAsRoot(words)
        guard let asked = parsed as? Arguments else {
            try parsed.run()  // --help
            return ExitCode.success
        }
        arguments = asked
    } catch {
        if Arguments.exitCode(for: error) == .success {
            print(Arguments.fullMessage(for: error))
            return ExitCode.success
        }
        complain("\(Arguments.message(for: error)); see mkfs.lockstep --help")
        return ExitCode.usage
    }
    do {
        try await make(arguments)
        return ExitCode.success
    } catch let error as UsageError {
        complain(error.text)
        return ExitCode.usage
    } catch let error as CommandFailure {
        complain(error.text)
    } catch {
        complain("\(arguments.device): \(error)")
    }
    return ExitCode.failure
}

/// As it is, at once; nothing can be done if nobody listens.
private func writeToStandardError(_ text: String) {
    var text = text
    text.withUTF8 { bytes in
        _ = Glibc.write(STDERR_FILENO, bytes.baseAddress, bytes.count)
    }
}

private func complain(_ text: String) {
    let line = "mkfs.lockstep: " + text.split(separator: "\n").joined(separator: " ") + "\n"
    writeToStandardError(line)
}

private func make(_ arguments: Arguments) async throws {
    let path = arguments.device
    let wantedSize = try arguments.wantedSize()
    let uuid = try arguments.wantedUUID() ?? randomUUID()
    let target = try Target(path: path)
    var options = VolumeOptions(deviceSize: 0, volume: uuid, created: now())
    (options.clusterName, options.volumeName) = try arguments.names(uuid: uuid)
    options.label = arguments.label
    options.journalCount = arguments.journals
    options.blockSize = arguments.blockSize
    options.hasFileFlags = true
    try arguments.apply(to: &options)
    if let mebibytes = arguments.journalMebibytes {
        let (bytes, overflows) = mebibytes.multipliedReportingOverflow(by: 1 << 20)
        options.journalSize = overflows ? .max : bytes
    }
    options.user = getuid()
    options.group = getgid()

    if let wantedSize {
        // Before the file is made: a plan that cannot be leaves nothing behind.
        options.deviceSize = wantedSize
        _ = try plan(options, path)
    } else if case .missing = target {
        throw CommandFailure(
            text: "\(path): does not exist; create an image file with -s SIZE, or name a device"
        )
    }
    if case .missing = target {
    } else if let use = deviceUse(path) {
        throw CommandFailure(text: "\(path): \(use)")
    }
    let isNew =
        try wantedSize.map { size throws(CommandFailure) in
            try makeImage(path, size: size, target: target)
        } ?? false
    do {
        try await write(arguments, options)
    } catch {
        if isNew { unlink(path) }
        throw error
    }
}

private func plan(_ options: VolumeOptions, _ path: String) throws(CommandFailure) -> VolumePlan {
    do throws(PlanError) {
        return try VolumePlan(options)
    } catch {
        throw CommandFailure(text: "\(path): \(error)")
    }
}

private func write(_ arguments: Arguments, _ options: VolumeOptions) async throws {
    let path = arguments.device
    var opening = FileBlockDevice.Options()
    opening.exclusive = true
    let device = try FileBlockDevice(path: path, options: opening)
    defer { device.close() }
    var options = options
    options.deviceSize = device.byteCount
    let plan = try plan(options, path)

    let content = try Content(of: device)
    if let summary = content.summary, !arguments.force {
        throw CommandFailure(
            text: "\(path): holds \(summary); use -f to destroy that and format anyway"
        )
    }
    if content.superblock?.volume == options.volume {
        // M3 of VolumeMaker: old logs and blocks could be taken for the new volume's.
        throw CommandFailure(
            text: "\(path): holds a volume with UUID \(options.volume) already; choose another (-U)"
        )
    }
    let claim = try content.superblock.map { superblock in
        try claimVolume(superblock, on: device)
    }
    defer { claim?.release() }
    let showsProgress = !arguments.quiet && isatty(STDERR_FILENO) == 1
    do throws(DeviceError) {
        try await VolumeMaker.make(on: device, plan: plan) { progress in
            guard showsProgress else { return }
            writeToStandardError(
                "\rwriting group \(progress.groupsWritten) of \(progress.groupCount)"
            )
        }
    } catch {
        if showsProgress { writeToStandardError("\n") }
        throw CommandFailure(
            text: "\(path): \(error); there is no volume on it now, repair or replace the device "
                + "and try again"
        )
    }
    if showsProgress { writeToStandardError("\n") }
    if arguments.json {
        print(json(plan, path).text)
    } else if !arguments.quiet {
        describe(plan, path)
    }
}

/// Makes sure that nobody has the old volume mounted, here or elsewhere; as long as the claim is
/// held, nobody of this host can.
private func claimVolume(_ superblock: Superblock, on device: FileBlockDevice) throws
    -> OfflineClaim
{
    do {
        let claim = try OfflineClaim(
            superblock.volume,
            in: nil,
            patience: 5_000_000_000
        )
        try VolumeGuard.ensureNobody(
            on: device,
            superblock,
            runDirectory: nil,
            force: true,
            host: HostIdentity()
        )
        return claim
    } catch is FormatError {
        throw CommandFailure(
            text:
                "\(device.path): the guard of the volume on it is damaged, so nobody can tell whether "
                + "it is mounted elsewhere; if it is not, wipe its first 128 KiB and try again"
        )
    } catch {
        throw CommandFailure(text: "\(device.path): \(error); unmount it first")
    }
}

private func describe(_ plan: VolumePlan, _ path: String) {
    let superblock = plan.superblock
    let size = superblock.byteOffset(BlockAddress(superblock.blockCount))
    let journal = plan.slots.first.map { UInt64($0.journalLength) * UInt64(superblock.blockSize) }
    print(
        """
        \(path): \(superblock.clusterName):\(superblock.volumeName), UUID \(superblock.volume)
        \(size) bytes in \(superblock.blockCount) blocks of \(superblock.blockSize), \
        \(superblock.groupCount) groups
        \(superblock.slotCount) journals of \((journal ?? 0) >> 20) MiB: as many nodes can mount it at once
        """
    )
}

private func json(_ plan: VolumePlan, _ path: String) -> JSONText {
    let superblock = plan.superblock
    return .object([
        .init("device", .string(path)),
        .init("uuid", .string(superblock.volume.description)),
        .init("cluster", .string(superblock.clusterName)),
        .init("name", .string(superblock.volumeName)),
        .init("label", .string(superblock.label)),
        .init("block_size", .number(UInt64(superblock.blockSize))),
        .init("blocks", .number(superblock.blockCount)),
        .init("groups", .number(UInt64(superblock.groupCount))),
        .init("blocks_per_group", .number(UInt64(superblock.blocksPerGroup))),
        .init("journals", .number(UInt64(superblock.slotCount))),
        .init("journal_blocks", .number(UInt64(plan.slots.first?.journalLength ?? 0))),
        .init("quotas", .boolean(superblock.features.hasQuotas)),
        .init("root_inode", .number(superblock.root.address.rawValue)),
    ])
}

/// A random UUID of version 4 (RFC 9562).
private func randomUUID() throws(CommandFailure) -> VolumeID {
    var words: (UInt64, UInt64) = (0, 0)
    let count = withUnsafeMutableBytes(of: &words) { getrandom($0.baseAddress, $0.count, 0) }
    guard count == 16 else {
        throw CommandFailure(text: "getrandom: \(errnoText(errno)); give a UUID with -U")
    }
    return VolumeID(
        high: words.0 & ~0xF000 | 0x4000,
        low: words.1 & ~(0b11 << 62) | 0b10 << 62
    )
}

private func now() -> Timestamp {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return Timestamp(seconds: Int64(time.tv_sec), nanoseconds: UInt32(time.tv_nsec))
}
