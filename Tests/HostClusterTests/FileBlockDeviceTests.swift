import BlockIO
import Glibc
import LinuxBlockIO
import Testing

@Suite struct FileBlockDeviceTests {
    private func pattern(_ seed: UInt8, _ count: Int) -> AlignedBuffer {
        let buffer = AlignedBuffer(byteCount: count)
        for index in 0..<count {
            buffer.bytes[index] = UInt8(truncatingIfNeeded: index) &* 31 &+ seed
        }
        return buffer
    }

    private func same(_ left: AlignedBuffer, _ right: AlignedBuffer) -> Bool {
        left.readOnly.elementsEqual(right.readOnly)
    }

    @Test func writesAreReadBackOnBothPaths() async throws {
        let folder = try TemporaryFolder()
        let path = try folder.file("image", byteCount: 1 << 20)
        let device = try FileBlockDevice(path: path)
        defer { device.close() }
        #expect(device.byteCount == 1 << 20)
        #expect(device.isDirect)
        #expect(!device.isBlockSpecial)
        #expect(device.alignment == 512 || device.alignment == 4096)
        let first = pattern(1, 8192)
        let second = pattern(2, 4096)
        try await device.write(first.readOnly, at: 4096)
        try device.writeNow(second.readOnly, at: 65536)
        try await device.flush()
        try device.flushNow()
        let back = AlignedBuffer(zeroed: 8192)
        try device.readNow(back.bytes, at: 4096)
        #expect(same(back, first))
        let again = AlignedBuffer(zeroed: 4096)
        try await device.read(again.bytes, at: 65536)
        #expect(same(again, second))
        let counters = device.counters
        #expect(counters.writes == 2 && counters.reads == 2)
        #expect(counters.bytesWritten == 12288 && counters.bytesRead == 12288)
        #expect(counters.flushes == 2)
    }

