// What a file holds whose owner truncates and extends it: everything follows from the key and the version, so
// that every agent knows it without being told. Every eighth version begins anew with an empty file.

/// One change of a file.
package enum StressSizeChange: Hashable, Sendable {
    /// ftruncate to so many bytes.
    case truncate(Int)
    /// A write of `count` bytes of the version's pattern.
    case write(offset: Int, count: Int)
}

/// The contents of a file by version.
package struct StressSizeModel: Hashable, Sendable {
    package let key: StressKey

    package init(_ key: StressKey) { self.key = key }

    /// The file is empty at every version that this divides.
    package static let period: UInt64 = 8
    /// No file is larger.
    package static let largest = 40_000

    /// The byte that a version writes.
    private func pattern(_ version: UInt64) -> UInt8 {
        UInt8(stressMix(key.rawValue, version) % 255) + 1
    }

    /// The bytes that a version writes.
    package func bytes(_ version: UInt64, count: Int) -> [UInt8] {
        [UInt8](repeating: pattern(version), count: count)
    }

    /// What makes a version out of the one before it, which had `size` bytes.
    package func change(_ version: UInt64, from size: Int) -> StressSizeChange {
        if version.isMultiple(of: Self.period) { return .truncate(0) }
        let dice = stressMix(key.rawValue &+ 1, version)
        let amount = Int(dice >> 8 % 9000) % 9000 + 1
        switch dice % 4 {
        case 0: return .truncate(min(size + amount, Self.largest))
        case 1: return .truncate(Int(dice >> 20) % (size + 1))
        case 2: return .write(offset: size, count: min(amount, max(1, Self.largest - size)))
        default:
            let offset = Int(dice >> 20) % (size + 1)
            return .write(offset: offset, count: min(amount, 5000))
        }
    }

    /// The whole content at a version.
    package func content(_ version: UInt64) -> [UInt8] {
        var content: [UInt8] = []
        let first = version - version % Self.period
        guard version > first else { return content }
        for step in first + 1...version {
            switch change(step, from: content.count) {
            case .truncate(let size):
                if size < content.count {
                    content.removeLast(content.count - size)
                } else {
                    content += [UInt8](repeating: 0, count: size - content.count)
                }
            case .write(let offset, let count):
                if content.count < offset + count {
                    content += [UInt8](repeating: 0, count: offset + count - content.count)
                }
                content.replaceSubrange(offset..<offset + count, with: bytes(step, count: count))
            }
        }
        return content
    }

    /// Versions that may have been seen at once are at most so many, or nothing is said about sizes.
    private static let mostVersions: UInt64 = 64

    /// Whether the size that was seen is one of the versions that may have been seen, or between two: a write
    /// of several pages may be seen in the middle.
    package func allows(size: Int, from floor: UInt64, to ceiling: UInt64) -> Bool {
        let last = max(floor, ceiling)
        guard last - floor <= Self.mostVersions else { return size <= Self.largest + 5000 }
        let sizes = (floor...last).map { content($0).count }
        guard let least = sizes.min(), let most = sizes.max() else { return false }
        return (least...most).contains(size)
    }

    /// Compares what was read at rest with what must be there.
    ///
    /// - Returns: the difference in words; nil if there is none.
    package func difference(_ found: [UInt8], at version: UInt64) -> String? {
        let expected = content(version)
        if found == expected { return nil }
        if found.count != expected.count {
            return "\(found.count) bytes, and version \(version) has \(expected.count)"
        }
        guard let place = found.indices.first(where: { found[$0] != expected[$0] }) else {
            return nil
        }
        return
            "byte \(place) is \(found[place]), and of version \(version) it is \(expected[place])"
    }
}
