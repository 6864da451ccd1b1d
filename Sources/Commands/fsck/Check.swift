// fsck.lockstep: from arguments to an exit code. Nothing is written before it is certain that the
// volume is one of ours and that nobody has it mounted.

import ArgumentParser
import BlockIO
import CLinux
import DiskFormat
import Glibc
import HostCluster
import LinuxBlockIO
import LinuxSystem
import Vocabulary
import VolumeChecking

/// A check that could not be done: one line, exit code 8.
private struct CommandFailure: Error {
    var text: String
}

/// Runs the command; returns the exit code.
func runFsck(_ words: [String]) async -> Int32 {
    let arguments: Arguments
    do {
        var parsed = try Arguments.parseAsRoot(words)
        guard let asked = parsed as? Arguments else {
            try parsed.run()  // --help
            return ExitCode.clean
        }
        arguments = asked
    } catch {
        if Arguments.exitCode(for: error) == .success {
            print(Arguments.fullMessage(for: error))
            return ExitCode.clean
        }
        complain("\(Arguments.message(for: error)); see fsck.lockstep --help")
        return ExitCode.usage
    }
    do {
        return try await check(arguments)
    } catch let error as CommandFailure {
        complain(error.text)
    } catch let error as DeviceOpenError {
        complain("\(error)")
    } catch {
        complain("\(arguments.device): \(error)")
    }
    return ExitCode.operational
}

/// As it is, at once; nothing can be done if nobody listens.
func writeToStandardError(_ text: String) {
    var text = text
    text.withUTF8 { bytes in
        _ = Glibc.write(STDERR_FILENO, bytes.baseAddress, bytes.count)
    }
}

func complain(_ text: String) {
    writeToStandardError(
        "fsck.lockstep: " + text.split(separator: "\n").joined(separator: " ") + "\n"
    )
}

private func check(_ arguments: Arguments) async throws -> Int32 {
    let path = arguments.device
    if let use = deviceUse(path) { throw CommandFailure(text: "\(path): \(use)") }
    var opening = FileBlockDevice.Options()
    opening.readOnly = arguments.readOnly
    opening.exclusive = true
    let device = try FileBlockDevice(path: path, options: opening)
    defer { device.close() }
    let superblock: Superblock
    do throws(CheckError) {
        superblock = try await VolumeChecker.superblock(of: device)
    } catch {
        throw CommandFailure(text: "\(path): \(explain(error))")
    }
    let claim = try claimVolume(superblock, on: device, arguments)
    defer { claim?.release() }

    let progress: (CheckProgress) -> Void = { if arguments.progress { show($0) } }
    do throws(CheckError) {
        guard let mode = arguments.repairMode else {
            var options = CheckOptions()
            options.journals = arguments.readOnly ? .overlay : .replay
            let report = try await VolumeChecker.check(device, options: options, progress: progress)
            return tell(report, path, arguments)
        }
        var options = RepairOptions()
        options.mode = mode
        options.now = now()
        let report = try await VolumeRepair.repair(device, options: options, progress: progress)
        return tell(report, path, arguments)
    } catch {
        throw CommandFailure(text: "\(path): \(explain(error))")
    }
}

private func now() -> Timestamp {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return Timestamp(seconds: Int64(time.tv_sec), nanoseconds: UInt32(time.tv_nsec))
}

/// What went wrong and what to do.
private func explain(_ error: CheckError) -> String {
    switch error {
    case .format(.notMetadata):
        "is no Lockstep volume; name the right device, or make one with mkfs.lockstep"
    case .format(.truncated):
        "\(error); use the whole image, or give the device its size back"
    case .device: "\(error); repair or replace the device"
    case .format(.unsupportedVersion), .format(.unsupportedFeatures), .format(.readOnlyFeatures):
        "\(error); use a newer fsck.lockstep"
    default: "\(error)"
    }
}

/// Makes sure that nobody has the volume mounted, here or elsewhere; waits up to five seconds for a
/// mount that is just leaving. As long as the claim is held nobody of this host can mount.
private func claimVolume(
    _ superblock: Superblock,
    on device: FileBlockDevice,
    _ arguments: Arguments
) throws -> OfflineClaim? {
    let path = device.path
    let claim: OfflineClaim
    do {
        claim = try OfflineClaim(superblock.volume, in: nil, patience: 5_000_000_000)
    } catch let error as HostClusterError {
        throw CommandFailure(text: "\(path): \(error)")
    }
    do {
        // Who writes nothing does no harm to a host that may come back; only one that is there is
        // waited out.
        try VolumeGuard.ensureNobody(
            on: device,
            superblock,
            runDirectory: nil,
            force: arguments.force || arguments.readOnly,
            host: HostIdentity()
        )
        return claim
    } catch GuardRefusal.leftBehind(let host) {
        claim.release()
        throw CommandFailure(
            text:
                "\(path): was mounted by \(host) and not unmounted; if that mount cannot come back, "
                + "use -f, or -n to look without writing"
        )
    } catch let error as FormatError {
        // The check will name it. It cannot be told whether anybody is there.
        if arguments.readOnly || arguments.force { return claim }
        claim.release()
        throw CommandFailure(
            text:
                "\(path): \(error), so nobody can tell whether the volume is mounted elsewhere; if it "
                + "is not, use -f, or -n to look without writing"
        )
    } catch {
        claim.release()
        throw CommandFailure(text: "\(path): \(error); unmount it first")
    }
}

private func show(_ progress: CheckProgress) {
    let percent = progress.total == 0 ? 100 : min(progress.done * 100 / progress.total, 100)
    let line = "pass \(progress.pass.rawValue) of 6: \(progress.pass.title), \(percent)%"
    writeToStandardError("\r" + line + String(repeating: " ", count: max(0, 60 - line.utf8.count)))
}
