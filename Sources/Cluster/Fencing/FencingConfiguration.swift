// How each host is fenced, as an administrator has written it.
//
//   # a comment; a line that ends in \ goes on in the next one
//   defaults timeout=60 attempts=2
//   host alpha
//     level 1 fence_ipmilan ip=10.0.0.11 username=root password-file=/etc/lockstep/alpha lanplus=1
//     level 2 fence_apc ip=10.0.0.20 plug=3
//     level 2 fence_apc ip=10.0.0.21 plug=3
//   host beta
//     level 1 fence_virsh ip=10.0.0.1 plug=beta attempts=5
//
// Levels are tried one after the other, all agents of one together: a host with two power supplies is off when both are.
// What is not one of our own words goes to the agent as it stands, by the convention of fence-agents: lines of
// `key=value` on its standard input. Our own words:
//
//   timeout=SECONDS    an agent that takes longer is ended, and has failed (1 to 3,600; default 60)
//   attempts=N         so often an agent is tried before the next level is (1 to 100; default 2)
//   action=off|reboot  what it does (default off: a host that comes back by itself says more about its storage than it can know)
//   verify=yes|no      after `off`, whether the agent's `status` must say that it is off (default yes; `reboot` is never verified)
//   password-file=PATH the first line of a file that only its owner may read, given to the agent as `password`
//
// Values with spaces stand in double quotes, in which \" and \\ mean themselves.

import Vocabulary

/// A line of the configuration that cannot be used.
package struct FencingConfigurationError: Error, Hashable, Sendable, CustomStringConvertible {
    /// Counted from 1.
    package let line: Int
    /// What is wrong, and what would be right.
    package let problem: String

    /// For a message behind the name of the file.
    package var description: String { "line \(line): \(problem)" }
}

/// What an agent does to a host.
package enum FenceAction: String, Hashable, Sendable {
    case off, reboot
}

/// One agent and what it is told.
package struct FenceDevice: Hashable, Sendable {
    /// The program: a name that is looked for among the fence agents, or a path.
    package var agent: String
    /// What it is told besides the action, in the order of the file.
    package var parameters: [FenceParameter]
    /// A file whose first line is the password; nil for none.
    package var passwordFile: String?
    /// What it does.
    package var action = FenceAction.off
    /// Seconds it may take.
    package var timeout: UInt32
    /// How often it is tried before the level has failed.
    package var attempts: UInt32
    /// Whether its `status` has to agree.
    package var isVerified = true
}

/// A word for an agent.
package struct FenceParameter: Hashable, Sendable {
    /// Its name.
    package var key: String
    /// Its value.
    package var value: String

    /// From its parts.
    package init(key: String, value: String) {
        self.key = key
        self.value = value
    }
}

/// What is tried at one level: all of it must work.
package struct FenceLevel: Hashable, Sendable {
    /// Its number in the file, from 1.
    package var number: UInt32
    /// At least one.
    package var devices: [FenceDevice]
}

/// The ways to fence one host.
package struct FencePlan: Hashable, Sendable {
    /// The host's name in the cluster.
    package var host: String
    /// Ascending by number, at least one.
    package var levels: [FenceLevel]
}

/// All plans. See the head of this file.
package struct FencingConfiguration: Hashable, Sendable {
    /// In the order of the file.
    package private(set) var plans: [FencePlan] = []

    /// Nobody can be fenced.
    package init() {}

    /// The way to fence a host; nil if the file has none.
    package func plan(for host: String) -> FencePlan? { plans.first { $0.host == host } }

    /// Reads a configuration.
    package init(text: String) throws(FencingConfigurationError) {
        var reader = FencingReader()
        var joined = ""
        var start = 1
        let lines = text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline)
        for (index, line) in lines.enumerated() {
            if joined.isEmpty { start = index + 1 }
            if line.hasSuffix("\\") {
                joined += line.dropLast() + " "
                continue
            }
            try reader.read(joined + line, start)
            joined = ""
        }
        if !joined.isEmpty { try reader.read(joined, start) }
        plans = try reader.finish()
    }
}

/// Reads line after line.
private struct FencingReader {
    private var plans: [FencePlan] = []
    private var lineOfHost = 0
    private var timeout: UInt32 = 60
    private var attempts: UInt32 = 2

    mutating func read(_ line: String, _ number: Int) throws(FencingConfigurationError) {
        let words = try Self.words(line, number)
        guard let first = words.first else { return }
        switch first {
        case "defaults": try readDefaults(words.dropFirst(), number)
        case "host":
            guard words.count == 2 else {
                throw Self.error(number, "'host' needs one name, as corosync has it")
            }
            try closeHost()
            guard !plans.contains(where: { $0.host == words[1] }) else {
                throw Self.error(number, "host \(words[1]) was named before")
            }
            plans.append(FencePlan(host: words[1], levels: []))
            lineOfHost = number
        case "level": try readLevel(words, number)
        default:
            throw Self.error(number, "'\(first)' is none of 'defaults', 'host' and 'level'")
        }
    }

