//! Pure. What the parser as a whole promises, one table or law each.

use super::*;
use crate::config::{ClickConfig, DedupKey};

const NOW_MS: i64 = 1_763_791_100_000;
const CONTEXT: Context = Context { now_ms: NOW_MS, horizon_ms: NOW_MS - 600_000, prefetch: false };

fn config(dedup_key: DedupKey) -> ClickConfig {
    ClickConfig { dedup_key, clock_skew_ms: 60_000, regions: Vec::new() }
}

/// What becomes of each click of a body, in short.
fn outcomes(format: Format, body: &str) -> Vec<String> {
    let mut parser = Parser::new(&config(DedupKey::Auto));
    let mut layout = Layout::new();
    let mut cursor = match parser.open(format, body.as_bytes()) {
        Ok(cursor) => cursor,
        Err(unreadable) => return vec![format!("{unreadable:?}")],
    };
    let mut outcomes = Vec::new();
    while let Some(item) = parser.next(&mut cursor, &mut layout, &CONTEXT) {
        outcomes.push(match item.outcome {
            Ok(click) => String::from_utf8_lossy(click.ad_id).into_owned(),
            Err(refusal) => format!("{} {}", refusal.reason.name(), refusal.field).trim_end().to_owned(),
        });
    }
    outcomes
}

#[test]
fn bodies_come_apart_into_their_clicks() {
    let a = r#"{"ad_id":"a","timestamp":1763791000}"#;
    let b = "{ \"ad_id\" : \"b\" ,\r\n \"timestamp\" : 1763791000 }";
    let table = [
        (Format::Json, a.to_owned(), vec!["a"]),
        (Format::Json, format!(" \n{b}\r\n"), vec!["b"]),
        (Format::Json, format!("[{a},{b}]"), vec!["a", "b"]),
        (Format::Json, format!(" [ {a} ,\n{b} ] \n"), vec!["a", "b"]),
        (Format::Json, format!("[{a},7,{b}]"), vec!["a", "malformed", "b"]),
        (Format::Json, format!("[{a},{{\"x\":[}}],{b}]"), vec!["a", "malformed", "b"]),
        (Format::Json, format!("[{a},,{b},]"), vec!["a", "malformed", "b", "malformed"]),
        (Format::Json, "[]".to_owned(), vec![]),
        (Format::Json, " [ \n ] ".to_owned(), vec![]),
        (Format::Json, String::new(), vec![]),
        (Format::Json, " \r\n".to_owned(), vec![]),
        (Format::Json, format!("[{a}"), vec!["Unclosed"]),
        (Format::Json, format!("[{a},{{\"x\":\"]"), vec!["Unclosed"]),
        (Format::Json, format!("[{a}}}"), vec!["Unclosed"]),
        (Format::Json, format!("[{a}]]"), vec!["Trailing"]),
        (Format::Json, format!("[{a}]{a}"), vec!["Trailing"]),
        (Format::Json, format!("{a}{a}"), vec!["malformed"]),
        (Format::Json, format!("{a}\n{a}"), vec!["malformed"]),
        (Format::Json, "7".to_owned(), vec!["NotJson"]),
        (Format::Json, format!("\u{feff}{a}"), vec!["NotJson"]),
        (Format::Lines, format!("{a}\n{a}"), vec!["a", "a"]),
        (Format::Lines, format!("\n{a}\r\n\n \t\r\n{a}\n\n"), vec!["a", "a"]),
        (
            Format::Lines,
            format!("{a}\nnot json\n[{a}]\n{a} {a}\n{a}"),
            vec!["a", "malformed", "malformed", "malformed", "a"],
        ),
        (Format::Lines, format!("\u{feff}{a}\n{a}"), vec!["malformed", "a"]),
        (Format::Lines, String::new(), vec![]),
        (Format::Text, format!("{a}\n{a}\n"), vec!["a", "a"]),
        (Format::Text, b.to_owned(), vec!["b"]),
        (Format::Text, format!("[{a},{b}]"), vec!["a", "b"]),
        (Format::Text, format!("{a}\n{{\"x\":\n{a}"), vec!["a", "malformed", "a"]),
        (Format::Text, "hello".to_owned(), vec!["malformed"]),
        (Format::Text, String::new(), vec![]),
    ];
    for (format, body, expected) in table {
        assert_eq!(outcomes(format, &body), expected, "{format:?} {body}");
    }
}

