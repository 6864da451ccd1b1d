// What `lockstep` says of daemons that end while they are asked. They are played: no mount is needed.

import CLinux
import Glibc
import LinuxSystem
import Testing

/// Listens where a daemon would, for one question.
private final class EndingDaemon: @unchecked Sendable {
    // Sendable: constants.
    private let listener: Int32

    /// In the run directory `root`.
    init(in root: ScratchFolder, volume: String) throws {
        // The command that asks shall not have it as well.
        listener = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        try check(listener)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let path = root.subfolder(volume) + "/admin-0"
        withUnsafeMutableBytes(of: &address.sun_path) { field in
            for (index, byte) in path.utf8.enumerated() { field[index] = byte }
        }
        let size = socklen_t(MemoryLayout<sockaddr_un>.size)
        let bound = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(listener, $0, size) }
        }
        try check(bound)
        try check(listen(listener, 1))
    }

    /// Waits until there is something to read, or a connection. False if there is none in time.
    private func wait(for descriptor: Int32) -> Bool {
        var wait = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return poll(&wait, 1, 30_000) == 1
    }

    /// Ends when a question is there that it has not read; `isEarly`: when somebody has connected, asked or not.
    func end(isEarly: Bool) {
        defer { close(listener) }
        guard wait(for: listener), !isEarly else { return }
        let connection = accept(listener, nil, nil)
        guard connection >= 0 else { return }
        _ = wait(for: connection)
        close(connection)
    }
}

@Suite(.serialized) struct StatusTests {
    private let volume = "00000000-0000-0000-0000-000000000001"

    /// With our question in its queue, or before it has come.
    @Test(arguments: [false, true]) func aDaemonThatEndsIsOneThatHasDied(isEarly: Bool) throws {
        for _ in 0..<10 {
            let root = try ScratchFolder()
            let daemon = try EndingDaemon(in: root, volume: volume)
            let ending = try runThread(name: "daemon") { daemon.end(isEarly: isEarly) }
            let result = try Commands.run("lockstep", ["status", "--json", "--run", root.path])
            ending.join()
            #expect(result.exitCode == 0 && result.output == "[]\n", "\(result)")
        }
    }
}
