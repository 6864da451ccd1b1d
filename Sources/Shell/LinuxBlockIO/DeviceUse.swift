import CLinux
import Glibc

/// Who has a device or image file, as far as the kernel can tell: a mount, swap space, or a loop
/// device. For tools that must not touch what is in use; Lockstep's own mounts of an image are told
/// by `HostCluster`.
///
/// - Returns: what to tell the user, as in "is mounted on /mnt; unmount it first"; nil if nothing
/// is known.
package func deviceUse(_ path: String) -> String? {
    guard let real = realPath(path) else { return nil }
    for line in lines(of: "/proc/self/mounts") {
        let words = line.split(separator: " ")
        guard words.count > 2, unescaped(words[0]) == real else { continue }
        return "is mounted on \(unescaped(words[1])); unmount it first"
    }
    for line in lines(of: "/proc/swaps").dropFirst() {
        if let first = line.split(separator: " ").first, unescaped(first) == real {
            return "is in use as swap; swapoff it first"
        }
    }
    if let loop = loopDevice(backedBy: real) {
        return "is attached to \(loop); detach it first (losetup -d \(loop))"
    }
    return nil
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
