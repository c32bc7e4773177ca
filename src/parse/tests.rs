//! Pure. What the parser as a whole promises, one table or law each.

use super::*;
use crate::click::{Class, ClickKey, Device};
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
    let in_short = |item: Item<'_>| match item.outcome {
        Ok(click) => String::from_utf8_lossy(click.ad_id).into_owned(),
        Err(refusal) => format!("{} {}", refusal.reason.name(), refusal.field).trim_end().to_owned(),
    };
    while let Some(outcome) = parser.next(&mut cursor, &mut layout, &CONTEXT, in_short) {
        outcomes.push(outcome);
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
        (format!(r#"{{"ad_id":"a","timestamp":"2025-11-22T05:56:40.{}Z"}}"#, "0".repeat(43)), "a"),
        (format!(r#"{{"ad_id":"a","timestamp":"2025-11-22T05:56:40.{}Z"}}"#, "0".repeat(44)), "too_long timestamp"),
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

/// The one click of a body under a rule, through `look`.
fn one<T>(dedup_key: DedupKey, context: &Context, body: &str, look: impl Fn(Item<'_>) -> T) -> T {
    let mut parser = Parser::new(&config(dedup_key));
    let mut cursor = parser.open(Format::Json, body.as_bytes()).expect("an object");
    parser.next(&mut cursor, &mut Layout::new(), context, look).expect("a click")
}

fn key(dedup_key: DedupKey, members: &str) -> ClickKey {
    let body = format!(r#"{{"ad_id":"a","timestamp":1763791000,{members}}}"#);
    one(dedup_key, &CONTEXT, &body, |item| item.outcome.expect("a good click").key)
}

#[test]
fn a_key_says_what_a_click_is_and_nothing_else() {
    use DedupKey::*;
    let uuid = r#""0190d5a4-89ab-cdef-0f1e-2d3c4b5a6978""#;
    let lone = key(Auto, &format!(r#""request_id":{uuid}"#));
    assert_eq!(lone, ClickKey { bytes: 0x0190d5a489abcdef0f1e2d3c4b5a6978u128.to_be_bytes(), hashed: false });
    let same = |one: ClickKey, other: ClickKey| assert_eq!(one, other);
    let differ = |one: ClickKey, other: ClickKey| assert_ne!(one, other);

    same(lone, key(Auto, &format!(r#""request_id":{}"#, uuid.to_uppercase())));
    same(lone, key(Auto, &format!(r#""click_id":{uuid}"#)));
    same(lone, key(Auto, &format!(r#""user_id":"u","click_id":"c","request_id":{uuid},"region":"US""#)));
    differ(lone, key(Auto, &format!(r#""click_id":{uuid},"user_id":"u""#)));
    differ(lone, key(Auto, r#""request_id":"0190d5a489abcdef0f1e2d3c4b5a6978""#));
    differ(key(Auto, r#""request_id":"x""#), key(Auto, r#""click_id":"x""#));
    differ(key(Auto, r#""click_id":"x""#), key(Auto, r#""impression_id":"x""#));
    differ(key(Auto, r#""click_id":"ab","user_id":"c""#), key(Auto, r#""click_id":"a","user_id":"bc""#));
    differ(
        key(Auto, r#""impression_id":"i","event_type":"click""#),
        key(Auto, r#""impression_id":"i","event_type":"view""#),
    );
    same(key(Auto, r#""click_id":"x","user_id":"""#), key(Auto, r#""clickId":"x""#));
    same(key(Auto, r#""user_id":"u","ip":"1""#), key(Content, r#""x":7,"ip":"\u0031","userId":"u""#));
    differ(key(Auto, r#""user_id":"u","ip":"1""#), key(Auto, r#""user_id":"u","ip":"2""#));
    differ(key(Auto, r#""user_id":"u""#), key(Auto, r#""campaign_id":"u""#));
    same(key(ClickId, r#""click_id":"x","request_id":"r""#), key(Auto, r#""click_id":"x""#));
}

#[test]
fn a_named_rule_wants_its_field() {
    for (dedup_key, name) in [
        (DedupKey::RequestId, "request_id"),
        (DedupKey::ClickId, "click_id"),
        (DedupKey::ImpressionId, "impression_id"),
    ] {
        let outcome = one(dedup_key, &CONTEXT, r#"{"ad_id":"a","timestamp":1763791000}"#, |item| item.outcome.err());
        assert_eq!(outcome.map(|refusal| (refusal.reason.name(), refusal.field)), Some(("missing_field", name)));
    }
}

#[test]
fn a_click_is_marked_by_the_first_rule_that_fits() {
    let chrome = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/130.0.0.0 Safari/537.36";
    for (members, prefetch, class, device) in [
        (String::new(), false, Class::Valid, Device::Unknown),
        (String::new(), true, Class::Prefetch, Device::Unknown),
        (r#","user_agent":"curl/8""#.to_owned(), false, Class::BotUserAgent, Device::Bot),
        (r#","user_agent":"curl/8","device":"TV""#.to_owned(), true, Class::BotUserAgent, Device::Tv),
        (format!(r#","user_agent":"{chrome}""#), true, Class::Prefetch, Device::Desktop),
        (format!(r#","device":"Smartphone","user_agent":"{chrome}""#), false, Class::Valid, Device::Mobile),
        (r#","device":"a toaster with a long name""#.to_owned(), false, Class::Valid, Device::Other),
    ] {
        let body = format!(r#"{{"ad_id":"a","timestamp":1763791000{members}}}"#);
        let found = one(DedupKey::Auto, &Context { prefetch, ..CONTEXT }, &body, |item| {
            item.outcome.map(|click| (click.class, click.device))
        });
        assert_eq!(found, Ok((class, device)), "{body}");
    }
}

#[test]
fn lines_may_come_in_any_pieces_of_whole_lines() {
    let body: String = (0..9).map(|n| format!("{{\"ad_id\":\"ad{n}\",\"timestamp\":1763791000}}\n")).collect();
    let body = body.trim_end();
    let whole = outcomes(Format::Lines, body);
    assert_eq!(whole.len(), 9);
    for (cut, _) in body.match_indices('\n') {
        let (first, second) = body.split_at(cut + 1);
        assert_eq!([outcomes(Format::Lines, first), outcomes(Format::Lines, second)].concat(), whole);
    }
}

#[test]
fn a_refused_click_is_handed_back_as_it_was_sent() {
    let sent = "{\"ad_id\":\"\\u0061\",\"timestamp\":1}";
    let (raw, key) = one(DedupKey::Auto, &CONTEXT, &format!(" {sent}\n"), |item| (item.raw.to_vec(), item.key));
    assert_eq!(raw, sent.as_bytes(), "not unescaped in place");
    assert!(key.is_some(), "too old, but known");
}

#[test]
fn clicks_of_two_layouts_are_soon_all_scanned() {
    let with = r#"{"request_id":"0190d5a4-89ab-cdef-0f1e-2d3c4b5a6978","ad_id":"a","user_id":"u","n":7,"timestamp":1763791000000}"#;
    let without = r#"{"request_id":"0190d5a4-89ab-cdef-0f1e-2d3c4b5a6979","ad_id":"b","timestamp":1763791000001}"#;
    let mut parser = Parser::new(&config(DedupKey::Auto));
    let mut layout = Layout::new();
    for (round, click) in [with, without, without, with, with, without, with, without].into_iter().enumerate() {
        let mut cursor = parser.open(Format::Json, click.as_bytes()).expect("an object");
        let user_id = |item: Item<'_>| item.outcome.expect("a good click").user_id.to_vec();
        let user_id = parser.next(&mut cursor, &mut layout, &CONTEXT, user_id).expect("a click");
        assert_eq!(user_id, if click == with { &b"u"[..] } else { b"" });
        assert_eq!(layout.misses() > 0, round < 2, "click {round}");
    }
    layout.reset();
    assert_eq!(layout.reach(), 0, "forgotten");
}
