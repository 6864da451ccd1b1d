import Testing
import Vocabulary

@testable import FileSystem

@Suite struct AccessTimesTests {
    @Test("The rules of mount(8): later options count, and take back what they are opposite to")
    func rules() {
        func rules(_ options: String...) -> TimeRules {
            var rules = TimeRules()
            for option in options {
                let isKnown = rules.take(option)
                #expect(isKnown)
            }
            return rules
        }
        #expect(rules().access == .relative)
        #expect(rules("noatime").access == .never)
        #expect(rules("noatime", "atime").access == .relative)
        #expect(rules("strictatime", "atime").access == .strict)
        #expect(rules("noatime", "strictatime").access == .strict)
        #expect(rules("strictatime", "nostrictatime").access == .relative)
        #expect(rules("strictatime", "relatime").access == .relative)
        #expect(rules("norelatime").access == .relative)
        #expect(rules("nodiratime", "lazytime").sparesDirectories)
        #expect(!rules("nodiratime", "diratime").sparesDirectories)
        #expect(rules("lazytime").isLazy && !rules("lazytime", "nolazytime").isLazy)
        var untouched = TimeRules()
        for other in ["ro", "sync", "atime=1", ""] {
            let isKnown = untouched.take(other)
            #expect(!isKnown)
        }
        #expect(untouched == TimeRules())
    }

    private func file(_ number: Int) -> InodeNumber {
        InodeNumber(address: BlockAddress(UInt64(number)), generation: 1)
    }

    /// Takes what is known of a file, which has to be `time`.
    private func expect(_ told: inout ToldAccesses, _ file: InodeNumber, _ time: Timestamp?) {
        let known = told.take(file)
        #expect(known == time, "\(file)")
    }

    private func time(_ seconds: Int) -> Timestamp {
        Timestamp(seconds: Int64(seconds), nanoseconds: 0)
    }

    @Test("The newest time of a file is kept, and given once")
    func newest() {
        var told = ToldAccesses()
        expect(&told, file(1), nil)
        told.note(file(1), time(5))
        told.note(file(1), time(9))
        told.note(file(1), time(7))
        told.note(file(2), time(3))
        #expect(told.count == 2)
        expect(&told, file(1), time(9))
        expect(&told, file(1), nil)
        expect(&told, file(2), time(3))
        #expect(told.count == 0)
    }

    @Test("The files told of first are forgotten when there are too many")
    func bounded() {
        var told = ToldAccesses()
        let limit = ToldAccesses.limit
        for number in 0..<limit + 100 {
            told.note(file(number), time(number))
            if number % 7 == 0 { expect(&told, file(number), time(number)) }
        }
        #expect(told.count <= limit)
        for number in 0..<90 { expect(&told, file(number), nil) }
        for number in 100..<limit + 100 where number % 7 != 0 {
            expect(&told, file(number), time(number))
        }
        #expect(told.count == 0)
    }
}
