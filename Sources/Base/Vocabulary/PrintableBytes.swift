/// Bytes of a name as text: as they are if they are UTF-8 without control characters, else each that
/// is no printable ASCII as `\xNN`.
package func printable(_ bytes: some Collection<UInt8>) -> String {
    if let text = String(validating: bytes, as: UTF8.self),
        text.unicodeScalars.allSatisfy({ $0.value >= 0x20 && $0.value != 0x7F })
    {
        return text
    }
    return bytes.map { byte in
        if (0x20..<0x7F).contains(byte) { return String(UnicodeScalar(byte)) }
        return "\\x" + hexadecimal(UInt64(byte), digits: 2)
    }.joined()
}

/// A number in hexadecimal, with zeros in front up to `digits` digits.
package func hexadecimal(_ value: UInt64, digits: Int = 1) -> String {
    let text = String(value, radix: 16)
    return String(repeating: "0", count: max(0, digits - text.count)) + text
}
