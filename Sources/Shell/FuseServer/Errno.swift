// The one place where errors of the file system become error numbers of the system.

import Glibc
import Vocabulary

extension FileError {
    /// The error number of the same name.
    var code: Int32 {
        switch self {
        case .notPermitted: EPERM
        case .notFound: ENOENT
        case .inputOutput: EIO
        case .interrupted: EINTR
        case .wouldBlock: EAGAIN
        case .deadlock: EDEADLK
        case .accessDenied: EACCES
        case .exists: EEXIST
        case .crossDevice: EXDEV
        case .notDirectory: ENOTDIR
        case .isDirectory: EISDIR
        case .invalid: EINVAL
        case .tooLarge: EFBIG
        case .noSpace: ENOSPC
        case .readOnly: EROFS
        case .tooManyLinks: EMLINK
        case .nameTooLong: ENAMETOOLONG
        case .notEmpty: ENOTEMPTY
        case .noAttribute: ENODATA
        case .range: ERANGE
        case .stale: ESTALE
        case .notSupported: EOPNOTSUPP
        case .notImplemented: ENOSYS
        case .badHandle: EBADF
        case .textBusy: ETXTBSY
        case .busy: EBUSY
        case .loop: ELOOP
        case .quotaExceeded: EDQUOT
        case .noSuchAddress: ENXIO
        case .shutDown: ESHUTDOWN
        }
    }
}
