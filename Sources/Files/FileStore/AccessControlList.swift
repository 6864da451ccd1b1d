// POSIX access control lists: who may do what besides the three of the mode. Kept as extended attributes in the
// bytes that Linux passes (`posix_acl_xattr_header`, version 2); the kernel checks permissions by them, this file
// sees to it that list and mode agree.
//
// C1. A list is in the order of its tags: owner, named users, owning group, named groups, mask, others; owner, owning
//     group and others once each; a mask when there is somebody named, and once at most.
// C2. A list that says no more than the mode is not kept: the mode is all.
// C3. With a list the mode's group bits are the mask (without one, those of the owning group), the others are those
//     of owner and others.
//
// Source: POSIX 1003.1e draft 17; acl(5); `posix_acl_valid`, `posix_acl_equiv_mode`, `__posix_acl_chmod_masq` and
// `posix_acl_create_masq` in Linux's fs/posix_acl.c.

import Vocabulary

/// An access control list of a file or, as a default, of what is made in a directory.
package struct AccessControlList: Hashable, Sendable {
    /// Whom an entry is about; the numbers are Linux's.
    package enum Tag: UInt16, Hashable, Sendable {
        case owner = 0x01
        case user = 0x02
        case owningGroup = 0x04
        case group = 0x08
        case mask = 0x10
        case others = 0x20
    }

    /// What somebody may do.
    package struct Entry: Hashable, Sendable {
        package var tag: Tag
        /// Read 4, write 2, execute 1.
        package var permissions: UInt16
        /// The user or group; of no meaning for other tags.
        package var identity: UInt32

        package init(_ tag: Tag, _ permissions: UInt16, identity: UInt32 = .max) {
            self.tag = tag
            self.permissions = permissions
            self.identity = identity
        }
    }

    /// The attribute that holds a file's list.
    package static let accessName = "system.posix_acl_access"
    /// The attribute that holds a directory's default list.
    package static let defaultName = "system.posix_acl_default"

    /// C1.
    package private(set) var entries: [Entry]

    private static let version: UInt32 = 2
    private static let headerLength = 4
    private static let entryLength = 8

    /// A list of these entries; nil if they are none (C1).
    package init?(_ entries: [Entry]) {
        self.entries = entries
        if !isValid { return nil }
    }

    /// The list in an attribute's value; nil for bytes that are none.
    package init?(bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= Self.headerLength,
            (bytes.count - Self.headerLength) % Self.entryLength == 0,
            UInt32(littleEndian: bytes.loadUnaligned(as: UInt32.self)) == Self.version
        else { return nil }
        entries = []
        for place in stride(from: Self.headerLength, to: bytes.count, by: Self.entryLength) {
            func word(_ offset: Int) -> UInt16 {
                UInt16(
                    littleEndian: bytes.loadUnaligned(
                        fromByteOffset: place + offset,
                        as: UInt16.self
                    )
                )
            }
            guard let tag = Tag(rawValue: word(0)) else { return nil }
            let identity = UInt32(word(4)) | UInt32(word(6)) << 16
            entries.append(Entry(tag, word(2), identity: identity))
        }
        if !isValid { return nil }
    }

    private var isValid: Bool {
        guard entries.allSatisfy({ $0.permissions <= 7 }),
            zip(entries, entries.dropFirst()).allSatisfy({ $0.tag.rawValue <= $1.tag.rawValue })
        else { return false }
        func count(_ tag: Tag) -> Int { entries.count { $0.tag == tag } }
        let hasNamed = count(.user) + count(.group) > 0
        return count(.owner) == 1 && count(.owningGroup) == 1 && count(.others) == 1
            && (count(.mask) == 1 || (count(.mask) == 0 && !hasNamed))
    }

    /// The value of the attribute.
    package var bytes: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Self.headerLength + entries.count * Self.entryLength)
        func append(_ word: UInt16) {
            bytes.append(UInt8(truncatingIfNeeded: word))
            bytes.append(UInt8(truncatingIfNeeded: word >> 8))
        }
        append(UInt16(truncatingIfNeeded: Self.version))
        append(0)
        for entry in entries {
            append(entry.tag.rawValue)
            append(entry.permissions)
            append(UInt16(truncatingIfNeeded: entry.identity))
            append(UInt16(truncatingIfNeeded: entry.identity >> 16))
        }
        return bytes
    }

    /// Whether it says no more than a mode does (C2).
    package var isMinimal: Bool { entries.count == 3 }

    private func permissions(_ tag: Tag) -> UInt32? {
        entries.first { $0.tag == tag }.map { UInt32($0.permissions) }
    }

    /// The nine bits of the mode of a file with this list (C3).
    package var permissionBits: UInt32 {
        let group = permissions(.mask) ?? permissions(.owningGroup) ?? 0
        return (permissions(.owner) ?? 0) << 6 | group << 3 | (permissions(.others) ?? 0)
    }

    /// The list after chmod(2) to `mode`.
    package func changed(to mode: UInt32) -> AccessControlList {
        var changed = self
        let groupTag: Tag = permissions(.mask) == nil ? .owningGroup : .mask
        for place in changed.entries.indices {
            switch changed.entries[place].tag {
            case .owner: changed.entries[place].permissions = UInt16(mode >> 6 & 7)
            case groupTag: changed.entries[place].permissions = UInt16(mode >> 3 & 7)
            case .others: changed.entries[place].permissions = UInt16(mode & 7)
            default: break
            }
        }
        return changed
    }

    /// The list of what is made with `mode` in a directory that has this default: nobody gets more than both
    /// allow. Its `permissionBits` are those of the mode.
    package func inherited(by mode: UInt32) -> AccessControlList {
        let own = permissionBits & mode
        return changed(to: own)
    }
}
