// The golden image: a small volume with one of everything, as it was written when format version 1
// was fixed. Later programs must read it, and mkfs and the records must still write the same bytes.
// Only what is not zero is kept: `@page`, then `offset hex` for each 32 bytes.

import BlockIO
import DiskFormat
import Glibc
import Testing
import VolumeChecking
import VolumeMaking

/// Reads a whole file; nil if there is none.
func contents(of path: String) -> String? {
    guard let file = fopen(path, "r") else { return nil }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var part = [UInt8](repeating: 0, count: 65_536)
    while true {
        let count = fread(&part, 1, part.count, file)
        guard count > 0 else { break }
        bytes += part[..<count]
    }
    return String(decoding: bytes, as: UTF8.self)
}

/// The folder `depth` levels above this one, and a path in it.
func projectPath(_ path: String, _ file: String = #filePath) -> String {
    file.split(separator: "/", omittingEmptySubsequences: false).dropLast(3).joined(separator: "/")
        + "/" + path
}

@Suite struct GoldenTests {
    private let path = projectPath("Tests/Images/volume-\(Superblock.formatVersion).txt")
    private static let row = 32

    private func hexadecimal(_ bytes: UnsafeRawBufferPointer) -> String {
        let digits = Array("0123456789abcdef".utf8)
        return String(
            decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] },
            as: UTF8.self
        )
    }

    private func dump(_ device: MemoryDevice) -> String {
        var lines = ["size \(device.byteCount)"]
        let page = AlignedBuffer(zeroed: 4096)
        for index in device.writtenPages {
            device.readNow(page.bytes, at: index * 4096)
            lines.append("@\(index)")
            for offset in stride(from: 0, to: 4096, by: Self.row) {
                let row = page.readOnly.window(offset, Self.row)
                if !row.isAllZero { lines.append("\(offset) \(hexadecimal(row))") }
            }
        }
        return lines.joined(separator: "\n") + "\n"
    }

    private func load(_ text: String) throws -> MemoryDevice {
        var device: MemoryDevice?
        var index: UInt64?
        let page = AlignedBuffer(zeroed: 4096)
        func finish() {
            if let index { device?.writeNow(page.readOnly, at: index * 4096) }
            page.bytes.clear(0, 4096)
        }
        for line in text.split(separator: "\n") {
            if line.hasPrefix("size ") {
                device = MemoryDevice(byteCount: try #require(UInt64(line.dropFirst(5))))
            } else if line.hasPrefix("@") {
                finish()
                let number: UInt64 = try #require(UInt64(String(line.dropFirst())))
                index = number
            } else {
                let words = line.split(separator: " ")
                let offset = try #require(words.first.flatMap { Int($0) })
                let digits = Array(words[1].utf8)
                for place in 0..<Self.row {
                    let pair = String(
                        decoding: digits[2 * place..<2 * place + 2],
                        as: UTF8.self
                    )
                    page.bytes[offset + place] = try #require(UInt8(pair, radix: 16))
                }
            }
        }
        finish()
        return try #require(device)
    }

    @Test func theGoldenImageIsStillReadAndStillWritten() async throws {
        let sketch = try await VolumeSketch.populatedWithoutFeatures()
        let now = dump(sketch.device)
        if getenv("LOCKSTEP_RECORD") != nil {
            let file = try #require(fopen(path, "w"))
            fputs(now, file)
            fclose(file)
        }
        let recorded = try #require(
            contents(of: path),
            "\(path) is missing: run LOCKSTEP_RECORD=1 swift test --filter GoldenTests"
        )
        let device = try load(recorded)
        let report = try await VolumeChecker.check(device)
        #expect(report.isClean, "\(lines(report))")
        #expect(report.inodes == 15 && report.directories == 5 && report.orphans == 2)
        #expect(report.superblock.clusterName == "lab" && report.superblock.volumeName == "data")
        let same = recorded == now
        #expect(
            same,
            """
            what is written now is not what version \(Superblock.formatVersion) was; if that is meant, \
            raise the version and record: LOCKSTEP_RECORD=1 swift test --filter GoldenTests
            """
        )
    }

    /// Every finding has its paragraph, and there is none for what does not exist.
    @Test func everyFindingIsExplained() throws {
        let text = try #require(contents(of: projectPath("Docs/CHECKS.md")))
        let headings = text.split(separator: "\n").filter { $0.hasPrefix("### ") }
            .map { String($0.dropFirst(4)) }
        #expect(headings == FindingKind.allCases.map(\.rawValue))
        for (heading, next) in zip(headings, headings.dropFirst()) {
            let start = try #require(text.firstRange(of: "### " + heading + "\n")).upperBound
            let end = try #require(text.firstRange(of: "### " + next + "\n")).lowerBound
            let paragraph = text[start..<end].split(separator: "\n\n").first ?? ""
            #expect(paragraph.utf8.count > 80, "\(heading) is not explained")
        }
        for pass in CheckPass.allCases {
            #expect(text.contains("## Pass \(pass.rawValue): \(pass.title)"))
        }
    }
}
