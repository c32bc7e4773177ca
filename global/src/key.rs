//! Pure. The bytes that name a row, ordered so that one ad's windows lie side by side.
//!
//! ```text
//! row key     u16 length | ad | i64 window start | u16 length | campaign | u16 length | advertiser | u16 length | region
//!             | u32 device | u32 agent | u32 class | u32 rules
//! stored key  i64 bucket start | row key
//! ```
//!
//! All numbers big-endian, times with their sign bit flipped: bytes then sort as (bucket, ad, window, the rest). The rows of all
//! ads together are those of the ad without a name: no click can name it.

use tollgate_wire::PartialView;

/// The grain of all counts: 10 s of event time.
pub const PANE_MS: i64 = 10_000;
/// Longest of each text in a key: the row's key must fit its u16 length in a run.
pub const TEXT_BYTES_MAX: usize = 1_000;

const SIGN: u64 = 1 << 63;

/// Appends the key of the partial's row. The caller has checked the texts against [`TEXT_BYTES_MAX`].
pub fn append(partial: &PartialView<'_>, out: &mut Vec<u8>) {
    append_start(partial.ad_id, partial.pane_start_ms, out);
    for text in [partial.campaign_id, partial.advertiser_id, partial.region] {
        append_text(text, out);
    }
    for code in [partial.device, partial.agent, partial.class, partial.rules] {
        out.extend_from_slice(&code.to_be_bytes());
    }
}

/// What every key of this ad and pane begins with, and the smallest of them: the bounds of a scan.
pub fn start(ad_id: &str, pane_start_ms: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + ad_id.len() + 8);
    append_start(ad_id, pane_start_ms, &mut out);
    out
}

/// The bytes of the ad_id that a key of ours begins with.
pub fn ad_id(key: &[u8]) -> &[u8] {
    &key[2..2 + usize::from(u16::from_be_bytes([key[0], key[1]]))]
}

/// The start of the window that a key of ours names.
pub fn window_start(key: &[u8]) -> i64 {
    let at = 2 + ad_id(key).len();
    time_at(key, at)
}

/// The class of clicks that a key of ours names.
pub fn class(key: &[u8]) -> u32 {
    let at = key.len() - 8;
    u32::from_be_bytes([key[at], key[at + 1], key[at + 2], key[at + 3]])
}

/// Turns the key of a row into that of another window.
pub fn set_window_start(key: &mut [u8], start_ms: i64) {
    let at = 2 + ad_id(key).len();
    key[at..at + 8].copy_from_slice(&time_bytes(start_ms));
}

/// A row key, and in front of it the bucket that its window lies in.
pub fn stored(row_key: &[u8], bucket_start_ms: i64, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&time_bytes(bucket_start_ms));
    out.extend_from_slice(row_key);
}

/// Splits a stored key into bucket and row key.
pub fn unstored(stored: &[u8]) -> (i64, &[u8]) {
    (time_at(stored, 0), &stored[8..])
}

/// The smallest stored key of a bucket.
pub fn bucket_start(bucket_start_ms: i64) -> [u8; 8] {
    time_bytes(bucket_start_ms)
}

/// The bounds of one ad's rows in a bucket, of windows that begin in [from, to).
pub fn stored_range(bucket_start_ms: i64, ad_id: &str, from_ms: i64, to_ms: i64) -> (Vec<u8>, Vec<u8>) {
    let (mut first, mut end) = (Vec::new(), Vec::new());
    stored(&start(ad_id, from_ms), bucket_start_ms, &mut first);
    stored(&start(ad_id, to_ms), bucket_start_ms, &mut end);
    (first, end)
}

/// The key of the row of all ads that a row counts in.
pub fn of_all_ads(row: &Parts<'_>, out: &mut Vec<u8>) {
    append_start("", row.window_start_ms, out);
    append_text("", out);
    append_text("", out);
    append_text(row.region, out);
    for code in [row.device, row.agent, row.class, row.rules] {
        out.extend_from_slice(&code.to_be_bytes());
    }
}

/// A row key, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    pub ad_id: &'a str,
    pub window_start_ms: i64,
    pub campaign_id: &'a str,
    pub advertiser_id: &'a str,
    pub region: &'a str,
    pub device: u32,
    pub agent: u32,
    pub class: u32,
    pub rules: u32,
}

