//! What `Core::apply` takes for a click, without any I/O: canned turns in three shapes. The figures without noise
//! (allocations, bytes, commits) are the gate's; the nanoseconds are for people.

use crate::canned::{SHAPES, Shape, Tally, World};
use serde_json::json;
use tollgate::metrics::Snapshot;

#[derive(clap::Args)]
pub struct Args {
    /// Only shapes whose name contains this: one, pipelined, ndjson.
    #[arg(long, default_value = "")]
    shape: String,
    /// Clicks that are measured.
    #[arg(long, default_value_t = 1_000_000)]
    clicks: u64,
    /// Clicks before them, until every buffer has the size that it keeps.
    #[arg(long, default_value_t = 100_000)]
    warm_up: u64,
    /// Memory of the table that remembers clicks; it is 0.8 full.
    #[arg(long, default_value_t = 64 << 20)]
    dedup_memory_bytes: u64,
}

pub fn run(args: &Args) -> Result<(), String> {
    let shapes: Vec<Shape> = SHAPES.into_iter().filter(|shape| shape.name.contains(&args.shape)).collect();
    if shapes.is_empty() {
        let names = SHAPES.map(|shape| shape.name).join(", ");
        return Err(format!("--shape {:?} is in the name of none of {names}", args.shape));
    }
    for shape in shapes {
        let (tally, snapshot) = measure(shape, args);
        println!("{}", line(shape, &tally, &snapshot));
    }
    Ok(())
}

fn measure(shape: Shape, args: &Args) -> (Tally, Box<Snapshot>) {
    let mut world = World::new(shape, args.dedup_memory_bytes);
    world.run(args.warm_up, false);
    world.run(args.clicks, true);
    world.finish()
}

/// One JSON object a shape.
fn line(shape: Shape, tally: &Tally, snapshot: &Snapshot) -> serde_json::Value {
    let clicks = tally.clicks as f64;
    let dedup = &snapshot.dedup;
    json!({
        "shape": shape.name,
        "clicks": tally.clicks,
        "ns_per_click": tally.wall_ns as f64 / clicks,
        "allocations": tally.allocations,
        "cuts": tally.cuts,
        "log_bytes_per_click": tally.log_bytes as f64 / clicks,
        "clicks_per_commit": clicks / tally.commits as f64,
        "clicks_per_turn": clicks / tally.turns as f64,
        "dedup_load": dedup.keys as f64 / dedup.slots as f64,
        "dedup_generations_dropped_early": dedup.generations_dropped_early,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(clicks: u64) -> Args {
        Args { shape: String::new(), clicks, warm_up: 60_000, dedup_memory_bytes: tollgate::dedup::MEMORY_BYTES_MIN }
    }

    #[test]
    fn every_click_of_canned_turns_is_accepted_and_nothing_is_allocated() {
        for shape in SHAPES {
            let (tally, snapshot) = measure(shape, &small(20_000));
            let ledger = &snapshot.ledger;
            assert!(ledger.accepted >= 80_000 && ledger.accepted == ledger.received, "{shape:?}: {ledger:?}");
            assert_eq!(snapshot.dedup.generations_dropped_early, 0, "{shape:?}");
            let load = snapshot.dedup.keys as f64 / snapshot.dedup.slots as f64;
            assert!((0.7..0.85).contains(&load), "{shape:?}: the table is {load:.3} full");
            // A cut travels in a box.
            assert!(tally.allocations <= tally.cuts, "{shape:?}: {tally:?}");
            let bytes = tally.log_bytes as f64 / tally.clicks as f64;
            assert!((80.0..250.0).contains(&bytes), "{shape:?}: {bytes} bytes a click");
        }
    }

    #[test]
    fn canned_turns_are_the_same_at_every_run() {
        let figures = |shape| {
            let (tally, snapshot) = measure(shape, &small(10_000));
            (Tally { wall_ns: 0, ..tally }, snapshot.dedup.keys)
        };
        for shape in SHAPES {
            assert_eq!(figures(shape), figures(shape), "{shape:?}");
        }
    }

    #[test]
    fn a_shape_that_is_none_is_refused() {
        let error = run(&Args { shape: "round".to_owned(), ..small(1) }).expect_err("no such shape");
        assert!(error.contains("one, pipelined, ndjson"), "{error}");
    }
}
