// What is written: blocks and records that say what they are. A checksum over all of it finds the mixture of
// two versions, the identity finds what belongs elsewhere, the version finds what is old.

import CChecksum

/// What a block, a record or a counter says of itself.
package struct StressBlock: Hashable, Sendable {
    /// Of the run that wrote it.
    package var run: UInt64
    package var key: StressKey
    package var version: UInt64
    /// The agent that wrote it.
    package var writer: Int

    package init(run: UInt64, key: StressKey, version: UInt64, writer: Int) {
        self.run = run
        self.key = key
        self.version = version
        self.writer = writer
    }

    /// Bytes of the shortest.
    package static let least = 64
    private static let magic: UInt64 = 0x5345_5254_534B_434C
    private static let checksumAt = 40

    /// Its bytes.
    ///
    /// - Parameter size: a multiple of 8, at least `least`.
    package func bytes(size: Int) -> [UInt8] {
        precondition(size >= Self.least && size % 8 == 0, "a block of \(size) bytes")
        var bytes = [UInt8](repeating: 0, count: size)
        bytes.withUnsafeMutableBytes { raw in
            let head = [Self.magic, run, key.rawValue, version, UInt64(writer)]
            for (place, word) in head.enumerated() {
                raw.storeBytes(of: word.littleEndian, toByteOffset: place * 8, as: UInt64.self)
            }
            for place in stride(from: 48, to: size, by: 8) {
                let word = stressMix(key.rawValue ^ version << 16, UInt64(place))
                raw.storeBytes(of: word.littleEndian, toByteOffset: place, as: UInt64.self)
            }
            let sum = Self.checksum(UnsafeRawBufferPointer(raw))
            raw.storeBytes(of: sum.littleEndian, toByteOffset: Self.checksumAt, as: UInt64.self)
        }
        return bytes
    }

    private static func checksum(_ raw: UnsafeRawBufferPointer) -> UInt64 {
        guard let base = raw.baseAddress else { return 0 }
        let front = lockstep_crc32c(0, base, checksumAt)
        let rest = checksumAt + 8
        return UInt64(lockstep_crc32c(front, base + rest, raw.count - rest))
    }

    /// What bytes that were read turn out to be.
    package enum Found: Hashable, Sendable {
        /// Nothing but zeros: never written.
        case empty
        case block(StressBlock)
        /// Neither: why, in words.
        case torn(String)
    }

    /// Looks at what was read.
    package static func look(_ raw: UnsafeRawBufferPointer) -> Found {
        guard raw.count >= least else { return .torn("\(raw.count) bytes") }
        func word(_ place: Int) -> UInt64 {
            UInt64(littleEndian: raw.loadUnaligned(fromByteOffset: place * 8, as: UInt64.self))
        }
        guard word(0) == magic else {
            if let other = raw.firstIndex(where: { $0 != 0 }) {
                return .torn("no block: byte \(other) is \(raw[other])")
            }
            return .empty
        }
        let block = StressBlock(
            run: word(1),
            key: StressKey(rawValue: word(2)),
            version: word(3),
            writer: Int(truncatingIfNeeded: word(4))
        )
        guard checksum(raw) == word(5) else {
            return .torn("version \(block.version) of \(block.key) with a wrong checksum")
        }
        return .block(block)
    }

    /// The version that was read, of what should be a version of `key`.
    ///
    /// - Returns: the version (0: empty) and its writer, or what is wrong in words.
    package static func version(
        in raw: UnsafeRawBufferPointer,
        of key: StressKey,
        run: UInt64
    ) -> Result<StressBlock, StressComplaint> {
        switch look(raw) {
        case .empty: .success(StressBlock(run: run, key: key, version: 0, writer: 0))
        case .torn(let why): .failure(StressComplaint(isTorn: true, "torn: \(why)"))
        case .block(let block):
            block.key == key && block.run == run
                ? .success(block)
                : .failure(
                    StressComplaint(
                        isTorn: false,
                        "foreign: version \(block.version) of \(block.key) of run \(block.run)"
                    )
                )
        }
    }
}

/// What is wrong with something that was read.
package struct StressComplaint: Error, Hashable, Sendable {
    /// It may have been read in the middle of a write, where that is allowed.
    package var isTorn: Bool
    package var words: String

    package init(isTorn: Bool, _ words: String) {
        self.isTorn = isTorn
        self.words = words
    }
}
