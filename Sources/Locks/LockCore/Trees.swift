// Resource trees: parts below a root, parts below parts.
//
// A root and everything below it have one master, so that a client which has the root locked finds
// the master of every part without a question, and what belongs together moves together. The
// mastery stands in the root's record and is copied into those of its parts (I12): nothing on the
// way of an operation has to look it up.
//
// A lock on a part names its *parent*: a granted lock of the same node on the resource above. While
// it exists the parent cannot be given up. The holder alone sees to that; a master has locks on
// parts like any others. As every node with a lock on a part has one on the root, a tree is known
// to the directory by its root only.
//
// Source: OpenVMS System Services, $ENQ (`parid`, sublocks), $DEQ (LCK$M_DEQALL). There a tree may
// be 127 levels deep; here three, so that a name is a plain value.

import Vocabulary

/// The links of a record in its tree.
struct TreeRecord: SlabRecord, Sendable {
    /// Head of a circular list of parts; 0 when there are none.
    var firstPart: UInt32 = 0
    var next: UInt32 = 0
    var previous: UInt32 = 0

    var link: UInt32 {
        get { next }
        set { next = newValue }
    }
}

extension Lockspace {
    /// Whether nothing keeps this record but its mastery: no lock and no part.
    @inline(__always)
    func isUnused(_ resource: UInt32) -> Bool {
        resources[resource].isEmpty && firstPart(resource) == 0
    }

    @inline(__always)
    func firstPart(_ resource: UInt32) -> UInt32 {
        let tree = resources[resource].tree
        return tree == 0 ? 0 : trees[tree].firstPart
    }

    /// The part after `part` below the same record; 0 at the end.
    func followingPart(_ part: UInt32, first: UInt32) -> UInt32 {
        let next = trees[resources[part].tree].next
        return next == first ? 0 : next
    }

    /// The root of the tree a record stands in.
    @inline(__always)
    func root(of resource: UInt32) -> UInt32 {
        var root = resource
        while resources[root].depth > 0 { root = resources[root].parent }
        return root
    }

    private mutating func treeRecord(_ resource: UInt32) -> UInt32 {
        let existing = resources[resource].tree
        if existing != 0 { return existing }
        let index = trees.take()
        trees[index] = TreeRecord()
        resources[resource].tree = index
        return index
    }

    mutating func linkPart(_ part: UInt32, below parent: UInt32) {
        let own = treeRecord(part)
        let above = treeRecord(parent)
        let first = trees[above].firstPart
        if first == 0 {
            trees[own].next = part
            trees[own].previous = part
            trees[above].firstPart = part
            return
        }
        let last = trees[resources[first].tree].previous
        trees[own].next = first
        trees[own].previous = last
        trees[resources[last].tree].next = part
        trees[resources[first].tree].previous = part
    }

    mutating func unlinkPart(_ part: UInt32) {
        let parent = resources[part].parent
        let own = resources[part].tree
        let above = resources[parent].tree
        let next = trees[own].next
        if next == part {
            trees[above].firstPart = 0
            if resources[parent].depth == 0 {
                trees.release(above)
                resources[parent].tree = 0
            }
        } else {
            let previous = trees[own].previous
            trees[resources[previous].tree].next = next
            trees[resources[next].tree].previous = previous
            if trees[above].firstPart == part { trees[above].firstPart = next }
        }
        trees.release(own)
        resources[part].tree = 0
    }

    /// Sets who decides on a whole tree (I12). `root` is a root.
    @inline(__always)
    mutating func setMastery(_ root: UInt32, _ mastery: Mastery, _ master: NodeID) {
        resources[root].mastery = mastery
        resources[root].master = master
        if resources[root].tree != 0 { copyMastery(below: root) }
    }

    private mutating func copyMastery(below resource: UInt32) {
        let first = firstPart(resource)
        var part = first
        while part != 0 {
            resources[part].mastery = resources[resource].mastery
            resources[part].master = resources[resource].master
            copyMastery(below: part)
            part = followingPart(part, first: first)
        }
    }

    /// All records of a tree, each before those below it.
    func recordsOfTree(_ root: UInt32) -> [UInt32] {
        var found = [root]
        if resources[root].tree == 0 { return found }
        var place = 0
        while place < found.count {
            let first = firstPart(found[place])
            var part = first
            while part != 0 {
                found.append(part)
                part = followingPart(part, first: first)
            }
            place += 1
        }
        return found
    }

    // MARK: Locks above and below

    /// Whether `parent` may have locks on `name` below it.
    func isParent(_ parent: UInt32, of name: ResourceName) -> Bool {
        guard parent != 0, let above = name.parent else { return false }
        let state = locks[parent].state
        return (state == .granted || state == .converting)
            && locks[parent].marks.isDisjoint(with: [.deferred, .doomed, .orphan])
            && self.name(of: locks[parent].resource) == above
    }

    /// Gives a lock and everything below it up: at once what is granted, the rest as soon as it is
    /// settled.
    mutating func doom(_ lock: UInt32, _ effects: inout [LockEffect]) {
        locks[lock].marks.insert(.doomed)
        if locks[lock].sublocks > 0 {
            for other in 1..<locks.bound
            where locks[other].state != .free && locks[other].holder == node
                && locks[other].parent == lock && !locks[other].marks.contains(.doomed)
            {
                doom(other, &effects)
            }
        }
        if locks[lock].state == .waiting || locks[lock].state == .converting {
            withdrawWait(lockID(lock), &effects)
        }
        ripe.append(lockID(lock))
    }

    /// Gives up the doomed locks that nothing holds up any more.
    mutating func dropRipe(_ effects: inout [LockEffect]) {
        while let id = ripe.popLast() {
            let lock = localIndex(id)
            if lock == 0 || locks[lock].state != .granted || locks[lock].sublocks > 0
                || !locks[lock].marks.contains(.doomed) || locks[lock].marks.contains(.deferred)
            {
                continue
            }
            giveUp(lock, [], nil, &effects)
        }
    }
}
