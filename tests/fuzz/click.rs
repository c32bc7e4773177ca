//! Any bytes as a body of clicks: it is read by layout as it is read strictly, every bound holds, and what is accepted
//! comes back whole out of its record.
//!
//! An input is two letters, the format (`j`, `l`, `t`) and the rule for keys (`a`, `r`, `c`, `i`, `h`), a line's end, and the body.

use tollgate::click::*;
use tollgate::config::{ClickConfig, DedupKey};
use tollgate::parse::{Context, Cursor, Format, Item, Layout, Parser, Unreadable};
use tollgate::wal::record::{self, Record};

const NOW_MS: i64 = 1_763_791_100_000;
const SKEW_MS: i64 = 60_000;
const HORIZON_MS: i64 = NOW_MS - 600_000;

// Flags that take the place of .cargo/config.toml's would try the twins alone.
#[cfg(target_arch = "x86_64")]
const _: () = assert!(cfg!(target_feature = "avx2"), "build with -Ctarget-cpu=x86-64-v3: the vector code is not in it");

pub fn check(input: &[u8]) {
    let [format, rule, _, body @ ..] = input else { return };
    let format = match format {
        b'j' => Format::Json,
        b'l' => Format::Lines,
        _ => Format::Text,
    };
    let dedup_key = match rule {
        b'r' => DedupKey::RequestId,
        b'c' => DedupKey::ClickId,
        b'i' => DedupKey::ImpressionId,
        b'h' => DedupKey::Content,
        _ => DedupKey::Auto,
    };
    let regions = vec!["eu-west".to_owned()];
    let mut parser = Parser::new(&ClickConfig { dedup_key, clock_skew_ms: SKEW_MS, regions });
    let strict = ends(&mut parser, &mut Layout::new(), format, body, true);
    let mut layout = Layout::new();
    for round in 0..2 {
        let learned = ends(&mut parser, &mut layout, format, body, false);
        assert_eq!(learned, strict, "by layout, round {round}: {}", String::from_utf8_lossy(body));
    }
    if format == Format::Lines {
        in_pieces(&mut parser, &mut layout, body, strict.as_ref().expect("lines are always readable"));
    }
}

/// Lines that come one by one are the same clicks.
fn in_pieces(parser: &mut Parser, layout: &mut Layout, body: &[u8], expected: &[End]) {
    let mut found = Vec::new();
    for piece in body.split_inclusive(|byte| *byte == b'\n') {
        found.extend(ends(parser, layout, Format::Lines, piece, false).expect("lines are always readable"));
    }
    assert_eq!(found, expected, "line by line: {}", String::from_utf8_lossy(body));
}

/// What became of one click, freed of the parser: its text, its key, its record or its refusal.
type End = (Vec<u8>, Option<ClickKey>, Result<Vec<u8>, Refusal>);

fn ends(
    parser: &mut Parser,
    layout: &mut Layout,
    format: Format,
    body: &[u8],
    forgetting: bool,
) -> Result<Vec<End>, Unreadable> {
    let context = Context { now_ms: NOW_MS, horizon_ms: HORIZON_MS, prefetch: false };
    let mut cursor: Cursor<'_> = parser.open(format, body)?;
    let mut ends = Vec::new();
    loop {
        if forgetting {
            layout.reset();
        }
        let Some(end) = parser.next(&mut cursor, layout, &context, |item| end(&item)) else { return Ok(ends) };
        ends.push(end);
        assert!(ends.len() <= body.len() + 1, "more clicks than bytes");
    }
}

fn end(item: &Item<'_>) -> End {
    let outcome = item.outcome.map(|click| {
        assert_eq!(item.key, Some(click.key), "the key of an accepted click is said");
        bounds(&click);
        let mut bytes = Vec::new();
        record::encode_click(&click, NOW_MS, &mut bytes);
        let (record, length) = record::decode(&bytes).expect("what was encoded is decoded");
        let Record::Click(record) = record else { panic!("a click was encoded, {record:?} came back") };
        let mut uuid = [0; record::UUID_TEXT_BYTES];
        assert_eq!((record.to_click(&mut uuid), record.received_ms(), length), (click, NOW_MS, bytes.len()));
        assert!(!bytes.windows(512).any(|run| run.iter().all(|byte| *byte == 0)), "512 zero bytes in a record");
        bytes
    });
    (item.raw.to_vec(), item.key, outcome)
}

fn bounds(click: &Click<'_>) {
    let extras = click.extras;
    let bounded = [
        (click.ad_id, AD_ID_BYTES_MAX),
        (click.campaign_id, CAMPAIGN_ID_BYTES_MAX),
        (click.advertiser_id, ADVERTISER_ID_BYTES_MAX),
        (click.region, REGION_BYTES_MAX),
        (click.user_id, USER_ID_BYTES_MAX),
        (extras.request_id, ID_BYTES_MAX),
        (extras.click_id, ID_BYTES_MAX),
        (extras.impression_id, ID_BYTES_MAX),
        (extras.event_type, EVENT_TYPE_BYTES_MAX),
        (extras.ip, IP_BYTES_MAX),
        (extras.country, COUNTRY_BYTES_MAX),
        (extras.region_text, COUNTRY_BYTES_MAX),
        (extras.user_agent, USER_AGENT_BYTES_MAX),
        (extras.signature, SIGNATURE_BYTES_MAX),
    ];
    for (text, bytes_max) in bounded {
        let text = std::str::from_utf8(text).expect("an accepted text is UTF-8");
        assert!(text.len() <= bytes_max && !text.chars().any(|c| c.is_ascii_control()), "{text:?}");
    }
    assert!(!click.ad_id.is_empty(), "an accepted click names its ad");
    assert!((HORIZON_MS..=NOW_MS + SKEW_MS).contains(&click.event_time.0), "event time {}", click.event_time.0);
}
