//! The simulator: seeded worlds that call the same cores and exporter that production runs, with a disk, a network, a mesh, a sink
//! and clocks that fail on purpose, and an oracle that shares no code with the product.
//!
//! ```text
//! SIM_SEED=17 cargo test --test sim -- --nocapture   one seed, its options and the hash of its trace; SIM_TRACE=1 prints what happens;
//!                                               SIM_WITHOUT=kill,drip takes that away
//! SIM_SEEDS=5000/100000 cargo test --test sim   a campaign: so many seeds, from that one on; SIM_ONLY=clones, global or hours: of such
//!                                               worlds; SIM_FIRST=1: no further than the first that fails, which is not shrunk
//! SIM_POINTS=all cargo test --test sim points -- --nocapture      a process stopped at every point of a scripted world; SIM_POINTS=remote/17: at one
//! SIM_IMAGES=100000 cargo test --test sim images -- --nocapture   so many states that a power cut could leave, and faults of the disk
//! ```
// What cannot be unwrapped in a test fails it.
#![allow(clippy::unwrap_used)]

mod broker;
mod campaign;
mod clients;
mod clones;
mod damage;
mod damaged;
mod disk;
mod document;
mod exporting;
mod faults;
mod found;
mod global;
mod http;
mod images;
mod kafka;
mod keeper;
mod late;
mod meanwhile;
mod mesh;
mod neighbour;
mod network;
mod options;
mod oracle;
mod points;
mod rng;
mod server;
mod sink;
mod starting;
mod trace;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Once;
use std::time::Instant;

use campaign::{campaign, shrink};
use damage::{Kind, Outcomes};
use document::document;
use images::{BESIDE, Images};
use world::{Verdict, World};

/// Seeds of a normal run.
const SLICE: u64 = 300;
/// States of a disk.
const SLICE_OF_IMAGES: u64 = 1_500;

/// Situations that the slice must meet, or it proves too little.
const MUST_COVER: &[&str] = &[
    "torn tail",
    "unfinished write lost",
    "unfinished write torn",
    "unfinished write kept",
    "a late write lands",
    "first frame torn",
    "recovering killed",
    "several segments recovered",
    "segment freed",
    "segment freed early",
    "preparation cut off",
    "halted by a failed write",
    "halted by a segment that cannot be made",
    "a next segment that has no room",
    "a start ends at a segment that cannot be made",
    "a start ends at a first frame that cannot be written",
    "halted by a mirror that cannot be kept",
    "a segment that cannot be deleted",
    "a start halts over a fault of the disk",
    "a start goes on with a fault of the disk",
    "clean stop",
    "shed",
    "disk_full",
    "log_behind",
    "dedup_full",
    "a core is paused",
    "clock",
    "shed for want of memory",
    "memory",
    "eviction",
    "too old",
    "duplicate answered",
    "duplicate waits",
    "clicks wait for room in the log",
    "other payload",
    "dead letters over budget",
    "list of errors cut short",
    "request refused as a whole",
    "connection reset",
    "connection timed out",
    "connection turned away",
    "receive paused",
    "receive buffers run out",
    "client gave up",
    "range rebuilt",
    "sink unreachable",
    "commit done and untold",
    "commit not done",
    "commit in doubt",
    "killed in a commit",
    "start waits for the clock",
    "restart under another clock",
    "start under a clock ahead",
    "start under a clock behind",
    "a clock that stays is believed",
    "another number of cores",
    "a log becomes idle",
    "an idle log is gone on with",
    "idle log exported",
    "segment of an idle log freed",
    "killed between two first frames",
    "a new log's directory is empty",
    "several writes cut off",
    "chunks run out",
    "a request goes on when a chunk is back",
    "a request at all homes",
    "duplicate at another home",
    "killed with chunks on their way",
    "stop with chunks on their way",
    "clicks forwarded to a core that is done",
    "a fence waits for what is being ended",
    "a late word to commit is fenced",
    "a late word to commit is heard",
    "a read stops before what is open",
    "a read waits for what is open",
    "another edge dies in a transaction",
    "killed with a transaction open",
    "our own transaction is ended by its time-out",
    "topic rewound",
    "topics emptied",
    "halted over a topic that was rewound",
    "hours without a sink",
    "quiet hours",
    "the global tier is killed before a commit",
    "the global tier is killed after a commit",
    "the global tier reads on from stored offsets",
    "the global tier halts over topics that were emptied",
    "a minute that was complete is corrected",
    "windows become final",
    "an exported watermark is held to what was answered",
    "a running clone finds a rival and halts",
    "a clone finds at its start that another exported, and halts",
    "a directory that was set back halts",
    "a directory that was set back goes on",
    "stop gave the export up",
    "a stop waits for a sink that is away",
    "a directory is set back",
];

