// What is a list, and what chmod and a default list make of one.

import FileStore
import Testing

struct AccessControlListTests {
    private typealias Entry = AccessControlList.Entry

    private static func list(_ entries: Entry...) throws -> AccessControlList {
        try #require(AccessControlList(entries))
    }

    private static func read(_ bytes: [UInt8]) -> AccessControlList? {
        bytes.withUnsafeBytes(AccessControlList.init(bytes:))
    }

    @Test func bytesThereAndBack() throws {
        let list = try Self.list(
            Entry(.owner, 7),
            Entry(.user, 6, identity: 0x0102_0304),
            Entry(.owningGroup, 5),
            Entry(.group, 4, identity: 9),
            Entry(.mask, 3),
            Entry(.others, 2)
        )
        // As Linux writes it (acl(5), linux/posix_acl_xattr.h).
        let bytes: [UInt8] =
            [2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 6, 0, 4, 3, 2, 1]
            + [4, 0, 5, 0, 255, 255, 255, 255, 8, 0, 4, 0, 9, 0, 0, 0]
            + [16, 0, 3, 0, 255, 255, 255, 255, 32, 0, 2, 0, 255, 255, 255, 255]
        #expect(list.bytes == bytes)
        #expect(Self.read(bytes) == list)
        for count in bytes.indices { #expect(Self.read(Array(bytes[..<count])) == nil) }
        for place in [0, 4, 5, 6, 7, 13] {
            var damaged = bytes
            damaged[place] |= 0x40
            #expect(Self.read(damaged) == nil, "byte \(place)")
        }
    }

    @Test func whatIsNone() {
        let (owner, group, others) = (Entry(.owner, 7), Entry(.owningGroup, 5), Entry(.others, 0))
        let named = Entry(.user, 4, identity: 1)
        #expect(AccessControlList([owner, group, others])?.isMinimal == true)
        #expect(AccessControlList([]) == nil)
        #expect(AccessControlList([owner, others]) == nil)
        #expect(AccessControlList([owner, group, group, others]) == nil)
        #expect(AccessControlList([group, owner, others]) == nil, "out of order")
        #expect(AccessControlList([owner, named, group, others]) == nil, "no mask")
        #expect(AccessControlList([owner, named, group, Entry(.mask, 4), others]) != nil)
        #expect(AccessControlList([owner, group, Entry(.mask, 4), others])?.isMinimal == false)
        #expect(AccessControlList([Entry(.owner, 8), group, others]) == nil)
    }

    @Test func modes() throws {
        let masked = try Self.list(
            Entry(.owner, 7),
            Entry(.user, 6, identity: 1),
            Entry(.owningGroup, 5),
            Entry(.mask, 4),
            Entry(.others, 1)
        )
        #expect(masked.permissionBits == 0o741)
        let changed = masked.changed(to: 0o4632)
        #expect(changed.permissionBits == 0o632)
        #expect(changed.entries[2].permissions == 5, "the mask changes, not the group")
        let plain = try Self.list(Entry(.owner, 7), Entry(.owningGroup, 5), Entry(.others, 5))
        #expect(plain.changed(to: 0o640).permissionBits == 0o640)
        #expect(masked.inherited(by: 0o100666).permissionBits == 0o640)
        #expect(masked.inherited(by: 0o100000).permissionBits == 0)
        #expect(plain.inherited(by: 0o777).permissionBits == 0o755)
    }
}
