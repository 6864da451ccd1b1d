// What a mount does about the times of files: the options of mount(8).

/// Which accesses change the time of access, and when times are stored.
package struct TimeRules: Hashable, Sendable {
    /// Which of them count.
    package enum Access: Hashable, Sendable {
        /// noatime
        case never
        /// relatime: those after which the time of access would not be newer than the last change, and
        /// one a day.
        case relative
        /// strictatime
        case strict
    }

    package var access = Access.relative
    /// nodiratime: those of directories never count.
    package var sparesDirectories = false
    /// lazytime: times that nothing else changes with stay in memory (LazyTimes.swift).
    package var isLazy = false
    /// Mounted, or mounted again, so that its users change nothing: no access counts.
    package var isReadOnly = false

    package init() {}

    /// Takes an option, as `mount -o` spells it; later ones count. False if it says nothing about times.
    package mutating func take(_ option: String) -> Bool {
        switch option {
        case "noatime": access = .never
        case "atime": if access == .never { access = .relative }
        case "relatime": access = .relative
        case "strictatime": access = .strict
        case "nostrictatime": if access == .strict { access = .relative }
        // It takes the option back, and without one Linux does the same.
        case "norelatime": break
        case "nodiratime": sparesDirectories = true
        case "diratime": sparesDirectories = false
        case "lazytime": isLazy = true
        case "nolazytime": isLazy = false
        default: return false
        }
        return true
    }
}
