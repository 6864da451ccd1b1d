// The programs that run on a real kernel and on the model of it.

import FileSystem
import Vocabulary

/// How a program opens a file.
enum OpenKind: String, CaseIterable, Sendable {
    case read, write, readWrite, append, truncate, create, createTruncate, createExclusive

    var reads: Bool { self != .write && self != .append && self != .createTruncate }
    var writes: Bool { self != .read }
    var creates: Bool { [.create, .createTruncate, .createExclusive].contains(self) }

    var intent: OpenIntent {
        OpenIntent(
            reads: reads,
            writes: writes,
            appends: self == .append,
            truncates: self == .truncate || self == .createTruncate
        )
    }
}

/// One step of a program: a system call, or something that happens in the file system behind the
/// kernel's back. Files are numbered by slot.
enum KernelStep: Sendable {
    case open(Int, String, OpenKind)
    case close(Int)
    case read(Int, offset: Int, count: Int)
    case write(Int, offset: Int, count: Int, byte: UInt8)
    /// The first byte of each page, through a mapping.
    case load(Int, pages: Range<Int>)
    case store(Int, page: Int, byte: UInt8)
    case synchronize(Int)
    case truncateFile(Int, size: Int)
    case truncate(String, size: Int)
    case status(String)
    case fileStatus(Int)
    case access(String)
    case list(String)
    case makeDirectory(String)
    case makeNode(String)
    case makeSymlink(String, target: String)
    case readLink(String)
    case link(String, String)
    case unlink(String)
    case removeDirectory(String)
    case rename(String, String, RenameKind)
    case setExtended(String, String)
    case getExtended(String, String)
    case listExtended(String)
    case removeExtended(String, String)
    case setTimes(String, Int)
    case setMode(String, UInt32)

    case invalidateAttributes(String)
    case invalidateData(String, offset: Int, length: Int?)
    case invalidateNames(String, [String]?)
    /// What another node does; `tells`: and the kernel hears of it, as it does of all of them in
    /// production.
    case remoteWrite(String, offset: Int, count: Int, byte: UInt8, tells: Bool)
    case remoteTruncate(String, size: Int, tells: Bool)
    case remoteMode(String, UInt32, tells: Bool)
    case remoteMake(String, tells: Bool)
    case remoteUnlink(String, tells: Bool)
    /// What answers allow the kernel from now on.
    case allow(entries: Bool, attributes: Bool, pages: Bool, direct: Bool)

    /// Whether a process does it, through the kernel.
    var isCall: Bool {
        switch self {
        case .invalidateAttributes, .invalidateData, .invalidateNames, .remoteWrite,
            .remoteTruncate, .remoteMode, .remoteMake, .remoteUnlink, .allow:
            false
        default: true
        }
    }
}

/// Writes programs by seed.
struct ProgramWriter {
    private static let files = ["a", "b", "d/x", "d/y", "e/x"]
    private static let folders = ["d", "e"]
    private static let links = ["s", "t"]
    static let slots = 3
    /// Mappings are as long as the longest file.
    static let mostPages = 44

    private let pages: Int
    private var dice: SeededGenerator
    private var steps: [KernelStep] = []
    /// The file that most steps of this program are about.
    private let favourite: String
    private let hidesChanges: Bool
    /// Slots in which a file was opened, if opening it did not fail.
    private var used: [Int] = []

    static func program(seed: UInt64) -> [KernelStep] {
        var writer = ProgramWriter(seed: seed)
        return writer.write()
    }

    private init(seed: UInt64) {
        dice = SeededGenerator(seed: seed)
        favourite = ["a", "a", "d/x", "d/y", "b"][dice.below(5)]
        hidesChanges = dice.oneIn(2)
        pages = dice.oneIn(8) ? Self.mostPages - 4 : 10
    }

    private mutating func write() -> [KernelStep] {
        if dice.oneIn(4) { steps.append(permission()) }
        if !dice.oneIn(3) {
            used = [0]
            steps.append(.open(0, favourite, pick([.readWrite, .create, .read])))
        }
        let count = 12 + dice.below(29)
        while steps.count < count {
            switch dice.below(20) {
            case 0..<9: steps.append(dataStep())
            case 9..<12: steps.append(lookStep())
            case 12..<15: steps.append(nameStep())
            case 15: if dice.oneIn(4) { directWrite() } else { steps.append(attributeStep()) }
            case 16..<18: steps.append(remoteStep())
            case 18: if dice.oneIn(2) { listingChanged() } else { steps.append(invalidation()) }
            default: steps.append(dice.oneIn(3) ? permission() : invalidation())
            }
        }
        return steps
    }

    private mutating func pick<Element>(_ list: [Element]) -> Element {
        list[dice.below(list.count)]
    }

    private mutating func file() -> String { dice.oneIn(3) ? pick(Self.files) : favourite }
    private mutating func anything() -> String {
        dice.oneIn(3) ? pick(Self.folders + Self.links) : file()
    }
    /// A slot that probably has a file.
    private mutating func slot() -> Int { used.isEmpty ? 0 : pick(used) }
    private mutating func byte() -> UInt8 { UInt8(1 + dice.below(255)) }

    private mutating func size() -> Int {
        let whole = dice.below(pages) * 4096
        return dice.oneIn(2) ? whole : whole + dice.below(4096)
    }

    /// Where something is done: mostly where files have something.
    private mutating func place() -> Int {
        if dice.oneIn(3) { return size() }
        return dice.below(4) * 4096 + (dice.oneIn(2) ? 0 : dice.below(4096))
    }

    private mutating func folder() -> String {
        dice.oneIn(3) ? pick(Self.folders + [""]) : TestPath.parent(favourite)
    }

