import DiskFormat
import Execution
import Journaling
import Vocabulary

/// The tombstones of one group (see ResourceGroup): inodes that were freed while the group is held
/// and whose blocks have not been used again.
///
/// A tombstone's block is not used again before the tombstone is home. What comes there next
/// belongs to another lock, so nothing would bring the tombstone or anything newer home when a peer
/// asks for the lock of the freed inode, and the peer would find the inode alive.
struct Tombstones {
    private let start: BlockAddress
    private var places: BlockSet
    private var generations: [UInt32: UInt64] = [:]
    /// Those that are durable and perhaps not home yet, in no particular order.
    private var waiting: [UInt32] = []
    private var next = 0

    /// `start` is the first block of the group.
    init(start: BlockAddress, blockCount: UInt32) {
        self.start = start
        places = BlockSet(capacity: blockCount)
    }

    /// An inode was freed.
    mutating func add(_ place: UInt32, generation: UInt64) {
        places.insert(place..<place + 1)
        generations[place] = generation
    }

    /// The transaction that freed it is durable.
    mutating func becameDurable(_ place: UInt32) { waiting.append(place) }

    /// The block is used again, or was released.
    mutating func remove(_ place: UInt32) {
        guard places.contains(place) else { return }
        places.remove(place..<place + 1)
        generations[place] = nil
    }

    /// Takes out of the waiting ones some that are home: looks at `limit` of them.
    mutating func takeHome(limit: Int, _ cache: MetadataCache) -> [UInt32] {
        var home: [UInt32] = []
        for _ in 0..<min(limit, waiting.count) {
            if next >= waiting.count { next = 0 }
            let place = waiting[next]
            if cache.cached(start + UInt64(place))?.isDirty ?? false {
                reached(.tombstoneWaits)
                next += 1
            } else {
                home.append(place)
                waiting.swapAt(next, waiting.count - 1)
                waiting.removeLast()
            }
        }
        return home
    }

    /// The lock that covers a tombstone; nil if there is none at that place.
    func name(_ place: UInt32) -> ResourceName? {
        guard places.contains(place), let generation = generations[place] else { return nil }
        return .inode(InodeNumber(address: start + UInt64(place), generation: generation))
    }

    /// The locks that cover them, in the order of the blocks.
    var names: [ResourceName] {
        var names: [ResourceName] = []
        places.forEachRun { run in names += run.compactMap { name($0) } }
        return names
    }
}
