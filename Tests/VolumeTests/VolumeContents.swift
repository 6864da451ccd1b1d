// What a reader would see of a volume that is sound: paths, and for each what it is. Shares no code
// with the check or the repair.

import BlockIO
import DiskFormat
import Vocabulary

/// One path.
struct SeenPath: Hashable, CustomStringConvertible {
    var mode: UInt32
    var size: UInt64
    /// CRC32C over the data, holes left out.
    var data: UInt32
    var attributes: [[UInt8]]

    var description: String {
        "mode \(String(mode, radix: 8)), \(size) bytes, data \(data), \(attributes.count) attributes"
    }
}

extension VolumeSketch {
    /// Every path below the root.
    func contents() throws -> [String: SeenPath] {
        var paths: [String: SeenPath] = [:]
        try addContents(of: root, under: "", to: &paths)
        return paths
    }

    private func addContents(
        of directory: InodeNumber,
        under prefix: String,
        to paths: inout [String: SeenPath]
    ) throws {
        for (name, number) in try names(in: directory) {
            let path = prefix + name
            paths[path] = try seen(number)
            if try record(number).isDirectory {
                try addContents(of: number, under: path + "/", to: &paths)
            }
        }
    }

    private func seen(_ number: InodeNumber) throws -> SeenPath {
        let block = read(number.address)
        let record = try InodeRecord(fields: block.readOnly, at: number.address)
        var path = SeenPath(mode: record.mode, size: record.size, data: 0, attributes: [])
        switch record.layout {
        case .inlineData:
            path.data = crc32c(block.readOnly.window(InodeRecord.bodyOffset, Int(record.size)))
        case .extents:
            try leaves(of: number) { leaf, offset, count in
                for index in 0..<count {
                    let extent = Extent(leaf, at: offset + index * Extent.byteCount)
                    guard !extent.isUnwritten else { continue }
                    for step in 0..<UInt64(extent.length) {
                        let data = self.read(extent.physical + step)
                        path.data = crc32c(data.readOnly, startingWith: path.data)
                        path.data &+= UInt32(truncatingIfNeeded: extent.logical + step)
                    }
                }
            }
        case .inlineDirectory, .directoryIndex: path.size = 0
        case .none: break
        }
        path.attributes = try attributes(record, block)
        withExtendedLifetime(block) {}
        return path
    }

    private func attributes(_ record: InodeRecord, _ block: AlignedBuffer) throws -> [[UInt8]] {
        let inline = Int(record.inlineAttributeLength)
        var stream = Array(block.readOnly.window(blockSize - inline, inline))
        var next = record.attributeBlock
        while next != .none {
            let part = read(next)
            let header = try AttributeBlockHeader(fields: part.readOnly, at: next)
            stream += part.readOnly.window(
                AttributeBlockHeader.bytesOffset,
                Int(header.byteCount)
            )
            next = header.next
        }
        var records: [[UInt8]] = []
        var offset = 0
        while offset < stream.count {
            let length = stream.withUnsafeBytes { AttributeRecord($0, at: offset)?.byteCount }
            guard let length else { break }
            records.append(Array(stream[offset..<offset + length]))
            offset += length
        }
        return records
    }

    /// The names of a directory and what they lead to.
    func names(in directory: InodeNumber) throws -> [(String, InodeNumber)] {
        var names: [(String, InodeNumber)] = []
        try leaves(of: directory) { leaf, offset, count in
            var position = offset
            for _ in 0..<count {
                guard let entry = DirectoryEntryRecord(leaf, at: position, end: leaf.count) else {
                    break
                }
                let name = leaf.window(
                    position + DirectoryEntryRecord.fixedByteCount,
                    Int(entry.nameLength)
                )
                names.append((String(decoding: name, as: UTF8.self), entry.inode))
                position += entry.byteCount
            }
        }
        return names
    }

    private func leaves(
        of number: InodeNumber,
        _ body: (UnsafeRawBufferPointer, Int, Int) throws -> Void
    ) throws {
        let block = read(number.address)
        let record = try InodeRecord(fields: block.readOnly, at: number.address)
        try leaves(
            block,
            InodeRecord.bodyOffset,
            Int(record.rootCount),
            height: Int(record.height),
            body
        )
    }

    private func leaves(
        _ block: AlignedBuffer,
        _ offset: Int,
        _ count: Int,
        height: Int,
        _ body: (UnsafeRawBufferPointer, Int, Int) throws -> Void
    ) throws {
        if height == 0 {
            try body(block.readOnly, offset, count)
            return
        }
        for index in 0..<count {
            let child = TreePointer(block.readOnly, at: offset + index * TreePointer.byteCount)
                .child
            let node = read(child)
            let header = TreeNodeHeader(fields: node.readOnly)
            try leaves(
                node,
                TreeNodeHeader.recordsOffset,
                Int(header.count),
                height: height - 1,
                body
            )
        }
        withExtendedLifetime(block) {}
    }

    /// Fills the data of "flat" and "tree" with bytes that tell one block from another.
    func fillData() throws {
        for name in ["flat", "tree"] {
            guard let number = inodes[name] else { continue }
            try leaves(of: number) { leaf, offset, count in
                for index in 0..<count {
                    let extent = Extent(leaf, at: offset + index * Extent.byteCount)
                    for step in 0..<UInt64(extent.length) {
                        let block = AlignedBuffer(zeroed: blockSize)
                        for place in stride(from: 0, to: blockSize, by: 8) {
                            block.bytes.put64((extent.physical + step).rawValue &* 977, place)
                        }
                        write(block, at: extent.physical + step)
                    }
                }
            }
        }
    }
}