thread_local! {
    /// What a panic of the world that this thread judges says.
    static PANICKED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps what a world's panic says, with its place, instead of printing it.
fn worlds_panic_quietly() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let judged =
                PANICKED.with(|text| text.borrow_mut().as_mut().map(|text| *text = info.to_string()).is_some());
            if !judged {
                loud(info);
            }
        }));
    });
}

fn run(seed: u64) -> Result<Verdict, String> {
    let without = campaign::without_of_environment();
    run_without(seed, &without.iter().map(String::as_str).collect::<Vec<_>>())
}

/// `without`: names of [`options::SIMPLER`].
fn run_without(seed: u64, without: &[&str]) -> Result<Verdict, String> {
    judged(World::new(seed, without, is_traced()))
}

fn run_with(seed: u64, images: Images) -> Result<Verdict, String> {
    let mut world = World::new(seed, &[], is_traced());
    world.images = Some(Box::new(images));
    judged(world)
}

fn is_traced() -> bool {
    std::env::var_os("SIM_TRACE").is_some()
}

/// Runs a world; what it says where a promise is broken.
fn judged(world: World) -> Result<Verdict, String> {
    worlds_panic_quietly();
    PANICKED.set(Some(String::new()));
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| world.run()));
    let why = PANICKED.take().expect("it was set");
    ended.map_err(|_| why)
}

/// Which seeds to run: so many, from which on.
fn seeds() -> (u64, u64) {
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("`{text}` is no number of seeds"));
    if let Ok(seed) = std::env::var("SIM_SEED") {
        return (1, number(&seed));
    }
    match std::env::var("SIM_SEEDS") {
        Ok(text) => match text.split_once('/') {
            Some((count, from)) => (number(count), number(from)),
            None => (number(&text), 1),
        },
        Err(_) => (SLICE, 1),
    }
}

#[test]
fn every_seed_keeps_the_promises() {
    let (count, from) = seeds();
    println!("simulator: {count} seeds from {from}");
    let options = |seed| {
        let without = campaign::without_of_environment();
        World::new(seed, &without.iter().map(String::as_str).collect::<Vec<_>>(), false).options
    };
    if count == 1 {
        println!("{:?}", options(from));
    }
    let all = campaign(count, from);
    if count == 1 && all.worlds == 1 {
        println!("trace hash {:016x}", all.trace_hash);
    }
    for (seed, why) in &all.failed {
        println!("seed {seed} FAILED: {why}");
        if count > 1 {
            println!("  {:?}", options(*seed));
        }
        if std::env::var_os("SIM_FIRST").is_none() {
            let without = shrink(*seed, why).join(",");
            println!(
                "  replay: SIM_SEED={seed} SIM_WITHOUT={without} SIM_TRACE=1 cargo test --test sim every_seed -- --nocapture"
            );
        }
    }
    // Some worlds alone cannot meet everything.
    let some = ["SIM_ONLY", "SIM_WITHOUT"].iter().any(|name| std::env::var_os(name).is_some());
    let must = MUST_COVER.iter().filter(|_| count >= SLICE && !some);
    let missed: Vec<_> = must.filter(|what| !all.covered.contains_key(**what)).collect();
    println!(
        "{}",
        all.document([from, from + count - 1], all.worlds > 0 && all.failed.is_empty() && missed.is_empty())
    );
    assert!(all.failed.is_empty(), "seed {} failed: {}", all.failed[0].0, all.failed[0].1);
    assert!(missed.is_empty(), "situations that no seed met: {missed:?}");
    assert!(all.worlds > 0, "no world of SIM_ONLY is among these seeds: nothing was tried");
}

