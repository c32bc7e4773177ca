//! What the table promises, against a model that remembers keys in a map.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const NOW: i64 = 1_760_000_000_000;

fn memory(lines: usize) -> MmapMut {
    MmapMut::map_anon(lines * size_of::<Line>()).expect("memory for a test")
}

fn config(window_ms: i64, window_min_ms: i64) -> DedupConfig {
    DedupConfig { window_ms, window_min_ms, memory_bytes: MEMORY_BYTES_MIN }
}

fn table(window_ms: i64, window_min_ms: i64) -> Table {
    Table::new(memory(LINES_MIN), [7; 16], &config(window_ms, window_min_ms), i64::MIN, NOW)
}

fn uuid(number: u128) -> ClickKey {
    ClickKey { bytes: number.to_be_bytes(), hashed: false }
}

/// The key that permutes to these bits.
fn key_at(table: &Table, permuted: u128, hashed: bool) -> ClickKey {
    ClickKey { bytes: table.permutation.invert(permuted), hashed }
}

const SAME: Verdict = Verdict::Duplicate { same_payload: true };

#[test]
fn a_key_is_fresh_once_and_its_payload_compared() {
    let mut table = table(600_000, 60_000);
    let hashed = table.hash(&uuid(1));
    assert_eq!(table.remember(&hashed, 5, NOW, NOW), Verdict::Fresh);
    assert_eq!(table.remember(&hashed, 5, NOW + 1, NOW + 1), SAME);
    assert_eq!(table.remember(&hashed, 6, NOW, NOW), Verdict::Duplicate { same_payload: false });
    assert_eq!(table.keys(), 1);
}

#[test]
fn keys_that_differ_in_one_bit_or_only_in_kind_are_different() {
    // Not a power of two, and an odd line over.
    for lines in [LINES_MIN, LINES_MIN + 2, 150_001] {
        let mut table = Table::new(memory(lines), [7; 16], &config(600_000, 60_000), i64::MIN, NOW);
        let mut remembered = 0;
        for seed in [0u128, u128::MAX, 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210] {
            let bits = std::iter::once(0).chain((0..128).map(|bit| 1u128 << bit));
            // All the same remainder, and every line that the top 16 bits can give.
            let tops = (0..1u128 << 16).step_by(97).map(|top| top << 112);
            for flip in bits.chain(tops).collect::<std::collections::BTreeSet<u128>>() {
                for hashed in [false, true] {
                    let hashed = table.hash(&key_at(&table, seed ^ flip, hashed));
                    assert_eq!(table.remember(&hashed, 0, NOW, NOW), Verdict::Fresh, "{seed:x} ^ {flip:x}");
                    assert_eq!(table.remember(&hashed, 0, NOW, NOW), SAME);
                    remembered += 1;
                }
            }
        }
        assert_eq!(table.keys(), remembered);
    }
}

#[test]
fn a_line_and_a_remainder_name_one_key() {
    // The proof at the head of the module, tried on the smallest table: equal remainder, any two of the 2^17 keys.
    let table = table(600_000, 60_000);
    for low in [0u128, (1 << 112) - 1, 0x0123_4567_89ab_cdef_fedc_ba98_7654] {
        let mut seen = vec![false; LINES_MIN];
        for top in 0..1u128 << 16 {
            for hashed in [false, true] {
                let at = table.locate(top << 112 | low, hashed);
                assert!(!std::mem::replace(&mut seen[at.first as usize], true), "{top:x} {hashed}");
                assert_eq!(path::other_line(at.remainder.low, at.second, table.lines), at.first);
            }
        }
    }
}
