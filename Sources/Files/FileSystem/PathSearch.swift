// Finding a path's inode for an administrator, who asks because something waits: the last name's
// lock is not touched, and no directory's is waited for long.

import DiskFormat
import Execution
import FileStore
import LockCache
package import Vocabulary

/// How a search ended.
package enum PathSearch: Hashable, Sendable {
    case found(InodeNumber)
    /// The lock of a directory on the way was not to be had in time; so many names were found.
    case waiting(InodeNumber, names: Int)
    /// As a program would hear it, of the name with this index.
    case failed(FileError, name: Int)
}

extension MountedVolume {
    /// Follows names from the root, not through symbolic links.
    package func search(_ names: [[UInt8]], milliseconds: UInt64) async -> PathSearch {
        let interruption = Interruption()
        engine.clock.schedule(
            at: engine.clock.now.advanced(milliseconds: milliseconds),
            in: engine,
            EngineBound { interruption.request() }
        )
        var number = superblock.root
        for (place, name) in names.enumerated() {
            let directory = remember(number)
            directory.pins += 1
            defer {
                directory.pins -= 1
                unrefer(directory)
            }
            do throws(FileError) {
                let next = try await find(name, in: directory, interruption)
                guard let next else { return .failed(.notFound, name: place) }
                number = next
            } catch {
                if error == .interrupted { return .waiting(number, names: place) }
                return .failed(error, name: place)
            }
        }
        return .found(number)
    }

    private func find(
        _ name: [UInt8],
        in directory: Inode,
        _ interruption: Interruption
    ) async throws(FileError) -> InodeNumber? {
        let stored = try await hold(directory, .shared, interruption)
        defer { release(directory, .shared) }
        try checkDirectory(stored)
        // The bytes must stay where they are while the search waits.
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: name.count, alignment: 1)
        defer { bytes.deallocate() }
        bytes.copyBytes(from: name)
        do throws(StoreError) {
            return try await Directory(store, stored).find(UnsafeRawBufferPointer(bytes))?.inode
        } catch {
            throw fileError(error)
        }
    }
}
