//! What the load generator itself costs: building clicks into a buffer, without sending them.

use std::hint::black_box;
use std::time::Instant;
use tollgate_loadgen::clicks::Clicks;
use tollgate_loadgen::plan::Plan;
use tollgate_loadgen::text::timestamp13;

const BATCH: u64 = 100;

#[derive(clap::Args)]
pub struct Args {
    /// Rounds of 100,000 clicks; the best one counts.
    #[arg(long, default_value_t = 200)]
    rounds: u64,
    #[arg(long, default_value_t = 1_000)]
    ads: u32,
}

pub fn run(args: &Args) -> Result<(), String> {
    let plan = Plan { ads: args.ads, ..Plan::default() };
    plan.check().map_err(|error| error.to_string())?;
    let clicks = Clicks::new(&plan);
    let mut out = Vec::new();
    let mut best_ns = f64::MAX;
    for round in 0..args.rounds {
        let start = Instant::now();
        for batch in 0..1_000 {
            out.clear();
            let first = (round * 1_000 + batch) * BATCH;
            let stamp_ms = 1_763_791_000_000 + batch as i64;
            let stamp = timestamp13(stamp_ms);
            for number in first..first + BATCH {
                black_box(clicks.append(number, stamp_ms, &stamp, &mut out));
                out.push(b'\n');
            }
            black_box(&out);
        }
        best_ns = best_ns.min(start.elapsed().as_nanos() as f64 / (1_000 * BATCH) as f64);
    }
    println!("generation: {best_ns:.1} ns a click, best of {} rounds", args.rounds);
    Ok(())
}
