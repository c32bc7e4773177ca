//! Pure. The parser against another reading of the same text: over generated documents, good and broken, the scan by layout
//! must equal the strict reading, and both must equal what serde_json and a plain statement of the rules make of it.
//!
//! A slice runs with every test. Many: `scripts/campaigns run json 100000000/4`, where 4 is the seed of the documents
//! (`TOLLGATE_JSON_DOCUMENTS`, `TOLLGATE_JSON_SEED`).

use super::*;
use crate::click::*;
use crate::config::{ClickConfig, DedupKey};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

const NOW_MS: i64 = 1_763_791_100_000;
const CONTEXT: Context = Context { now_ms: NOW_MS, horizon_ms: NOW_MS - 600_000, prefetch: false };
const SKEW_MS: i64 = 60_000;

/// Names in the order of `fields::Field`, in both spellings, with the most bytes of each.
const NAMES: [(&str, &str, usize); 16] = [
    ("request_id", "requestId", 128),
    ("click_id", "clickId", 128),
    ("impression_id", "impressionId", 128),
    ("event_type", "eventType", 32),
    ("timestamp", "timestamp", 64),
    ("click_timestamp", "clickTimestamp", 64),
    ("ad_id", "adId", 64),
    ("campaign_id", "campaignId", 64),
    ("advertiser_id", "advertiserId", 64),
    ("user_id", "userId", 128),
    ("ip", "ip", 45),
    ("country", "country", 64),
    ("region", "region", 64),
    ("device", "device", 64),
    ("user_agent", "userAgent", 512),
    ("signature", "signature", 512),
];

const TIMES: [usize; 2] = [4, 5];
const RULES: [DedupKey; 5] =
    [DedupKey::Auto, DedupKey::RequestId, DedupKey::ClickId, DedupKey::ImpressionId, DedupKey::Content];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }
}

// ---- What is sent ----

/// How the clicks of one connection are laid out.
struct Template {
    /// Index into `NAMES`, or beyond it for an unknown key.
    keys: Vec<(usize, String)>,
    space: [&'static str; 5],
    /// One value in so many is odd; 0: none is.
    odd: usize,
}

fn template(random: &mut Random) -> Template {
    let mut keys: Vec<(usize, String)> = Vec::new();
    for (index, (snake, camel, _)) in NAMES.iter().enumerate() {
        let wanted = match index {
            4 | 6 => !random.one_in(30),
            5 => random.one_in(20),
            _ => random.one_in(3),
        };
        if wanted {
            keys.push((index, (if random.one_in(4) { *camel } else { *snake }).to_owned()));
        }
    }
    for _ in 0..random.below(3) {
        let name = random.of(&[
            "x",
            "ad",
            "ad_id2",
            "ad_i",
            "",
            "nested",
            "timestamps",
            "Ad_Id",
            "user",
            "a key that is longer than a block",
        ]);
        keys.push((99, name.to_owned()));
    }
    for place in (1..keys.len()).rev() {
        keys.swap(place, random.below(place + 1));
    }
    if random.one_in(12) && !keys.is_empty() {
        let (index, _) = keys[random.below(keys.len())].clone();
        if let Some((snake, camel, _)) = NAMES.get(index) {
            let again = random.of(&[snake, camel]).replacen('_', if random.one_in(2) { "_" } else { "\\u005f" }, 1);
            keys.insert(random.below(keys.len() + 1), (index, again));
        }
    }
    let spaces: &[&'static str] = match random.below(8) {
        0 => &["", " ", "\n  "],
        1 | 2 => &["", " ", "  ", "\t", " \r "],
        _ => &[""],
    };
    let space = std::array::from_fn(|_| spaces[random.below(spaces.len())]);
    Template { keys, space, odd: [0, 0, 40, 8][random.below(4)] }
}

fn document(random: &mut Random, template: &Template) -> String {
    let [before, after_key, before_value, after_value, last] = template.space;
    let mut text = String::from("{");
    for (place, (index, key)) in template.keys.iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        let value =
            if template.odd > 0 && random.one_in(template.odd) { odd_value(random) } else { value(random, *index) };
        text.push_str(&format!("{before}\"{key}\"{after_key}:{before_value}{value}{after_value}"));
    }
    text.push_str(last);
    text.push('}');
    text
}

