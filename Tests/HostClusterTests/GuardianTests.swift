import CLinux
import DiskFormat
import Glibc
import HostCluster
import LinuxSystem
import Testing

/// What the kernel serves of a mount whose daemon was killed. Needs root and /dev/fuse.
@Suite(.serialized, .enabled(if: geteuid() == 0 && access("/dev/fuse", R_OK | W_OK) == 0))
final class GuardianTests {
    let volume = VolumeID(high: 5, low: 6)
    let folder: TemporaryFolder
    let place: String

    init() throws {
        folder = try TemporaryFolder()
        place = folder.path + "/mnt"
        #expect(chmod(folder.path, 0o700) == 0 && mkdir(place, 0o700) == 0)
    }

    deinit { umount2(place, 2) }  // MNT_DETACH; not mounted in tests that unmount

    private func node(slot: Int? = nil) throws -> Probe {
        let wanted = slot.map { "\($0)" } ?? "-"
        return try Probe(["join", folder.path + "/run", volume.description, "2", wanted, "0"])
    }

    /// The first bytes of the file, or an errno.
    private func readFile(_ descriptor: Int32) -> (text: String, code: Int32) {
        var bytes = [UInt8](repeating: 0, count: 4)
        let count = pread(descriptor, &bytes, 4, 0)
        return count < 0 ? ("", errno) : (String(decoding: bytes[..<count], as: UTF8.self), 0)
    }

    @Test(arguments: ["abort", "answer"])
    func nothingOldIsReadAfterTheBurial(_ way: String) throws {
        let survivor = try node()
        survivor.expect("joined")
        survivor.tell("replayed 1")
        let victim = try node()
        victim.expect("joined")
        victim.tell("mount \(place) \(way)")
        victim.expect("mounted")
        let file = lockstep_open(place + "/a", O_RDWR, 0)
        defer { close(file) }
        #expect(readFile(file) == ("OLD!", 0))
        let mapping = mmap(nil, 65_536, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
        defer { munmap(mapping, 65_536) }
        // A dirty page, which the kernel would have to write to the dead daemon.
        mapping?.storeBytes(of: 7, toByteOffset: 8192, as: UInt8.self)
        victim.signal(SIGKILL)
        victim.waitForEnd()
        // The moment from which locks of the dead node are granted to others.
        #expect(survivor.expect("view 3") == "view 3 members=1 replay=1")
        #expect(readFile(file) == ("", ENOTCONN))
        var status = Glibc.stat()
        #expect(fstat(file, &status) != 0)
        #expect(stat(place + "/a", &status) != 0)
    }

    /// A thread of the daemon waits in the kernel for a lock that is held for a request which only the
    /// daemon could have answered: SIGKILL alone does not end it.
    /// "-old": on kernels that do not tell the end of one thread.
    @Test(arguments: ["abort", "answer", "abort-old", "answer-old"])
    func aDaemonThatDiesInAnInvalidationIsBuried(_ way: String) throws {
        let survivor = try node()
        survivor.expect("joined")
        survivor.tell("replayed 1")
        let victim = try node()
        victim.expect("joined")
        victim.tell("mount \(place) \(way)")
        victim.expect("mounted")
        let maker = try runThread(name: "maker") { [place] in _ = mkdir(place + "/new", 0o755) }
        // Nothing tells that a thread waits in the kernel.
        var looks = 0
        while !hasStuckThread(victim.process) {
            looks += 1
            try #require(looks < 10_000, "the thread never waits")
            usleep(1000)
        }
        victim.signal(SIGKILL)
        #expect(survivor.expect("view 3") == "view 3 members=1 replay=1")
        victim.waitForEnd()
        maker.join()
    }

    /// Whether the thread that invalidates waits in the kernel.
    private func hasStuckThread(_ process: pid_t) -> Bool {
        let folder = "/proc/\(process)/task"
        guard let directory = opendir(folder) else { return false }
        defer { closedir(directory) }
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { field in
                field.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            guard firstWord("\(folder)/\(name)/comm") == "jammed" else { continue }
            return firstWord("\(folder)/\(name)/wchan").contains("inval_entry")
        }
        return false
    }

    @Test func withoutAGuardianOldPagesWouldBeRead() throws {
        // The reason for all this: if this fails one day, the kernel has taken the work over.
        let victim = try node()
        victim.expect("joined")
        victim.tell("mount \(place) abort")
        victim.expect("mounted")
        let file = lockstep_open(place + "/a", O_RDONLY, 0)
        defer { close(file) }
        #expect(readFile(file) == ("OLD!", 0))
        let children = try #require(childOf(victim.process))
        #expect(kill(children, SIGKILL) == 0)
        victim.signal(SIGKILL)
        victim.waitForEnd()
        #expect(readFile(file) == ("OLD!", 0))
    }

    private func childOf(_ process: pid_t) -> pid_t? {
        pid_t(firstWord("/proc/\(process)/task/\(process)/children"))
    }

    private func nameOf(_ process: pid_t) -> String { firstWord("/proc/\(process)/comm") }

    private func firstWord(_ path: String) -> String {
        let descriptor = lockstep_open(path, O_RDONLY, 0)
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 64)
        let count = max(read(descriptor, &bytes, 64), 0)
        return String(decoding: bytes[..<count].prefix { $0 > 32 }, as: UTF8.self)
    }

    @Test func aGuardianHoldsNothingElse() throws {
        let other = try node()
        other.expect("joined")
        other.tell("replayed 1")
        let only = try node()
        only.expect("joined")
        only.tell("mount \(place) abort")
        only.expect("mounted")
        let guardian = try #require(childOf(only.process))
        // Until it has its name, its libraries are being loaded.
        while ["exe", "hostclusterprob"].contains(nameOf(guardian)) { usleep(1000) }
        #expect(nameOf(guardian) == "lockstep-guard")
        // Input, output, errors, the FUSE device, the list, the lock, the daemon and its idle
        // thread: no socket to a peer.
        let folder = try #require(opendir("/proc/\(guardian)/fd"))
        defer { closedir(folder) }
        var names: [String] = []
        while let entry = readdir(folder) {
            withUnsafePointer(to: &entry.pointee.d_name) { field in
                field.withMemoryRebound(to: CChar.self, capacity: 256) {
                    names.append(String(cString: $0))
                }
            }
        }
        #expect(names.filter { $0 != "." && $0 != ".." }.sorted() == (0...7).map(String.init))
        only.tell("unmount")
        only.expect("unmounted")
    }

    @Test func aFarewellLeavesNothingBehind() throws {
        let only = try node()
        only.expect("joined")
        only.tell("mount \(place) abort")
        only.expect("mounted")
        only.tell("unmount \(place)")
        only.expect("unmounted")
        only.tell("leave")
        only.expect("left")
        only.waitForEnd()
        // The same slot is free as soon as the guardian has seen that; the next waits for it by
        // itself.
        let next = try node(slot: 0)
        #expect(next.expect("claim") == "claim 1 first")
    }
}
