// Other people's tests of files, run on a volume that two nodes have mounted: those of CPython's library, and PostgreSQL with a crash. Each
// needs a package that is not installed for these tests alone (libpython3.11-testsuite, postgresql-15); without it the test is skipped.

import Glibc
import Testing

extension MountedTests {
    @Suite(.serialized) struct ForeignSuiteTests {
        private static let python = "/usr/bin/python3.11"
        private static let hasPythonSuite =
            access(python, X_OK) == 0
            && access("/usr/lib/python3.11/test/test_shutil.py", R_OK) == 0
        private static let postgres = "/usr/lib/postgresql/15/bin"
        private static let hasPostgres =
            geteuid() == 0 && access(postgres + "/initdb", X_OK) == 0 && getpwnam("postgres") != nil

        private static func onTwoNodes(_ body: (TestCluster, [String]) throws -> Void) throws {
            let cluster = try TestCluster(nodes: 2, size: "1G")
            chmod(cluster.folder, 0o755)
            try Watchdog.guarding(cluster, limit: 240) {
                for node in cluster.nodes {
                    try cluster.mount(node, options: geteuid() == 0 ? ["dev", "suid"] : [])
                }
                try body(cluster, cluster.nodes.map(\.root))
                try cluster.unmountAll()
                try cluster.checkClean()
            }
        }

        /// The folder is made on one node, the tests run on the other.
        @Test(.enabled(if: hasPythonSuite, "libpython3.11-testsuite is not installed"))
        func theFilesOfCPython() throws {
            let tests = [
                "test_os", "test_shutil", "test_tempfile", "test_glob", "test_fileio", "test_mmap",
                "test_fcntl", "test_posix", "test_stat", "test_genericpath", "test_posixpath",
                "test_dbm",
                "test_dbm_dumb", "test_dbm_gnu", "test_dbm_ndbm",
            ]
            try Self.onTwoNodes { _, roots in
                try check(mkdir(roots[0] + "/work", 0o755))
                let folder = roots[1] + "/work"
                try Commands.demand(
                    "sh",
                    [
                        "-e", "-c",
                        "cd \(folder) && TMPDIR=\(folder) HOME=\(folder) \(Self.python) -m test -q "
                            + "--tempdir \(folder) \(tests.joined(separator: " ")) 2>&1",
                    ],
                    limit: 200 * Patience.factor
                )
                #expect(
                    try Files.names(roots[0] + "/work").filter { $0.hasPrefix("test_python") } == []
                )
            }
        }

        /// A database is made on one node, filled and used; it is killed, recovers, and its sums and checksums are right, which
        /// the other node reads.
        @Test(
            .enabled(
                if: hasPostgres,
                "postgresql-15 is not installed, or the tests do not run as root"
            )
        )
        func postgresRecovers() throws {
            try Self.onTwoNodes { cluster, roots in
                let place = roots[0] + "/pg"
                let entry = try #require(getpwnam("postgres")).pointee
                try check(mkdir(place, 0o755))
                try check(chown(place, entry.pw_uid, entry.pw_gid))
                let server =
                    "pg_ctl -s -w -D \(place)/data -o \"-k \(place) -c listen_addresses=''\""
                let said = try Commands.demand(
                    "runuser",
                    [
                        "-u", "postgres", "--", "sh", "-e", "-c",
                        """
                        cd \(place); export LC_ALL=C PATH=\(Self.postgres):$PATH PGHOST=\(place) PGDATABASE=postgres
                        initdb -N -k -D data -A trust >/dev/null
                        \(server) -l log start
                        pgbench -q -i >/dev/null 2>&1
                        pgbench -c 4 -T 3 >/dev/null 2>&1
                        pgbench -n -c 4 -T 100 >/dev/null 2>&1 & work=$!
                        until [ $(psql -Atc 'SELECT count(*) FROM pgbench_history') -gt 100 ]; do :; done
                        kill -9 $(head -n 1 data/postmaster.pid)
                        wait $work || true
                        until \(server) -l log start 2>/dev/null; do rm -f .s.PGSQL.5432*; done
                        grep -c 'automatic recovery in progress' log
                        psql -Atc 'SELECT (SELECT sum(abalance) FROM pgbench_accounts)
                            = (SELECT sum(bbalance) FROM pgbench_branches),
                            (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(delta) FROM pgbench_history)'
                        pg_ctl -s -w -D \(place)/data -m fast stop
                        pg_checksums --check -D \(roots[1])/pg/data | grep 'Bad checksums'
                        """,
                    ],
                    limit: 200 * Patience.factor
                ).output
                #expect(said == "1\nt|t\nBad checksums:  0\n")
            }
        }
    }
}