#[test]
fn a_click_is_refused_for_its_first_fault() {
    let time = r#""timestamp":1763791000"#;
    for (click, outcome) in [
        (format!(r#"{{"ad_id":"a",{time},"user_id":"u1","request_id":"r"}}"#), "a"),
        (format!(r#"{{"adId":"a","impressionId":"i",{time},"userId":"u1"}}"#), "a"),
        (format!(r#"{{"x":{{"ad_id":[1,{{"y":2}}]}},"ad_id":"a","z":[[],{{}}],{time}}}"#), "a"),
        (format!(r#"{{"ad_id":"a","user_id":"",{time}}}"#), "a"),
        (format!(r#"{{"ad_id":"a","b":[[[[[[[]]]]]]],{time}}}"#), "a"),
        (format!(r#"{{"ad_id":"a","b":[[[[[[[[]]]]]]]],{time}}}"#), "too_deep"),
        (format!(r#"{{"ad_id":"\ud83d\ude00",{time}}}"#), "\u{1f600}"),
        (r#"{"ad_id":"a","timestamp":"2025-11-22T05:56:40Z"}"#.to_owned(), "a"),
        (r#"{"ad_id":"a","clickTimestamp":1763791000123}"#.to_owned(), "a"),
        (format!(r#"{{"ad_id":"a",{time},"click_timestamp":1763791000000}}"#), "a"),
        (format!(r#"{{"ad_id":"a",{time},"click_timestamp":1763791000001}}"#), "repeated_field click_timestamp"),
        (format!(r#"{{{time}}}"#), "missing_field ad_id"),
        ("{}".to_owned(), "missing_field ad_id"),
        (r#"{"ad_id":"a"}"#.to_owned(), "missing_field timestamp"),
        (format!(r#"{{"ad_id":"a","ad_id":"a",{time}}}"#), "repeated_field ad_id"),
        (format!(r#"{{"ad_id":"a","adId":"a",{time}}}"#), "repeated_field ad_id"),
        (format!(r#"{{"ad_id":"a","ad\u005fid":"a",{time}}}"#), "repeated_field ad_id"),
        (format!(r#"{{"ad_id":"","ad_id":"a",{time}}}"#), "empty ad_id"),
        (format!(r#"{{"ad_id":"a","request_id":"",{time}}}"#), "empty request_id"),
        (format!(r#"{{"ad_id":"{}",{time}}}"#, "a".repeat(65)), "too_long ad_id"),
        (format!(r#"{{"ad_id":7,{time}}}"#), "wrong_type ad_id"),
        (format!(r#"{{"ad_id":null,{time}}}"#), "wrong_type ad_id"),
        (format!(r#"{{"ad_id":"a","user_id":1.5,{time}}}"#), "wrong_type user_id"),
        (format!(r#"{{"ad_id":["a"],{time}}}"#), "wrong_type ad_id"),
        (format!(r#"{{"ad_id":"a\u0000",{time}}}"#), "malformed ad_id"),
        (format!(r#"{{"ad_id":"a","user_id":"\n",{time}}}"#), "malformed user_id"),
        (format!("{{\"ad_id\":\"a\u{7f}\",{time}}}"), "malformed ad_id"),
        (format!("{{\"ad_id\":\"a\tb\",{time}}}"), "malformed"),
        (format!(r#"{{"ad_id":"\ud83d",{time}}}"#), "malformed"),
        (format!(r#"{{"ad_id":"a",{time},}}"#), "malformed"),
        (format!(r#"{{"ad_id":"a",{time}}} x"#), "malformed"),
        (r#"{"ad_id":"a","timestamp":true}"#.to_owned(), "wrong_type timestamp"),
        (r#"{"ad_id":"a","timestamp":1763791000.0}"#.to_owned(), "bad_time timestamp"),
        (r#"{"ad_id":"a","timestamp":1763791e3}"#.to_owned(), "bad_time timestamp"),
        (r#"{"ad_id":"a","timestamp":"1763791000"}"#.to_owned(), "bad_time timestamp"),
        (r#"{"ad_id":"a","timestamp":""}"#.to_owned(), "bad_time timestamp"),
        (r#"{"ad_id":"a","timestamp":-1}"#.to_owned(), "bad_time timestamp"),
        (r#"{"ad_id":"a","timestamp":-0}"#.to_owned(), "bad_time timestamp"),
        (r#"{"ad_id":"a","timestamp":01763791000}"#.to_owned(), "malformed"),
        (r#"{"ad_id":"a","timestamp":18446744073709551615}"#.to_owned(), "bad_time timestamp"),
        (format!(r#"{{"ad_id":"a","timestamp":{}}}"#, NOW_MS - 600_000), "a"),
        (format!(r#"{{"ad_id":"a","timestamp":{}}}"#, NOW_MS - 600_001), "too_old timestamp"),
        (format!(r#"{{"ad_id":"a","click_timestamp":{}}}"#, NOW_MS - 600_001), "too_old click_timestamp"),
        (format!(r#"{{"ad_id":"a","timestamp":{}}}"#, NOW_MS + 60_000), "a"),
        (format!(r#"{{"ad_id":"a","timestamp":{}}}"#, NOW_MS + 60_001), "in_future timestamp"),
    ] {
        assert_eq!(outcomes(Format::Json, &click), [outcome], "{click}");
    }
}
