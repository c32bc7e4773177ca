//! Drives. Many seeds on all CPUs; what they went through as one JSON document, such that documents of disjoint seeds add up; and of a seed
//! that failed, the simplest world in which it still does.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::document::document;
use crate::options::SIMPLER;
use crate::world::{SECOND, Verdict, World};
use crate::{run, run_without};

/// A campaign ends after so many failures.
const FAILURES_MAX: usize = 5;

/// What seeds went through.
#[derive(Default)]
pub struct Campaign {
    pub covered: BTreeMap<&'static str, u64>,
    /// How each that failed did, first seed first.
    pub failed: Vec<(u64, String)>,
    clicks: u64,
    steps: u64,
    simulated_ns: u64,
    /// Of that, while faults came.
    fault_ns: u64,
}

impl Campaign {
    fn add(&mut self, verdict: Verdict) {
        self.clicks += verdict.clicks;
        self.steps += verdict.steps;
        self.simulated_ns += verdict.simulated_ns;
        self.fault_ns += verdict.fault_ns;
        for (what, times) in verdict.covered {
            *self.covered.entry(what).or_default() += times;
        }
    }
}

/// So many seeds, from that one on; the document is printed.
pub fn campaign(count: u64, from: u64) -> Campaign {
    let (next, all, began) = (AtomicU64::new(from), Mutex::new(Campaign::default()), Instant::now());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let failures_max = if std::env::var_os("SIM_FIRST").is_some() { 1 } else { FAILURES_MAX };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count || all.lock().unwrap().failed.len() >= failures_max {
                        return;
                    }
                    if !is_wanted(seed) {
                        continue;
                    }
                    let ended = run(seed);
                    let mut all = all.lock().unwrap();
                    match ended {
                        Ok(verdict) => all.add(verdict),
                        Err(why) => all.failed.push((seed, why)),
                    }
                }
            });
        }
    });
    let mut all = all.into_inner().unwrap();
    all.failed.sort();
    let covered: Vec<_> = all.covered.iter().map(|(what, times)| format!("\"{what}\":{times}")).collect();
    let hours = |ns: u64| ns as f64 / (3_600 * SECOND) as f64;
    let counts = format!(
        "\"clicks\":{},\"steps\":{},\"simulated_hours\":{:.2},\"fault_hours\":{:.2},\"failed\":{},\"covered\":{{{}}}",
        all.clicks,
        all.steps,
        hours(all.simulated_ns),
        hours(all.fault_ns),
        all.failed.len(),
        covered.join(",")
    );
    let name = std::env::var("SIM_ONLY").map_or("seeds".to_owned(), |only| format!("seeds of {only}"));
    println!("{}", document(&name, [from, from + count - 1], &counts, began, all.failed.is_empty()));
    all
}

/// Where SIM_ONLY says so, worlds without clones, or without the global tier, are passed over: they cannot show what is looked for.
fn is_wanted(seed: u64) -> bool {
    match std::env::var("SIM_ONLY").as_deref() {
        Ok("clones") => World::new(seed, &[], false).has_clones(),
        Ok("global") => World::new(seed, &[], false).has_global(),
        Ok(other) => panic!("SIM_ONLY={other}: `clones` or `global`"),
        Err(_) => true,
    }
}

/// Takes away what can be taken away, so that the seed still fails; what was taken, and how it fails then.
pub fn shrink(seed: u64, why: String) -> (Vec<&'static str>, String) {
    let (mut without, mut why) = (Vec::new(), why);
    for (name, _) in SIMPLER {
        without.push(name);
        match run_without(seed, &without) {
            Err(still) => why = still,
            Ok(_) => drop(without.pop()),
        }
    }
    (without, why)
}
