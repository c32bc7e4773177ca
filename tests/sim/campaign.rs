//! Drives. Many seeds on all CPUs; what they went through as one JSON document, such that documents of disjoint seeds add up; and of a seed
//! that failed, the simplest world in which it still does.

use std::collections::{BTreeMap, BTreeSet};
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
    pub worlds: u64,
    clicks: u64,
    steps: u64,
    simulated_ns: u64,
    /// Of that, while faults came: under load, and in hours in which almost nobody sends.
    loaded_ns: u64,
    rest_ns: u64,
    /// Of the world that was added last.
    pub trace_hash: u64,
    began: Option<Instant>,
}

impl Campaign {
    fn add(&mut self, verdict: Verdict) {
        self.worlds += 1;
        self.clicks += verdict.clicks;
        self.steps += verdict.steps;
        self.simulated_ns += verdict.simulated_ns;
        self.loaded_ns += verdict.fault_loaded_ns;
        self.rest_ns += verdict.fault_rest_ns;
        self.trace_hash = verdict.hash;
        for (what, times) in verdict.covered {
            *self.covered.entry(what).or_default() += times;
        }
    }
}

/// So many seeds, from that one on.
pub fn campaign(count: u64, from: u64) -> Campaign {
    let (next, all) =
        (AtomicU64::new(from), Mutex::new(Campaign { began: Some(Instant::now()), ..Campaign::default() }));
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
    all
}

impl Campaign {
    /// Its document. `passed`: what the caller makes of it.
    pub fn document(&self, [from, last]: [u64; 2], passed: bool) -> String {
        let covered: Vec<_> = self.covered.iter().map(|(what, times)| format!("\"{what}\":{times}")).collect();
        let hours = |ns: u64| ns as f64 / (3_600 * SECOND) as f64;
        let counts = format!(
            "\"worlds\":{},\"clicks\":{},\"steps\":{},\"simulated_hours\":{:.2},\"fault_hours_loaded\":{:.2},\"fault_hours_at_rest\":{:.2},\"failed\":{},\"covered\":{{{}}}",
            self.worlds,
            self.clicks,
            self.steps,
            hours(self.simulated_ns),
            hours(self.loaded_ns),
            hours(self.rest_ns),
            self.failed.len(),
            covered.join(",")
        );
        let of = |name: &str, word: &str| std::env::var(name).map_or(String::new(), |text| format!(" {word} {text}"));
        let name = format!("seeds{}{}", of("SIM_ONLY", "of"), of("SIM_WITHOUT", "without"));
        document(&name, [from, last], &counts, self.began.expect("it began"), passed)
    }
}

/// Where SIM_ONLY says so, worlds without clones, the global tier, or hours are passed over: they cannot show what is looked for.
fn is_wanted(seed: u64) -> bool {
    match std::env::var("SIM_ONLY").as_deref() {
        Ok("clones") => World::new(seed, &[], false).has_clones(),
        Ok("global") => World::new(seed, &[], false).has_global(),
        Ok("hours") => World::new(seed, &[], false).options.hours > 0,
        Ok(other) => panic!("SIM_ONLY={other}: `clones`, `global` or `hours`"),
        Err(_) => true,
    }
}

/// Takes away what can be taken away, so that the seed still fails, and as it did; what is away then.
pub fn shrink(seed: u64, why: &str) -> Vec<&'static str> {
    let given = without_of_environment();
    let mut without: Vec<&str> = SIMPLER.iter().map(|(name, _)| *name).filter(|name| given.contains(*name)).collect();
    for (name, _) in SIMPLER {
        if without.contains(&name) {
            continue;
        }
        without.push(name);
        if !run_without(seed, &without).is_err_and(|still| kind_of(&still) == kind_of(why)) {
            without.pop();
        }
    }
    without
}

/// What SIM_WITHOUT takes away.
pub fn without_of_environment() -> BTreeSet<String> {
    let names = std::env::var("SIM_WITHOUT").unwrap_or_default();
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// A failure's place, and its words up to where they name numbers.
fn kind_of(why: &str) -> (&str, &str) {
    let (place, words) = why.split_once('\n').unwrap_or((why, ""));
    (place, words.split(|character: char| character.is_ascii_digit()).next().unwrap_or(words))
}
