//! The fuzz targets' checks, in small: every seed, and a bounded number of seeded mutations of it. `fuzz/` runs the same
//! checks under libFuzzer for as long as one likes; see `fuzz/README.md`.

mod click;
mod http;
mod log;

use std::panic::catch_unwind;
use std::path::Path;

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
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Changes an input as a fuzzer does: bytes set, flipped, inserted, removed, parts repeated or taken from another input.
fn mutated(random: &mut Random, seeds: &[Vec<u8>], interesting: &[u8]) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..random.below(5) {
        let at = random.below(bytes.len() + 1);
        let byte =
            if random.below(4) == 0 { random.next() as u8 } else { interesting[random.below(interesting.len())] };
        match random.below(7) {
            0 => bytes.insert(at, byte),
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            3 => bytes.truncate(at),
            4 | 5 => {
                let other = if random.below(2) == 0 { &bytes } else { &seeds[random.below(seeds.len())] };
                let from = random.below(other.len() + 1);
                let part = other[from..(from + random.below(64)).min(other.len())].to_vec();
                let to = (at + random.below(2) * part.len()).min(bytes.len());
                bytes.splice(at..to, part);
            }
            _ if at < bytes.len() => bytes[at] = byte,
            _ => {}
        }
    }
    bytes
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let entries = std::fs::read_dir(&folder).expect("the target has a folder of seeds");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a seed").path()).collect();
    paths.sort();
    assert!(paths.len() >= 4, "{} holds {} seeds only", folder.display(), paths.len());
    paths.iter().map(|path| std::fs::read(path).expect("a seed")).collect()
}

fn fuzz(target: &str, check: fn(&[u8]), interesting: &[u8], rounds: usize) {
    let seeds = seeds(target);
    let mut random = Random(14);
    for round in 0..seeds.len() + rounds {
        let input = seeds.get(round).cloned().unwrap_or_else(|| mutated(&mut random, &seeds, interesting));
        let failed = catch_unwind(|| check(&input)).is_err();
        assert!(!failed, "round {round} of {target}, the input is b\"{}\"", input.escape_ascii());
    }
}

#[test]
fn any_bytes_to_a_connection_mean_the_same_however_they_are_cut() {
    fuzz("http", http::check, b"\r\n\r\n \t:;,0123456789aA/\x00\x7f\xff", 20_000);
}

#[test]
fn any_body_of_clicks_is_read_by_layout_as_it_is_read_strictly() {
    fuzz("click", click::check, b"\"\\{}[]:,-.eE0179 \t\r\nu\x00\x1f\x7f\xc3\xa9\xff", 20_000);
}

#[test]
fn any_segment_of_the_log_is_judged_and_only_what_was_written_is_taken() {
    fuzz("log", log::check, b"\x00\x01\x02\x03\x04\x07\x08\x10\x7f\x80\xa5\xff", 30_000);
}
