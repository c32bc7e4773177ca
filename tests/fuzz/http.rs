//! Any bytes to a connection, cut anywhere: it never panics, and the cuts change neither what is taken nor what is answered.
//!
//! An input is a line of cuts, as numbers, and after it the bytes of the connection.

#[path = "../http/harness.rs"]
#[allow(dead_code, reason = "the tests of HTTP use the rest")]
mod harness;

use std::sync::LazyLock;

use harness::{Driver, Reply, Transcript, limits, replies, run, settled};
use tollgate::config::HttpConfig;

const CUTS_MAX: usize = 16;

/// As they are, and so small that each is met.
static LIMITS: LazyLock<[HttpConfig; 2]> = LazyLock::new(|| [limits(), harness::small_limits()]);

pub fn check(input: &[u8]) {
    let line_end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let bytes = input.get(line_end + 1..).unwrap_or(&[]);
    let mut cuts: Vec<usize> = input[..line_end].split(|byte| !byte.is_ascii_digit()).map(number).collect();
    cuts.truncate(CUTS_MAX);
    cuts.sort_unstable();
    let [usual, small] = &*LIMITS;
    means_the_same(bytes, &cuts, small);
    let (transcript, out) = means_the_same(bytes, &cuts, usual);
    let expected = answers(&out);
    // Where `Connection: close` stands depends on what had arrived when a reply went.
    let said = |replies: &[Reply]| -> Vec<(u16, String)> {
        replies.iter().map(|reply| (reply.status, reply.body.clone())).collect()
    };
    let at_once = answers(&answered_at_once(bytes, &cuts, usual));
    assert_eq!(said(&at_once), said(&expected), "replies that go between cuts {cuts:?} are others");
    for reply in &expected {
        let content_type = if reply.status == 202 { "application/json" } else { "application/problem+json" };
        assert_eq!(reply.field("content-type"), Some(content_type), "{}", reply.head);
        assert_eq!(reply.field("allow").is_some(), reply.status == 405, "{}", reply.head);
    }
    let closes = |reply: &Reply| reply.field("connection") == Some("close");
    if let Some((last, before)) = expected.split_last() {
        assert!(!before.iter().any(closes), "a reply follows one that says close");
        assert!(closes(last) || !transcript.shut_down, "FIN without a word");
    }
}

/// What comes of the bytes whole, which must be what comes of them in pieces.
fn means_the_same(bytes: &[u8], cuts: &[usize], limits: &HttpConfig) -> (Transcript, Vec<u8>) {
    let (whole, whole_out) = run(bytes, &[], limits);
    let (cut, cut_out) = run(bytes, cuts, limits);
    let whole = settled(whole);
    assert_eq!(whole, settled(cut), "cuts {cuts:?} change what {:?} means", String::from_utf8_lossy(bytes));
    let same = whole_out == cut_out || answers(&whole_out) == answers(&cut_out);
    assert!(same, "cuts {cuts:?} change the replies to {:?}", String::from_utf8_lossy(bytes));
    (whole, whole_out)
}

/// Each byte in turn is the last of a piece; and each is a piece.
#[allow(dead_code, reason = "for seeds and corpora, not for each input")]
pub fn cut_at_every_byte(input: &[u8]) {
    let line_end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let bytes = input.get(line_end + 1..).unwrap_or(&[]);
    for limits in &*LIMITS {
        (1..bytes.len()).for_each(|cut| drop(means_the_same(bytes, &[cut], limits)));
        means_the_same(bytes, &(1..bytes.len()).collect::<Vec<_>>(), limits);
    }
}

fn number(digits: &[u8]) -> usize {
    digits.iter().take(5).fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
}

/// Every reply goes as soon as it may, and not at the end.
fn answered_at_once(bytes: &[u8], cuts: &[usize], limits: &HttpConfig) -> Vec<u8> {
    let mut driver = Driver::new(limits.clone());
    let mut from = 0;
    for &cut in cuts.iter().chain([&bytes.len()]) {
        let cut = cut.clamp(from, bytes.len());
        driver.receive(&bytes[from..cut]);
        driver.release_all();
        from = cut;
    }
    driver.finish().1
}

/// What was answered but for `100 Continue`, which depends on what had arrived.
fn answers(out: &[u8]) -> Vec<Reply> {
    replies(out).into_iter().filter(|reply| reply.status != 100).collect()
}
