// Other programs.

package import CLinux
package import Glibc

/// A program that is talked to: what is written to `input` is its standard input, what it prints is read
/// from `output`. Its errors go where ours go.
package struct ChildProcess: @unchecked Sendable {
    // Sendable: stdio locks its streams.

    /// Its number.
    package let process: pid_t
    package let input: UnsafeMutablePointer<FILE>
    package let output: UnsafeMutablePointer<FILE>

    /// Starts a program, which is looked for in PATH unless `path` has a slash.
    ///
    /// - Throws: `SystemError` when there is no room for it or no such program.
    package init(_ path: String, _ arguments: [String]) throws(SystemError) {
        var ends: [Int32] = [-1, -1, -1, -1]
        let code = ends.withUnsafeMutableBufferPointer { ends in
            pipe(ends.baseAddress) == 0 && pipe(ends.baseAddress?.advanced(by: 2)) == 0
        }
        guard code else {
            let error = SystemError.last("pipe", path)
            for end in ends where end >= 0 { close(end) }
            throw error
        }
        for end in [ends[1], ends[2]] { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, ends[0], 0)
        posix_spawn_file_actions_adddup2(&actions, ends[3], 1)
        lockstep_spawn_close_from(&actions, 3)
        do {
            process = try startProgram(path, arguments, &actions)
        } catch {
            for end in ends { close(end) }
            throw error
        }
        close(ends[0])
        close(ends[3])
        guard let input = fdopen(ends[1], "w"), let output = fdopen(ends[2], "r") else {
            throw .last("fdopen", path)
        }
        self.input = input
        self.output = output
    }

    /// Closes its input and waits for its end.
    ///
    /// - Returns: the exit code; 128 + the signal if one ended it.
    package func end() -> Int32 {
        fclose(input)
        defer { fclose(output) }
        return waitForProgram(process)
    }

    /// The next line that it prints, without its end; nil when there is none any more.
    package func readLine() -> String? {
        var line: UnsafeMutablePointer<CChar>?
        var room = 0
        defer { free(line) }
        let count = getline(&line, &room, output)
        guard count > 0, let line else { return nil }
        let text = String(cString: line)
        return text.hasSuffix("\n") ? String(text.dropLast()) : text
    }

    /// Whether it prints something, or ends, within some milliseconds. Of what was read already and not
    /// taken by `readLine` nothing is known: for programs that answer a line with a line.
    package func says(within milliseconds: Int32) -> Bool {
        var question = pollfd(fd: fileno(output), events: Int16(POLLIN), revents: 0)
        return poll(&question, 1, milliseconds) != 0
    }

    /// Writes a line to it at once. False when it does not read any more.
    package func write(_ line: String) -> Bool {
        fputs(line + "\n", input) >= 0 && fflush(input) == 0
    }
}

/// Starts a program with what `actions` say of its files.
///
/// - Throws: `SystemError` when there is no room for it or no such program.
package func startProgram(
    _ path: String,
    _ arguments: [String],
    _ actions: inout posix_spawn_file_actions_t
) throws(SystemError) -> pid_t {
    var words: [UnsafeMutablePointer<CChar>?] = ([path] + arguments).map { strdup($0) } + [nil]
    defer { for word in words { free(word) } }
    var process = pid_t()
    let code = posix_spawnp(&process, path, &actions, nil, &words, environ)
    guard code == 0 else { throw SystemError("run", path, code: code) }
    return process
}

/// Waits for a child and returns its exit code, 128 + the signal if one ended it.
package func waitForProgram(_ process: pid_t) -> Int32 {
    var status: Int32 = 0
    while waitpid(process, &status, 0) < 0 && errno == EINTR {}
    return status & 0x7F == 0 ? status >> 8 & 0xFF : 128 + status & 0x7F
}

/// The folder of this program; "" if the system does not say.
package var ownFolder: String {
    var buffer = [CChar](repeating: 0, count: 4096)
    let count = readlink("/proc/self/exe", &buffer, buffer.count)
    let path = String(
        decoding: buffer.prefix(max(count, 0)).map { UInt8(bitPattern: $0) },
        as: UTF8.self
    )
    return path.split(separator: "/").dropLast().reduce("") { $0 + "/" + $1 }
}
