//! How old a count is: from a click's acknowledgement at an edge to the first answer of `tollgate global` that shows it, through a
//! broker, while the edge takes others at a steady rate. `tollgate-loadgen prove` measures it, and has every ad's count verified.
//!
//! `FRESHNESS_RATE=200000 cargo test --release --workspace --test kafka freshness -- --nocapture` measures what is promised.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::edge::Edge;
use crate::global::Global;
use crate::server::binary;
use crate::shared;

/// Clicks a second; every other test of the gate runs beside it.
const RATE: &str = "2000";
const SECONDS: u64 = 10;
const SECONDS_MEASURED: u64 = 30;
/// Of the 99th percentile: what is promised, and what a machine keeps that runs everything else at once.
const PROMISED_MS: f64 = 3_000.0;
const ON_A_BUSY_MACHINE_MS: f64 = 15_000.0;

#[test]
fn a_click_shows_in_seconds_through_kafka() {
    let loadgen = Path::new(binary()).with_file_name("tollgate-loadgen");
    assert!(loadgen.is_file(), "no {}: build it with `cargo build -p tollgate-loadgen`", loadgen.display());
    let measured = std::env::var("FRESHNESS_RATE").ok();
    let (seconds, bound_ms) =
        if measured.is_some() { (SECONDS_MEASURED, PROMISED_MS) } else { (SECONDS, ON_A_BUSY_MACHINE_MS) };
    let (broker, folder) = (shared::broker(), shared::folder());
    let mut edge = Edge::new("freshness", &broker.direct(), &broker.direct());
    // As a newcomer starts it: what it exports, and when, is what he sees.
    let flags = ["--export-interval", "1s", "--dedup-memory-bytes", "512MiB", "--segment-bytes", "64MiB"];
    edge.flags = flags.map(str::to_owned).to_vec();
    let (server, tier) = (edge.start(), Global::new(folder.path(), &edge.topics, &broker.direct()).start());

    let json = folder.path().join("proof.json");
    let output = Command::new(&loadgen)
        .args(["prove", "--no-null", "--shape", "ndjson", "--rounds", "0", "--freshness"])
        .args(["--rate", measured.as_deref().unwrap_or(RATE), "--seconds", &seconds.to_string()])
        .args(["--target", &server.clicks.to_string(), "--query", &format!("http://{}", tier.query)])
        .args(["--admin", &format!("http://{}", server.admin)])
        .arg("--json")
        .arg(&json)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    println!("{said}");
    // 3: a busy generator did not keep its own schedule, and nothing else is wrong.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    let proof: Value = serde_json::from_slice(&std::fs::read(&json).expect("it was written")).expect("JSON");
    assert_eq!((&proof["verdict"], &proof["freshness"]["unseen"]), (&"pass".into(), &0.into()), "{said}");
    let clicks = proof["freshness"]["clicks"].as_u64().expect("a number");
    assert!(clicks >= 5 * seconds, "{clicks} clicks were timed in {seconds} s: {said}");
    let p99_ms = proof["freshness"]["ms"]["p99"].as_f64().expect("a number");
    assert!((10.0..bound_ms).contains(&p99_ms), "{p99_ms} ms of the 99th percentile, at most {bound_ms}: {said}");
    server.stop();
    tier.stop();
}
