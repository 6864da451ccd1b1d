import Testing
import Vocabulary

@testable import SimulatedWorld

/// Where bytes come from (Provenance.swift, B1).
@Suite struct ProvenanceTests {
    private let inode = InodeNumber(address: BlockAddress(9), generation: 1)

    private func foreign(_ provenance: Provenance, _ write: (inout TreeModel) -> Void) -> Range<
        UInt64
    >? {
        var tree = TreeModel()
        tree.objects.append(ModelObject(kind: .file, mode: 0, links: 1))
        write(&tree)
        return provenance.foreign(inode, pages: tree.objects[1].pages, of: tree.objects[1].size)
    }

    @Test func writesAndZeros() {
        let provenance = Provenance()
        let bytes = patternBytes(5, count: 6000)
        provenance.write(inode, at: 100, bytes)
        #expect(foreign(provenance) { $0.write(1, at: 100, bytes) } == nil)
        #expect(foreign(provenance) { $0.write(1, at: 100, Array(bytes[..<2000])) } == nil)
        #expect(foreign(provenance) { $0.resize(1, to: 50_000) } == nil)
        #expect(foreign(provenance) { $0.write(1, at: 101, bytes) } != nil)
    }

    @Test func appendsAnywhere() {
        let provenance = Provenance()
        let bytes = patternBytes(6, count: 700)
        provenance.write(inode, at: nil, bytes)
        provenance.write(inode, at: nil, patternBytes(7, count: 900))
        provenance.write(inode, at: nil, patternBytes(9, count: 5000))
        #expect(
            foreign(provenance) {
                $0.write(1, at: 3, bytes)
                $0.write(1, at: 703, patternBytes(7, count: 900))
                // Of this one only a sector has arrived.
                $0.write(1, at: 9_000, Array(patternBytes(9, count: 5000)[1024..<1536]))
            } == nil
        )
        // An append is at one place.
        #expect(foreign(provenance) { $0.write(1, at: 2_000, bytes) } != nil)
        #expect(foreign(provenance) { $0.write(1, at: 0, patternBytes(8, count: 700)) } != nil)
    }

    @Test func appendsInParts() {
        let provenance = Provenance()
        let bytes = patternBytes(6, count: 700)
        provenance.write(inode, at: nil, bytes)
        provenance.write(inode, at: nil, patternBytes(7, count: 900))
        // The rest of one that had no room for all came behind what another one had appended.
        #expect(
            foreign(provenance) {
                $0.write(1, at: 0, Array(patternBytes(7, count: 900)[..<300]))
                $0.write(1, at: 300, bytes)
                $0.write(1, at: 1_000, Array(patternBytes(7, count: 900)[300...]))
            } == nil
        )
        // A part of it as well is nowhere else.
        let rest = Array(patternBytes(7, count: 900)[300...])
        #expect(foreign(provenance) { $0.write(1, at: 3_000, rest) } != nil)
        // Whoever tries again after an error appends the same bytes once more.
        provenance.write(inode, at: nil, rest)
        #expect(foreign(provenance) { $0.write(1, at: 3_000, rest) } == nil)
        #expect(foreign(provenance) { $0.write(1, at: 5_000, rest) } != nil)
    }

    /// A sector of another inode is not taken for an append.
    @Test func otherData() {
        let provenance = Provenance()
        provenance.write(inode, at: nil, patternBytes(6, count: 5000))
        let other = InodeNumber(address: BlockAddress(9), generation: 2)
        provenance.write(other, at: 0, patternBytes(8, count: 5000))
        let found = foreign(provenance) {
            $0.write(1, at: 0, patternBytes(6, count: 5000))
            $0.write(1, at: 512, Array(patternBytes(8, count: 5000)[512..<1024]))
        }
        #expect(found.map { $0.lowerBound >= 512 && $0.upperBound <= 1024 } == true)
    }
}
