/// The six modes of the VMS lock manager, numbered as VMS and Linux number them (Linux
/// `include/uapi/linux/dlmconstants.h`).
public enum LockMode: UInt8, CaseIterable, Hashable, Comparable, Sendable, CustomStringConvertible {
    /// NL: interest without access.
    case null = 0
    /// CR: read while others may write.
    case concurrentRead = 1
    /// CW: write while others may write.
    case concurrentWrite = 2
    /// PR: read, nobody writes. The "shared lock".
    case protectedRead = 3
    /// PW: write, others may read without protection.
    case protectedWrite = 4
    /// EX: alone.
    case exclusive = 5

    /// Row = granted mode, bit = requested mode.
    private static let compatible: InlineArray<6, UInt8> = [
        0b11_1111,  // NL: all
        0b01_1111,  // CR: all but EX
        0b00_0111,  // CW: NL CR CW
        0b00_1011,  // PR: NL CR PR
        0b00_0011,  // PW: NL CR
        0b00_0001,  // EX: NL
    ]

    /// Whether one lock in this mode and another in `other` may be granted at the same time.
    public func isCompatible(with other: LockMode) -> Bool {
        Self.compatible[Int(rawValue)] & (1 << other.rawValue) != 0
    }

    /// Order of the numbers only. PR and CW are not comparable in strength: use `covers`.
    public static func < (left: LockMode, right: LockMode) -> Bool {
        left.rawValue < right.rawValue
    }

    /// Whether holding this mode gives every right that `other` gives: whatever conflicts with
    /// `other` also conflicts with this.
    public func covers(_ other: LockMode) -> Bool {
        if self == other { return true }
        let mine = Self.compatible[Int(rawValue)]
        let theirs = Self.compatible[Int(other.rawValue)]
        return mine & ~theirs == 0
    }

    /// For logs and reports.
    public var description: String {
        switch self {
        case .null: "NL"
        case .concurrentRead: "CR"
        case .concurrentWrite: "CW"
        case .protectedRead: "PR"
        case .protectedWrite: "PW"
        case .exclusive: "EX"
        }
    }
}