    @Test func manyAtOnceAllArrive() async throws {
        let folder = try TemporaryFolder()
        let path = try folder.file("image", byteCount: 4 << 20)
        let device = try FileBlockDevice(path: path)
        defer { device.close() }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for index in 0..<512 {
                group.addTask {
                    let offset = UInt64(index) * 8192
                    let mine = self.pattern(UInt8(index & 255), 8192)
                    try await device.write(mine.readOnly, at: offset)
                    if index % 16 == 0 { try await device.flush() }
                    let back = AlignedBuffer(zeroed: 8192)
                    try await device.read(back.bytes, at: offset)
                    #expect(self.same(back, mine))
                }
            }
            try await group.waitForAll()
        }
        #expect(device.counters.writes == 512)
        #expect((1...32).contains(device.counters.flushes))  // those who ask together share one
    }

    @Test func refusesWhatIsOutsideOrUnaligned() async throws {
        let folder = try TemporaryFolder()
        let path = try folder.file("image", byteCount: 16384)
        let device = try FileBlockDevice(path: path)
        defer { device.close() }
        let buffer = AlignedBuffer(zeroed: 8192)
        await #expect(
            throws: DeviceError.outOfRange(offset: 12288, length: 8192, size: 16384)
        ) { try await device.read(buffer.bytes, at: 12288) }
        #expect(throws: DeviceError.outOfRange(offset: 1 << 63, length: 8192, size: 16384)) {
            try device.writeNow(buffer.readOnly, at: 1 << 63)
        }
        await #expect(
            throws: DeviceError.failed(operation: "unaligned write", offset: 100, errno: EINVAL)
        ) { try await device.write(buffer.readOnly, at: 100) }
        #expect(throws: DeviceError.failed(operation: "unaligned read", offset: 0, errno: EINVAL)) {
            try device.readNow(
                UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[0..<100]),
                at: 0
            )
        }
        #expect(throws: DeviceError.failed(operation: "unaligned read", offset: 0, errno: EINVAL)) {
            let odd = UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[16..<4112])
            try device.readNow(odd, at: 0)
        }
        #expect(device.counters.writes == 0)
    }

    @Test func anImageCutShortIsAnErrorAndNotZeros() async throws {
        let folder = try TemporaryFolder()
        let path = try folder.file("image", byteCount: 65536)
        let device = try FileBlockDevice(path: path)
        defer { device.close() }
        #expect(truncate(path, 8192) == 0)
        let buffer = AlignedBuffer(zeroed: 8192)
        try await device.read(buffer.bytes, at: 0)
        await #expect(throws: DeviceError.failed(operation: "read", offset: 32768, errno: EIO)) {
            try await device.read(buffer.bytes, at: 32768)
        }
        #expect(try device.refreshSize() == 8192)
        #expect(device.byteCount == 8192)
    }

    @Test func aReadOnlyDeviceRefusesWrites() async throws {
        let folder = try TemporaryFolder()
        var options = FileBlockDevice.Options()
        options.readOnly = true
        let path = try folder.file("image", byteCount: 8192)
        let device = try FileBlockDevice(path: path, options: options)
        defer { device.close() }
        let buffer = AlignedBuffer(zeroed: 4096)
        await #expect(throws: DeviceError.failed(operation: "write", offset: 0, errno: EBADF)) {
            try await device.write(buffer.readOnly, at: 0)
        }
    }

    @Test func closedMeansClosed() async throws {
        let folder = try TemporaryFolder()
        let device = try FileBlockDevice(path: folder.file("image", byteCount: 8192))
        let buffer = AlignedBuffer(zeroed: 4096)
        try await device.write(buffer.readOnly, at: 0)
        device.drain()
        await #expect(throws: DeviceError.closed) { try await device.read(buffer.bytes, at: 0) }
        #expect(throws: DeviceError.closed) { try device.flushNow() }
        device.close()
        device.close()
        await #expect(throws: DeviceError.closed) { try await device.flush() }
    }

    @Test func memoryFileSystemsNeedTheOption() throws {
        let folder = try TemporaryFolder(inMemory: true)
        let path = try folder.file("image", byteCount: 8192)
        // Since 6.6 a tmpfs accepts O_DIRECT and does as it likes; before, it refuses.
        do {
            let device = try FileBlockDevice(path: path)
            device.close()
        } catch {
            #expect(error.errno == EINVAL)
            #expect(error.description.contains("O_DIRECT"))
            var options = FileBlockDevice.Options()
            options.allowsBuffered = true
            let device = try FileBlockDevice(path: path, options: options)
            #expect(!device.isDirect && device.alignment == 512)
            device.close()
        }
    }

    @Test func whatCannotBeOpenedSaysWhy() throws {
        let folder = try TemporaryFolder()
        do {
            _ = try FileBlockDevice(path: folder.path + "/none")
            Issue.record("opened a file that does not exist")
        } catch {
            #expect(error.errno == ENOENT)
            #expect(error.description.contains("/none: cannot be opened: No such file"))
        }
        do {
            _ = try FileBlockDevice(path: folder.path)
            Issue.record("opened a folder as a device")
        } catch {
            #expect(error.errno == ENOTBLK)
        }
    }

    @Test(.enabled(if: geteuid() == 0 && access("/dev/loop-control", R_OK | W_OK) == 0))
    func aBlockDeviceIsOne() async throws {
        let folder = try TemporaryFolder()
        let image = try folder.file("image", byteCount: 1 << 20)
        let loop = try LoopDevice(image)
        var options = FileBlockDevice.Options()
        options.exclusive = true
        let device = try FileBlockDevice(path: loop.path, options: options)
        #expect(device.isBlockSpecial && device.isDirect)
        #expect(device.byteCount == 1 << 20)
        #expect(device.alignment == 512)
        let mine = pattern(7, 8192)
        try await device.write(mine.readOnly, at: 512)
        try await device.flush()
        let back = AlignedBuffer(zeroed: 8192)
        try device.readNow(back.bytes, at: 512)
        #expect(same(back, mine))
        // Two who want it for themselves alone cannot both have it; another mount can.
        do {
            _ = try FileBlockDevice(path: loop.path, options: options)
            Issue.record("a second exclusive open of \(loop.path)")
        } catch {
            #expect(error.description == "\(loop.path): is in use by the kernel")
        }
        try FileBlockDevice(path: loop.path).close()
        device.close()
    }
}

/// An image as a block device, until it goes away.
private final class LoopDevice {
    let path: String
    private let descriptor: Int32

    init(_ image: String) throws {
        let control = open("/dev/loop-control", O_RDWR)
        defer { close(control) }
        let file = open(image, O_RDWR)
        defer { close(file) }
        // Somebody else may take the number that was free a moment ago.
        for _ in 0..<16 {
            let number = ioctl(control, 0x4C82, Int32(0))  // LOOP_CTL_GET_FREE
            guard number >= 0 else { throw Trouble("no free loop device") }
            let opened = open("/dev/loop\(number)", O_RDWR)
            guard opened >= 0 else { throw Trouble("/dev/loop\(number): errno \(errno)") }
            if ioctl(opened, 0x4C00, file) == 0 {  // LOOP_SET_FD
                path = "/dev/loop\(number)"
                descriptor = opened
                return
            }
            close(opened)
        }
        throw Trouble("no loop device could be set up")
    }

    deinit {
        _ = ioctl(descriptor, 0x4C01, Int32(0))  // LOOP_CLR_FD
        close(descriptor)
    }
}