/// In one world after the other, until so many images are read.
#[test]
fn all_images_that_a_disk_could_hold_are_read_or_refused() {
    let least: u64 =
        std::env::var("SIM_IMAGES").map_or(SLICE_OF_IMAGES, |count| count.parse().expect("a whole number"));
    let (from, mut power_cuts, mut beside, mut faults) = (seeds().1, 0, [0; 3], BTreeMap::<Kind, Outcomes>::new());
    let began = Instant::now();
    println!("worlds from seed {from} on, until {least} states of a disk were read");
    let mut seed = from - 1;
    // A power cut is tried at every write and costs more; a fault once a write.
    while power_cuts < least || Kind::ALL.iter().any(|kind| faults.get(kind).map_or(0, Outcomes::cases) * 100 < least) {
        seed += 1;
        let verdict = run_with(seed, Images::new(seed));
        let verdict = verdict.unwrap_or_else(|why| {
            println!(
                "seed {seed} FAILED: {why}\n  replay: SIM_SEEDS=1/{seed} SIM_IMAGES=1 cargo test --test sim all_images -- --nocapture"
            );
            panic!("seed {seed} failed: {why}");
        });
        let images = verdict.images.expect("it went in");
        power_cuts += images.power_cuts;
        beside.iter_mut().zip(images.beside).for_each(|(all, more)| *all += more);
        // Those that the world's own starts met, too.
        let at_starts = verdict.damage.into_iter().flat_map(|damage| damage.outcomes);
        for (kind, outcomes) in images.faults.outcomes.into_iter().chain(at_starts) {
            faults.entry(kind).or_default().add(&outcomes);
        }
    }
    let each = faults.iter().map(|(kind, outcomes)| format!("\"{kind:?}\":{}", outcomes.json()));
    let counts = format!(
        "\"power_cuts\":{power_cuts},\"beside\":{{{}}},\"faults\":{{{}}}",
        BESIDE.iter().zip(beside).map(|(what, states)| format!("\"{what}\":{states}")).collect::<Vec<_>>().join(","),
        each.collect::<Vec<_>>().join(",")
    );
    let met_all = power_cuts < SLICE_OF_IMAGES || beside.iter().all(|states| *states > 0);
    println!("{}", document("images", [from, seed], &counts, began, met_all));
    assert!(met_all, "{beside:?} power cuts beside {BESIDE:?}: it proves too little");
}

#[test]
fn a_seed_replays_to_the_same_trace() {
    for seed in [3, 4, 5, 1_000_003] {
        let [first, second] = [run(seed), run(seed)].map(|run| run.map(|verdict| (verdict.hash, verdict.steps)));
        assert_eq!(first, second, "seed {seed}");
    }
    let [one, other] = [run(6), run(7)].map(|run| run.map(|verdict| verdict.hash).ok());
    assert_ne!(one, other, "two seeds are two worlds");
}

/// What shrinking takes away is gone, whatever the seed had drawn.
#[test]
fn what_a_seed_goes_without_is_not_in_its_world() {
    let all: Vec<&str> = options::SIMPLER.iter().map(|(name, _)| *name).collect();
    let options = World::new(3, &all, false).options;
    assert_eq!((options.weights.sum(), options.fault_every_ns, options.clients), (0, 0, 1), "{options:?}");
    assert_eq!((&options.cores[..], options.remote, options.hours), (&[1][..], false, 0), "{options:?}");
    assert!(run_without(3, &all).is_ok_and(
        |verdict| verdict.fault_loaded_ns + verdict.fault_rest_ns == 0 && !verdict.covered.contains_key("shed")
    ));
}
