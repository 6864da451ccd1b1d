// Little-endian numbers at byte offsets: the one place where the format touches raw memory.

extension UnsafeRawBufferPointer {
    /// The 16-bit number at `offset`.
    package func u16(_ offset: Int) -> UInt16 {
        UInt16(littleEndian: loadUnaligned(fromByteOffset: offset, as: UInt16.self))
    }

    /// The 32-bit number at `offset`.
    package func u32(_ offset: Int) -> UInt32 {
        UInt32(littleEndian: loadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }

    /// The 64-bit number at `offset`.
    package func u64(_ offset: Int) -> UInt64 {
        UInt64(littleEndian: loadUnaligned(fromByteOffset: offset, as: UInt64.self))
    }

    /// A window of `length` bytes at `offset`.
    package func window(_ offset: Int, _ length: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: self[offset..<offset + length])
    }

    /// Whether all bytes are zero.
    package var isAllZero: Bool { allSatisfy { $0 == 0 } }
}

extension UnsafeMutableRawBufferPointer {
    /// The same bytes, for reading.
    package var readOnly: UnsafeRawBufferPointer { UnsafeRawBufferPointer(self) }

    /// Stores a 16-bit number at `offset`.
    package func put16(_ value: UInt16, _ offset: Int) {
        storeBytes(of: value.littleEndian, toByteOffset: offset, as: UInt16.self)
    }

    /// Stores a 32-bit number at `offset`.
    package func put32(_ value: UInt32, _ offset: Int) {
        storeBytes(of: value.littleEndian, toByteOffset: offset, as: UInt32.self)
    }

    /// Stores a 64-bit number at `offset`.
    package func put64(_ value: UInt64, _ offset: Int) {
        storeBytes(of: value.littleEndian, toByteOffset: offset, as: UInt64.self)
    }

    /// A window of `length` bytes at `offset`.
    package func window(_ offset: Int, _ length: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: self[offset..<offset + length])
    }

    /// Makes `length` bytes from `offset` on zero.
    package func clear(_ offset: Int, _ length: Int) {
        guard length > 0 else { return }
        (baseAddress.unsafelyUnwrapped + offset).initializeMemory(
            as: UInt8.self,
            repeating: 0,
            count: length
        )
    }

    /// Copies bytes to `offset`.
    package func put(_ bytes: UnsafeRawBufferPointer, _ offset: Int) {
        guard bytes.count > 0 else { return }
        window(offset, bytes.count).copyMemory(from: bytes)
    }
}
