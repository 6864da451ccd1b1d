package import BlockIO
package import DiskFormat

/// Why metadata could not be had or made durable.
package enum StorageError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The device failed.
    case device(DeviceError)
    /// The block is not what it should be.
    case format(FormatError)
    /// The journal was stopped: withdrawn, read-only or unmounted.
    case stopped

    package var description: String {
        switch self {
        case .device(let error): error.description
        case .format(let error): error.description
        case .stopped: "the journal is stopped"
        }
    }
}

/// Runs device calls and reports their failures as `StorageError.device`.
func onDevice<Result>(
    _ body: () async throws(DeviceError) -> Result
) async throws(StorageError) -> Result {
    do throws(DeviceError) {
        return try await body()
    } catch {
        throw .device(error)
    }
}

/// Runs checks of the format and reports their failures as `StorageError.format`.
func checkingFormat<Result>(
    _ body: () throws(FormatError) -> Result
) throws(StorageError) -> Result {
    do throws(FormatError) {
        return try body()
    } catch {
        throw .format(error)
    }
}
