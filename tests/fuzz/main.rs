//! The fuzz targets' checks, in small: every seed, and a bounded number of seeded mutations of it. `fuzz/` runs the same
//! checks under libFuzzer for as long as one likes; see `fuzz/README.md`.

mod checkpoint;
mod click;
mod http;
mod log;
mod mutate;

use std::panic::catch_unwind;
use std::path::Path;

use mutate::{Random, mutated};

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let entries = std::fs::read_dir(&folder).expect("the target has a folder of seeds");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a seed").path()).collect();
    paths.sort();
    assert!(paths.len() >= 4, "{} holds {} seeds only", folder.display(), paths.len());
    paths.iter().map(|path| std::fs::read(path).expect("a seed")).collect()
}

fn fuzz(target: &str, check: fn(&[u8]), rounds: usize) {
    let interesting = mutate::interesting(target).expect("a target");
    let seeds = seeds(target);
    let mut random = Random::new(14);
    for round in 0..seeds.len() + rounds {
        let input = seeds.get(round).cloned().unwrap_or_else(|| mutated(&mut random, &seeds, interesting));
        let failed = catch_unwind(|| check(&input)).is_err();
        assert!(!failed, "round {round} of {target}, the input is b\"{}\"", input.escape_ascii());
    }
}

#[test]
fn any_bytes_to_a_connection_mean_the_same_however_they_are_cut() {
    fuzz("http", http::check, 20_000);
}

#[test]
fn every_seed_of_http_means_the_same_cut_at_every_byte() {
    seeds("http").iter().for_each(|seed| http::cut_at_every_byte(seed));
}

#[test]
fn any_body_of_clicks_is_read_by_layout_as_it_is_read_strictly() {
    fuzz("click", click::check, 20_000);
}

#[test]
fn any_segment_of_the_log_is_judged_and_only_what_was_written_is_taken() {
    fuzz("log", log::check, 30_000);
}

#[test]
fn any_bytes_as_what_was_exported_are_refused_or_held_against_the_log() {
    fuzz("checkpoint", checkpoint::check, 20_000);
}
