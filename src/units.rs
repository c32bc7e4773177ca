//! Pure. Sizes and durations as people write them: `256MiB`, `10m`, `200us`. What is printed reads back as the same value.

/// Units of a size, smallest first. Powers of two only: `MB` means two things to two people.
const SIZES: [(&str, u64); 5] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// Units of a duration in microseconds, smallest first.
const DURATIONS: [(&str, u64); 6] =
    [("us", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];

/// Bytes from `4096`, `4096B`, `256KiB`, `1 GiB`.
pub fn parse_bytes(text: &str) -> Result<u64, &'static str> {
    const WANT: &str = "must be a whole number with B, KiB, MiB, GiB or TiB, such as 256MiB";
    let (number, unit) = split(text).ok_or(WANT)?;
    let unit = if unit.is_empty() { "B" } else { unit };
    scale(number, unit, &SIZES).ok_or(WANT)
}

/// Microseconds from `200us`, `5ms`, `30s`, `10m`, `24h`, `7d`. Only zero needs no unit.
pub fn parse_duration_us(text: &str) -> Result<u64, &'static str> {
    const WANT: &str = "must be a whole number with us, ms, s, m, h or d, such as 10m";
    let (number, unit) = split(text).ok_or(WANT)?;
    if unit.is_empty() && number == 0 {
        return Ok(0);
    }
    scale(number, unit, &DURATIONS).ok_or(WANT)
}

pub fn format_bytes(bytes: u64) -> String {
    format_exact(bytes, &SIZES)
}

pub fn format_duration_us(us: u64) -> String {
    if us == 0 { "0s".to_owned() } else { format_exact(us, &DURATIONS) }
}

/// For people only: at most three digits, so that sums are easy to read. `1.4 GiB`.
pub fn about_bytes(bytes: u64) -> String {
    let (unit, factor) = SIZES.iter().rev().find(|(_, factor)| bytes >= *factor).unwrap_or(&SIZES[0]);
    let value = bytes as f64 / *factor as f64;
    if value >= 100.0 || *factor == 1 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

/// For people only: `0.4 s`, `95 s`, `12 min`, `3.5 h`, `12 d`.
pub fn about_seconds(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 10.0 => format!("{seconds:.1} s"),
        seconds if seconds < 120.0 => format!("{seconds:.0} s"),
        seconds if seconds < 7_200.0 => format!("{:.0} min", seconds / 60.0),
        seconds if seconds < 172_800.0 => format!("{:.1} h", seconds / 3_600.0),
        seconds => format!("{:.0} d", seconds / 86_400.0),
    }
}

/// Milliseconds since 1970 as RFC 3339, in UTC: `2026-01-31T08:05:00.250Z`. What no four digits of a year can say is left as it is.
pub fn utc(ms: i64) -> String {
    const YEAR_10000_MS: i64 = 253_402_300_800_000;
    if !(0..YEAR_10000_MS).contains(&ms) {
        return format!("{ms} ms");
    }
    let (second, ms) = (ms / 1000, ms % 1000);
    let ((year, month, day), of_day) = (civil_date(second / 86_400), second % 86_400);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Year, month from 1, and day of a day since 1970-01-01: by 400-year eras that begin on 1 March, so that a leap day ends its year.
pub fn civil_date(days: i64) -> (i64, i64, i64) {
    let from_era = days + 719_468;
    let (era, day_of_era) = (from_era / 146_097, from_era % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    (era * 400 + year_of_era + i64::from(month < 3), month, day)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.strip_prefix(' ').unwrap_or(unit)))
}

fn scale(number: u64, unit: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

/// The largest unit that divides the value, so that nothing is rounded.
fn format_exact(value: u64, units: &[(&str, u64)]) -> String {
    let exact = |(_, factor): &&(&str, u64)| value.is_multiple_of(*factor) && value >= *factor;
    let (unit, factor) = units.iter().rev().find(exact).unwrap_or(&units[0]);
    format!("{}{unit}", value / factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn seconds_are_said_in_the_unit_that_is_easy_to_read() {
        let said = [0.0, 9.94, 95.4, 720.0, 12_600.0, 1_036_800.0].map(about_seconds);
        assert_eq!(said, ["0.0 s", "9.9 s", "95 s", "12 min", "3.5 h", "12 d"]);
    }

    #[test]
    fn sizes_read_as_written() {
        for (text, bytes) in [("0", 0), ("4096", 4096), ("4096B", 4096), ("16KiB", 16384), ("1 GiB", 1 << 30)] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "MiB", "1MB", "1mib", "-1", "1.5GiB", "1  KiB", "99999999TiB", "18446744073709551616", "1KiB "]
        {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_read_as_written() {
        for (text, us) in [("0", 0), ("200us", 200), ("5ms", 5_000), ("30s", 30_000_000), ("10m", 600_000_000)] {
            assert_eq!(parse_duration_us(text), Ok(us), "{text}");
        }
        assert_eq!(parse_duration_us("24h"), parse_duration_us("1d"));
    }

    #[test]
    fn a_duration_without_its_unit_is_refused() {
        for text in ["", "10", "10min", "1.5s", "-1s", "s"] {
            assert!(parse_duration_us(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_written_in_utc() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_868_799_001, "2000-02-29T23:59:59.001Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (253_402_300_800_000, "253402300800000 ms"),
            (-1, "-1 ms"),
        ] {
            assert_eq!(utc(ms), text);
        }
    }

    #[test]
    fn about_is_short() {
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (256 << 20, "256 MiB")] {
            assert_eq!(about_bytes(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(value: u64, shift in 0u32..64) {
            let value = value >> shift;
            prop_assert_eq!(parse_bytes(&format_bytes(value)), Ok(value));
            prop_assert_eq!(parse_duration_us(&format_duration_us(value)), Ok(value));
        }
    }
}