impl<'a> Parts<'a> {
    /// None: no row key.
    pub fn read(key: &'a [u8]) -> Option<Parts<'a>> {
        let mut rest = key;
        let ad_id = take_text(&mut rest)?;
        let start = u64::from_be_bytes(*rest.split_off(..8)?.first_chunk()?) ^ SIGN;
        let campaign_id = take_text(&mut rest)?;
        let advertiser_id = take_text(&mut rest)?;
        let region = take_text(&mut rest)?;
        let codes: &[u8; 16] = rest.try_into().ok()?;
        let code = |at: usize| u32::from_be_bytes([codes[at], codes[at + 1], codes[at + 2], codes[at + 3]]);
        Some(Parts {
            ad_id,
            window_start_ms: start as i64,
            campaign_id,
            advertiser_id,
            region,
            device: code(0),
            agent: code(4),
            class: code(8),
            rules: code(12),
        })
    }
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let length = u16::from_be_bytes(*rest.split_off(..2)?.first_chunk()?);
    std::str::from_utf8(rest.split_off(..usize::from(length))?).ok()
}

fn time_at(key: &[u8], at: usize) -> i64 {
    let bytes: [u8; 8] = key[at..at + 8].try_into().expect("eight bytes were taken");
    (u64::from_be_bytes(bytes) ^ SIGN) as i64
}

fn time_bytes(time_ms: i64) -> [u8; 8] {
    (time_ms as u64 ^ SIGN).to_be_bytes()
}

fn append_start(ad_id: &str, pane_start_ms: i64, out: &mut Vec<u8>) {
    append_text(ad_id, out);
    out.extend_from_slice(&time_bytes(pane_start_ms));
}

fn append_text(text: &str, out: &mut Vec<u8>) {
    let length = u16::try_from(text.len()).expect("texts are checked against TEXT_BYTES_MAX");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(ad: &str, pane_start_ms: i64, region: &str, class: u32) -> Vec<u8> {
        let partial = PartialView { ad_id: ad, pane_start_ms, region, class, rules: 1, ..PartialView::default() };
        let mut out = Vec::new();
        append(&partial, &mut out);
        out
    }

    /// Pins the bytes: rows on disk are found by them.
    #[test]
    fn a_key_has_these_bytes() {
        let mut expected = vec![0, 2, b'a', b'd', 0x80, 0, 0, 0, 0, 0, 0x27, 0x10];
        expected.extend([0, 0, 0, 0, 0, 2, b'D', b'E']);
        expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1]);
        assert_eq!(key_of("ad", 10_000, "DE", 3), expected);
    }

    #[test]
    fn what_a_key_names_is_read_back() {
        for pane_start_ms in [i64::MIN / 10_000 * 10_000, -10_000, 0, 10_000, 1_712_908_800_000] {
            let mut key = key_of("ad_1", pane_start_ms, "US-CA", 7);
            assert_eq!((ad_id(&key), window_start(&key)), (b"ad_1".as_slice(), pane_start_ms));
            let parts = Parts::read(&key).expect("a key");
            assert_eq!((parts.ad_id, parts.window_start_ms, parts.region), ("ad_1", pane_start_ms, "US-CA"));
            assert_eq!((parts.campaign_id, parts.device, parts.class, parts.rules), ("", 0, 7, 1));
            assert_eq!(class(&key), 7);
            let mut stored_key = Vec::new();
            stored(&key, -3_600_000, &mut stored_key);
            assert_eq!(unstored(&stored_key), (-3_600_000, key.as_slice()));
            let mut total = Vec::new();
            of_all_ads(&parts, &mut total);
            assert_eq!(Parts::read(&total), Some(Parts { ad_id: "", ..parts }));
            assert!((0..key.len()).all(|length| Parts::read(&key[..length]).is_none()));
            set_window_start(&mut key, 60_000);
            assert_eq!(key, key_of("ad_1", 60_000, "US-CA", 7));
        }
    }

    /// The scan of one ad from pane to pane meets its rows and no other's.
    #[test]
    fn keys_sort_by_ad_then_pane() {
        let inside = key_of("ad", 20_000, "zz", u32::MAX);
        assert!(start("ad", 20_000) < inside && inside < start("ad", 30_000));
        assert!(start("ad", -10_000) < start("ad", 0));
        for other in [key_of("ae", 20_000, "", 0), key_of("a", 20_000, "", 0), key_of("add", 20_000, "", 0)] {
            assert!(other < start("ad", i64::MIN) || other > start("ad", i64::MAX));
        }
    }
}
