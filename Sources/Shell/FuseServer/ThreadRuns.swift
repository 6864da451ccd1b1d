// Whether a thread that was answered has been on a processor since: then it has taken in the answer (KERNEL F6).

import CLinux
import Glibc

/// How often a thread has been put on a processor in its life, as /proc/N/schedstat tells; nil if it does not tell: there is no such
/// thread, no /proc, or a kernel that does not count. Takes some microseconds.
func threadRuns(_ thread: UInt32) -> UInt64? {
    guard thread != 0 else { return nil }
    let file = lockstep_open("/proc/\(thread)/schedstat", O_RDONLY | O_CLOEXEC, 0)
    guard file >= 0 else { return nil }
    defer { close(file) }
    return withUnsafeTemporaryAllocation(byteCount: 96, alignment: 1) { text in
        let count = read(file, text.baseAddress, text.count)
        return count > 0 ? timesRun(UnsafeRawBufferPointer(rebasing: text[..<count])) : nil
    }
}

/// The third number of the text of schedstat; nil if there is none, or 0: who asks has run.
func timesRun(_ text: UnsafeRawBufferPointer) -> UInt64? {
    var field = 0
    var runs: UInt64 = 0
    for byte in text {
        switch byte {
        case UInt8(ascii: " "): field += 1
        case UInt8(ascii: "0")...UInt8(ascii: "9") where field == 2:
            runs = runs &* 10 &+ UInt64(byte - UInt8(ascii: "0"))
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "\n"): break
        default: return nil
        }
    }
    return field == 2 && runs > 0 ? runs : nil
}
