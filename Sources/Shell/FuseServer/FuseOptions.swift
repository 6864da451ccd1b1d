// What a mount is told.

import Glibc
package import LinuxSystem

/// How to mount and serve.
package struct FuseOptions: Sendable {
    /// The directory to mount on.
    package var mountPoint: String
    /// What `mount` shows as the source: the device.
    package var source: String
    /// Options for mount(2) as mount(8) spells them: "ro", "nodev", "noatime". Without "dev" and
    /// "suid" the mount is nodev and nosuid.
    package var mountOptions: [String] = []
    /// Let other users in; the kernel checks permissions in any case (default_permissions).
    package var allowsOthers = false
    /// Access control lists: the kernel asks for them and obeys them, and leaves the umask to us.
    package var hasAccessLists = true
    /// Threads that receive requests.
    package var receiverCount: Int
    /// How long a receiver that waits for a request looks for it before it sleeps, in nanoseconds
    /// (Rota.swift). Not where there is one processor only.
    package var watchLength: UInt64 = sysconf(Int32(_SC_NPROCESSORS_ONLN)) > 1 ? 100_000 : 0
    /// Requests the kernel may have in the background (readahead, write-back, release).
    package var maximumBackground: UInt16 = 64
    /// The most data in one READ or WRITE, in bytes; a multiple of 4096 up to 1 MiB.
    package var maximumTransfer = 1 << 20
    /// Readahead of the mount in KiB, set through sysfs when that is permitted; nil leaves it.
    package var readAheadKiB: Int? = 1024
    /// Serve as kernels before 6.16 must be served: names are never kept (KERNEL D1).
    package var treatsKernelAsOld = false
    /// Drop the names of an inode that nobody has in use when the inode is taken back, where the kernel can (KERNEL D12).
    package var dropsUnusedNames = true
    /// Where lines go that nobody returns.
    package var log: LineLog

    package init(mountPoint: String, source: String, receiverCount: Int = 4, log: LineLog) {
        self.mountPoint = mountPoint
        self.source = source
        self.receiverCount = receiverCount
        self.log = log
    }

    /// The `-o` list for libfuse.
    var optionList: String {
        var list = ["fsname=\(Self.escaped(source))", "subtype=lockstep", "default_permissions"]
        if allowsOthers { list.append("allow_other") }
        return (list + mountOptions.map(Self.escaped)).joined(separator: ",")
    }

    /// A comma in a value is not the end of it.
    private static func escaped(_ value: String) -> String {
        var result = ""
        for character in value {
            if character == "," || character == "\\" { result.append("\\") }
            result.append(character)
        }
        return result
    }
}

/// Why a mount could not be made or ended.
package enum FuseServerError: Error, Sendable, CustomStringConvertible {
    /// mount(2) or fusermount3 refused; the text is theirs.
    case mount(String)
    /// The kernel's FUSE is too old or closed the connection at once.
    case negotiation(String)
    /// Another system call failed.
    case system(SystemError)

    package var description: String {
        switch self {
        case .mount(let text): text
        case .negotiation(let text): "the kernel's FUSE: \(text)"
        case .system(let error): error.description
        }
    }
}
