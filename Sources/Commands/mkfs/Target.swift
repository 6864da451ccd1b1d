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

/// Refuses a device that the kernel or a Lockstep mount of this host uses.
func refuseIfInUse(_ path: String) throws(CommandFailure) {
    guard let real = realPath(path) else {
        throw CommandFailure(text: "\(path): \(errnoText(errno))")
    }
    for line in lines(of: "/proc/self/mounts") {
        let words = line.split(separator: " ")
        guard words.count > 2 else { continue }
        if unescaped(words[0]) == real {
            throw CommandFailure(
                text: "\(path): is mounted on \(unescaped(words[1])); unmount it first"
            )
        }
    }
    for line in lines(of: "/proc/swaps").dropFirst() {
        if let first = line.split(separator: " ").first, unescaped(first) == real {
            throw CommandFailure(text: "\(path): is in use as swap; swapoff it first")
        }
    }
    if let loop = loopDevice(backedBy: real) {
        throw CommandFailure(
            text: "\(path): is attached to \(loop); detach it first (losetup -d \(loop))"
        )
    }
}

/// The path without links; nil with `errno` set if there is none.
private func realPath(_ path: String) -> String? {
    guard let text = realpath(path, nil) else { return nil }
    defer { free(text) }
    return String(cString: text)
}

/// The lines of a small file; empty if it cannot be read, as on a system without it.
private func lines(of path: String) -> [Substring] {
    let descriptor = lockstep_open(path, O_RDONLY, 0)
    guard descriptor >= 0 else { return [] }
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    var part = [UInt8](repeating: 0, count: 65_536)
    while true {
        let count = read(descriptor, &part, part.count)
        if count < 0 && errno == EINTR { continue }
        guard count > 0 else { break }
        bytes += part[..<count]
    }
    return String(decoding: bytes, as: UTF8.self).split(separator: "\n")
}

/// The kernel writes a blank in a path as \040, and so on.
private func unescaped(_ text: Substring) -> String {
    var bytes: [UInt8] = []
    let input = Array(text.utf8)
    var index = 0
    while index < input.count {
        if input[index] == UInt8(ascii: "\\"), index + 3 < input.count,
            let code = UInt8(
                String(decoding: input[index + 1...index + 3], as: UTF8.self),
                radix: 8
            )
        {
            bytes.append(code)
            index += 4
        } else {
            bytes.append(input[index])
            index += 1
        }
    }
    return String(decoding: bytes, as: UTF8.self)
}

/// The loop device whose image is `path`, if any.
private func loopDevice(backedBy path: String) -> String? {
    guard let folder = opendir("/sys/block") else { return nil }
    defer { closedir(folder) }
    while let entry = readdir(folder) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) {
            $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        guard name.hasPrefix("loop") else { continue }
        if lines(of: "/sys/block/\(name)/loop/backing_file").first.map(String.init) == path {
            return "/dev/\(name)"
        }
    }
    return nil
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
