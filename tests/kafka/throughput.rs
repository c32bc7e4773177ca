//! How fast `tollgate global` counts what a topic has: edges' partials of seconds, a hundred thousand rows each, read from the broker,
//! decoded, checked, folded and stored by one process. All of them are counted.
//!
//! `THROUGHPUT_SECONDS=20 cargo test --release --workspace --test kafka throughput -- --nocapture` measures what is promised.

use std::time::{Duration, Instant};

use crate::global::{Global, edge_of, gross};
use crate::reader::{Topics, widen_topic};
use crate::shared;
use crate::wait::let_pass;

/// Each in a partition of its own.
const EDGES: [&str; 5] = ["t0", "t1", "t2", "t3", "t4"];
/// Of an edge in a second, when it is measured: of as many rows.
const PARTIALS: usize = 100_000;
const PARTIALS_IN_THE_GATE: usize = 5_000;
/// What a core is to carry.
const PROMISED_A_SECOND: f64 = 500_000.0;
const CLICKS: u64 = 3;
const PATIENCE: Duration = Duration::from_secs(300);

#[test]
fn what_a_topic_has_is_counted_in_time() {
    let measured: Option<u64> =
        std::env::var("THROUGHPUT_SECONDS").ok().map(|text| text.parse().expect("a number of seconds"));
    let (seconds, partials) = (measured.unwrap_or(2), measured.map_or(PARTIALS_IN_THE_GATE, |_| PARTIALS));
    let (broker, folder) = (shared::broker(), shared::folder());
    let topics = Topics::create(&broker.direct(), "throughput");
    widen_topic(&broker.direct(), &topics.partials, EDGES.len() as u32);
    let (transactions, partials_text) = (seconds.to_string(), partials.to_string());
    for (partition, edge) in EDGES.into_iter().enumerate() {
        let partition = partition.to_string();
        let mut flags = vec!["--edge", edge, "--partition", &partition, "--transactions", &transactions];
        flags.extend(["--partials", &partials_text, "--ads", "25000", "--per-pane", "10"]);
        // As edges write.
        flags.extend(["--set", "compression.type=lz4", "--set", "linger.ms=5", "--set", "batch.size=262144"]);
        topics.produce(&broker.direct(), &flags).expect("written");
    }
    let expected = EDGES.len() as u64 * seconds * partials as u64;

    let mut global = Global::new(folder.path(), &topics, &broker.direct());
    global.flags = Vec::new();
    let tier = global.start();
    let counted =
        || EDGES.iter().map(|edge| edge_of(&tier, edge)["clicks"].as_u64().unwrap_or(0)).sum::<u64>() / CLICKS;
    let began = Instant::now();
    let (mut first, mut at) = (None, 0);
    while at < expected && began.elapsed() < PATIENCE {
        let_pass(Duration::from_millis(50));
        at = counted();
        if at > 0 && first.is_none() {
            first = Some((at, Instant::now(), tier.cpu_time()));
        }
    }
    assert_eq!(at, expected, "partials counted in {:?}", began.elapsed());
    let (before, since, cpu_before) = first.expect("some were");
    if measured.is_some() {
        let (came, cpu) = ((expected - before) as f64, (tier.cpu_time() - cpu_before).as_secs_f64());
        let (a_second, cpu_us) = (came / since.elapsed().as_secs_f64(), cpu * 1e6 / came);
        println!(
            "{came} partials, {a_second:.0} a second; {cpu_us:.2} us of CPU a partial: {:.0} % of a core at {PROMISED_A_SECOND} a second",
            cpu_us * PROMISED_A_SECOND / 1e4
        );
        assert!(cpu_us * PROMISED_A_SECOND < 1e6, "more than a core");
    }
    assert_eq!(gross(&tier, None), expected * CLICKS);
    tier.stop();
}
