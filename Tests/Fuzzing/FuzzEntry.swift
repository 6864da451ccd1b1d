// What libFuzzer calls. Compiled by tools/fuzz alone, with FUZZ_TARGET in the environment of the run.

import Fuzzing
import Glibc

private let target: FuzzTarget = {
    let name = getenv("FUZZ_TARGET").map { String(cString: $0) } ?? ""
    guard let target = FuzzTarget(rawValue: name) else {
        fatalError("FUZZ_TARGET is '\(name)': it must name a target")
    }
    return target
}()

/// Runs one input; traps on what is wrong, so that libFuzzer keeps the input.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let input = Array(UnsafeBufferPointer(start: bytes, count: count))
    if let complaint = target.run(input) { fatalError("\(target): \(complaint)") }
    return 0
}
