// Inodes by number or path.

import BlockIO
import DiskFormat
import Vocabulary

/// An inode as it stands in its block, and whether that can be relied on.
struct InspectedInode {
    var number: InodeNumber
    /// Right or wrong: see `problem`.
    var record: InodeRecord
    var block: AlignedBuffer
    /// What is wrong with the block; nil if it is sound.
    var problem: FormatError?
}

/// What a user calls an inode by.
package enum InodeReference: Hashable, Sendable {
    /// Its address and, if it shall be that one and no later, its generation.
    case number(UInt64, generation: UInt64?)
    /// The names on the way from the root.
    case path([String])

    /// `6291`, `6291.1` or a path from the root; what begins with a digit and is no number is a
    /// path.
    package init(_ text: String) {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        let numbers = parts.map { UInt64($0) }
        if parts.count <= 2, let first = numbers[0], first > 0, numbers.allSatisfy({ $0 != nil }) {
            self = .number(first, generation: parts.count == 2 ? numbers[1] : nil)
        } else {
            self = .path(text.split(separator: "/").map(String.init))
        }
    }
}

extension Inspector {
    /// The inode that is meant, damaged or not, as long as its block says that it is one.
    func inode(_ reference: InodeReference) async throws(InspectionError) -> InspectedInode {
        switch reference {
        case .path(let names): return try await lookUp(names)
        case .number(let address, let generation):
            let inode = try await inode(at: address)
            if let generation, inode.number.generation != generation {
                throw InspectionError(
                    "inode \(address).\(generation): the block holds generation "
                        + "\(inode.number.generation) now"
                )
            }
            return inode
        }
    }

    /// The inode in a block.
    func inode(at number: UInt64) async throws(InspectionError) -> InspectedInode {
        let address = try checkedAddress(number)
        guard let block = await block(address) else {
            throw InspectionError("inode \(number): its block cannot be read")
        }
        let stated = StatedHeader(block.readOnly)
        guard stated.hasMagic, stated.kind == .inode else {
            let found = stated.hasMagic ? stated.kind?.description ?? "block" : "block"
            throw InspectionError(
                "inode \(number): there is no inode in block \(number), but a \(found)"
                    + (stated.hasMagic ? "" : " without a header")
                    + "; see 'block \(number)'"
            )
        }
        return inspected(block, at: address, stated)
    }

    private func inspected(
        _ block: AlignedBuffer,
        at address: BlockAddress,
        _ stated: StatedHeader
    ) -> InspectedInode {
        var problem = headerError(
            block.readOnly,
            at: address,
            kind: .inode,
            owner: address.rawValue,
            generation: stated.generation
        )
        if problem == nil {
            problem = formatError { () throws(FormatError) in
                _ = try InodeRecord(fields: block.readOnly, at: address)
            }
        }
        return InspectedInode(
            number: InodeNumber(address: address, generation: stated.generation),
            record: InodeRecord(unchecked: block.readOnly),
            block: block,
            problem: problem
        )
    }

    /// The sound inode of this number; nil if there is none.
    func soundInode(_ number: InodeNumber) async -> InspectedInode? {
        guard superblock.group(of: number.address) != nil, number.generation > 0,
            let block = await block(number.address)
        else { return nil }
        let stated = StatedHeader(block.readOnly)
        guard stated.hasMagic, stated.kind == .inode, stated.generation == number.generation else {
            return nil
        }
        let inode = inspected(block, at: number.address, stated)
        return inode.problem == nil ? inode : nil
    }

    /// Says what is wrong with an inode that is used all the same.
    func sayProblem(of inode: InspectedInode) {
        if let problem = inode.problem { sheet.damage(problem) }
        if inode.number.generation == 0 {
            sheet.note("the inode was freed: what is shown is what is left of it")
        }
    }

    // MARK: paths

    /// The inode at a path from the root. Symbolic links are not followed.
    ///
    /// - Throws: which name could not be followed, and why.
    private func lookUp(_ names: [String]) async throws(InspectionError) -> InspectedInode {
        guard let root = await soundInode(superblock.root) else {
            throw InspectionError(
                "/: the root, \(superblock.root), cannot be read; see "
                    + "'inode \(superblock.root.address.rawValue)'"
            )
        }
        var way = [root]
        var path = ""
        for name in names where name != "." {
            if name == ".." {
                if way.count > 1 { way.removeLast() }
                continue
            }
            guard let here = way.last else { preconditionFailure("the root stays on the way") }
            try await ensureDirectory(here, path)
            let found = try await find(Array(name.utf8), in: here, path)
            path += "/" + name
            guard let next = await soundOrDamaged(found.inode) else {
                throw InspectionError(
                    "\(path): the entry leads to \(found.inode), which is not there; see "
                        + "'block \(found.inode.address.rawValue)'"
                )
            }
            way.append(next)
        }
        return way[way.count - 1]
    }

    /// The inode that an entry leads to, if its block says that it is that one.
    private func soundOrDamaged(_ number: InodeNumber) async -> InspectedInode? {
        guard superblock.group(of: number.address) != nil,
            let inode = try? await inode(at: number.address.rawValue),
            inode.number == number
        else { return nil }
        return inode
    }

    private func ensureDirectory(
        _ inode: InspectedInode,
        _ path: String
    ) async throws(InspectionError) {
        if inode.record.isDirectory { return }
        guard inode.record.isSymbolicLink else {
            throw InspectionError("\(path): is no directory")
        }
        let target = await linkTarget(inode).map { printable($0) } ?? "?"
        throw InspectionError(
            "\(path): is a symbolic link to \(target), which is not followed; name what it leads to"
        )
    }

    /// The entry of a name: where the index leads to, else, if the tree is damaged, anywhere.
    private func find(
        _ name: [UInt8],
        in directory: InspectedInode,
        _ path: String
    ) async throws(InspectionError) -> DirectoryEntryRecord {
        let first = name.withUnsafeBytes { DirectoryEntryRecord.firstKey(forName: $0) }
        let keys = first...(first | 0xFF)
        // What is lost says more than what is out of order.
        var lost: String? = directory.problem.map { "\($0)" }
        var disorder: String?
        for wanted in [keys, 0...UInt64.max] {
            let walk = TreeWalk(self, of: directory, wanted: wanted)
            while let node = await walk.next() {
                let (entries, problem) = node.entries
                lost = lost ?? node.problem ?? problem
                disorder = disorder ?? node.keyProblem
                guard let entry = entries.first(where: { $0.name == name }) else { continue }
                if !keys.contains(entry.record.key) {
                    sheet.damage("the name \(printable(name)) was found under a wrong key")
                }
                return entry.record
            }
        }
        let place = path.isEmpty ? "/" : path
        throw InspectionError(
            "\(path)/\(printable(name)): no such name in \(place), \(directory.number)"
                + ((lost ?? disorder).map { ", but not all of the directory can be read: \($0)" }
                    ?? "")
        )
    }
}
