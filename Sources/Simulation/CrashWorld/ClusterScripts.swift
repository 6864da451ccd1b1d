// Which scripts there are: pairs of operations on two nodes, sequences by dice, and families written
// by hand for what is hardest.

import Vocabulary

extension ClusterScript {
    /// All pairs of operations that the model accepts, the first on node 1 and the second on node 2.
    package static func allPairs() -> [ClusterScript] {
        CrashWorkload.alphabet.flatMap { first in
            CrashWorkload.alphabet.compactMap { second in
                let script = ClusterScript([
                    ClusterStep(node: 1, operation: first),
                    ClusterStep(node: 2, operation: second),
                ])
                return script.isPossible ? script : nil
            }
        }
    }

    /// So many sequences of `count` operations by seed, each step on one of `nodes` nodes.
    package static func sample(
        _ number: Int,
        operations count: Int,
        nodes: Int,
        seed: UInt64
    ) -> [ClusterScript] {
        var dice = SeededGenerator(seed: seed)
        return (0..<number).map { _ in
            var script = ClusterScript([])
            while script.steps.count < count {
                // The last step may be one that ends something.
                let ends: [CrashOperation] = [.synchronizeAll, .pause, .unmount]
                let next =
                    script.steps.count + 1 == count && dice.oneIn(3)
                    ? ends[dice.below(ends.count)]
                    : CrashWorkload.alphabet[dice.below(CrashWorkload.alphabet.count)]
                let step = ClusterStep(node: 1 + dice.below(nodes), operation: next)
                let longer = ClusterScript(script.steps + [step])
                if longer.isPossible { script = longer }
            }
            return script
        }
    }

    /// The families that `nodes` nodes can do, each with what it is about.
    package static func families(nodes: Int) -> [(about: String, script: ClusterScript)] {
        families.compactMap { family in
            ClusterScript(family.text, nodes: nodes).map { (family.about, $0) }
        }
    }

    /// Node 1 makes a directory with so many long names that it needs blocks of its own, node 2 takes
    /// the directory away.
    private static let grownDirectory: String = {
        let names = (1...17).map { "A/new/" + String(repeating: "n", count: 240) + "\($0)" }
        return "1.mkdir:A/new+" + names.map { "1.link:B/bar:\($0)+" }.joined()
            + names.map { "2.unlink:\($0)+" }.joined() + "2.rmdir:A/new+"
    }()

    private static let attributesComeAndGo =
        "1.setxattr:B/bar:6000+2.setxattr:B/bar:10+2.fsync:B/bar+"

    /// Node 1 makes files, node 2 takes them away: so many blocks in quarantine that who fills the
    /// volume has to wait for the log barrier.
    private static let inodesComeAndGo: String = {
        let names = (1...8).map { "A/n\($0)" }
        return names.map { "1.create:\($0)+1.setxattr:\($0):30+" }.joined()
            + names.map { "2.unlink:\($0)+" }.joined() + "2.sync+"
    }()

    /// With the groups of the others full, node 3 takes the blocks that were freed.
    private static let inodesAgain =
        "3.append:A/foo:48000+3.append:B/bar:12000+" + inodesComeAndGo
        + (1...9).map { "3.create:B/m\($0)+" }.joined() + "3.sync"

    private static let fillWithData =
        "3.append:A/foo:48000+3.append:B/bar:40000+3.sync"

    private static let fillWithMetadata =
        "3.setxattr:B:9000+3.setxattr:A:9000+3.create:B/c+3.mkdir:B/d+3.sync"

