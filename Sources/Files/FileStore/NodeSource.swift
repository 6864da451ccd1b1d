// Where tree code gets its blocks. It is synchronous: when a block is not in memory it stops by
// throwing `missing`, and whoever called reads the block and runs it again from the start. Nothing
// is changed before everything needed is in memory, so running again is harmless, and the paths of
// a tree are so short that it costs nothing against reading a block. The same code serves the fast
// paths that must not wait.

import DiskFormat
import Journaling
import Vocabulary

/// Why tree code stopped.
enum Interruption: Error {
    /// A block that must be read first.
    case missing(BlockAddress, BlockKind)
    case failed(StoreError)

    static func damaged(_ block: BlockAddress, _ field: String, _ value: UInt64) -> Interruption {
        .failed(.damaged(block, field, value))
    }
}

/// The blocks of one inode, as far as they are in memory.
struct NodeSource {
    let store: FileStore
    let inode: StoredInode
    /// What this operation has read: stays in memory however small the cache is.
    private(set) var held: [MetadataBlock] = []

    init(_ store: FileStore, _ inode: StoredInode) {
        self.store = store
        self.inode = inode
    }

    /// A block of the inode that is in memory, of the kind that a pointer promises.
    func block(_ address: BlockAddress, _ kind: BlockKind) throws(Interruption) -> MetadataBlock {
        for block in held where block.address == address { return try checked(block, kind) }
        guard let block = store.cache.cached(address) else { throw .missing(address, kind) }
        return try checked(block, kind)
    }

    private func checked(
        _ block: MetadataBlock,
        _ kind: BlockKind
    ) throws(Interruption) -> MetadataBlock {
        let owner = inode.number.address.rawValue
        guard store.isBlock(block, kind, owner: owner, inode.number.generation) else {
            let bytes = block.bytes.readOnly
            let found = bytes.u16(4)
            let error: FormatError =
                found != kind.rawValue
                ? .wrongKind(block.address, expected: kind, found: found)
                : bytes.u64(48) != owner
                    ? .wrongOwner(block.address, expected: owner, found: bytes.u64(48))
                    : .wrongGeneration(
                        block.address,
                        expected: inode.number.generation,
                        found: bytes.u64(56)
                    )
            throw .failed(.format(error))
        }
        return block
    }

    /// Runs `body`, reading what it misses.
    mutating func run<Value>(
        _ body: (NodeSource) throws(Interruption) -> Value
    ) async throws(StoreError) -> Value {
        while true {
            switch attempt(body) {
            case .success(let value): return value
            case .failure(.failed(let error)): throw error
            case .failure(.missing(let address, let kind)):
                held.append(try await read(address, kind))
            }
        }
    }

    /// Runs `body` if everything it needs is in memory and in order; nil otherwise.
    func runIfCached<Value>(_ body: (NodeSource) throws(Interruption) -> Value) -> Value? {
        guard case .success(let value) = attempt(body) else { return nil }
        return value
    }

    private func attempt<Value>(
        _ body: (NodeSource) throws(Interruption) -> Value
    ) -> Result<Value, Interruption> {
        do throws(Interruption) { return .success(try body(self)) } catch { return .failure(error) }
    }

    private func read(
        _ address: BlockAddress,
        _ kind: BlockKind
    ) async throws(StoreError) -> MetadataBlock {
        // A pointer that leads out of the groups is damage, whatever stands there.
        guard store.superblock.group(of: address) != nil else {
            throw .damaged(inode.number.address, "child", address.rawValue)
        }
        do {
            return try await store.cache.block(
                address,
                kind: kind,
                owner: inode.number.address.rawValue,
                generation: inode.number.generation,
                covering: .inode(inode.number)
            )
        } catch {
            throw .storage(error)
        }
    }
}
