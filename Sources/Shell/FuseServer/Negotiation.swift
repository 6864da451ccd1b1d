// INIT: what the kernel offers and what we take (KERNEL S1).

import CFuse3
import LinuxSystem

/// What was agreed with the kernel. Does not change during a mount.
package struct FuseAgreement: Sendable, Equatable {
    /// The kernel's minor protocol version (major is 7).
    package var minor: UInt32 = 0
    /// What of the offered features was taken: bits of `flags` and, above 32, of `flags2`.
    package var features: UInt64 = 0
    /// Whether names may stay in the kernel: it can be told to forget them all without a lock.
    package var keepsEntries = false

    /// Whether the unused names of one inode are dropped.
    package var prunes = false

    /// Whether files opened with FOPEN_DIRECT_IO can be mapped shared. Linux can from 6.6 on; it is
    /// taken from 6.16 on (KERNEL M5).
    package var mapsDirectFiles: Bool { features & Feature.directIOAllowMap != 0 }
}

/// Bits of INIT's flags; those above 31 travel in `flags2`.
enum Feature {
    static let asynchronousRead = UInt64(FUSE_ASYNC_READ)
    static let atomicTruncate = UInt64(FUSE_ATOMIC_O_TRUNC)
    static let bigWrites = UInt64(FUSE_BIG_WRITES)
    static let asynchronousDirectIO = UInt64(FUSE_ASYNC_DIO)
    static let parallelDirectories = UInt64(FUSE_PARALLEL_DIROPS)
    static let maximumPages = UInt64(FUSE_MAX_PAGES)
    static let cacheSymlinks = UInt64(FUSE_CACHE_SYMLINKS)
    static let explicitInvalidation = UInt64(FUSE_EXPLICIT_INVAL_DATA)
    static let handlesPrivileges = UInt64(FUSE_HANDLE_KILLPRIV_V2)
    static let extendedInit = UInt64(FUSE_INIT_EXT)
    static let wholeFileLocks = UInt64(FUSE_FLOCK_LOCKS)
    static let byteLocks = UInt64(FUSE_POSIX_LOCKS)
    static let accessLists = UInt64(FUSE_POSIX_ACL)
    static let doNotMask = UInt64(FUSE_DONT_MASK)
    static let longSetAttribute = UInt64(FUSE_SETXATTR_EXT)
    /// FUSE_DIRECT_IO_ALLOW_MMAP, newer than the header.
    static let directIOAllowMap: UInt64 = 1 << 36

    /// All we take. Left out on purpose: AUTO_INVAL_DATA drops the page cache after every write of
    /// our own; WRITEBACK_CACHE makes the kernel trust its own size and times; READDIRPLUS is not
    /// safe against epochs.
    static let wanted =
        asynchronousRead | atomicTruncate | bigWrites | asynchronousDirectIO | parallelDirectories
        | maximumPages | cacheSymlinks | explicitInvalidation | handlesPrivileges | extendedInit
        | directIOAllowMap | wholeFileLocks | byteLocks | accessLists | doNotMask
        | longSetAttribute
    /// Without these the caches cannot be kept right or a write would not fit.
    static let needed = bigWrites | maximumPages | explicitInvalidation
}

/// Answers INIT.
enum Negotiation {
    /// FUSE_MAX_PAGES and FUSE_EXPLICIT_INVAL_DATA: Linux 5.2.
    private static let oldestMinor: UInt32 = 31
    /// The version whose structures we speak.
    private static let ourMinor: UInt32 = 38

    /// - Returns: what was agreed, and the body of the reply.
    static func answer(
        _ offer: fuse_init_in,
        _ options: FuseOptions
    ) throws(FuseServerError) -> (FuseAgreement, fuse_init_out) {
        guard offer.major == 7, offer.minor >= oldestMinor else {
            throw .negotiation(
                "protocol \(offer.major).\(offer.minor) is too old, 7.\(oldestMinor) is needed"
            )
        }
        var offered = UInt64(offer.flags)
        if offered & Feature.extendedInit != 0 { offered |= UInt64(offer.flags2) << 32 }
        // Before Linux 6.16 the kernel may send the write-back of a mapped page after it said that the
        // page was invalidated: files are then opened so that they cannot be mapped shared (M5).
        let isNew = offer.minor >= FuseNotification.epochMinor && !options.treatsKernelAsOld
        var taken = offered & Feature.wanted & (isNew ? ~0 : ~Feature.directIOAllowMap)
        // Modes are masked by whoever knows about default lists.
        let lists = Feature.accessLists | Feature.doNotMask
        if !options.hasAccessLists || taken & lists != lists { taken &= ~lists }
        guard taken & Feature.needed == Feature.needed else {
            throw .negotiation("it lacks what a coherent cache needs (features \(offered))")
        }

        var agreement = FuseAgreement(minor: offer.minor, features: taken)
        agreement.keepsEntries = isNew
        agreement.prunes =
            isNew && options.dropsUnusedNames && offer.minor >= FuseNotification.pruneMinor

        var out = fuse_init_out()
        out.major = 7
        out.minor = min(offer.minor, ourMinor)
        out.max_readahead = offer.max_readahead
        out.flags = UInt32(truncatingIfNeeded: taken)
        out.flags2 = UInt32(truncatingIfNeeded: taken >> 32)
        out.max_background = options.maximumBackground
        out.congestion_threshold = options.maximumBackground / 4 * 3
        out.max_write = UInt32(options.maximumTransfer)
        out.max_pages = UInt16(options.maximumTransfer / 4096)
        out.time_gran = 1
        return (agreement, out)
    }
}
