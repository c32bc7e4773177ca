//! Pure. What is asked and what is answered: a span of event time out of a query string, counts as JSON.

use std::collections::BTreeMap;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::key::PANE_MS;
use crate::sums::{CLASS_VALID, Sums};

/// The span where none is asked for, and its length where one end is.
const SPAN_DEFAULT_MS: i64 = 60 * 60 * 1000;
/// Whole numbers below this are seconds, others milliseconds, as in the clicks themselves.
const SECONDS_BELOW: i64 = 100_000_000_000;
/// The last pane that RFC 3339 can write the end of: 9999-12-31T23:59:50Z.
const TIME_MAX_MS: i64 = 253_402_300_790_000;
/// Longest ad_id that a click may carry.
pub const AD_ID_BYTES_MAX: usize = 64;

/// A parameter that cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadParameter {
    pub parameter: String,
    pub detail: String,
}

/// Event time in [from, to), both on the border of a pane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from_ms: i64,
    pub to_ms: i64,
}

impl Span {
    /// Reads `from` and `to`, and widens what they say to whole panes. Nothing given: the hour up to now.
    pub fn parse(parameters: &[(String, String)], now_ms: i64) -> Result<Span, BadParameter> {
        let (mut from, mut to) = (None, None);
        for (name, value) in parameters {
            let end = match name.as_str() {
                "from" => &mut from,
                "to" => &mut to,
                _ => return Err(bad(name, format!("{name:?} is not known here; known are from and to"))),
            };
            let time_ms = parse_time(value).map_err(|detail| bad(name, detail))?;
            if end.replace(time_ms).is_some() {
                return Err(bad(name, format!("{name} is given twice")));
            }
        }
        let to_ms = to.unwrap_or(now_ms);
        let from_ms = from.unwrap_or_else(|| to_ms.saturating_sub(SPAN_DEFAULT_MS).max(0));
        if from_ms >= to_ms {
            let (named, detail) = match (from, to) {
                (Some(_), None) => ("from", "from is not before now, and no to is given".to_owned()),
                _ => ("to", format!("to ({}) must be after from ({})", format_time(to_ms), format_time(from_ms))),
            };
            return Err(bad(named, detail));
        }
        let to_ms = to_ms.saturating_add(PANE_MS - 1);
        Ok(Span { from_ms: from_ms - from_ms.rem_euclid(PANE_MS), to_ms: to_ms - to_ms.rem_euclid(PANE_MS) })
    }
}

/// The ad_id of a path, if a click could carry it.
pub fn parse_ad_id(ad_id: &str) -> Result<&str, BadParameter> {
    if (1..=AD_ID_BYTES_MAX).contains(&ad_id.len()) {
        return Ok(ad_id);
    }
    Err(bad("ad_id", format!("ad_id has {} bytes; 1 to {AD_ID_BYTES_MAX} are possible", ad_id.len())))
}

/// A time as clicks give it: RFC 3339, or a whole number of seconds (below 1e11) or milliseconds.
fn parse_time(text: &str) -> Result<i64, String> {
    let wanted = "RFC 3339 such as 2026-01-31T12:00:00Z (a + in a URL is written %2B), or a whole number: \
                  seconds below 1e11, else milliseconds";
    let time_ms = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        match text.parse::<i64>() {
            Ok(seconds) if seconds < SECONDS_BELOW => seconds * 1000,
            Ok(milliseconds) => milliseconds,
            Err(_) => i64::MAX,
        }
    } else {
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| format!("{text:?} is no time; give {wanted}"))?;
        i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).expect("RFC 3339 ends with the year 9999")
    };
    if (0..=TIME_MAX_MS).contains(&time_ms) {
        return Ok(time_ms);
    }
    Err(format!("{text:?} is outside 1970 to 9999; give {wanted}"))
}