fn value(random: &mut Random, index: usize) -> String {
    let n = random.next();
    match index {
        0..=2 if random.one_in(4) => format!("\"id-{}\"", n % 1000),
        0..=2 => {
            let (a, b) = (random.next(), random.next());
            let uuid = format!(
                "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                a >> 32,
                a >> 16 & 0xffff,
                a & 0xffff,
                b >> 48,
                b & 0xffff_ffff_ffff
            );
            format!("\"{}\"", if random.one_in(8) { uuid.to_uppercase() } else { uuid })
        }
        3 => format!("\"{}\"", random.of(&["click", "view", ""])),
        4 | 5 => match n % 32 {
            0 => "\"2025-11-22T05:56:40.5Z\"".to_owned(),
            1 => format!("\"2025-11-22T05:5{}:40+00:00\"", n / 32 % 10),
            2..=8 => (NOW_MS / 1000 - (n / 32 % 660) as i64 + 30).to_string(),
            _ => (NOW_MS - (n / 32 % 700_000) as i64 + 65_000).to_string(),
        },
        6 => format!("\"ad_{}\"", n % 2000),
        99 if random.one_in(2) => (n >> (n % 64)).to_string(),
        11 | 12 => format!("\"{}\"", random.of(&["US", "de", "US-CA", "XX", "France", "emea"])),
        13 => format!("\"{}\"", random.of(&["mobile", "Desktop", "PC", "tablet", "fridge", "smart tv", ""])),
        14 => format!(
            "\"{}\"",
            random.of(&[
                "curl/8.5.0",
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/130.0.0.0 Safari/537.36",
                ""
            ])
        ),
        _ => {
            let bytes = [0, 1, 5, 11, 31, 32, 33, 44, 45, 46, 64, 65, 128, 129, 512, 513]
                [if random.one_in(10) { random.below(16) } else { random.below(5) }];
            format!("\"{}\"", "v".repeat(bytes))
        }
    }
}

/// Values that are no click's, or only just.
#[rustfmt::skip]
const ODD_VALUES: &[&str] = &[
    "null", "true", "false", "0", "-0", "-1", "00", "01763791000000", "1.5", "1763791000000.0", "1763791e9", "1e12",
    "1E400", "-1e-400", "0.1e1", "1.", ".5", "+1", "--1", "1763791000001", "0763791000001", "0763791000",
    "176379100000:", "176379100000", "17637910000000", "99999999999", "100000000000", "253402300799999",
    "253402300800000", "9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616",
    "123456789012345678901234567890", "-9223372036854775809", "12345678", "123456789", "123456789012345",
    "1234567890123456", "tru", "nul", "NaN", "'a'", "", "{}", "[]", "{\"ad_id\":1}", "[1,[2,{\"x\":[]}]]",
    "[[[[[[[]]]]]]]", "[[[[[[[[]]]]]]]]", "{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":1}}}}}}}}", "[1,]",
    "{\"a\":1,}", "[", "}", "\"\"", "\" \"", "\"a\\\"b\"", "\"a\\\\\"", "\"\\u0041\\u00e9\"", "\"\\ud83d\\ude00\"",
    "\"\\ud83d\"", "\"\\ude00\\ud83d\"", "\"\\ud83dx\"", "\"\\u0000\"", "\"\\u007f\"", "\"\u{7f}\"", "\"a\tb\"",
    "\"a\u{0}b\"", "\"a\\tb\"", "\"\\x\"", "\"\\u12\"", "\"é\"", "\"\u{10ffff}\"", "\"\u{feff}\"", "\"open",
    "\"a\" \"b\"", "\"a\":1", "\"1763791000\"", "\"2025-11-22T05:56:40\"", "\"a\\/b\"", "\"\\u0061d\"",
    "\"0190d5a4-89ab-cdef-0f1e-2d3c4b5a697g\"", "\"0190d5a489ab-cdef-0f1e-2d3c4b5a69780-\"",
    "\"\\u0030190d5a4-89ab-cdef-0f1e-2d3c4b5a6978\"", "\"{0190d5a4-89ab-cdef-0f1e-2d3c4b5a69}\"",
    "\"0190d5a4-89ab-cdef-0f1e-2d3c4b5a6978",
];

fn odd_value(random: &mut Random) -> String {
    match random.below(12) {
        0 => format!("\"{}\"", "w".repeat(random.below(140))),
        1 => format!("\"{}\\n{}\"", "w".repeat(random.below(70)), "w".repeat(random.below(70))),
        _ => random.of(ODD_VALUES).to_owned(),
    }
}

