/// A point of time as ISO 8601 writes it, in UTC, to the nanosecond; as `@seconds.nanoseconds` when it
/// is further from 1970 than some thousand years.
package func civilText(_ time: Timestamp) -> String {
    func padded(_ number: Int64, _ digits: Int) -> String {
        let text = String(number)
        return String(repeating: "0", count: max(0, digits - text.count)) + text
    }
    let fraction = padded(Int64(time.nanoseconds), 9)
    guard (-62_135_596_800..<253_402_300_800).contains(time.seconds) else {
        return "@\(time.seconds).\(fraction)"
    }
    let second = ((time.seconds % 86_400) + 86_400) % 86_400
    // Days since 1 March of the year 0, in eras of 400 years, which all have as many days.
    let days = (time.seconds - second) / 86_400 + 719_468
    let era = (days >= 0 ? days : days - 146_096) / 146_097
    let dayOfEra = days - era * 146_097
    let yearOfEra =
        (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let shiftedMonth = (5 * dayOfYear + 2) / 153
    let day = dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
    let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
    let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    return padded(year, 4) + "-" + padded(month, 2) + "-" + padded(day, 2) + "T"
        + padded(second / 3600, 2) + ":" + padded(second / 60 % 60, 2) + ":"
        + padded(second % 60, 2)
        + "." + fraction + "Z"
}
