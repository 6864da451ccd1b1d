// The administrator's requests about locks. Each is a word and, as JSON,
//
//   question   of `LockQuestion`: which resources
//   path       names from the root of the volume, instead of a number
//   subject    what the administrator calls it
//   why        whether to tell who waits for whom, instead of a list
//   format     "json", or text
//   patience   milliseconds to wait for each node

import ClusterNode
import Execution
import FileSystem
import LockReports
import NodeService
import Vocabulary

extension Inspection {
    private static let longestPatience: UInt64 = 60_000

    func locks(_ text: String) throws -> String {
        let request = try parsed(text)
        guard var question = LockQuestion(request["question"] ?? LockQuestion(.locks).json) else {
            throw MountError("the question is not understood; is the command of another version?")
        }
        let inspection = try inspection(request)
        var subject = request["subject"]?.string ?? "these locks"
        if let path = request["path"] {
            let names = path.elements.compactMap(\.string).map { Array($0.utf8) }
            subject = try resolve(names, subject, &question, inspection.patience / 1_000_000)
        }
        let isJSON = request["format"]?.string == "json"
        if request.isSet("why") {
            let story = try inspection.explain(subject, question)
            return isJSON ? story.json.text + "\n" : story.text
        }
        let picture = try inspection.picture(question)
        return isJSON ? picture.json.text + "\n" : picture.table
    }

    func counters(_ text: String) throws -> String {
        try inspection(parsed(text)).counters().json.text + "\n"
    }

    /// The recording of the node that the request names, or of this one.
    func recording(_ text: String) throws -> [UInt8] {
        let request = try parsed(text)
        guard let node = mount.node else { throw MountError("not mounted yet") }
        let peer = request["node"]?.number.map { NodeID(UInt32(clamping: $0)) } ?? node.locks.node
        let bytes = try inspection(request).recording(of: peer)
        guard let bytes else { throw MountError("\(peer) is silent, or no member of the cluster") }
        guard !bytes.isEmpty else { throw MountError("\(peer) has no recording") }
        return bytes
    }

    private func parsed(_ text: String) throws -> JSONText {
        if text.isEmpty { return .object([]) }
        do throws(JSONError) {
            return try JSONText(parsing: text)
        } catch {
            throw MountError("the request is \(error)")
        }
    }

    private func inspection(_ request: JSONText) throws -> ClusterInspection {
        guard let observation = mount.observation else { throw MountError("not mounted yet") }
        let milliseconds = min(request["patience"]?.number ?? 2000, Self.longestPatience)
        return ClusterInspection(
            mount: mount,
            observation: observation,
            patience: milliseconds * 1_000_000
        )
    }

    /// Makes a question about a path one about its inode; or, if a directory on the way cannot be
    /// had, about that directory. Returns what it is about then.
    private func resolve(
        _ names: [[UInt8]],
        _ subject: String,
        _ question: inout LockQuestion,
        _ patience: UInt64
    ) throws -> String {
        guard let volume = mount.node?.volume else { throw MountError("not mounted yet") }
        let result = try mount.waitInEngine { await volume.search(names, milliseconds: patience) }
        func path(_ count: Int) -> String {
            "/"
                + names.prefix(count).map { String(decoding: $0, as: UTF8.self) }.joined(
                    separator: "/"
                )
        }
        if question.kinds.isEmpty { question.kinds = [.inode, .open, .flock, .byteLocks] }
        switch result {
        case .found(let number):
            question.number = number.address.rawValue
            question.generation = number.generation
            return subject
        case .waiting(let number, let count):
            question.kinds = [.inode]
            question.number = number.address.rawValue
            question.generation = number.generation
            return "\(subject) cannot be looked up: its directory \(path(count)) is waited for"
        case .failed(let error, let place):
            let why =
                switch error {
                case .notFound: "no such file or directory"
                case .notDirectory:
                    "what is before its last name is no directory (symbolic links are not followed)"
                default: "\(error)"
                }
            throw MountError("\(path(place + 1)) on the volume: \(why)")
        }
    }
}

extension JSONText {
    fileprivate func isSet(_ name: String) -> Bool { self[name] == .boolean(true) }
}
