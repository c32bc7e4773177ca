//! Pure. The two ways to write an event time: an RFC 3339 text, or a whole number of seconds or milliseconds.
//!
//! A whole number under 1e11 is seconds (up to the year 5138), else milliseconds (from the year 1973). A time that is not after
//! 1970-01-01T00:00:00Z is none: zero is what a clock says that was never set.

/// Below this a whole number is seconds.
const SECONDS_BELOW: i64 = 100_000_000_000;

/// The last millisecond of the year 9999, the last that RFC 3339 can write.
pub(super) const EVENT_MS_MAX: i64 = 253_402_300_799_999;

/// Milliseconds since 1970 of a whole number, if it can be a time.
#[inline]
pub(super) fn whole(number: i64) -> Option<i64> {
    match number {
        1..SECONDS_BELOW => Some(number * 1000),
        SECONDS_BELOW..=EVENT_MS_MAX => Some(number),
        _ => None,
    }
}

/// Milliseconds since 1970 of an RFC 3339 text, digits beyond the millisecond dropped. `T` and `Z` may be lower case, a space
/// for the `T` may not be. A leap second is allowed only where one can be, before midnight UTC, and counts as that midnight.
pub(super) fn rfc3339(text: &[u8]) -> Option<i64> {
    let (head, rest) = text.split_at_checked(19)?;
    let separators = [head[4], head[7], head[10].to_ascii_uppercase(), head[13], head[16]];
    if separators != *b"--T::" {
        return None;
    }
    let (year, month, day) = (digits(&head[..4])?, digits(&head[5..7])?, digits(&head[8..10])?);
    let (hour, minute, second) = (digits(&head[11..13])?, digits(&head[14..16])?, digits(&head[17..])?);
    if !(1..=12).contains(&month) || day < 1 || day > days_of(year, month) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction_ms, zone) = fraction(rest)?;
    let utc_s = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset_s(zone)?;
    let leap = second == 60;
    if leap && utc_s % 86_400 != 0 {
        return None;
    }
    let event_ms = utc_s * 1000 + if leap { 0 } else { fraction_ms };
    (1..=EVENT_MS_MAX).contains(&event_ms).then_some(event_ms)
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0')))
}

/// Splits an optional `.digits` off: its milliseconds, and what follows.
fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    let Some((b'.', after)) = rest.split_first() else { return Some((0, rest)) };
    let count = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 {
        return None;
    }
    let place = |index: usize| after[..count].get(index).map_or(0, |byte| i64::from(byte - b'0'));
    Some((place(0) * 100 + place(1) * 10 + place(2), &after[count..]))
}

/// Seconds that the zone is ahead of UTC.
fn offset_s(zone: &[u8]) -> Option<i64> {
    let (sign, hour, minute) = match zone {
        [b'Z' | b'z'] => return Some(0),
        [b'+', h1, h2, b':', m1, m2] => (1, [*h1, *h2], [*m1, *m2]),
        [b'-', h1, h2, b':', m1, m2] => (-1, [*h1, *h2], [*m1, *m2]),
        _ => return None,
    };
    let (hour, minute) = (digits(&hour)?, digits(&minute)?);
    (hour <= 23 && minute <= 59).then_some(sign * (hour * 3_600 + minute * 60))
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of the Gregorian calendar, counted in years that begin in March, so that the leap day is the last of its year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_read_as_rfc_3339_says() {
        for (text, event_ms) in [
            ("2024-04-12T08:00:00Z", Some(1_712_908_800_000)),
            ("2024-04-12t08:00:00z", Some(1_712_908_800_000)),
            ("2024-04-12T08:00:00.123Z", Some(1_712_908_800_123)),
            ("2024-04-12T08:00:00.1Z", Some(1_712_908_800_100)),
            ("2024-04-12T08:00:00.1239999999999Z", Some(1_712_908_800_123)),
            ("2024-04-12T10:00:00+02:00", Some(1_712_908_800_000)),
            ("2024-04-12T02:30:00-05:30", Some(1_712_908_800_000)),
            ("2024-04-12T08:00:00-00:00", Some(1_712_908_800_000)),
            ("1970-01-01T00:00:00.001Z", Some(1)),
            ("9999-12-31T23:59:59.999Z", Some(EVENT_MS_MAX)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800_000)),
            ("2000-02-29T00:00:00Z", Some(951_782_400_000)),
            ("2016-12-31T23:59:60Z", Some(1_483_228_800_000)),
            ("2016-12-31T23:59:60.5Z", Some(1_483_228_800_000)),
            ("2016-12-31T18:59:60-05:00", Some(1_483_228_800_000)),
            ("2016-12-31T12:00:60Z", None),
            ("1970-01-01T00:00:00Z", None),
            ("1969-12-31T23:59:59Z", None),
            ("9999-12-31T23:59:59-00:01", None),
            ("1900-02-29T00:00:00Z", None),
            ("2023-02-29T00:00:00Z", None),
            ("2024-13-01T00:00:00Z", None),
            ("2024-00-01T00:00:00Z", None),
            ("2024-01-00T00:00:00Z", None),
            ("2024-04-31T00:00:00Z", None),
            ("2024-04-12T24:00:00Z", None),
            ("2024-04-12T08:60:00Z", None),
            ("2024-04-12T08:00:61Z", None),
            ("2024-04-12 08:00:00Z", None),
            ("2024-04-12T08:00:00", None),
            ("2024-04-12T08:00:00.Z", None),
            ("2024-04-12T08:00:00,5Z", None),
            ("2024-04-12T08:00:00+0200", None),
            ("2024-04-12T08:00:00+24:00", None),
            ("2024-04-12T08:00:00+02:60", None),
            ("2024-04-12T08:00:00Zx", None),
            ("2024-04-12", None),
            ("1712908800", None),
            ("+024-04-12T08:00:00Z", None),
            ("", None),
        ] {
            assert_eq!(rfc3339(text.as_bytes()), event_ms, "{text}");
        }
    }

    #[test]
    fn every_day_follows_the_day_before() {
        let mut expected = days_since_1970(1, 1, 1);
        assert_eq!(days_since_1970(1970, 1, 1), 0);
        for year in 1..=2401 {
            for month in 1..=12 {
                for day in 1..=days_of(year, month) {
                    assert_eq!(days_since_1970(year, month, day), expected, "{year}-{month}-{day}");
                    expected += 1;
                }
            }
        }
    }

    #[test]
    fn whole_numbers_are_seconds_below_1e11() {
        for (number, event_ms) in [
            (1, Some(1000)),
            (1_712_908_800, Some(1_712_908_800_000)),
            (99_999_999_999, Some(99_999_999_999_000)),
            (100_000_000_000, Some(100_000_000_000)),
            (1_712_908_800_123, Some(1_712_908_800_123)),
            (EVENT_MS_MAX, Some(EVENT_MS_MAX)),
            (EVENT_MS_MAX + 1, None),
            (i64::MAX, None),
            (0, None),
            (-1, None),
            (i64::MIN, None),
        ] {
            assert_eq!(whole(number), event_ms, "{number}");
        }
    }
}