    mutating func finish() throws(FencingConfigurationError) -> [FencePlan] {
        try closeHost()
        return plans
    }

    private func closeHost() throws(FencingConfigurationError) {
        guard let last = plans.last, last.levels.isEmpty else { return }
        throw Self.error(lineOfHost, "host \(last.host) has no level: it could never be fenced")
    }

    private mutating func readDefaults(
        _ words: ArraySlice<String>,
        _ number: Int
    ) throws(FencingConfigurationError) {
        guard plans.isEmpty else {
            throw Self.error(number, "'defaults' must stand before the first host")
        }
        for word in words {
            let (key, value) = try Self.pair(word, number)
            switch key {
            case "timeout": timeout = try Self.number(value, 1...3_600, key, number)
            case "attempts": attempts = try Self.number(value, 1...100, key, number)
            default: throw Self.error(number, "'defaults' knows timeout and attempts, not '\(key)'")
            }
        }
    }

    private mutating func readLevel(
        _ words: [String],
        _ number: Int
    ) throws(FencingConfigurationError) {
        guard !plans.isEmpty else { throw Self.error(number, "a level before the first host") }
        guard words.count >= 3 else {
            throw Self.error(number, "'level' needs a number and an agent")
        }
        let level = try Self.number(words[1], 1...100, "level", number)
        guard !words[2].contains("=") else {
            throw Self.error(number, "'\(words[2])' stands where the agent should")
        }
        let device = try readDevice(words[2], words.dropFirst(3), number)
        let plan = plans.count - 1
        if let place = plans[plan].levels.firstIndex(where: { $0.number == level }) {
            plans[plan].levels[place].devices.append(device)
        } else {
            plans[plan].levels.append(FenceLevel(number: level, devices: [device]))
            plans[plan].levels.sort { $0.number < $1.number }
        }
    }

    private func readDevice(
        _ agent: String,
        _ words: ArraySlice<String>,
        _ number: Int
    ) throws(FencingConfigurationError) -> FenceDevice {
        var device = FenceDevice(
            agent: agent,
            parameters: [],
            timeout: timeout,
            attempts: attempts
        )
        for word in words {
            let (key, value) = try Self.pair(word, number)
            switch key {
            case "timeout": device.timeout = try Self.number(value, 1...3_600, key, number)
            case "attempts": device.attempts = try Self.number(value, 1...100, key, number)
            case "password-file": device.passwordFile = value
            case "action":
                guard let action = FenceAction(rawValue: value) else {
                    throw Self.error(number, "action is 'off' or 'reboot', not '\(value)'")
                }
                device.action = action
            case "verify":
                guard value == "yes" || value == "no" else {
                    throw Self.error(number, "verify is 'yes' or 'no', not '\(value)'")
                }
                device.isVerified = value == "yes"
            default:
                guard !device.parameters.contains(where: { $0.key == key }) else {
                    throw Self.error(number, "'\(key)' is given twice")
                }
                device.parameters.append(FenceParameter(key: key, value: value))
            }
        }
        return device
    }

    // MARK: Words

    private static func error(_ line: Int, _ problem: String) -> FencingConfigurationError {
        FencingConfigurationError(line: line, problem: problem)
    }

    private static func pair(
        _ word: String,
        _ number: Int
    ) throws(FencingConfigurationError) -> (key: String, value: String) {
        guard let place = word.firstIndex(of: "="), place != word.startIndex else {
            throw error(number, "'\(word)' should be KEY=VALUE")
        }
        return (String(word[..<place]), String(word[word.index(after: place)...]))
    }

    private static func number(
        _ text: String,
        _ range: ClosedRange<UInt32>,
        _ key: String,
        _ line: Int
    ) throws(FencingConfigurationError) -> UInt32 {
        guard let value = UInt32(text), range.contains(value) else {
            throw error(
                line,
                "\(key) is a number from \(range.lowerBound) to \(range.upperBound), not '\(text)'"
            )
        }
        return value
    }

    /// Cuts a line into words, up to a comment.
    private static func words(
        _ line: String,
        _ number: Int
    ) throws(FencingConfigurationError) -> [String] {
        var words: [String] = []
        var word: String?
        var isQuoted = false
        var isEscaped = false
        for character in line {
            if isEscaped {
                word = (word ?? "") + String(character)
                isEscaped = false
            } else if isQuoted, character == "\\" {
                isEscaped = true
            } else if character == "\"" {
                isQuoted.toggle()
                word = word ?? ""
            } else if !isQuoted, character == "#", word == nil {
                break
            } else if !isQuoted, character == " " || character == "\t" || character == "\r" {
                if let word { words.append(word) }
                word = nil
            } else {
                word = (word ?? "") + String(character)
            }
        }
        guard !isQuoted, !isEscaped else { throw error(number, "a quotation mark is not closed") }
        if let word { words.append(word) }
        return words
    }
}
