// What else may be on a device: enough of other people's magic numbers to keep a user from
// formatting the wrong disk. A table of places and bytes, no parsing: a false alarm costs `-f`, a
// miss costs the data.
//
// Sources of the numbers: the on-disk structures as documented by each project (ext4, XFS, Btrfs,
// GFS2, OCFS2, F2FS, EROFS, NILFS2, bcachefs, SquashFS, ReiserFS, JFS in the kernel's own headers
// and documentation; LVM2's and mdadm's manual pages; the LUKS and ZFS on-disk format papers;
// ECMA-119 and ECMA-167; the UEFI specification; Microsoft's FAT and exFAT specifications), and the
// list of what libblkid looks for.

/// One sign of something on a device.
package struct ForeignSignature: Hashable, Sendable {
    /// "ext2/3/4", "XFS", ...
    package var name: String
    /// Where the sign was found, in bytes from the start of the device.
    package var offset: UInt64

    /// Bytes from the start of the device that must be looked at.
    package static let headLength = 262_144
    /// Bytes before the end of the device that must be looked at.
    package static let tailLength = 131_072

    /// What the ends of a device tell.
    ///
    /// - Parameters:
    ///   - head: the first `headLength` bytes, or the whole device if it is smaller.
    ///   - tail: the last `tailLength` bytes, or the whole device if it is smaller; may end up to
    ///   4,095
    ///     bytes before the device does.
    ///   - tailOffset: where `tail` begins.
    ///   - deviceSize: bytes of the device.
    /// - Returns: every sign found, the most telling first; empty for a blank device.
    package static func find(
        head: UnsafeRawBufferPointer,
        tail: UnsafeRawBufferPointer,
        tailOffset: UInt64,
        deviceSize: UInt64
    ) -> [ForeignSignature] {
        var found: [ForeignSignature] = []
        func note(_ name: String, _ offset: UInt64) {
            guard !found.contains(where: { $0.name == name }) else { return }
            found.append(ForeignSignature(name: name, offset: offset))
        }
        for place in table where holds(head, place.bytes, at: place.offset) {
            note(place.name, UInt64(place.offset))
        }
        for place in placesAtEnd(deviceSize) where place.offset >= tailOffset {
            if holds(tail, place.bytes, at: Int(place.offset - tailOffset)) {
                note(place.name, place.offset)
            }
        }
        if let offset = uberblock(in: head) { note("ZFS", UInt64(offset)) }
        // A boot sector's mark also ends the first sector of FAT, NTFS and others: only alone does
        // it count.
        if found.isEmpty, holds(head, [0x55, 0xAA], at: 510) { note("MBR partition table", 510) }
        return found
    }

    private static func holds(_ bytes: UnsafeRawBufferPointer, _ magic: [UInt8], at offset: Int)
        -> Bool
    {
        guard offset >= 0, offset + magic.count <= bytes.count else { return false }
        for (index, byte) in magic.enumerated() where bytes[offset + index] != byte {
            return false
        }
        return true
    }

    private struct Place {
        var name: String
        var offset: Int
        var bytes: [UInt8]

        init(_ name: String, _ offset: Int, _ text: String) {
            self.init(name, offset, Array(text.utf8))
        }

        init(_ name: String, _ offset: Int, _ bytes: [UInt8]) {
            self.name = name
            self.offset = offset
            self.bytes = bytes
        }
    }

    private static let table: [Place] = [
        Place("lockstep", 65_536 + 64, "LOCKSTEP"),
        Place("ext2/3/4", 1080, [0x53, 0xEF]),
        Place("XFS", 0, "XFSB"),
        Place("Btrfs", 65_600, "_BHRfS_M"),
        Place("GFS2", 65_536, [0x01, 0x16, 0x19, 0x70]),
        Place("OCFS2", 1024, "OCFSV2"),
        Place("OCFS2", 2048, "OCFSV2"),
        Place("OCFS2", 4096, "OCFSV2"),
        Place("OCFS2", 8192, "OCFSV2"),
        Place("bcachefs", 4120, [0xC6, 0x85, 0x73, 0xF6, 0x4E, 0x1A, 0x45, 0xCA]),
        Place("bcachefs", 4120, [0xC6, 0x85, 0x73, 0xF6, 0x66, 0xCE, 0x90, 0xA9]),
        Place("F2FS", 1024, [0x10, 0x20, 0xF5, 0xF2]),
        Place("EROFS", 1024, [0xE2, 0xE1, 0xF5, 0xE0]),
        Place("NILFS2", 1030, [0x34, 0x34]),
        Place("ReiserFS", 65_588, "ReIsEr"),
        Place("JFS", 32_768, "JFS1"),
        Place("SquashFS", 0, "hsqs"),
        Place("swap", 4086, "SWAPSPACE2"),
        Place("swap", 4086, "SWAP-SPACE"),
        Place("swap", 65_526, "SWAPSPACE2"),
        Place("LUKS", 0, [0x4C, 0x55, 0x4B, 0x53, 0xBA, 0xBE]),
        Place("LVM2", 0, "LABELONE"),
        Place("LVM2", 512, "LABELONE"),
        Place("LVM2", 1024, "LABELONE"),
        Place("LVM2", 1536, "LABELONE"),
        Place("Linux RAID member", 0, [0xFC, 0x4E, 0x2B, 0xA9]),
        Place("Linux RAID member", 4096, [0xFC, 0x4E, 0x2B, 0xA9]),
        Place("NTFS", 3, "NTFS    "),
        Place("exFAT", 3, "EXFAT   "),
        Place("FAT", 54, "FAT12   "),
        Place("FAT", 54, "FAT16   "),
        Place("FAT", 82, "FAT32   "),
        Place("ISO 9660", 32_769, "CD001"),
        Place("UDF", 32_769, "BEA01"),
        Place("GPT partition table", 512, "EFI PART"),
        Place("GPT partition table", 4096, "EFI PART"),
    ]

    private static func placesAtEnd(_ deviceSize: UInt64)
        -> [(name: String, offset: UInt64, bytes: [UInt8])]
    {
        guard deviceSize >= 131_072 else { return [] }
        let raid: [UInt8] = [0xFC, 0x4E, 0x2B, 0xA9]
        let sectors = deviceSize / 512
        return [
            ("GPT partition table", (sectors - 1) * 512, Array("EFI PART".utf8)),
            ("GPT partition table", deviceSize / 4096 * 4096 - 4096, Array("EFI PART".utf8)),
            ("Linux RAID member", (sectors - 16) / 8 * 8 * 512, raid),
            ("Linux RAID member", deviceSize / 65_536 * 65_536 - 65_536, raid),
        ]
    }

    /// ZFS has no mark at a fixed place: 128 slots of one KiB from 128 KiB on, any of which may be
    /// in use.
    private static func uberblock(in head: UnsafeRawBufferPointer) -> Int? {
        let little: [UInt8] = [0x0C, 0xB1, 0xBA, 0, 0, 0, 0, 0]
        for slot in 0..<128 {
            let offset = 131_072 + slot * 1024
            if holds(head, little, at: offset) || holds(head, little.reversed(), at: offset) {
                return offset
            }
        }
        return nil
    }
}
