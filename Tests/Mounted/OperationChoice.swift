import Glibc
import Vocabulary

/// Chooses operations by seed. Few names in few directories, so that operations meet.
struct OperationChoice {
    private static let names = [
        "a", "b", "c", "d", "e", "f", "g", "h", "Ä", "two words",
        String(repeating: "x", count: 200),
    ]
    private static let attributes = ["user.a", "user.b", "user.a longer name", "user.ü"]
    private static let mostDirectories = 16
    private static let deepest = 4
    static let handleCount = 10
    /// Files stay smaller than this, so that every one can be read after every change.
    private static let largestFile = 200_000

    var generator: SeededGenerator
    private let mayChangeOwner: Bool

    init(seed: UInt64) {
        generator = SeededGenerator(seed: seed)
        mayChangeOwner = geteuid() == 0
    }

    mutating func next(in tree: ModelTree, handles: [Handle?]) -> Operation {
        switch generator.below(100) {
        case 0..<14: return .write(place(tree), data(), offset: offset())
        case 14..<20: return .append(place(tree), data())
        case 20..<24: return .truncate(place(tree), size: offset())
        case 24..<34: return .rename(place(tree), to: place(tree), replacing: !generator.oneIn(5))
        case 34..<38: return linkOperation(tree)
        case 38..<44: return .unlink(place(tree))
        case 44..<48: return directoryOperation(tree)
        case 48..<51: return .removeDirectory(place(tree))
        case 51..<53: return .makeSymbolicLink(place(tree), target: name() + "/" + name())
        case 53..<64: return attributeOperation(tree)
        case 64..<66: return fileOperation(tree) { .synchronise($0) }
        case 66..<72: return .read(place(tree))
        default: return handleOperation(tree, handles)
        }
    }

    private mutating func name() -> String { Self.names[generator.below(Self.names.count)] }

    private mutating func place(_ tree: ModelTree) -> Place {
        let parent = tree.directories[generator.below(tree.directories.count)]
        return Place(parent: parent, name: name())
    }

    private mutating func data() -> Pattern {
        let count = generator.oneIn(12) ? generator.below(100_000) : generator.below(9_000)
        return Pattern(seed: generator.next(), count: count + 1)
    }

    private mutating func offset() -> Int {
        switch generator.below(4) {
        case 0: 0
        case 1: generator.below(Self.largestFile / 4096) * 4096
        case 2: generator.below(Self.largestFile)
        default: generator.below(5_000)
        }
    }

    private mutating func linkOperation(_ tree: ModelTree) -> Operation {
        fileOperation(tree) { [target = place(tree)] in .link($0, to: target) }
    }

    private mutating func directoryOperation(_ tree: ModelTree) -> Operation {
        let place = place(tree)
        let isFull = tree.directories.count >= Self.mostDirectories
        return isFull || tree.depth(of: place.parent) >= Self.deepest
            ? .removeDirectory(place) : .makeDirectory(place)
    }

    /// An operation whose place must not be a symbolic link, because the call would follow it.
    private mutating func fileOperation(
        _ tree: ModelTree,
        _ make: (Place) -> Operation
    ) -> Operation {
        let place = place(tree)
        let isLink = tree.inode(at: place).map { tree[$0].isSymbolicLink } ?? false
        return isLink ? .read(place) : make(place)
    }

    private mutating func attributeOperation(_ tree: ModelTree) -> Operation {
        let name = Self.attributes[generator.below(Self.attributes.count)]
        let number = generator.below(4_000_000_000)
        let size = generator.oneIn(6) ? 2_000 : 60
        let value = Pattern(seed: generator.next(), count: 1 + generator.below(size)).bytes
        switch generator.below(6) {
        case 0: return fileOperation(tree) { .changeMode($0, mode: UInt32(0o700 + number % 0o100)) }
        case 1 where mayChangeOwner:
            return .changeOwner(
                place(tree),
                owner: UInt32(number % 5000),
                group: UInt32(number % 77)
            )
        case 2:
            return .setTime(
                place(tree),
                nanoseconds: number * 1_000_000_007 % 4_000_000_000_000_000_000
            )
        case 3: return fileOperation(tree) { .removeAttribute($0, name: name) }
        default:
            return fileOperation(tree) {
                .setAttribute($0, Attribute(name: name, value: value))
            }
        }
    }

    private mutating func handleOperation(_ tree: ModelTree, _ handles: [Handle?]) -> Operation {
        let slot = generator.below(Self.handleCount)
        guard let handle = handles[slot] else {
            let place = place(tree)
            let isFile = tree.inode(at: place).map { tree[$0].isFile } ?? false
            return isFile
                ? .openHandle(slot: slot, place, appends: generator.oneIn(3))
                : .write(place, data(), offset: offset())
        }
        let size = tree[handle.inode].bytes.count
        switch generator.below(12) {
        case 0..<4: return .writeHandle(slot: slot, data(), offset: offset())
        case 4 where size > 0 && !handle.appends, 5 where size > 0 && !handle.appends:
            let start = generator.below(size)
            let data = data()
            let fitting = Pattern(seed: data.seed, count: min(data.count, size - start))
            return .mapAndWriteHandle(slot: slot, fitting, offset: start)
        case 6: return .truncateHandle(slot: slot, size: offset())
        case 7: return .synchroniseHandle(slot: slot)
        case 8, 9: return .closeHandle(slot: slot)
        default: return .readHandle(slot: slot)
        }
    }
}
