// Error numbers of the operating system, in words. No Foundation.

import Glibc

/// The text of an error number: "No such file or directory".
package func errnoText(_ code: Int32) -> String {
    guard let text = strerror(code) else { return "error \(code)" }
    return String(cString: text)
}

/// A system call that failed: which one, on what, and why.
package struct SystemError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The call: "open".
    package var call: String
    /// What it was called on, or "".
    package var subject: String
    /// The error number.
    package var code: Int32

    package init(_ call: String, _ subject: String = "", code: Int32) {
        self.call = call
        self.subject = subject
        self.code = code
    }

    /// The error of the system call that just failed on this thread.
    package static func last(_ call: String, _ subject: String = "") -> SystemError {
        SystemError(call, subject, code: errno)
    }

    package var description: String {
        subject.isEmpty ? "\(call): \(errnoText(code))" : "\(call) \(subject): \(errnoText(code))"
    }
}
