//! Drives. Every point at which a process may be stopped: each operation on the disk and each call of the sink of one scripted world in
//! which nothing else goes wrong, before it, in the middle of it, and after it. Where the sink is in Kafka, the global tier reads it, and may
//! be stopped, too: after its store is opened, after it has read, has committed, and has kept its store up.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tollgate::event::LogWrite;
use tollgate::wal::segments::LogDir;
use tollgate_wire::Checkpoint;

use crate::disk::SECTOR_BYTES;
use crate::document::document;
use crate::options::Options;
use crate::rng::Rng;
use crate::world::World;
use crate::{is_traced, judged};

/// The scripted world of each kind of sink.
const SEED: u64 = 20_241_129;
/// Points of each kind in a normal run.
const SLICE: usize = 2;

/// Points that a world passed, and the one at which it is stopped.
#[derive(Default)]
pub struct Points {
    /// What each of them was.
    passed: Vec<&'static str>,
    stop_at: Option<usize>,
    stopped: bool,
}

/// The same world each time, stopped at one point of it, or at none.
fn scripted(remote: bool, stop_at: Option<usize>, print: bool) -> World {
    let mut world = World::of(SEED, Rng::new(SEED), Options::quiet(remote), print);
    world.points = Some(Points { stop_at, ..Points::default() });
    world
}

impl World {
    /// Whether the process is stopped at this point; whoever asks ends it.
    pub fn stops_at(&mut self, kind: &'static str) -> bool {
        let Some(points) = &mut self.points else { return false };
        let here = points.stop_at == Some(points.passed.len());
        points.passed.push(kind);
        points.stopped |= here;
        if here {
            self.note(kind, &[]);
        }
        here
    }

    /// A write of the log: not there, torn in the middle or at its end, or there and untold.
    pub fn stopped_in_write(&mut self, log: &LogDir, write: &LogWrite, bytes: &[u8]) -> bool {
        let sectors = bytes.len() / SECTOR_BYTES;
        let keep = |kept: &dyn Fn(usize) -> bool| (0..sectors).map(kept).collect::<Vec<bool>>();
        let states = [
            ("before a write", keep(&|_| false)),
            ("in a write, the first half is there", keep(&|sector| sector < sectors / 2)),
            ("in a write, one sector is missing", keep(&|sector| sector != sectors / 2)),
            ("after a write, untold", keep(&|_| true)),
        ];
        for (kind, kept) in states {
            if self.stops_at(kind) {
                self.disk.write_some(log, write, bytes, &kept);
                return true;
            }
        }
        false
    }

    /// A segment that is made: no file, an empty one, a part of it, all of it and untold.
    pub fn stopped_in_preparation(&mut self, log: &LogDir, segment: u64, bytes: u64) -> bool {
        let half = (bytes / 2).next_multiple_of(4096);
        let states = [
            ("before a segment is made", None),
            ("a segment's file is empty", Some(0)),
            ("a segment's file is in part", Some(half)),
            ("after a segment is made, untold", Some(bytes)),
        ];
        for (kind, made) in states {
            if self.stops_at(kind) {
                if let Some(bytes) = made {
                    self.disk.prepare_to(log, segment, bytes);
                }
                return true;
            }
        }
        false
    }

    /// What was exported is remembered: not at all, aside in part, aside, in its place and untold.
    pub fn stopped_in_remembering(&mut self, checkpoint: &Checkpoint) -> bool {
        if self.stops_at("before what was exported is written aside") {
            return true;
        }
        for (kind, part) in
            [("what was exported is aside, in part", 512), ("what was exported is aside, and has not its place", 1024)]
        {
            if self.stops_at(kind) {
                self.disk.remember_aside(checkpoint, part);
                return true;
            }
        }
        let after = self.stops_at("what was exported is remembered, untold");
        if after {
            self.disk.remember(checkpoint);
        }
        after
    }
}

/// The numbers of the points to stop at: all, one of one of the sinks, or some of each kind, spread over the world.
fn to_try(remote: bool, passed: &[&'static str]) -> Vec<usize> {
    match std::env::var("SIM_POINTS").as_deref() {
        Ok("all") => (0..passed.len()).collect(),
        Ok(point) => {
            let (sink, number) = point.split_once('/').expect("`all`, or `embedded/17`, or `remote/17`");
            let number = number.parse().expect("the number of a point");
            if sink == of_sink(remote) { vec![number] } else { Vec::new() }
        }
        Err(_) => {
            let mut kinds: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
            passed.iter().enumerate().for_each(|(at, kind)| kinds.entry(kind).or_default().push(at));
            let some = |of_kind: &Vec<usize>| {
                let (all, tried) = (of_kind.len(), SLICE.min(of_kind.len()));
                (0..tried).map(|at| of_kind[(2 * at + 1) * all / (2 * tried)]).collect::<Vec<_>>()
            };
            kinds.values().flat_map(some).collect()
        }
    }
}

fn of_sink(remote: bool) -> &'static str {
    if remote { "remote" } else { "embedded" }
}

/// Stops the world at each of these points, on all CPUs.
fn stop_at_each(remote: bool, points: &[usize]) {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.lock().unwrap().is_empty()
                    && let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    match judged(scripted(remote, Some(*point), is_traced())) {
                        Ok(verdict) => assert!(verdict.points.is_some_and(|points| points.stopped), "point {point}"),
                        Err(why) => failed.lock().unwrap().push((*point, why)),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    for (point, why) in &failed {
        let sink = of_sink(remote);
        println!(
            "point {point} FAILED: {why}\n  replay: SIM_POINTS={sink}/{point} SIM_TRACE=1 cargo test --test sim points -- --nocapture"
        );
    }
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn a_process_may_be_stopped_at_all_points() {
    for remote in [false, true] {
        println!("seed {SEED}, {} sink: {:?}", of_sink(remote), Options::quiet(remote));
        let base = judged(scripted(remote, None, false)).unwrap_or_else(|why| {
            println!("point 0 FAILED: {why}\n  {} sink, and stopped nowhere", of_sink(remote));
            panic!("{why}");
        });
        let (began, passed) = (Instant::now(), base.points.expect("they went in").passed);
        let points = to_try(remote, &passed);
        if points.is_empty() {
            continue;
        }
        stop_at_each(remote, &points);
        let mut kinds: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        passed.iter().for_each(|kind| kinds.entry(kind).or_default().0 += 1);
        points.iter().for_each(|point| kinds.entry(passed[*point]).or_default().1 += 1);
        let kinds: Vec<_> = kinds.iter().map(|(kind, (all, tried))| format!("\"{kind}\":[{all},{tried}]")).collect();
        let counts = format!("\"clicks\":{},\"tried\":{},\"kinds\":{{{}}}", base.clicks, points.len(), kinds.join(","));
        let mut missed: Vec<_> = MUST_COVER.iter().filter(|what| !base.covered.contains_key(**what)).collect();
        missed.extend((base.clicks < 2_000).then_some(&"2,000 clicks"));
        let what = if points.len() == passed.len() { "points" } else { "some points" };
        let name = format!("{what}, {} sink", of_sink(remote));
        println!(
            "{}",
            document(&name, [points[0] as u64, points[points.len() - 1] as u64], &counts, began, missed.is_empty())
        );
        assert!(missed.is_empty(), "the scripted world has none of {missed:?}");
    }
}

/// What the scripted world must have in it, or its points prove too little.
const MUST_COVER: &[&str] = &[
    "clean stop",
    "another number of cores",
    "a log becomes idle",
    "an idle log is gone on with",
    "segment freed",
    "segment of an idle log freed",
    "duplicate answered",
];
