// Which mounted volume a path is on, and where in it, without asking the file system: what an
// administrator wants to know of is just what does not answer.

import Glibc
import LinuxSystem

/// A path inside a mounted volume.
package struct MountedPath: Sendable {
    /// Where the volume is mounted.
    package let mountPoint: String
    /// From there.
    package let names: [String]
    /// What the mount itself is mounted with: "rw", "nodev", "relatime".
    package let options: [String]
    /// What its file system is: "rw", "lazytime".
    package let volumeOptions: [String]

    /// Finds the mount of a path by the table of mounts. Symbolic links on the way to the mount are
    /// followed, those inside are not.
    /// - Throws: `HostClusterError` when it is not on a mounted volume, `SystemError`.
    package init(_ path: String) throws {
        let plain = try Self.absolute(path)
        if let found = Self.find(plain) {
            self = found
            return
        }
        // The way to the mount may lead through a link; only what is outside the mount is asked.
        var outside = plain
        var inside: [String] = []
        while !outside.isEmpty {
            if let real = realpath("/" + outside.joined(separator: "/"), nil) {
                defer { free(real) }
                let parts = String(cString: real).split(separator: "/").map(String.init)
                if let found = Self.find(parts + inside) {
                    self = found
                    return
                }
            }
            inside.insert(outside.removeLast(), at: 0)
        }
        throw HostClusterError("\(path) is not on a mounted Lockstep volume")
    }

    private init(
        mountPoint: String,
        names: [String],
        options: [String],
        volumeOptions: [String]
    ) {
        self.mountPoint = mountPoint
        self.names = names
        self.options = options
        self.volumeOptions = volumeOptions
    }

    private static func absolute(_ path: String) throws -> [String] {
        var parts: [String] = []
        if !path.hasPrefix("/") {
            guard let folder = getcwd(nil, 0) else { throw SystemError.last("getcwd") }
            defer { free(folder) }
            parts = String(cString: folder).split(separator: "/").map(String.init)
        }
        for part in path.split(separator: "/") where part != "." {
            if part == ".." { _ = parts.popLast() } else { parts.append(String(part)) }
        }
        return parts
    }

    /// The innermost mount above a path, if it is one of ours.
    private static func find(_ parts: [String]) -> MountedPath? {
        var best: (count: Int, isOurs: Bool, point: String, options: String, volume: String)?
        for line in lines("/proc/self/mountinfo") {
            // 36 35 0:42 / /mnt rw,nodev - fuse.lockstep disk.img rw
            let fields = line.split(separator: " ").map(String.init)
            guard fields.count > 5, let dash = fields.firstIndex(of: "-"), dash + 1 < fields.count
            else { continue }
            let point = unescaped(fields[4])
            let pointParts = point.split(separator: "/").map(String.init)
            guard parts.starts(with: pointParts) else { continue }
            // Of several mounts on one point the last is on top.
            if pointParts.count >= best?.count ?? 0 {
                let isOurs = fields[dash + 1] == "fuse.lockstep"
                best = (pointParts.count, isOurs, point, fields[5], fields[fields.count - 1])
            }
        }
        guard let best, best.isOurs else { return nil }
        return MountedPath(
            mountPoint: best.point,
            names: Array(parts.dropFirst(best.count)),
            options: best.options.split(separator: ",").map(String.init),
            volumeOptions: best.volume.split(separator: ",").map(String.init)
        )
    }

    private static func lines(_ path: String) -> [Substring] {
        guard let file = fopen(path, "re") else { return [] }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 16_384)
        while case let count = fread(&buffer, 1, buffer.count, file), count > 0 {
            bytes += buffer[..<count]
        }
        return String(decoding: bytes, as: UTF8.self).split(separator: "\n")
    }

    /// The table writes blanks and the like as three octal digits.
    private static func unescaped(_ text: String) -> String {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            let digits = rest.prefix(3)
            if byte == UInt8(ascii: "\\"), digits.count == 3,
                let code = UInt8(String(decoding: digits, as: UTF8.self), radix: 8)
            {
                bytes.append(code)
                rest = rest.dropFirst(3)
            } else {
                bytes.append(byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
