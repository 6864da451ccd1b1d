// Removing what a run has left.

import CLinux
import Glibc

enum StressFolder {
    /// Removes a folder and everything in it, as far as that is possible.
    static func remove(_ name: String, in parent: Int32) {
        for entry in names(name, in: parent) {
            let folder = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            guard folder >= 0 else { return }
            if unlinkat(folder, entry, 0) != 0, errno == EISDIR { remove(entry, in: folder) }
            close(folder)
        }
        unlinkat(parent, name, AT_REMOVEDIR)
    }

    /// The entries of a folder; none if it cannot be read.
    private static func names(_ name: String, in parent: Int32) -> [String] {
        let file = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard file >= 0 else { return [] }
        guard let stream = fdopendir(file) else {
            close(file)
            return []
        }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }
}
