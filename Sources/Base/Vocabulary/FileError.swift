/// Why an operation on the file system was refused or failed. `FuseServer` maps each case to the
/// errno of the same name; nothing below it knows errno numbers.
public enum FileError: Error, Hashable, Sendable {
    /// EPERM
    case notPermitted
    /// ENOENT
    case notFound
    /// EIO: the device failed, or metadata did not verify, or this node has withdrawn.
    case inputOutput
    /// EINTR: the request was interrupted while it waited.
    case interrupted
    /// EAGAIN: would have to wait, and was asked not to.
    case wouldBlock
    /// EDEADLK: the lock would wait for one who waits for the asker.
    case deadlock
    /// EACCES
    case accessDenied
    /// EEXIST
    case exists
    /// EXDEV
    case crossDevice
    /// ENOTDIR
    case notDirectory
    /// EISDIR
    case isDirectory
    /// EINVAL
    case invalid
    /// EFBIG
    case tooLarge
    /// ENOSPC
    case noSpace
    /// EROFS
    case readOnly
    /// EMLINK
    case tooManyLinks
    /// ENAMETOOLONG
    case nameTooLong
    /// ENOTEMPTY
    case notEmpty
    /// ENODATA: no such extended attribute.
    case noAttribute
    /// ERANGE: the buffer given is too small.
    case range
    /// ESTALE: the inode that a handle names is gone.
    case stale
    /// EOPNOTSUPP
    case notSupported
    /// ENOSYS
    case notImplemented
    /// EBADF
    case badHandle
    /// ETXTBSY
    case textBusy
    /// EBUSY
    case busy
    /// ELOOP
    case loop
    /// EDQUOT
    case quotaExceeded
    /// ENXIO: no data or hole there (SEEK_DATA, SEEK_HOLE).
    case noSuchAddress
    /// ESHUTDOWN: the file system is being unmounted.
    case shutDown
}
