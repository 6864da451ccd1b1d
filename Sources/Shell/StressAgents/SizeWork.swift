// Sizes: files that one agent each truncates, extends and writes, and all look at.
//
// Asserted: the size is one that the owner gave the file in a version that may be seen; when no change is under
// way, size and content are exactly those of that version: what was cut off and came back is zeros, what was
// never written is zeros.
// Why: changes are announced before they begin and claimed when they have ended (Claims.swift), so who finds
// the last announced version completed before he began, and no other announced when he has ended, has read
// while nothing changed. Content follows from key and version (SizeModel.swift).

import CLinux
import Glibc
import StressJudging
import Vocabulary

final class SizeWork: StressWork {
    private static let files = 2
    private unowned let lane: StressLane
    private var opened: [Int32] = []
    /// The last version begun of each own file, and the size it has.
    private var begun: [UInt64]
    private var sizes: [Int]

    init(_ lane: StressLane) {
        self.lane = lane
        begun = .init(repeating: 0, count: Self.files)
        sizes = .init(repeating: 0, count: Self.files)
    }

    private func key(_ owner: Int, _ file: Int) -> StressKey { StressKey(.sizes, owner, file) }

    func open() throws(StressFailure) {
        close()
        for owner in 0..<lane.agents {
            for file in 0..<Self.files {
                let name = "sizes-\(owner)-\(file)"
                opened.append(try lane.openFile(name, O_RDWR | O_CREAT, key(owner, file)))
            }
        }
        guard lane.epoch > 0 else { return }
        // What of the last changes was lost is not known: begin anew with an empty file.
        for file in 0..<Self.files {
            begun[file] += StressSizeModel.period - begun[file] % StressSizeModel.period - 1
            try change(file)
        }
    }

    func step() throws(StressFailure) {
        if lane.dice.oneIn(3) { return try change(lane.dice.below(Self.files)) }
        try look(lane.dice.below(lane.agents), lane.dice.below(Self.files))
    }

    private func change(_ file: Int) throws(StressFailure) {
        let key = key(lane.me, file)
        let version = begun[file] + 1
        begun[file] = version
        try lane.announce([(key, version)])
        let descriptor = opened[lane.me * Self.files + file]
        let model = StressSizeModel(key)
        switch model.change(version, from: sizes[file]) {
        case .truncate(let size):
            _ = try lane.call("ftruncate", key, UInt64(size)) { Int(ftruncate(descriptor, size)) }
            sizes[file] = size
        case .write(let offset, let count):
            try lane.write(model.bytes(version, count: count), descriptor, at: offset, key, version)
            sizes[file] = max(sizes[file], offset + count)
        }
        lane.claim(key, version, isFirm: false)
        if lane.dice.oneIn(8) {
            try lane.sync(descriptor, key)
            lane.claim(key, version, isFirm: true)
        }
    }

    private func look(_ owner: Int, _ file: Int) throws(StressFailure) {
        let key = key(owner, file)
        let descriptor = opened[owner * Self.files + file]
        let floor = lane.floor(key)
        let size = try lane.size(descriptor, key)
        let afterSize = lane.ceiling(key)
        let content = try lane.read(StressSizeModel.largest + 8000, descriptor, at: 0, key)
        let ceiling = lane.ceiling(key)
        let model = StressSizeModel(key)
        if !model.allows(size: size, from: floor.value, to: afterSize) {
            // After a loss any version from the firm one on may be there.
            let isExcusable = model.allows(size: size, from: floor.firm, to: afterSize)
            let words =
                "size: \(size), which no version from \(floor.value) to \(afterSize) has"
            _ = lane.settle(isExcusable ? floor.verdictOnOlder : .stale, floor, key, words)
            return
        }
        guard floor.value == ceiling else { return }
        // Nothing was under way.
        lane.note(key, "looked at rest", ceiling, content.count)
        if let difference = model.difference(content, at: ceiling) {
            _ = lane.settle(floor.verdictOnOlder, floor, key, "content: \(difference)")
        } else {
            lane.claim(key, ceiling, isFirm: owner != lane.me)
        }
    }

    func verify() throws(StressFailure) {
        for owner in 0..<lane.agents {
            for file in 0..<Self.files { try look(owner, file) }
        }
    }

    func close() { closeFiles(&opened) }
}
