// One line per event, to standard error and/or the system's log.

import CLinux
import Glibc

/// How much a line matters, the worst first.
package enum LogLevel: Int, Comparable, Sendable, CaseIterable {
    case error, warning, notice, information, debug

    package static func < (left: LogLevel, right: LogLevel) -> Bool {
        left.rawValue < right.rawValue
    }

    /// The word shown in a line.
    package var word: String {
        switch self {
        case .error: "error"
        case .warning: "warning"
        case .notice: "notice"
        case .information: "info"
        case .debug: "debug"
        }
    }

    fileprivate var priority: Int32 {
        switch self {
        case .error: LOG_ERR
        case .warning: LOG_WARNING
        case .notice: LOG_NOTICE
        case .information: LOG_INFO
        case .debug: LOG_DEBUG
        }
    }
}

/// Writes lines. May be used from any thread; a line is written by one system call and never torn.
package final class LineLog: Sendable {
    /// Where lines go.
    package struct Destinations: OptionSet, Sendable {
        package let rawValue: Int

        package init(rawValue: Int) { self.rawValue = rawValue }

        package static let standardError = Destinations(rawValue: 1)
        package static let systemLog = Destinations(rawValue: 2)
    }

    private let name: String
    private let threshold: LogLevel
    private let destinations: Destinations

    /// - Parameters:
    ///   - name: put before every line, as programs do: "mount.lockstep".
    ///   - threshold: the least important level that is still written.
    package init(
        name: String,
        threshold: LogLevel = .notice,
        destinations: Destinations = .standardError
    ) {
        self.name = name
        self.threshold = threshold
        self.destinations = destinations
    }

    /// Writes one line. Line breaks in it become spaces. The text is not made when nobody reads it.
    package func write(_ level: LogLevel, _ text: @autoclosure () -> String) {
        guard level <= threshold else { return }
        let words = level <= .warning ? "\(level.word): \(text())" : text()
        let line = String(
            decoding: words.utf8.map { $0 == 10 || $0 == 13 ? 32 : $0 },
            as: UTF8.self
        )
        if destinations.contains(.standardError) {
            let bytes = Array("\(name): \(line)\n".utf8)
            // There is nobody to tell when standard error is gone.
            _ = bytes.withUnsafeBytes { CLinux.write(2, $0.baseAddress, $0.count) }
        }
        if destinations.contains(.systemLog) {
            lockstep_system_log(level.priority, "\(name): \(line)")
        }
    }

    /// Something failed and an operator must know.
    package func error(_ text: @autoclosure () -> String) { write(.error, text()) }
    /// Something is wrong and goes on.
    package func warning(_ text: @autoclosure () -> String) { write(.warning, text()) }
    /// Something worth a line happened.
    package func notice(_ text: @autoclosure () -> String) { write(.notice, text()) }
    /// A detail of normal work.
    package func information(_ text: @autoclosure () -> String) { write(.information, text()) }
    /// For whoever hunts a fault.
    package func debug(_ text: @autoclosure () -> String) { write(.debug, text()) }
}
