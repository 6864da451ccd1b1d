// Opening a volume: the device, its superblock, and every reason why it cannot be mounted.

import BlockIO
import DiskFormat
import Glibc
import LinuxBlockIO
import LinuxSystem
import Vocabulary

/// The mount failed; one line that says what, on what, and what to do.
struct MountError: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// An opened device with a verified superblock.
struct VolumeFile {
    let device: FileBlockDevice
    let superblock: Superblock
    let path: String

    /// `executor`: of the engine that will use the device.
    init(_ arguments: MountArguments, _ executor: CombiningExecutor) throws {
        guard let full = realpath(arguments.device, nil) else {
            throw MountError("\(arguments.device): \(errnoText(errno))")
        }
        path = String(cString: full)
        free(full)
        var options = FileBlockDevice.Options()
        options.allowsBuffered = arguments.allowsBuffered
        options.enter = { executor.enterIfIdle($0) }
        do {
            device = try FileBlockDevice(path: path, options: options)
        } catch {
            throw MountError("\(error)")
        }
        superblock = try Self.readSuperblock(device, path)
        do {
            try superblock.checkFeatures(forWriting: true)
            let needed = superblock.blockCount * UInt64(superblock.blockSize)
            guard device.byteCount >= needed else {
                throw FormatError.truncated(needed: needed, found: device.byteCount)
            }
        } catch {
            throw MountError("\(path): \(error); run fsck.lockstep")
        }
    }

    private static func readSuperblock(_ device: FileBlockDevice, _ path: String) throws
        -> Superblock
    {
        let size = Int(Superblock.blockSizes.upperBound)
        let start = Superblock.byteOffset
        guard device.byteCount >= start + UInt64(Superblock.byteCount) else {
            throw MountError("\(path) is no Lockstep volume: it has only \(device.byteCount) bytes")
        }
        let rest = (device.byteCount - start) / UInt64(device.alignment) * UInt64(device.alignment)
        let buffer = AlignedBuffer(zeroed: size)
        let readable = UnsafeMutableRawBufferPointer(
            rebasing: buffer.bytes[..<min(size, Int(clamping: rest))]
        )
        do {
            try device.readNow(readable, at: start)
        } catch {
            throw MountError("\(path): reading the superblock: \(error)")
        }
        do {
            return try Superblock(verifying: buffer.readOnly, at: nil)
        } catch {
            if case .notMetadata = error {
                throw MountError(
                    "\(path) is no Lockstep volume (no superblock); make one with mkfs.lockstep"
                )
            }
            throw MountError("\(path): the superblock is damaged: \(error); run fsck.lockstep")
        }
    }
}
