//! Pure. The bytes that name a row, ordered so that one ad's panes lie side by side.
//!
//! ```text
//! u16 length | ad | i64 pane | u16 length | campaign | u16 length | advertiser | u16 length | region | u32 device | u32 agent | u32 class | u32 rules
//! ```
//!
//! All numbers big-endian, the pane with its sign bit flipped: bytes then sort as (ad, pane, the rest).

use tollgate_wire::Partial;

/// The grain of all counts: 10 s of event time.
pub const PANE_MS: i64 = 10_000;
/// Longest of each text in a key: the row's key must fit its u16 length in a run.
pub const TEXT_BYTES_MAX: usize = 1_000;

const SIGN: u64 = 1 << 63;

/// Appends the key of the partial's row. The caller has checked the texts against [`TEXT_BYTES_MAX`].
pub fn append(partial: &Partial, out: &mut Vec<u8>) {
    append_start(&partial.ad_id, partial.pane_start_ms, out);
    for text in [&partial.campaign_id, &partial.advertiser_id, &partial.region] {
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

/// The pane that a key of ours names.
pub fn pane(key: &[u8]) -> i64 {
    let at = 2 + usize::from(u16::from_be_bytes([key[0], key[1]]));
    let bytes: [u8; 8] = key[at..at + 8].try_into().expect("eight bytes were taken");
    (u64::from_be_bytes(bytes) ^ SIGN) as i64
}

/// The click class that a key of ours names: the last code but one.
pub fn class(key: &[u8]) -> u32 {
    let at = key.len() - 8;
    u32::from_be_bytes(key[at..at + 4].try_into().expect("four bytes were taken"))
}

fn append_start(ad_id: &str, pane_start_ms: i64, out: &mut Vec<u8>) {
    append_text(ad_id, out);
    out.extend_from_slice(&(pane_start_ms as u64 ^ SIGN).to_be_bytes());
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
        let partial =
            Partial { ad_id: ad.into(), pane_start_ms, region: region.into(), class, rules: 1, ..Partial::default() };
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
    fn pane_and_class_are_read_back() {
        for pane_start_ms in [i64::MIN / 10_000 * 10_000, -10_000, 0, 10_000, 1_712_908_800_000] {
            let key = key_of("ad_1", pane_start_ms, "US-CA", 7);
            assert_eq!((pane(&key), class(&key)), (pane_start_ms, 7));
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
