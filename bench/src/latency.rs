//! How long an acknowledgement takes at half the top rate, beside what the disk itself takes for a synced write of the same
//! size: in one run, interleaved, so that a slow disk is not taken for a slow edge, nor a fast one for a fast edge.
//!
//! Twice: as the client sees it, and as the server counts it, from the turn that a request came in with to the turn that its reply
//! went out with. On a machine of two CPUs the client has the server's other threads and the kernel's as neighbours, which a
//! client elsewhere has not.

use crate::measure::{Load, SHAPES, Shape, plan};
use crate::scratch::Scratch;
use crate::server::Server;
use memmap2::MmapMut;
use serde_json::json;
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tollgate::wal::frame::{BLOCK_BYTES, PADDING};
use tollgate::wal::prepare::prepare_segment;
use tollgate_loadgen::plan::Rate;
use tollgate_loadgen::report::Outcome;
use tollgate_loadgen::run::run as send;

/// What an acknowledgement may take at most, in synced writes: one under way, its own, and time to spare.
const WRITES_MAX: f64 = 5.0;
const ACKNOWLEDGEMENT: &str = "tollgate_acknowledgement_seconds";
/// The disk is tried on a file of so much, over and over, as a segment is written.
const PROBE_FILE_BYTES: u64 = 64 << 20;

#[derive(clap::Args)]
pub struct Args {
    /// The tollgate binary.
    #[arg(long)]
    tollgate: PathBuf,
    /// One more flag for tollgate; may be repeated.
    #[arg(long = "tollgate-flag")]
    tollgate_flags: Vec<String>,
    /// Where the data directory is, and the disk is tried: on the disk that is meant.
    #[arg(long, default_value = "target")]
    scratch: PathBuf,
    /// The first shape whose name contains this.
    #[arg(long, default_value = "one at a time, 64")]
    shape: String,
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Clicks a second, instead of half the top rate.
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    #[arg(long, default_value_t = 1)]
    client_cpu: usize,
    /// Fail if an acknowledgement takes more than is promised.
    #[arg(long)]
    check: bool,
}

/// One round; times in microseconds.
#[derive(Clone, Copy, Debug)]
struct Round {
    acknowledged_p50: f64,
    acknowledged_p99: f64,
    server_p99: f64,
    disk_p50: f64,
    disk_p99: f64,
}

pub fn run(args: &Args) -> Result<(), String> {
    if args.rounds == 0 || !(0.01..=3_600.0).contains(&args.seconds) {
        let (rounds, seconds) = (args.rounds, args.seconds);
        return Err(format!("--rounds {rounds} --seconds {seconds}: at least one round of 0.01 to 3600 s"));
    }
    let shape = SHAPES.into_iter().find(|shape| shape.name.contains(&args.shape));
    let shape = shape.ok_or_else(|| format!("--shape {:?} is in the name of none", args.shape))?;
    let text = |error: std::io::Error| error.to_string();
    let scratch = Scratch::new(&args.scratch, "latency").map_err(text)?;
    let data = scratch.path.join("data");
    let server = Server::tollgate(&args.tollgate, &[args.server_cpu], data, &args.tollgate_flags).map_err(text)?;
    let top = drive(args, shape, &server, 0, Rate::Max)?;
    let rate = args.rate.unwrap_or(top.totals.acknowledged() as f64 / top.elapsed_s / 2.0);
    let frame_bytes = mean_frame_bytes(args, shape, &server, rate)?;
    prepare_segment(&scratch.path, 1, PROBE_FILE_BYTES, Duration::ZERO).map_err(text)?;
    let mut rounds = Vec::new();
    for number in 0..args.rounds {
        let disk = disk_us(&scratch.path, frame_bytes, args.seconds).map_err(text)?;
        let before = server.histogram(ACKNOWLEDGEMENT).map_err(text)?;
        let outcome = drive(args, shape, &server, 2 + u64::from(number), Rate::ClicksPerSecond(rate))?;
        let after = server.histogram(ACKNOWLEDGEMENT).map_err(text)?;
        let acknowledged = |quantile| outcome.latency.value_at_quantile(quantile) as f64 / 1e3;
        let round = Round {
            acknowledged_p50: acknowledged(0.5),
            acknowledged_p99: acknowledged(0.99),
            server_p99: quantile_between(&before, &after, 0.99) * 1e6,
            disk_p50: quantile(&disk, 0.5),
            disk_p99: quantile(&disk, 0.99),
        };
        eprintln!("round {} of {}: {round:.0?}", number + 1, args.rounds);
        rounds.push(round);
    }
    report(args, shape, rate, frame_bytes, &rounds)
}

