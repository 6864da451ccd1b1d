// IOCTL: the four that read and set the flags of a file (chattr(1), lsattr(1)). All others are ENOTTY.
//
// Linux sends these by itself (`fuse_fileattr_get`, `fuse_fileattr_set` in fs/fuse/ioctl.c, from 5.13 on): a private
// OPEN or OPENDIR, the IOCTL with the request's number and payload, and a RELEASE. To set, it holds the inode's i_rwsem,
// reads the old flags, and checks who may change what; we do so again (FileSystem/FileFlags.swift, A3).
//
//   FS_IOC_GETFLAGS, FS_IOC_SETFLAGS      four bytes, although the numbers say "long"
//   FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR  struct fsxattr, 28 bytes: the same flags in other places; extent sizes and
//                                         project, which we do not have

import CFuse3
import FileSystem
import Glibc
import LinuxSystem
import Vocabulary

/// The numbers of the requests, as Linux has them on all our architectures (include/uapi/linux/fs.h).
private enum ControlNumber {
    static let getFlags: UInt32 = 0x8008_6601
    static let setFlags: UInt32 = 0x4008_6602
    static let getExtended: UInt32 = 0x801C_581F
    static let setExtended: UInt32 = 0x401C_5820
}

/// One flag in its two places.
private struct FlagPlace {
    let flag: FileFlags
    /// FS_…_FL
    let plain: UInt32
    /// FS_XFLAG_…
    let extended: UInt32

    static let all = [
        FlagPlace(flag: .immutable, plain: 0x10, extended: 0x08),
        FlagPlace(flag: .appendOnly, plain: 0x20, extended: 0x10),
        FlagPlace(flag: .noDump, plain: 0x40, extended: 0x80),
        FlagPlace(flag: .noAccessTime, plain: 0x80, extended: 0x40),
    ]

    /// The flags as a word.
    static func word(_ flags: FileFlags, _ place: KeyPath<FlagPlace, UInt32>) -> UInt32 {
        all.reduce(0) { flags.contains($1.flag) ? $0 | $1[keyPath: place] : $0 }
    }

    /// The flags that a word says; EOPNOTSUPP if it says others.
    static func flags(
        _ word: UInt32,
        _ place: KeyPath<FlagPlace, UInt32>
    ) throws(FileError) -> FileFlags {
        var flags: FileFlags = []
        var rest = word
        for each in all where word & each[keyPath: place] != 0 {
            flags.insert(each.flag)
            rest &= ~each[keyPath: place]
        }
        if rest != 0 { throw .notSupported }
        return flags
    }
}

extension Dispatcher {
    /// Bytes of struct fsxattr.
    private static let extendedSize = 28

    /// ioctl(2).
    func control(_ request: Request) async throws(FileError) -> Answer {
        let wish = try request.message.argument(fuse_ioctl_in.self)
        let payload = try request.message.rest(after: MemoryLayout<fuse_ioctl_in>.size)
        switch wish.cmd {
        case ControlNumber.getFlags:
            let flags = try await operations.fileFlags(request.message.node, request.interruption)
            return answer([FlagPlace.word(flags, \.plain)], wish, request)
        case ControlNumber.getExtended:
            let flags = try await operations.fileFlags(request.message.node, request.interruption)
            let words: [UInt32] = [FlagPlace.word(flags, \.extended), 0, 0, 0, 0, 0, 0]
            return answer(words, wish, request)
        case ControlNumber.setFlags:
            guard payload.count >= 4 else { throw .invalid }
            let word = payload.loadUnaligned(as: UInt32.self)
            try await setFlags(try FlagPlace.flags(word, \.plain), request)
            return answer([], wish, request)
        case ControlNumber.setExtended:
            guard payload.count >= Self.extendedSize else { throw .invalid }
            let word = payload.loadUnaligned(as: UInt32.self)
            // Extent size (4), number of extents (8: told, not set), project (12), another extent size (16).
            for offset in [4, 12, 16]
            where payload.loadUnaligned(fromByteOffset: offset, as: UInt32.self) != 0 {
                throw .notSupported
            }
            try await setFlags(try FlagPlace.flags(word, \.extended), request)
            return answer([], wish, request)
        default:
            return .failure(ENOTTY)
        }
    }

    private func setFlags(_ flags: FileFlags, _ request: Request) async throws(FileError) {
        let caller = request.message.caller
        try await operations.setFileFlags(
            request.message.node,
            flags,
            caller,
            request.interruption
        ) { privilege in
            switch privilege {
            case .fileOwner: hasCapability(.fileOwner, thread: caller.process)
            case .protection: hasCapability(.immutable, thread: caller.process)
            }
        }
    }

    /// The reply: a result of 0, and as many bytes as are asked for.
    private func answer(_ words: [UInt32], _ wish: fuse_ioctl_in, _ request: Request) -> Answer {
        var size = Encoding.put(fuse_ioctl_out(), at: request.replyArea)
        let wanted = min(Int(wish.out_size), Self.extendedSize)
        for index in 0..<(wanted + 3) / 4 {
            let word = index < words.count ? words[index] : 0
            size += Encoding.put(word, at: request.replyArea, offset: size)
        }
        return .short(MemoryLayout<fuse_ioctl_out>.size + wanted)
    }
}
