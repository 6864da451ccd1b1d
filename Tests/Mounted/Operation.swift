// The operations of the coherence test: each can be done to the model and to a mount, and says in
// both which errno comes of it (0 for success).

import CLinux
import Glibc
import Vocabulary

/// Bytes that a number stands for, so that an operation can be printed in a line.
struct Pattern: Hashable, Sendable {
    let seed: UInt64
    let count: Int

    var bytes: [UInt8] {
        var generator = SeededGenerator(seed: seed)
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count + 8)
        while bytes.count < count {
            let word = generator.next()
            for shift in stride(from: 0, to: 64, by: 8) {
                bytes.append(UInt8(truncatingIfNeeded: word >> UInt64(shift)))
            }
        }
        return Array(bytes.prefix(count))
    }
}

/// One operation of one node.
enum Operation: Sendable {
    case write(Place, Pattern, offset: Int)
    case append(Place, Pattern)
    case truncate(Place, size: Int)
    case rename(Place, to: Place, replacing: Bool)
    case link(Place, to: Place)
    case unlink(Place)
    case makeDirectory(Place)
    case removeDirectory(Place)
    case makeSymbolicLink(Place, target: String)
    case changeMode(Place, mode: UInt32)
    case changeOwner(Place, owner: UInt32, group: UInt32)
    case setTime(Place, nanoseconds: Int)
    case setAttribute(Place, Attribute)
    case removeAttribute(Place, name: String)
    case synchronise(Place)
    case read(Place)
    case openHandle(slot: Int, Place, appends: Bool)
    case writeHandle(slot: Int, Pattern, offset: Int)
    case mapAndWriteHandle(slot: Int, Pattern, offset: Int)
    case truncateHandle(slot: Int, size: Int)
    case synchroniseHandle(slot: Int)
    case readHandle(slot: Int)
    case closeHandle(slot: Int)

    /// The places it is about.
    var places: [Place] {
        switch self {
        case .write(let place, _, _), .append(let place, _), .truncate(let place, _),
            .unlink(let place), .makeDirectory(let place), .removeDirectory(let place),
            .makeSymbolicLink(let place, _), .changeMode(let place, _),
            .changeOwner(let place, _, _), .setTime(let place, _), .setAttribute(let place, _),
            .removeAttribute(let place, _), .synchronise(let place), .read(let place),
            .openHandle(_, let place, _):
            [place]
        case .rename(let from, let to, _), .link(let from, let to): [from, to]
        case .writeHandle, .mapAndWriteHandle, .truncateHandle, .synchroniseHandle, .readHandle,
            .closeHandle:
            []
        }
    }

    /// The handle it is about.
    var slot: Int? {
        switch self {
        case .openHandle(let slot, _, _), .writeHandle(let slot, _, _),
            .mapAndWriteHandle(let slot, _, _), .truncateHandle(let slot, _),
            .synchroniseHandle(let slot), .readHandle(let slot), .closeHandle(let slot):
            slot
        default: nil
        }
    }

    /// In words, with paths as they are now in `tree`.
    func words(in tree: ModelTree) -> String {
        func path(_ place: Place) -> String { "'\(tree.path(of: place))'" }
        return switch self {
        case .write(let place, let data, let offset):
            "write \(data.count) bytes at \(offset) of \(path(place))"
        case .append(let place, let data): "append \(data.count) bytes to \(path(place))"
        case .truncate(let place, let size): "truncate \(path(place)) to \(size)"
        case .rename(let from, let to, let replacing):
            "rename \(path(from)) to \(path(to))\(replacing ? "" : " (not replacing)")"
        case .link(let from, let to): "link \(path(from)) as \(path(to))"
        case .unlink(let place): "unlink \(path(place))"
        case .makeDirectory(let place): "mkdir \(path(place))"
        case .removeDirectory(let place): "rmdir \(path(place))"
        case .makeSymbolicLink(let place, let target): "symlink \(path(place)) to '\(target)'"
        case .changeMode(let place, let mode): "chmod \(path(place)) \(String(mode, radix: 8))"
        case .changeOwner(let place, let owner, let group): "chown \(path(place)) \(owner):\(group)"
        case .setTime(let place, let nanoseconds): "utimens \(path(place)) \(nanoseconds)"
        case .setAttribute(let place, let attribute):
            "setxattr \(path(place)) \(attribute.name), \(attribute.value.count) bytes"
        case .removeAttribute(let place, let name): "removexattr \(path(place)) \(name)"
        case .synchronise(let place): "fsync \(path(place))"
        case .read(let place): "read \(path(place))"
        case .openHandle(let slot, let place, let appends):
            "open \(path(place)) as handle \(slot)\(appends ? ", appending" : "")"
        case .writeHandle(let slot, let data, let offset):
            "write \(data.count) bytes at \(offset) through handle \(slot)"
        case .mapAndWriteHandle(let slot, let data, let offset):
            "map, and write \(data.count) bytes at \(offset), through handle \(slot)"
        case .truncateHandle(let slot, let size): "truncate to \(size) through handle \(slot)"
        case .synchroniseHandle(let slot): "fsync handle \(slot)"
        case .readHandle(let slot): "read through handle \(slot)"
        case .closeHandle(let slot): "close handle \(slot)"
        }
    }
}

/// An open file: which node opened it, and what it is in the model.
struct Handle: Sendable {
    let node: Int
    let descriptor: Int32
    let inode: Int
    let appends: Bool
}
