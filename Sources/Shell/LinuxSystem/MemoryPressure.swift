// Shortage of memory, as the kernel tells of it: pressure stall information (PSI), of the machine and of the control
// group that this process is in. A *trigger* is a descriptor on which poll(2) reports POLLPRI when tasks have waited for
// memory so long within a window. The kernel reports once a window at most, so whoever is told need not count.

import CLinux
import Glibc

/// Watches for shortage of memory until `stop`.
package final class MemoryPressure: @unchecked Sendable {
    // Sendable: immutable after `init`.
    /// Some task has waited for memory for 150 ms within 2 s. Windows that are not a multiple of 2 s
    /// are for the privileged.
    package static let trigger = "some 150000 2000000"
    private let triggers: [Int32]
    private let ending: (read: Int32, write: Int32)
    private let thread: RunningThread

    /// Where this system tells of pressure on this process: the machine's file, and that of its control group if
    /// it is in one of version 2 that is not the root.
    package static func places() -> [String] {
        let machine = "/proc/pressure/memory"
        guard let groups = text(of: "/proc/self/cgroup"),
            let mounts = text(of: "/proc/self/mounts"),
            let group = controlGroupPressure(groups: groups, mounts: mounts)
        else { return [machine] }
        return [machine, group]
    }

    /// The file that tells of the memory pressure on the control group, as /proc/self/cgroup and /proc/self/mounts
    /// say where it is; nil in the root of the groups, whose pressure is the machine's, and without version 2.
    package static func controlGroupPressure(groups: String, mounts: String) -> String? {
        let line = groups.split(separator: "\n").first { $0.hasPrefix("0::") }
        guard let path = line?.dropFirst("0::".count), path.hasPrefix("/"), path != "/",
            let mount = mounts.split(separator: "\n").map({ $0.split(separator: " ") })
                .first(where: { $0.count > 2 && $0[2] == "cgroup2" })
        else { return nil }
        return "\(mount[1])\(path)/memory.pressure"
    }

    /// Begins to watch; `isShort` is called on a thread of its own, at most once every two seconds for each place.
    ///
    /// - Throws: when none of the places can be watched: there is no PSI, or it may not be used (the last reason).
    package init(
        _ places: [String] = MemoryPressure.places(),
        isShort: @escaping @Sendable () -> Void
    ) throws(SystemError) {
        var opened: [Int32] = []
        var failure = SystemError("open", "memory pressure", code: ENOENT)
        for place in places {
            do throws(SystemError) {
                opened.append(try Self.open(place))
            } catch {
                failure = error
            }
        }
        guard !opened.isEmpty else { throw failure }
        var ends: [Int32] = [0, 0]
        guard pipe(&ends) == 0 else {
            let failure = SystemError.last("pipe", "memory pressure")
            for descriptor in opened { close(descriptor) }
            throw failure
        }
        for descriptor in ends { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
        let (triggers, end) = (opened, ends[0])
        do throws(SystemError) {
            thread = try runThread(name: "pressure") { Self.watch(triggers, end, isShort) }
        } catch {
            for descriptor in triggers + ends { close(descriptor) }
            throw error
        }
        self.triggers = triggers
        ending = (ends[0], ends[1])
    }

    /// Ends the watch; `isShort` is not called any more when this returns. Once.
    package func stop() {
        close(ending.write)
        thread.join()
        for descriptor in triggers + [ending.read] { close(descriptor) }
    }

    private static func open(_ place: String) throws(SystemError) -> Int32 {
        let descriptor = Glibc.open(place, O_RDWR | O_NONBLOCK | O_CLOEXEC)
        guard descriptor >= 0 else { throw .last("open", place) }
        // With the zero at its end: older kernels want it.
        let count = trigger.utf8.count + 1
        guard trigger.withCString({ write(descriptor, $0, count) }) == count else {
            let failure = SystemError.last("setting a trigger of", place)
            close(descriptor)
            throw failure
        }
        return descriptor
    }

    /// The thread: until the pipe's other end is closed.
    private static func watch(_ triggers: [Int32], _ end: Int32, _ isShort: () -> Void) {
        var polled = triggers.map { pollfd(fd: $0, events: Int16(POLLPRI), revents: 0) }
        polled.append(pollfd(fd: end, events: 0, revents: 0))
        while true {
            let count = poll(&polled, nfds_t(polled.count), -1)
            if count < 0, errno != EINTR { return }
            guard count > 0 else { continue }
            if polled[polled.count - 1].revents != 0 { return }
            for index in triggers.indices where polled[index].revents != 0 {
                // POLLERR: the control group is gone; nothing more is heard of it.
                if polled[index].revents & Int16(POLLERR) != 0 { polled[index].fd = -1 }
            }
            if polled.contains(where: { $0.revents & Int16(POLLPRI) != 0 }) { isShort() }
        }
    }

    /// A small file of /proc as text.
    private static func text(of path: String) -> String? {
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = read(descriptor, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { break }
            bytes += buffer[..<count]
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