/// Medians over the rounds: an interruption of the machine spoils a round, not the run.
fn report(args: &Args, shape: Shape, rate: f64, frame_bytes: usize, rounds: &[Round]) -> Result<(), String> {
    let median = |of: fn(&Round) -> f64| {
        let mut figures: Vec<f64> = rounds.iter().map(of).collect();
        figures.sort_by(f64::total_cmp);
        quantile(&figures, 0.5)
    };
    let (acknowledged, disk) = (median(|round| round.acknowledged_p99), median(|round| round.disk_p99));
    let server = median(|round| round.server_p99);
    let (seen_ratio, ratio) = (acknowledged / disk, server / disk);
    println!(
        "{}",
        json!({
            "shape": shape.name,
            "clicks_per_s": rate,
            "frame_bytes": frame_bytes,
            "acknowledged_p50_us": median(|round| round.acknowledged_p50),
            "acknowledged_p99_us": acknowledged,
            "server_p99_us": server,
            "disk_p50_us": median(|round| round.disk_p50),
            "disk_p99_us": disk,
            "ratio_p99_client": seen_ratio,
            "ratio_p99_server": ratio,
            "ratio_p99_max": WRITES_MAX,
            "rounds": rounds.len(),
        })
    );
    println!(
        "latency: p99 at {rate:.0} clicks/s {server:.0} µs in the server, {acknowledged:.0} µs at the client: {ratio:.2} and \
         {seen_ratio:.2} times the {disk:.0} µs of a synced write of {} KiB",
        frame_bytes >> 10
    );
    if args.check && ratio > WRITES_MAX {
        return Err(format!("an acknowledgement takes {ratio:.2} synced writes at p99, {WRITES_MAX} are promised"));
    }
    Ok(())
}

fn drive(args: &Args, shape: Shape, server: &Server, round: u64, rate: Rate) -> Result<Outcome, String> {
    let load = Load {
        client_cpu: args.client_cpu,
        duration: Duration::from_secs_f64(args.seconds),
        ads: 1_000,
        seed: 1 + round,
        rate,
        busy_poll: true,
    };
    let outcome = send(&plan(shape, &load, server), |_| {}).map_err(|error| error.to_string())?;
    if outcome.totals.wrong > 0 || outcome.totals.acknowledged() == 0 {
        let totals = &outcome.totals;
        return Err(format!(
            "{} acknowledged, {} shed, wrong: {:?}",
            totals.acknowledged(),
            totals.shed,
            totals.examples
        ));
    }
    Ok(outcome)
}

/// Bytes of a commit at that rate, in whole blocks.
fn mean_frame_bytes(args: &Args, shape: Shape, server: &Server, rate: f64) -> Result<usize, String> {
    let read = || -> std::io::Result<(f64, f64)> {
        Ok((server.metric("tollgate_log_commits_total")?, server.metric("tollgate_log_written_bytes_total")?))
    };
    let before = read().map_err(|error| error.to_string())?;
    drive(args, shape, server, 1, Rate::ClicksPerSecond(rate))?;
    let after = read().map_err(|error| error.to_string())?;
    let mean = (after.1 - before.1) / (after.0 - before.0).max(1.0);
    Ok((mean as usize).max(1).next_multiple_of(BLOCK_BYTES))
}

/// What synced direct writes of that size take, one after the other, sorted.
fn disk_us(dir: &Path, bytes: usize, seconds: f64) -> std::io::Result<Vec<f64>> {
    let flags = libc::O_DIRECT | libc::O_DSYNC;
    let file = OpenOptions::new().write(true).custom_flags(flags).open(dir.join("0000000001.seg"))?;
    let mut memory = MmapMut::map_anon(bytes)?;
    memory.fill(PADDING);
    let places = PROBE_FILE_BYTES / bytes as u64;
    let (mut taken, began) = (Vec::new(), Instant::now());
    while began.elapsed().as_secs_f64() < seconds {
        let write_began = Instant::now();
        file.write_all_at(&memory, taken.len() as u64 % places * bytes as u64)?;
        taken.push(write_began.elapsed().as_nanos() as f64 / 1e3);
    }
    taken.sort_by(f64::total_cmp);
    Ok(taken)
}

/// Of what a histogram with these cumulative buckets gained from one look to the next; evenly spread within a bucket.
fn quantile_between(before: &[(f64, f64)], after: &[(f64, f64)], of_one: f64) -> f64 {
    let gained: Vec<(f64, f64)> = before.iter().zip(after).map(|(old, new)| (new.0, new.1 - old.1)).collect();
    let wanted = gained.last().map_or(0.0, |all| all.1) * of_one;
    let mut below = (0.0, 0.0);
    for bucket in gained {
        if bucket.1 >= wanted {
            let share = (wanted - below.1) / (bucket.1 - below.1).max(1.0);
            return below.0 + (bucket.0 - below.0) * share;
        }
        below = bucket;
    }
    below.0
}

/// Of sorted figures, of which there is at least one.
fn quantile(sorted: &[f64], of_one: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * of_one).round() as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_figures() {
        let figures = [1.0, 2.0, 3.0, 4.0, 50.0];
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|of_one| quantile(&figures, of_one)), [1.0, 3.0, 50.0, 50.0]);
    }

    #[test]
    fn a_quantile_between_two_looks_lies_in_its_bucket() {
        let before = [(1.0, 5.0), (2.0, 5.0), (4.0, 5.0), (f64::INFINITY, 5.0)];
        let after = [(1.0, 5.0), (2.0, 55.0), (4.0, 105.0), (f64::INFINITY, 105.0)];
        assert_eq!([0.25, 0.5, 0.99].map(|of_one| quantile_between(&before, &after, of_one)), [1.5, 2.0, 3.96]);
    }

    #[test]
    fn the_disk_is_tried_with_writes_of_the_size_asked_for() {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
        let scratch = Scratch::new(&target, "latency-test").expect("a directory");
        prepare_segment(&scratch.path, 1, PROBE_FILE_BYTES, Duration::ZERO).expect("a file");
        let taken = disk_us(&scratch.path, 2 * BLOCK_BYTES, 0.01).expect("a disk that does direct writes");
        assert!(!taken.is_empty() && taken.is_sorted());
    }
}
