// Agents as programs: those that the coordinator starts itself, and those that listen on other hosts.
//
// A listening agent shows a coordinator nothing before it has said the secret, and starts a program of its own
// for each run, so that locks of processes belong to one run and a call that hangs ends with it.

import CLinux
import Glibc
import LinuxSystem
import StressJudging
import Vocabulary

/// Starting agents, listening for coordinators.
package enum StressProgram {
    /// The descriptor on which an agent finds its coordinator.
    package static let descriptor: Int32 = 3
    /// Seconds for the first words between hosts.
    private static let patience = 10

    /// Starts this program as the agent of a directory, at the other end of a socket.
    static func startAgent(_ socket: Int32, directory: String) throws(SystemError) -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO)
        if socket == descriptor {
            // A duplicate of itself would keep close-on-exec.
            _ = fcntl(socket, F_SETFD, 0)
        } else {
            posix_spawn_file_actions_adddup2(&actions, socket, descriptor)
        }
        lockstep_spawn_close_from(&actions, descriptor + 1)
        return try startProgram("/proc/self/exe", ["agent", "--connected", directory], &actions)
    }

    /// Waits for a program to end, a while; then ends it.
    static func end(_ process: pid_t) {
        let handle = lockstep_pidfd_open(process)
        var wait = pollfd(fd: handle, events: Int16(POLLIN), revents: 0)
        if handle < 0 || poll(&wait, 1, 5000) <= 0 { kill(process, SIGKILL) }
        // One that hangs in the kernel does not even obey SIGKILL: nobody waits for that.
        if handle >= 0 {
            if poll(&wait, 1, 5000) > 0 { _ = waitForProgram(process) }
            close(handle)
        }
    }

    /// Says a line on standard error.
    package static func complain(_ line: String) { StressAgent.complain(line) }

    // MARK: Between hosts

    /// Connects to a listening agent and says the secret.
    static func call(_ address: StressAddress, secret: String) throws(StressTrouble) -> Int32 {
        let socket = try StressSockets.connectTo(address)
        StressSockets.setPatience(socket, seconds: patience)
        let hello = StressMessage(.hello, [StressMessage.version], texts: [secret]).frame
        guard send(socket, hello, hello.count, Int32(MSG_NOSIGNAL)) == hello.count,
            let answer = answer(socket), answer.kind == .welcome
        else {
            close(socket)
            throw StressTrouble("\(address): the agent does not let us in (secret or version)")
        }
        StressSockets.setPatience(socket, seconds: 0)
        return socket
    }

    /// One short message, byte by byte exactly: what comes behind it is somebody else's.
    private static func answer(_ socket: Int32) -> StressMessage? {
        func bytes(_ count: Int) -> [UInt8]? {
            var bytes = [UInt8](repeating: 0, count: count)
            guard recv(socket, &bytes, count, Int32(MSG_WAITALL)) == count else {
                return nil
            }
            return bytes
        }
        guard let head = bytes(4) else { return nil }
        let length = head.reversed().reduce(0) { $0 << 8 | Int($1) }
        guard length <= 4096, let body = bytes(length) else { return nil }
        return try? StressMessage(body: body)
    }

    /// Listens for coordinators, one after the other, for ever.
    ///
    /// - Throws: `StressTrouble` when nobody can listen there.
    package static func listen(at address: StressAddress, secret: String, directory: String)
        throws(StressTrouble)
    {
        let server = try StressSockets.listen(at: address)
        print("lockstep-stress: an agent for \(directory) listens at \(address)")
        fflush(nil)
        while true {
            let socket = accept(server, nil, nil)
            if socket < 0 {
                if errno == EINTR || errno == ECONNABORTED { continue }
                throw StressTrouble("\(address): accept: \(errnoText(errno))")
            }
            _ = fcntl(socket, F_SETFD, FD_CLOEXEC)
            serve(socket, secret: secret, directory: directory)
            close(socket)
        }
    }

    private static func serve(_ socket: Int32, secret: String, directory: String) {
        StressSockets.setPatience(socket, seconds: patience)
        guard let hello = answer(socket), hello.kind == .hello,
            hello.number(0) == StressMessage.version, isSame(hello.text(0), secret)
        else { return StressAgent.complain("lockstep-stress: somebody was refused") }
        var yes: Int32 = 1
        let size = socklen_t(MemoryLayout<Int32>.size)
        setsockopt(socket, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, size)
        let welcome = StressMessage(.welcome).frame
        guard send(socket, welcome, welcome.count, Int32(MSG_NOSIGNAL)) == welcome.count
        else { return }
        StressSockets.setPatience(socket, seconds: 0)
        do throws(SystemError) {
            _ = waitForProgram(try startAgent(socket, directory: directory))
        } catch {
            StressAgent.complain("lockstep-stress: \(error)")
        }
    }

    /// Compares all bytes, so that the time says nothing about where they differ.
    private static func isSame(_ one: String, _ two: String) -> Bool {
        let (one, two) = (Array(one.utf8), Array(two.utf8))
        guard one.count == two.count else { return false }
        return zip(one, two).reduce(0) { $0 | ($1.0 ^ $1.1) } == 0
    }
}
