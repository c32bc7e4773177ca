//! Pure. Times as they stand in URLs and answers, and the span that a question is about.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The span where none is asked for, and its length where one end is.
pub const SPAN_DEFAULT_MS: i64 = 60 * 60 * 1000;
/// Whole numbers below this are seconds, others milliseconds, as in the clicks themselves.
pub const SECONDS_BELOW: i64 = 100_000_000_000;
/// The last pane that RFC 3339 can write the end of: 9999-12-31T23:59:50Z.
pub const TIME_MAX_MS: i64 = 253_402_300_790_000;

/// What can be given as a time.
pub const WANTED: &str = "RFC 3339 from 1970 on, such as 2026-01-31T12:00:00Z (a + in a URL is written %2B), or a whole number: seconds \
                          below 1e11, else milliseconds";

/// A time as clicks give it: RFC 3339, or a whole number of seconds (below 1e11) or milliseconds. None: no time, or outside 1970 to
/// 9999.
pub fn parse_time(text: &str) -> Option<i64> {
    let time_ms = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        match text.parse::<i64>() {
            Ok(seconds) if seconds < SECONDS_BELOW => seconds * 1000,
            Ok(milliseconds) => milliseconds,
            Err(_) => return None,
        }
    } else {
        let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).expect("RFC 3339 ends with the year 9999")
    };
    (0..=TIME_MAX_MS).contains(&time_ms).then_some(time_ms)
}

/// RFC 3339 in UTC. Times beyond what that can write are shown as its first or last.
pub fn format_time(time_ms: i64) -> String {
    let time_ms = time_ms.clamp(0, TIME_MAX_MS);
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(time_ms) * 1_000_000);
    time.ok().and_then(|time| time.format(&Rfc3339).ok()).expect("years 1970 to 9999 can be written")
}

/// As [`format_time`]; before anything was claimed a mark is at 1970 or before, and no time.
pub fn format_mark(mark_ms: i64) -> Option<String> {
    (mark_ms > 0).then(|| format_time(mark_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, expected) in [
            ("1712908800", 1_712_908_800_000),
            ("1712908800000", 1_712_908_800_000),
            ("0", 0),
            ("99999999999", 99_999_999_999_000),
            ("100000000000", 100_000_000_000),
            ("253402300790000", TIME_MAX_MS),
            ("2024-04-12T08:00:00Z", 1_712_908_800_000),
            ("2024-04-12t10:00:00.001+02:00", 1_712_908_800_001),
            ("9999-12-31T23:59:50Z", TIME_MAX_MS),
        ] {
            assert_eq!(parse_time(text), Some(expected), "{text}");
            assert_eq!(parse_time(&format_time(expected)), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        let none = [
            "",
            "yesterday",
            "-1",
            "+5",
            "1.5",
            "1e9",
            "2024-04-12T08:00:00 02:00",
            "2024-04-12",
            "2024-13-12T08:00:00Z",
            "1969-12-31T23:59:59Z",
            "253402300790001",
            "99999999999999999999",
            " 5",
        ];
        for text in none {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }
}
