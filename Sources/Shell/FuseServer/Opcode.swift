// The requests of /dev/fuse. The numbers are the kernel's (include/uapi/linux/fuse.h).

/// What a request asks for.
package enum Opcode: UInt32, CaseIterable, Sendable {
    case lookup = 1
    case forget = 2
    case getAttributes = 3
    case setAttributes = 4
    case readLink = 5
    case makeSymlink = 6
    case makeNode = 8
    case makeDirectory = 9
    case unlink = 10
    case removeDirectory = 11
    case rename = 12
    case link = 13
    case open = 14
    case read = 15
    case write = 16
    case statistics = 17
    case release = 18
    case synchronize = 20
    case setExtendedAttribute = 21
    case getExtendedAttribute = 22
    case listExtendedAttributes = 23
    case removeExtendedAttribute = 24
    case flush = 25
    case initialize = 26
    case openDirectory = 27
    case readDirectory = 28
    case releaseDirectory = 29
    case synchronizeDirectory = 30
    case getLock = 31
    case setLock = 32
    case setLockWaiting = 33
    case access = 34
    case create = 35
    case interrupt = 36
    case blockMap = 37
    case destroy = 38
    case ioctl = 39
    case poll = 40
    case notifyReply = 41
    case batchForget = 42
    case allocate = 43
    case readDirectoryPlus = 44
    case renameWithFlags = 45
    case seek = 46
    case copyRange = 47
    case synchronizeAll = 50
    case makeTemporary = 51
    case extendedStatus = 52
}

/// How many requests arrived, by opcode. A value taken at one moment; subtract two to see what an
/// action cost.
package struct RequestCounts: Hashable, Sendable {
    /// Indexed by opcode; opcodes above 63 are counted at 63.
    package var byOpcode: [UInt64]

    package init(byOpcode: [UInt64]) {
        precondition(byOpcode.count == 64, "one count per opcode")
        self.byOpcode = byOpcode
    }

    /// The number of requests of one kind.
    package subscript(_ opcode: Opcode) -> UInt64 { byOpcode[Int(opcode.rawValue)] }

    /// The number of all requests.
    package var total: UInt64 { byOpcode.reduce(0, +) }

    /// What came between `earlier` and this.
    package func since(_ earlier: RequestCounts) -> RequestCounts {
        RequestCounts(byOpcode: zip(byOpcode, earlier.byOpcode).map { $0 - $1 })
    }
}

extension Opcode {
    /// Whether the thread that asks does nothing else before the answer. What is sent in the background (data that is read ahead,
    /// asynchronous I/O, the end of an open file) may have been waiting in a queue of the kernel while its thread went on.
    var isWaitedFor: Bool {
        switch self {
        case .read, .write, .release, .releaseDirectory, .forget, .batchForget, .interrupt,
            .initialize, .destroy, .notifyReply, .poll:
            false
        default: true
        }
    }
}
