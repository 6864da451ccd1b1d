// Programs that people use, at work on several nodes at once.

import Glibc
import Testing

extension MountedTests {
    @Suite(.serialized) struct ProgramTests {
        private func onThreeNodes(_ body: @Sendable ([String]) throws -> Void) throws {
            let cluster = try TestCluster(nodes: 3, size: "256M")
            try Watchdog.guarding(cluster, limit: 240) {
                try cluster.mountAll()
                try body(cluster.nodes.map(\.root))
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// Runs a script that ends with the first command that fails. Returns what it printed.
        @discardableResult
        private static func shell(_ script: String, limit: Double = 120) throws -> String {
            try Commands.demand("sh", ["-e", "-c", script], limit: limit).output
        }

        // MARK: SQLite

        /// Transactions of all nodes in one database, whose journal is rolled back and deleted by whoever comes next.
        @Test func aDatabaseOfAllNodes() throws {
            try onThreeNodes { roots in
                let rounds = 15
                try Self.shell(
                    """
                    sqlite3 \(roots[0])/db 'PRAGMA journal_mode=DELETE;
                    CREATE TABLE counter(n INTEGER); INSERT INTO counter VALUES(0);
                    CREATE TABLE notes(node INTEGER, round INTEGER, n INTEGER UNIQUE, text TEXT);'
                    """
                )
                try TestThread.together(3) { node in
                    let text = (0..<rounds).map { round in
                        """
                        BEGIN IMMEDIATE; UPDATE counter SET n = n + 1;
                        INSERT INTO notes SELECT \(node), \(round), n, hex(randomblob(2000)) FROM counter;
                        \(round % 5 == 4 ? "ROLLBACK" : "COMMIT");
                        """
                    }
                    let path = "\(roots[node])/statements\(node)"
                    try Files.write(Array(text.joined(separator: "\n").utf8), to: path)
                    try Self.shell(
                        "sqlite3 -bail -cmd '.timeout 100000' \(roots[node])/db <\(path)",
                        limit: 200
                    )
                }
                let kept = 3 * (rounds - rounds / 5)
                for root in roots {
                    let said = try Self.shell(
                        """
                        sqlite3 \(root)/db 'PRAGMA integrity_check;
                        SELECT n FROM counter; SELECT count(*), max(n) FROM notes;'
                        """
                    )
                    #expect(said == "ok\n\(kept)\n\(kept)|\(kept)\n")
                    #expect(!Files.exists(root + "/db-journal"))
                }
            }
        }

        // MARK: git

        private static let git =
            "git -c user.name=Tester -c user.email=tester@example.com -c init.defaultBranch=main"

        /// A repository that is written on one node, cloned and pushed to on others, and cleaned up on a third.
        @Test func aRepositoryOfAllNodes() throws {
            try onThreeNodes { roots in
                let git = Self.git
                try Self.shell(
                    """
                    export HOME=\(roots[0]) GIT_CONFIG_NOSYSTEM=1
                    \(git) init -q --bare \(roots[0])/origin
                    \(git) clone -q \(roots[0])/origin \(roots[1])/work1 2>/dev/null
                    cd \(roots[1])/work1
                    for n in 1 2 3 4 5 6 7 8 9; do mkdir d$n; seq $n 1000 >d$n/file; ln -s d$n/file l$n; done
                    \(git) add . && \(git) commit -qm first && \(git) push -q origin HEAD:main
                    \(git) clone -q -b main \(roots[2])/origin \(roots[2])/work2
                    """
                )
                // Both commit at the same time, each on a node of its own.
                try TestThread.together(2) { index in
                    let work = "\(roots[index + 1])/work\(index + 1)"
                    try Self.shell(
                        """
                        export HOME=\(work) GIT_CONFIG_NOSYSTEM=1
                        cd \(work)
                        for n in 1 2 3 4 5; do
                            echo $n >>own\(index)
                            \(git) add . && \(git) commit -qm "\(index) $n"
                            until \(git) push -q origin HEAD:main 2>/dev/null; do
                                \(git) pull -q --rebase origin main
                            done
                        done
                        """,
                        limit: 200
                    )
                }
                let said = try Self.shell(
                    """
                    export HOME=\(roots[0]) GIT_CONFIG_NOSYSTEM=1
                    \(git) -C \(roots[0])/origin gc -q
                    \(git) -C \(roots[1])/origin fsck --full --strict --no-dangling
                    \(git) -C \(roots[0])/work1 pull -q --rebase origin main
                    \(git) -C \(roots[1])/work2 pull -q --rebase origin main
                    \(git) -C \(roots[2])/work1 fsck --full --no-dangling
                    \(git) -C \(roots[0])/work2 status --porcelain
                    \(git) -C \(roots[2])/origin rev-list --count main
                    diff -r -x .git \(roots[0])/work1 \(roots[2])/work2
                    """
                )
                #expect(said == "11\n")
            }
        }

        // MARK: tar and rsync

        /// Sums, modes, owners, times and links of all below a folder.
        private static func inventory(_ folder: String) throws -> String {
            try shell(
                """
                cd \(folder)
                find . -printf '%p %y %m %U %G %T@ %n %l\\n' | sort
                find . -type f -print0 | sort -z | xargs -0 sha256sum
                getfattr -R -d -m user. . | sort
                """
            )
        }

        @Test func treesComeBackAsTheyWere() throws {
            try onThreeNodes { roots in
                try Self.shell(
                    """
                    mkdir \(roots[0])/tree && cd \(roots[0])/tree
                    for d in a b c; do
                        mkdir -p $d/deep/deeper
                        for n in 1 2 3 4 5 6 7 8; do seq $n 3000 | head -c $((n * 2711)) >$d/deep/file$n; done
                        ln $d/deep/file1 $d/twin
                        ln -s ../deep/file2 $d/link
                        mkfifo $d/pipe
                        setfattr -n user.colour -v $d $d/deep/file3
                    done
                    truncate -s 3M hole && printf end >>hole
                    chmod 4750 a/deep/file4 && chmod 2755 b/deep && chmod 1777 c
                    touch -d '2001-02-03 04:05:06.123456789' a/deep/file5 b
                    """
                )
                let before = try Self.inventory(roots[1] + "/tree")
                // Without --modify-window=-1 rsync takes times within a second for the same, and leaves them.
                try Self.shell(
                    """
                    tar -C \(roots[1]) --xattrs -cf \(roots[2])/tree.tar tree
                    mkdir \(roots[1])/from-tar && tar -C \(roots[1])/from-tar --xattrs --xattrs-include='user.*' \
                        -xpf \(roots[1])/tree.tar
                    rsync -aHX --modify-window=-1 \(roots[2])/from-tar/tree/ \(roots[0])/from-rsync/
                    """
                )
                #expect(try Self.inventory(roots[2] + "/from-tar/tree") == before)
                #expect(try Self.inventory(roots[1] + "/from-rsync") == before)
                let rest = try Self.shell(
                    "rsync -aHXcni --modify-window=-1 --delete \(roots[1])/tree/ \(roots[2])/from-rsync/"
                )
                #expect(rest == "", "rsync finds differences")
                // A change on one node, carried over by another; and nothing but the change.
                try Self.shell(
                    "echo more >>\(roots[0])/tree/a/deep/file6; rm \(roots[1])/tree/b/link"
                )
                let changes = try Self.shell(
                    "rsync -aHXi --modify-window=-1 --delete \(roots[2])/tree/ \(roots[0])/from-rsync/ | grep -v '^[.]d' | wc -l"
                )
                #expect(changes == "2\n")
                let copy = try Self.inventory(roots[1] + "/from-rsync").split(separator: "\n")
                let original = try Self.inventory(roots[2] + "/tree").split(separator: "\n")
                #expect(copy.filter { !original.contains($0) } == [])
                #expect(original.filter { !copy.contains($0) } == [])
            }
        }

        // MARK: make

        /// Three steps for each of many files, each step on another node; make itself goes by the times that it sees.
        @Test func aBuildOfAllNodes() throws {
            try onThreeNodes { roots in
                let count = 24
                try check(mkdir(roots[0] + "/build", 0o755))
                let makefile = """
                    A = \(roots[0])/build
                    B = \(roots[1])/build
                    C = \(roots[2])/build
                    N = $(shell seq 1 \(count))
                    all: $(N:%=%.sum) ; sort $(N:%=$(B)/%.sum) >$(C)/all
                    %.text: %.seed ; seq $$(cat $(C)/$<) 2000 >$(B)/$@ && echo $@ >>$(C)/log
                    %.sum: %.text ; sha256sum <$(A)/$< >$(C)/$@ && echo $@ >>$(B)/log

                    """
                try Files.write(Array(makefile.utf8), to: roots[0] + "/build/Makefile")
                for number in 1...count {
                    let path = "\(roots[number % 3])/build/\(number).seed"
                    try Files.write(Array("\(number)\n".utf8), to: path)
                }
                try Self.shell("make -s -j6 -C \(roots[0])/build all")
                let sums = try Self.shell(
                    "for n in $(seq 1 \(count)); do seq $n 2000 | sha256sum; done | sort"
                )
                #expect(
                    String(decoding: try Files.contents(roots[1] + "/build/all"), as: UTF8.self)
                        == sums
                )
                #expect(try Self.shell("wc -l <\(roots[0])/build/log") == "\(2 * count)\n")
                // One source changes on one node: another makes what depends on it, and nothing else.
                try Files.write(Array("5\n".utf8), to: roots[1] + "/build/7.seed")
                try Self.shell("rm \(roots[0])/build/log; make -s -j6 -C \(roots[2])/build all")
                #expect(try Self.shell("cat \(roots[0])/build/log") == "7.text\n7.sum\n")
                #expect(try Self.shell("cmp \(roots[0])/build/5.sum \(roots[1])/build/7.sum") == "")
            }
        }
    }
}