/// Breaks some bytes, as a bad line or a bad program would.
fn broken(random: &mut Random, text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..1 + random.below(2) {
        let at = random.below(bytes.len().max(1));
        let byte = b"\"\"\"\\{}[]:,001-. \t\r\n\x00\x7f\xff\xc3\xed"[random.below(24)];
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, byte),
            2 if !bytes.is_empty() => drop(bytes.remove(at)),
            3 => bytes.extend_from_slice(random.of(&["}", " ", "x", ",", "{}", "\u{0}", "]"]).as_bytes()),
            4 if !bytes.is_empty() => {
                let part = bytes[at..(at + random.below(40)).min(bytes.len())].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, part);
            }
            _ if !bytes.is_empty() => bytes[at] = byte,
            _ => {}
        }
    }
    bytes
}

// ---- What it must mean ----

/// The members of an object as they come, repeated ones too.
struct Members(Vec<(String, Value)>);

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Members, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Object(values) => 1 + values.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// What the oracle makes of a click: texts in the order of `NAMES`, and the key before the click is placed in time.
struct Reading {
    texts: [String; 16],
    event_ms: i64,
    key: ClickKey,
}

type Refused = (Reason, &'static str);

fn read(raw: &[u8], rule: DedupKey) -> Result<Reading, Refused> {
    let Members(members) = serde_json::from_slice(raw).map_err(|_| (Reason::Malformed, ""))?;
    if members.iter().any(|(_, value)| 1 + depth(value) > 8) {
        return Err((Reason::TooDeep, ""));
    }
    let mut texts: [String; 16] = Default::default();
    let mut times_ms = [None; 2];
    let mut seen = std::collections::BTreeSet::new();
    for (key, value) in members {
        let Some(index) = NAMES.iter().position(|(snake, camel, _)| key == *snake || key == *camel) else { continue };
        let (name, _, bytes_max) = NAMES[index];
        if !seen.insert(index) {
            return Err((Reason::RepeatedField, name));
        }
        if let (Some(time), Value::String(_) | Value::Number(_)) = (TIMES.iter().position(|at| *at == index), &value) {
            times_ms[time] = Some(time_ms(&value).ok_or((Reason::BadTime, name))?);
            continue;
        }
        let Value::String(text) = value else { return Err((Reason::WrongType, name)) };
        if text.is_empty() && [0, 1, 2, 6].contains(&index) {
            return Err((Reason::Empty, name));
        }
        if text.len() > bytes_max {
            return Err((Reason::TooLong, name));
        }
        if text.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
            return Err((Reason::Malformed, name));
        }
        texts[index] = text;
    }
    if texts[6].is_empty() {
        return Err((Reason::MissingField, "ad_id"));
    }
    let event_ms = match times_ms {
        [None, None] => return Err((Reason::MissingField, "timestamp")),
        [Some(one), Some(other)] if one != other => return Err((Reason::RepeatedField, "click_timestamp")),
        [one, other] => one.or(other).expect("one is there"),
    };
    let key = key(&texts, event_ms, rule)?;
    let time_name = if times_ms[0].is_some() { "timestamp" } else { "click_timestamp" };
    match event_ms {
        _ if event_ms < CONTEXT.horizon_ms => Err((Reason::TooOld, time_name)),
        _ if event_ms > NOW_MS + SKEW_MS => Err((Reason::InFuture, time_name)),
        _ => Ok(Reading { texts, event_ms, key }),
    }
}