    private mutating func count() -> Int {
        switch dice.below(4) {
        case 0: 1 + dice.below(100)
        case 1: 4096
        case 2: 4096 * (1 + dice.below(3))
        default: 1 + dice.below(9000)
        }
    }

    private mutating func openStep() -> KernelStep {
        let slot = dice.below(Self.slots)
        if used.contains(slot) {
            used.removeAll { $0 == slot }
            return .close(slot)
        }
        used.append(slot)
        return .open(slot, file(), pick(OpenKind.allCases + [.readWrite, .readWrite, .create]))
    }

    private mutating func dataStep() -> KernelStep {
        if used.isEmpty { return openStep() }
        return switch dice.below(16) {
        case 0..<5: openStep()
        case 5..<8: .read(slot(), offset: place(), count: count())
        case 8..<11: .write(slot(), offset: place(), count: count(), byte: byte())
        case 11: .load(slot(), pages: pageRange())
        case 12: .store(slot(), page: dice.below(pages), byte: byte())
        case 13: .synchronize(slot())
        case 14: .truncateFile(slot(), size: size())
        default: .truncate(file(), size: size())
        }
    }

    /// A file that is open through the page cache is written past it.
    private mutating func directWrite() {
        let place = place()
        used = [0, 1]
        steps += [
            .close(0), .close(1),
            .allow(entries: true, attributes: true, pages: true, direct: false),
            .open(0, favourite, .create), .read(0, offset: place, count: 5000),
            .allow(entries: true, attributes: true, pages: true, direct: true),
            .open(1, favourite, .readWrite),
            .write(1, offset: place, count: count(), byte: byte()),
            .read(0, offset: place, count: 5000),
            .allow(entries: true, attributes: true, pages: true, direct: false),
        ]
    }

    /// A listing that is cached is old; only the modification time tells.
    private mutating func listingChanged() {
        let path = file()
        let folder = TestPath.parent(path)
        steps.append(.list(folder))
        steps.append(
            dice.oneIn(2) ? .remoteMake(path, tells: false) : .remoteUnlink(path, tells: false)
        )
        if !dice.oneIn(3) { steps.append(.invalidateAttributes(folder)) }
        steps.append(.list(folder))
    }

    private mutating func pageRange() -> Range<Int> {
        let first = dice.below(pages)
        return first..<first + 1 + dice.below(min(10, pages - first))
    }

    private mutating func lookStep() -> KernelStep {
        switch dice.below(10) {
        case 0..<3: .status(anything())
        case 3: .fileStatus(slot())
        case 4: .access(dice.oneIn(2) ? "nothing" : anything())
        case 5, 8, 9: .list(folder())
        case 6: .readLink(pick(Self.links))
        default: .status(folder())
        }
    }

    private mutating func nameStep() -> KernelStep {
        switch dice.below(10) {
        case 0: .makeDirectory(pick(Self.folders))
        case 1: .makeNode(file())
        case 2: .makeSymlink(pick(Self.links), target: pick(Self.files))
        case 3: .link(file(), file())
        case 4, 5: .unlink(dice.oneIn(4) ? pick(Self.links) : file())
        case 6: .removeDirectory(pick(Self.folders))
        default: rename()
        }
    }

    private mutating func rename() -> KernelStep {
        let kind = pick([RenameKind.replace, .replace, .noReplace, .exchange])
        let names = pick([Self.files, Self.files, Self.folders, Self.links])
        return .rename(pick(names), pick(names), kind)
    }

    private mutating func attributeStep() -> KernelStep {
        let path = anything()
        let name = pick(["user.one", "user.two"])
        return switch dice.below(7) {
        case 0: .setExtended(file(), name)
        case 1: .getExtended(file(), name)
        case 2: .listExtended(file())
        case 3: .removeExtended(file(), name)
        case 4: .setTimes(path, dice.below(1000))
        case 5: .setMode(pick(Self.folders), pick([0o755, 0o700]))
        default: .setMode(file(), pick([0o644, 0o600, 0o755]))
        }
    }

    private mutating func remoteStep() -> KernelStep {
        let tells = !(hidesChanges && dice.oneIn(2))
        return switch dice.below(8) {
        case 0..<3:
            .remoteWrite(file(), offset: place(), count: count(), byte: byte(), tells: tells)
        case 3: .remoteTruncate(file(), size: size(), tells: tells)
        case 4: .remoteMode(anything(), pick([0o640, 0o750]), tells: tells)
        case 5: .remoteUnlink(file(), tells: tells)
        default: .remoteMake(file(), tells: tells)
        }
    }

    private mutating func invalidation() -> KernelStep {
        switch dice.below(6) {
        case 0: return .invalidateAttributes(dice.oneIn(3) ? folder() : anything())
        case 1: return .invalidateData(file(), offset: 0, length: nil)
        case 2: return .invalidateData(file(), offset: place(), length: count())
        case 3: return .invalidateNames(folder(), nil)
        default:
            let path = anything()
            let parent = TestPath.parent(path)
            return .invalidateNames(parent, [TestPath.name(path)])
        }
    }

    private mutating func permission() -> KernelStep {
        .allow(
            entries: !dice.oneIn(5),
            attributes: !dice.oneIn(5),
            pages: !dice.oneIn(4),
            direct: dice.oneIn(4)
        )
    }
}

/// Paths relative to the mount; the root is empty.
enum TestPath {
    static func names(_ path: String) -> [[UInt8]] {
        path.split(separator: "/").map { Array($0.utf8) }
    }
    static func parent(_ path: String) -> String {
        path.split(separator: "/").dropLast().joined(separator: "/")
    }
    static func name(_ path: String) -> String {
        path.split(separator: "/").last.map(String.init) ?? ""
    }
}