/// RFC 3339 in UTC. Times beyond what that can write are shown as its first or last.
fn format_time(time_ms: i64) -> String {
    let time_ms = time_ms.clamp(0, TIME_MAX_MS);
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(time_ms) * 1_000_000);
    time.ok().and_then(|time| time.format(&Rfc3339).ok()).expect("years 1970 to 9999 can be written")
}

fn bad(parameter: &str, detail: String) -> BadParameter {
    BadParameter { parameter: parameter.to_owned(), detail }
}

/// The counts of one ad, or of all.
#[derive(Debug, Serialize)]
pub struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ad_id: Option<&'a str>,
    /// The span that was counted, at the grain of panes: it may be wider than asked for.
    from: String,
    to: String,
    /// The same as `net`.
    click_count: u64,
    /// Clicks of all classes.
    gross: u64,
    /// Clicks of the class `valid`.
    net: u64,
    /// Estimate of the distinct users of net clicks; clicks that name no user are not in it.
    users: u64,
    /// Clicks of each class that occurs; they add up to `gross`.
    classes: BTreeMap<String, u64>,
    /// Up to here the edges expect no more clicks; what comes later still counts. None before the first export.
    watermark: Option<String>,
}

impl<'a> Answer<'a> {
    pub fn new(ad_id: Option<&'a str>, span: Span, sums: &Sums, watermark_ms: Option<i64>) -> Answer<'a> {
        Answer {
            ad_id,
            from: format_time(span.from_ms),
            to: format_time(span.to_ms),
            click_count: sums.net(),
            gross: sums.gross(),
            net: sums.net(),
            users: sums.users(),
            classes: sums.clicks_by_class().iter().map(|(&class, &clicks)| (class_name(class), clicks)).collect(),
            watermark: watermark_ms.map(format_time),
        }
    }
}

/// The classes that this version can name; an edge may be newer and know more.
fn class_name(class: u32) -> String {
    match class {
        CLASS_VALID => "valid".to_owned(),
        1 => "bot_user_agent".to_owned(),
        2 => "prefetch".to_owned(),
        unknown => format!("class_{unknown}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_712_912_405_678;

    /// Parameters as they stand in a URL.
    type Given = &'static [(&'static str, &'static str)];

    fn parse(query: Given) -> Result<Span, BadParameter> {
        let owned: Vec<_> = query.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        Span::parse(&owned, NOW_MS)
    }

    /// Each pair of parameters gives this span, widened to panes.
    #[test]
    fn spans() {
        let cases: &[(Given, i64, i64)] = &[
            (&[], 1_712_908_800_000, 1_712_912_410_000),
            (&[("from", "1712908800")], 1_712_908_800_000, 1_712_912_410_000),
            (&[("to", "1712908800")], 1_712_905_200_000, 1_712_908_800_000),
            (&[("from", "1712908800"), ("to", "1712908801")], 1_712_908_800_000, 1_712_908_810_000),
            (&[("to", "1712908809999"), ("from", "1712908809998")], 1_712_908_800_000, 1_712_908_810_000),
            (&[("from", "1712908800000"), ("to", "1712908810000")], 1_712_908_800_000, 1_712_908_810_000),
            (&[("from", "1712908800000"), ("to", "1712908810001")], 1_712_908_800_000, 1_712_908_820_000),
            (&[("from", "0"), ("to", "1")], 0, 10_000),
            (&[("from", "99999999999"), ("to", "99999999999001")], 99_999_999_990_000, 100_000_000_000_000),
            (&[("from", "100000000000"), ("to", "100000000001")], 100_000_000_000, 100_000_010_000),
            (&[("from", "0"), ("to", "9999-12-31T23:59:50Z")], 0, TIME_MAX_MS),
            (
                &[("from", "2024-04-12T08:00:00Z"), ("to", "2024-04-12T10:00:00.001+02:00")],
                1_712_908_800_000,
                1_712_908_810_000,
            ),
            (
                &[("from", "2024-04-12t07:59:59.999z"), ("to", "2024-04-12T08:00:00Z")],
                1_712_908_790_000,
                1_712_908_800_000,
            ),
            (&[("to", "5")], 0, 10_000),
        ];
        for &(query, from_ms, to_ms) in cases {
            assert_eq!(parse(query), Ok(Span { from_ms, to_ms }), "{query:?}");
        }
    }

    /// Each of these is refused, naming the parameter, with these words in the detail.
    #[test]
    fn refused_spans() {
        let cases: &[(Given, &str, &str)] = &[
            (&[("from", "")], "from", "no time"),
            (&[("from", "yesterday")], "from", "\"yesterday\" is no time"),
            (&[("to", "-1")], "to", "no time"),
            (&[("to", "+5")], "to", "no time"),
            (&[("to", "1.5")], "to", "no time"),
            (&[("to", "1e9")], "to", "no time"),
            (&[("to", "2024-04-12T08:00:00 02:00")], "to", "%2B"),
            (&[("to", "2024-04-12")], "to", "no time"),
            (&[("to", "2024-13-12T08:00:00Z")], "to", "no time"),
            (&[("to", "1969-12-31T23:59:59Z")], "to", "outside 1970 to 9999"),
            (&[("to", "253402300790001")], "to", "outside 1970 to 9999"),
            (&[("to", "99999999999999999999")], "to", "outside 1970 to 9999"),
            (&[("from", "5"), ("from", "6")], "from", "twice"),
            (&[("to", "5"), ("to", "5")], "to", "twice"),
            (&[("granularity", "1m")], "granularity", "not known"),
            (&[("From", "5")], "From", "not known"),
            (&[("from", "10"), ("to", "10")], "to", "after from (1970-01-01T00:00:10Z)"),
            (&[("from", "11"), ("to", "10")], "to", "must be after"),
            (&[("to", "0")], "to", "must be after"),
            (&[("from", "1712912405678")], "from", "not before now"),
        ];
        for &(query, parameter, words) in cases {
            let refused = parse(query).expect_err(&format!("{query:?}"));
            assert_eq!(refused.parameter, parameter, "{query:?}");
            assert!(refused.detail.contains(words), "{query:?}: {}", refused.detail);
        }
    }

    #[test]
    fn an_ad_id_is_1_to_64_bytes() {
        for (ad_id, fits) in [("", false), ("a", true), (&"a".repeat(64), true), (&"a".repeat(65), false)] {
            assert_eq!(parse_ad_id(ad_id).is_ok(), fits, "{ad_id:?}");
        }
    }

    /// Pins the plain answer, and its law: gross is the sum of the classes, net is `valid`.
    #[test]
    fn the_answer_has_these_fields() {
        let mut sums = Sums::default();
        for (class, clicks) in [(0, 5), (1, 2), (2, 1), (77, 4)] {
            sums.add(class, clicks, &[]).expect("no users");
        }
        let span = Span { from_ms: 1_712_908_800_000, to_ms: 1_712_908_810_000 };
        let answer = serde_json::to_value(Answer::new(Some("ad_1"), span, &sums, Some(1_712_908_805_120)));
        let expected = serde_json::json!({
            "ad_id": "ad_1", "from": "2024-04-12T08:00:00Z", "to": "2024-04-12T08:00:10Z",
            "click_count": 5, "gross": 12, "net": 5, "users": 0,
            "classes": {"valid": 5, "bot_user_agent": 2, "prefetch": 1, "class_77": 4},
            "watermark": "2024-04-12T08:00:05.12Z",
        });
        assert_eq!(answer.expect("plain data"), expected);

        let answer = serde_json::to_value(Answer::new(None, span, &Sums::default(), None)).expect("plain data");
        assert_eq!(answer.get("ad_id"), None, "totals are of no ad");
        assert_eq!(answer["watermark"], serde_json::Value::Null);
        assert_eq!(answer["classes"], serde_json::json!({}));
    }
}
