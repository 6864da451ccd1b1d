// The device or image file that mkfs is to write: what it is, what is on it, and who has it.

import BlockIO
import CLinux
import DiskFormat
import Glibc
import LinuxBlockIO
import LinuxSystem
import Vocabulary

/// A failure: one line that says what failed, on what, and what to do.
struct CommandFailure: Error {
    var text: String
}

/// What stands at a path before anything is changed.
enum Target {
    case missing
    case file(size: UInt64)
    case blockDevice

    init(path: String) throws(CommandFailure) {
        var status = Glibc.stat()
        guard stat(path, &status) == 0 else {
            guard errno == ENOENT else {
                throw CommandFailure(text: "\(path): \(errnoText(errno))")
            }
            self = .missing
            return
        }
        switch status.st_mode & S_IFMT {
        case S_IFREG: self = .file(size: UInt64(status.st_size))
        case S_IFBLK: self = .blockDevice
        default:
            throw CommandFailure(
                text: "\(path): neither a block device nor an image file; name one of the two"
            )
        }
    }
}

/// Creates or extends an image file to `size` bytes. Returns whether it was created.
func makeImage(_ path: String, size: UInt64, target: Target) throws(CommandFailure) -> Bool {
    var isNew = false
    switch target {
    case .blockDevice:
        throw CommandFailure(text: "\(path): -s is for image files; leave it out for a device")
    case .file(let old) where old > size:
        throw CommandFailure(
            text:
                "\(path): has \(old) bytes already, more than -s says; leave -s out to use all of "
                + "it, or remove the file"
        )
    case .file: break
    case .missing: isNew = true
    }
    let flags = O_RDWR | (isNew ? O_CREAT | O_EXCL : 0)
    let descriptor = lockstep_open(path, flags, 0o600)
    guard descriptor >= 0 else {
        throw CommandFailure(
            text: "\(path): cannot be \(isNew ? "created" : "opened"): \(errnoText(errno))"
        )
    }
    defer { close(descriptor) }
    guard ftruncate(descriptor, off_t(size)) == 0 else {
        let code = errno
        if isNew { unlink(path) }
        throw CommandFailure(text: "\(path): cannot get \(size) bytes: \(errnoText(code))")
    }
    return isNew
}

/// What is on an opened device: foreign signatures, and the superblock if it is one of ours.
struct Content {
    var signatures: [ForeignSignature]
    var superblock: Superblock?

    init(of device: FileBlockDevice) throws(CommandFailure) {
        let unit = UInt64(AlignedBuffer.alignment)
        let end = device.byteCount / unit * unit
        guard end > 0 else {
            signatures = []
            return
        }
        let headLength = min(UInt64(ForeignSignature.headLength), end)
        let tailLength = min(UInt64(ForeignSignature.tailLength), end)
        let head = AlignedBuffer(byteCount: Int(headLength))
        let tail = AlignedBuffer(byteCount: Int(tailLength))
        do throws(DeviceError) {
            try device.readNow(head.bytes, at: 0)
            try device.readNow(tail.bytes, at: end - tailLength)
        } catch {
            throw CommandFailure(text: "\(device.path): cannot be read: \(error)")
        }
        signatures = ForeignSignature.find(
            head: head.readOnly,
            tail: tail.readOnly,
            tailOffset: end - tailLength,
            deviceSize: device.byteCount
        )
        let start = Int(Superblock.byteOffset)
        if head.bytes.count >= 2 * start {
            superblock = try? Superblock(verifying: head.readOnly.window(start, start), at: nil)
        }
    }

    /// What the user is told is there; nil for a blank device.
    var summary: String? {
        guard !signatures.isEmpty else { return nil }
        let names = signatures.map { signature in
            guard signature.name == "lockstep" else { return signature.name }
            guard let superblock else { return "a damaged Lockstep volume" }
            let label = superblock.label.isEmpty ? "" : ", label \"\(superblock.label)\""
            return "a Lockstep volume (\(superblock.clusterName):\(superblock.volumeName)\(label))"
        }
        return names.joined(separator: ", ")
    }
}
