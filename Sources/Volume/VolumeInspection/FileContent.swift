// `cat PATH`: the content of a file, or what of it can still be read. What cannot is zeros, and said.

import BlockIO
import DiskFormat
import Vocabulary

extension Inspector {
    /// Gives the content of a file, or the target of a symbolic link, to `write`, in pieces and in
    /// order; stops when that returns false. Holes, and what cannot be read, come as zeros.
    ///
    /// - Throws: if there is no such inode, or it has no content.
    package func writeContent(
        _ reference: InodeReference,
        to write: @escaping (UnsafeRawBufferPointer) -> Bool
    ) async throws(InspectionError) {
        let inode = try await inode(reference)
        guard inode.record.isRegular || inode.record.isSymbolicLink else {
            throw InspectionError(
                "\(inode.number): a \(Self.typeName(inode.record.mode)) has no content"
            )
        }
        sayProblem(of: inode)
        switch inode.record.layout {
        case .inlineData: writeInline(inode, to: write)
        case .extents: await writeExtents(inode, to: write)
        case .inlineDirectory, .directoryIndex, .none:
            throw InspectionError(
                "\(inode.number): has \(Self.layoutName(inode.record.layout)) in place of content"
            )
        }
    }

    /// The target of a symbolic link; nil if it cannot be read.
    func linkTarget(_ inode: InspectedInode) async -> [UInt8]? {
        var target: [UInt8] = []
        let isDone: ()? = try? await writeContent(
            .number(inode.number.address.rawValue, generation: inode.number.generation)
        ) { bytes in
            target += bytes.prefix(4096 - target.count)
            return target.count < 4096
        }
        return isDone == nil ? nil : target
    }

    private func writeInline(
        _ inode: InspectedInode,
        to write: @escaping (UnsafeRawBufferPointer) -> Bool
    ) {
        let room = max(0, inode.record.bodyLength(blockSize: blockSize))
        let length = Int(min(inode.record.size, UInt64(room)))
        if UInt64(length) < inode.record.size {
            sheet.damage("\(inode.record.size) bytes cannot stand in an inode; \(length) can")
        }
        _ = write(inode.block.readOnly.window(InodeRecord.bodyOffset, length))
        withExtendedLifetime(inode.block) {}
    }

    private func writeExtents(
        _ inode: InspectedInode,
        to write: @escaping (UnsafeRawBufferPointer) -> Bool
    ) async {
        var size = inode.record.size
        if size > UInt64(Int64.max) {
            sheet.damage("\(inode.number) says \(size) bytes, more than a file can have")
            size = 0
        }
        let stream = ContentStream(size: size, write: write)
        let walk = TreeWalk(self, of: inode)
        while let node = await walk.next() {
            if let problem = node.problem ?? node.keyProblem { sheet.damage(problem) }
            for extent in node.extents {
                guard extent.isPlausible(in: superblock) else {
                    sheet.damage("no extent can be like that of block \(extent.logical)")
                    continue
                }
                let start = extent.logical * UInt64(blockSize)
                guard start >= stream.position else {
                    sheet.damage("the extent of block \(extent.logical) is out of order; left out")
                    continue
                }
                if start >= size || extent.isUnwritten { continue }
                guard await writeExtent(extent, to: stream) else { return }
            }
        }
        _ = stream.addZeros(upTo: size)
    }

    /// The blocks of one extent; whether more is wanted.
    private func writeExtent(_ extent: Extent, to stream: ContentStream) async -> Bool {
        guard stream.addZeros(upTo: extent.logical * UInt64(blockSize)) else { return false }
        var done: UInt64 = 0
        while done < UInt64(extent.length), stream.position < stream.size {
            let count = min(UInt64(extent.length) - done, UInt64(1 << 20) / UInt64(blockSize))
            let buffer = AlignedBuffer(zeroed: Int(count) * blockSize)
            let address = extent.physical + done
            do throws(DeviceError) {
                try await device.read(buffer.bytes, at: superblock.byteOffset(address))
            } catch {
                // One bad block must not cost its neighbours.
                for index in 0..<count {
                    await readAlone(address + index, into: buffer, at: Int(index) * blockSize)
                }
            }
            guard stream.add(buffer.readOnly) else { return false }
            withExtendedLifetime(buffer) {}
            done += count
        }
        return true
    }

    private func readAlone(_ address: BlockAddress, into buffer: AlignedBuffer, at offset: Int)
        async
    {
        let part = buffer.bytes.window(offset, blockSize)
        do throws(DeviceError) {
            try await device.read(part, at: superblock.byteOffset(address))
        } catch {
            part.clear(0, blockSize)
            sheet.damage("\(address) cannot be read and comes as zeros: \(error)")
        }
    }
}

/// What is written of a file so far.
private final class ContentStream {
    let size: UInt64
    private(set) var position: UInt64 = 0
    private let write: (UnsafeRawBufferPointer) -> Bool
    private let zeros = AlignedBuffer(zeroed: 1 << 20)

    init(size: UInt64, write: @escaping (UnsafeRawBufferPointer) -> Bool) {
        self.size = size
        self.write = write
    }

    /// Bytes, cut at the end of the file; whether more is wanted.
    func add(_ bytes: UnsafeRawBufferPointer) -> Bool {
        let count = Int(min(UInt64(bytes.count), size - position))
        guard count > 0 else { return true }
        position += UInt64(count)
        return write(bytes.window(0, count))
    }

    /// Zeros up to a place of the file.
    func addZeros(upTo end: UInt64) -> Bool {
        while position < min(end, size) {
            let count = min(UInt64(zeros.bytes.count), min(end, size) - position)
            guard add(zeros.readOnly.window(0, Int(count))) else { return false }
        }
        return true
    }
}