    private static let families: [(about: String, text: String)] = [
        // A block handed from 1 to 2, freed there, used again by 3; then 1 dies.
        ("attributes freed, data of a third", attributesComeAndGo + fillWithData),
        ("attributes freed, metadata of a third", attributesComeAndGo + fillWithMetadata),
        ("inode freed, data of a third", "1.create:A/new+2.unlink:A/new+2.sync+" + fillWithData),
        (
            "inode freed, metadata of a third",
            "1.create:A/new+2.unlink:A/new+2.sync+" + fillWithMetadata
        ),
        (
            "many inodes freed, data of a third",
            inodesComeAndGo + "3.append:A/foo:48000+3.append:B/bar:44000+3.sync"
        ),
        ("many inodes freed, inodes of a third", inodesAgain),
        ("directory freed, data of a third", grownDirectory + fillWithData),
        ("directory freed, metadata of a third", grownDirectory + fillWithMetadata),
        (
            "freed without a commit, wanted by a third",
            "1.setxattr:B/bar:9000+2.setxattr:B/bar:10+" + fillWithData
        ),
        (
            "data freed, metadata of another",
            "1.append:A/foo:50000+2.truncate:A/foo:100+2.setxattr:B:9000+1.setxattr:A:9000+2.sync"
        ),
        (
            "data freed, data of another",
            "1.append:A/foo:50000+1.fsync:A/foo+2.truncate:A/foo:0+1.append:B/bar:60000+1.sync"
        ),
        (
            "data freed and not durable, data of another",
            "1.append:A/foo:50000+1.fsync:A/foo+1.unlink:A/foo+2.append:B/bar:60000+2.fsync:B/bar"
        ),
        // Blocks go to and fro.
        (
            "one block to and fro",
            "1.setxattr:B:30+2.setxattr:B:31+1.setxattr:B:32+2.setxattr:B:33+1.fsync:B"
        ),
        (
            "one directory to and fro",
            "1.create:A/a+2.create:A/b+1.create:A/c+2.unlink:A/a+1.rename:A/b:A/a+2.fsync:A"
        ),
        (
            "two groups contended",
            "1.append:A/foo:30000+2.append:B/bar:30000+1.truncate:A/foo:100+2.append:B/bar:20000"
                + "+1.append:A/foo:9000+2.sync+1.fsync:A/foo"
        ),
        (
            "names across directories that others hold",
            "1.setxattr:A:30+2.setxattr:B:30+1.rename:A/foo:B/new+2.rename:B/bar:A/foo"
                + "+1.exchange:A/foo:B/new+2.fsync:A"
        ),
        (
            "a directory renamed under a file that another writes",
            "1.append:A/foo:5000+2.rename:A:B/dir+1.append:B/dir/foo:3000+2.unlink:B/dir/foo"
                + "+1.fsync:B"
        ),
        // Data of one, promises of another.
        ("written by one, fsync by another", "1.write:A/foo:1000:6000+2.fsync:A/foo+1.mkdir:B/d"),
        (
            "metadata durable before, fsync by another",
            "1.write:A/foo:1000:6000+1.mkdir:B/dir+1.fsync:B+2.fsync:A/foo+2.mkdir:B/e"
        ),
        (
            "appended by turns",
            "1.append:A/foo:5000+2.append:A/foo:5000+1.append:B/bar:100+2.append:B/bar:6000"
                + "+1.fsync:B/bar+2.fsync:A/foo"
        ),
        (
            "seen by another, not synchronised",
            "1.write:A/foo:1000:6000+1.append:A/foo:5000+2.open:A/foo+2.mkdir:B/dir+2.fsync:B"
        ),
        (
            "made shorter by one, longer by another",
            "1.truncate:A/foo:100+2.truncate:A/foo:20000+1.write:A/foo:9000:3000+2.fsync:A/foo"
        ),
        // Deleted while open.
        ("open here, deleted there", "1.open:A/foo+2.unlink:A/foo+2.sync+1.create:A/new+1.sync"),
        (
            "open here, replaced there",
            "1.open:B/bar+2.rename:A/foo:B/bar+2.fsync:B+1.append:B/bar:5000+1.fsync:B/bar"
        ),
        ("a long way deleted", "1.append:A/foo:50000+1.sync+2.unlink:A/foo+1.mkdir:B/dir+2.sync"),
        (
            "open here, deleted there, room wanted",
            "1.open:A/foo+1.append:A/foo:40000+2.unlink:A/foo+2.append:B/bar:50000+2.sync"
        ),
    ]
}