fn time_ms(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => time::rfc3339(text.as_bytes()),
        Value::Number(number) => match number.as_i64()? {
            1..=99_999_999_999 => Some(number.as_i64()? * 1000),
            number @ 100_000_000_000..=253_402_300_799_999 => Some(number),
            _ => None,
        },
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn key(texts: &[String; 16], event_ms: i64, rule: DedupKey) -> Result<ClickKey, Refused> {
    let given = |index: usize| (!texts[index].is_empty()).then_some(index);
    let parts = match rule {
        DedupKey::Auto if given(0).is_some() => vec![0],
        DedupKey::Auto if given(1).is_some() => [Some(1), given(9)].into_iter().flatten().collect(),
        DedupKey::Auto if given(2).is_some() => [Some(2), given(3)].into_iter().flatten().collect(),
        DedupKey::Auto | DedupKey::Content => vec![],
        DedupKey::RequestId => vec![given(0).ok_or((Reason::MissingField, "request_id"))?],
        DedupKey::ClickId => {
            let id = given(1).ok_or((Reason::MissingField, "click_id"))?;
            [Some(id), given(9)].into_iter().flatten().collect()
        }
        DedupKey::ImpressionId => {
            let id = given(2).ok_or((Reason::MissingField, "impression_id"))?;
            [Some(id), given(3)].into_iter().flatten().collect()
        }
    };
    if let [lone] = parts[..]
        && let [8, 4, 4, 4, 12] = texts[lone].split('-').map(str::len).collect::<Vec<_>>()[..]
        && texts[lone].chars().all(|c| c == '-' || c.is_ascii_hexdigit())
    {
        let number = u128::from_str_radix(&texts[lone].replace('-', ""), 16).expect("32 hexadecimal digits");
        return Ok(ClickKey { bytes: number.to_be_bytes(), hashed: false });
    }
    let mut hashed = Vec::new();
    let mut hash_in = |index: usize| {
        hashed.push(index as u8);
        hashed.extend((texts[index].len() as u16).to_le_bytes());
        hashed.extend(texts[index].as_bytes());
    };
    if parts.is_empty() {
        let contents: Vec<usize> = (0..16).filter(|index| given(*index).is_some()).collect();
        contents.into_iter().for_each(&mut hash_in);
        let time = [&[16], &event_ms.to_le_bytes()[..]].concat();
        hashed.splice(0..0, time);
    } else {
        parts.into_iter().for_each(&mut hash_in);
    }
    Ok(ClickKey { bytes: xxh3_128(&hashed).to_be_bytes(), hashed: true })
}

// ---- Comparing ----

/// One item's text and what became of it, freed of the parser.
#[derive(Debug, PartialEq)]
struct Ended {
    raw: Vec<u8>,
    key: Option<ClickKey>,
    outcome: Result<Accepted, Refusal>,
}

#[derive(Debug, PartialEq)]
struct Accepted {
    texts: [Vec<u8>; 16],
    region: Vec<u8>,
    region_text: Vec<u8>,
    event_ms: i64,
    marks: (Class, Device, Agent),
}

fn ended(item: Item<'_>) -> Ended {
    let outcome = item.outcome.map(|click| {
        let extras = click.extras;
        let texts = [
            extras.request_id,
            extras.click_id,
            extras.impression_id,
            extras.event_type,
            b"",
            b"",
            click.ad_id,
            click.campaign_id,
            click.advertiser_id,
            click.user_id,
            extras.ip,
            extras.country,
            b"",
            b"",
            extras.user_agent,
            extras.signature,
        ];
        assert_eq!(Some(click.key), item.key);
        Accepted {
            texts: texts.map(<[u8]>::to_vec),
            region: click.region.to_vec(),
            region_text: extras.region_text.to_vec(),
            event_ms: click.event_time.0,
            marks: (click.class, click.device, click.agent),
        }
    });
    Ended { raw: item.raw.to_vec(), key: item.key, outcome }
}

/// All items of a body; `forgetting` the layout before each, so that every click is read strictly.
fn items(
    parser: &mut Parser,
    layout: &mut Layout,
    format: Format,
    body: &[u8],
    forgetting: bool,
) -> Result<Vec<Ended>, Unreadable> {
    let mut cursor = parser.open(format, body)?;
    let mut items = Vec::new();
    loop {
        if forgetting {
            layout.reset();
        }
        match parser.next(&mut cursor, layout, &CONTEXT, ended) {
            Some(item) => items.push(item),
            None => return Ok(items),
        }
    }
}

fn check(ended: &Ended, rule: DedupKey) {
    let expected = read(&ended.raw, rule);
    let text = || String::from_utf8_lossy(&ended.raw).into_owned();
    match (&ended.outcome, expected) {
        (Ok(click), Ok(reading)) => {
            for (index, sent) in reading.texts.iter().enumerate() {
                if ![4, 5, 12, 13].contains(&index) {
                    assert_eq!(click.texts[index], sent.as_bytes(), "{} of {}", NAMES[index].0, text());
                }
            }
            let named = if reading.texts[12].is_empty() { &reading.texts[11] } else { &reading.texts[12] };
            let regions = region::Regions::new(&[]);
            let region: &[u8] = if named.is_empty() { b"" } else { regions.fold(named.as_bytes()) };
            assert_eq!(click.region, region, "region of {}", text());
            let region_text = if reading.texts[12].as_bytes() == region { "" } else { &reading.texts[12] };
            assert_eq!(click.region_text, region_text.as_bytes(), "region_text of {}", text());
            assert_eq!((click.event_ms, ended.key), (reading.event_ms, Some(reading.key)), "{}", text());
            let is_bot = reading.texts[14].starts_with("curl/");
            assert_eq!(click.marks.0, if is_bot { Class::BotUserAgent } else { Class::Valid }, "class of {}", text());
            if !reading.texts[13].is_empty() {
                let device = fields::device_named(reading.texts[13].as_bytes());
                assert_eq!(click.marks.1, device, "device of {}", text());
            }
        }
        (Err(refusal), Err((reason, field))) => {
            let is_same = (refusal.reason, refusal.field) == (reason, field);
            // A text that is no JSON and too deep besides is refused for what is found first.
            let is_deep_and_malformed = (refusal.reason, reason) == (Reason::TooDeep, Reason::Malformed);
            assert!(is_same || is_deep_and_malformed, "{refusal:?}, not {reason:?} {field}: {}", text());
        }
        (Ok(_), Err((reason, field))) => panic!("accepted, not {reason:?} {field}: {}", text()),
        (Err(refusal), Ok(_)) => panic!("{refusal:?}, not accepted: {}", text()),
    }
}

// Flags that take the place of .cargo/config.toml's would try the twins alone.
#[cfg(target_arch = "x86_64")]
const _: () = assert!(cfg!(target_feature = "avx2"), "build with -Ctarget-cpu=x86-64-v3: the vector code is not in it");

#[test]
fn the_scan_by_layout_the_strict_reading_and_serde_json_agree() {
    let given = |name: &str, or: u64| std::env::var(name).map_or(or, |text| text.parse().expect("a whole number"));
    let (documents, seed) = (given("TOLLGATE_JSON_DOCUMENTS", 300_000) as usize, given("TOLLGATE_JSON_SEED", 3));
    let mut parsers =
        RULES.map(|dedup_key| Parser::new(&ClickConfig { dedup_key, clock_skew_ms: SKEW_MS, regions: Vec::new() }));
    let (mut done, mut accepted, mut by_layout) = (0, 0, 0);
    let (mut random, began) = (Random(seed), std::time::Instant::now());
    let mut layout = Layout::new();
    while done < documents {
        let rule = random.below(RULES.len() * 2).saturating_sub(RULES.len());
        let parser = &mut parsers[rule];
        let template = template(&mut random);
        let texts: Vec<Vec<u8>> = (0..1 + random.below(10))
            .map(|_| {
                let text = document(&mut random, &template);
                if random.one_in(8) { broken(&mut random, &text) } else { text.into_bytes() }
            })
            .collect();
        let (format, bodies) = match random.below(4) {
            0 => (Format::Json, texts.clone()),
            1 => (Format::Json, vec![[&b"["[..], &texts.join(&b","[..]), b"]"].concat()]),
            2 => (Format::Lines, vec![texts.join(&b"\n"[..])]),
            _ => (Format::Text, vec![[&texts.join(&b"\r\n"[..])[..], b"\n"].concat()]),
        };
        if random.one_in(3) {
            layout.reset();
        }
        for body in bodies {
            let strict = items(parser, &mut Layout::new(), format, &body, true);
            let learned = items(parser, &mut layout, format, &body, false);
            assert_eq!(learned, strict, "{}", String::from_utf8_lossy(&body));
            let Ok(items) = strict else { continue };
            for item in &items {
                check(item, RULES[rule]);
            }
            by_layout += usize::from(layout.misses() == 0);
            accepted += items.iter().filter(|item| item.outcome.is_ok()).count();
            done += items.len();
        }
    }
    assert!(accepted * 4 > done, "too few good documents: {accepted} of {done}");
    assert!(by_layout * 100 > done, "too few scanned by their layout: {by_layout} bodies of {done} clicks");
    let (commit, seconds) = (std::env::var("TOLLGATE_COMMIT"), began.elapsed().as_secs());
    // For `scripts/campaigns`, as tests/sim/document.rs has it.
    println!(
        "{{\"campaign\":\"json\",\"commit\":\"{}\",\"build\":\"{}\",\"range\":[{seed},{seed}],\"documents\":{done},\"accepted\":{accepted},\"seconds\":{seconds},\"verdict\":\"pass\"}}",
        commit.as_deref().unwrap_or("unnamed"),
        match option_env!("RUSTFLAGS") {
            Some(flags) if flags.contains("-Zsanitizer=address") => "sanitizer address",
            _ if cfg!(debug_assertions) => "checked",
            _ => "unchecked",
        },
    );
}
