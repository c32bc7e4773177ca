//! The process or the power ends at every call of the real binary that changes something on its disk: from the making of its directory over
//! its identity, its store's commits and its logs to what a recovery deletes. What was acknowledged is counted once.
//!
//! `DISK_CALLS=all cargo test --test crash every_call`: at all of them; a normal run tries two of each kind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::campaign::{check_counts, wait_for_export};
use crate::client::{Client, Shape, sums};
use crate::document::timed_document;
use crate::forgetful::{Disk, Effect, Left};
use crate::rng::Rng;
use crate::server::{PATIENCE, Server, audited, wait_until};

const EXCHANGES: u32 = 8;
/// Between two of them, so that several exports come in between.
const PAUSE: Duration = Duration::from_millis(40);
const CLICKS: usize = 12;
const FLAGS: [&str; 4] = ["--export-interval", "100ms", "--dedup-window-min", "1s"];

/// One run of the process.
struct Stage {
    name: &'static str,
    flags: &'static [&'static str],
    /// Or it is killed.
    stops: bool,
    /// What must be among its calls, or they prove too little.
    calls: &'static [&'static str],
}

const STAGES: [Stage; 3] = [
    Stage {
        name: "a first start",
        flags: &["--cores", "1", "--wal-bytes-max", "64MiB"],
        stops: true,
        calls: &[
            "mkdir data",
            "mkdir logs",
            "mkdir a log",
            "rename to identity.toml",
            "rename to store.redb",
            "sync the folder above",
        ],
    },
    Stage {
        name: "with one core more",
        flags: &["--cores", "2", "--wal-bytes-max", "64MiB"],
        stops: false,
        // Those that were prepared and never begun.
        calls: &["mkdir a log", "unlink a segment"],
    },
    Stage {
        name: "with one core less, and the log full",
        flags: &["--cores", "1", "--wal-bytes-max", "12MiB"],
        stops: true,
        calls: &["unlink a segment"],
    },
];
/// Runs with two cores, killed, each of which begins a segment in both logs: more than the last stage has room for.
const KILLS_BEFORE_THE_LAST: usize = 5;

/// Where a stage begins.
struct Base {
    folder: PathBuf,
    client: Client,
}

/// How it is ended at a call, and what is left of what was not synced.
const WAYS: [(Effect, Left); 3] =
    [(Effect::None, Left::All), (Effect::Untold, Left::Nothing), (Effect::Untold, Left::Some)];

impl Base {
    /// Where a run of that stage leaves off.
    fn after(&self, stage: &Stage, folder: &Path) -> Base {
        let Run { disk, client, .. } = stage.run(self, None);
        disk.after_a_power_cut(Left::All, &mut Rng::new(1), folder);
        Base { folder: folder.to_owned(), client }
    }
}

struct Run {
    disk: Disk,
    client: Client,
    was_cut: bool,
}

impl Stage {
    fn run(&self, base: &Base, cut: Option<(usize, Effect)>) -> Run {
        let (mounted, disk) = (tempfile::tempdir().expect("a folder"), Disk::of(&base.folder));
        if let Some((call, effect)) = cut {
            disk.cut_at(call, effect);
        }
        let mount = disk.mount(mounted.path());
        let mut server = Server::spawn(&mounted.path().join("data"), &[&FLAGS, self.flags].concat());
        let (pid, mut client, over) = (server.pid(), base.client.clone(), AtomicBool::new(false));
        let was_cut = std::thread::scope(|scope| {
            let power = scope.spawn(|| {
                while !disk.is_cut_within(Duration::from_millis(10)) {
                    if over.load(Ordering::SeqCst) {
                        return false;
                    }
                }
                // It waits for an answer, and so has not ended; one that was killed anyway may have.
                let _ = kill_process(pid, Signal::KILL);
                disk.let_go();
                true
            });
            let is_ready = server.ready_or_gone();
            if is_ready {
                // That it breaks is what the power does.
                let _ = client.try_exchanges(server.clicks, EXCHANGES);
                server.signal(if self.stops { Signal::TERM } else { Signal::KILL });
            }
            let ended = server.ended_within(PATIENCE);
            over.store(true, Ordering::SeqCst);
            let was_cut = power.join().expect("it only waits");
            let ended_well = is_ready && (!self.stops || ended.code == Some(0));
            assert!(was_cut || ended_well, "{}: {ended:?}", self.name);
            was_cut
        });
        // Whoever clears the mount point away would clear it, too.
        disk.let_go();
        drop(mount);
        Run { disk, client, was_cut }
    }
}

/// It starts on what is left, and counts what it acknowledged.
fn judged(Run { disk, mut client, .. }: Run, left: Left, rng: &mut Rng) {
    let folder = tempfile::tempdir().expect("a folder");
    disk.after_a_power_cut(left, rng, folder.path());
    let data = folder.path().join("data");
    let server = Server::start(&data, &[&FLAGS[..], &["--cores", "1", "--wal-bytes-max", "64MiB"]].concat());
    client.settle(server.clicks);
    let ads = sums(&[client]);
    let acknowledged: u64 = ads.values().map(|ad| ad.acknowledged).sum();
    // What a log holds that has no core now is exported by and by, too.
    wait_until("all is exported", || server.gross(None) >= acknowledged);
    wait_for_export(&server);
    check_counts(&server, &ads);
    server.stop();
    audited(&data);
}

/// What a call is, whatever its file's number.
fn kind(call: &str) -> String {
    let (what, name) = call.split_once(' ').expect("a call and a name");
    let name = match name {
        "above" => "the folder above",
        _ if name.starts_with(".probe-") => "a probe",
        _ if name.ends_with(".partial") => "store.redb aside",
        _ if name.ends_with(".seg") => "a segment",
        _ if name.starts_with(|first: char| first.is_ascii_digit()) => "a log",
        name => name,
    };
    format!("{what} {name}")
}

/// The numbers of the calls to try, with the ways.
fn to_try(passed: &[String], stage: usize) -> Vec<(usize, usize)> {
    if let Ok(text) = std::env::var("DISK_CALLS") {
        assert_eq!(text, "all", "DISK_CALLS is `all`, or not set");
        return (0..passed.len()).flat_map(|call| (0..WAYS.len()).map(move |way| (call, way))).collect();
    }
    let mut kinds: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    passed.iter().enumerate().for_each(|(at, kind)| kinds.entry(kind).or_default().push(at));
    let some = |(nth, calls): (usize, &Vec<usize>)| {
        let middle = calls.len() / 2;
        let ways = [(calls[0], nth + stage), (calls[middle], nth + stage + 1)];
        ways.into_iter().take(calls.len()).map(|(call, way)| (call, way % WAYS.len())).collect::<Vec<_>>()
    };
    kinds.values().enumerate().flat_map(some).collect()
}

/// Ends a stage at each call, on all CPUs; how many of each kind there are, and at how many it was ended.
fn end_at_each_call(number: usize, stage: &Stage, base: &Base) -> BTreeMap<String, (u64, u64)> {
    let passed: Vec<String> = stage.run(base, None).disk.calls().iter().map(|call| kind(call)).collect();
    let missing: Vec<_> = stage.calls.iter().filter(|call| !passed.iter().any(|kind| kind == *call)).collect();
    assert!(missing.is_empty(), "{} has none of {missing:?}: {passed:?}", stage.name);
    let mut kinds: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    passed.iter().for_each(|kind| kinds.entry(kind.clone()).or_default().0 += 1);
    let (tries, next, tried) = (to_try(&passed, number), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let try_all = || {
        while let Some((call, way)) = tries.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (effect, left) = WAYS[*way];
            let run = stage.run(base, Some((*call, effect)));
            // Which call has that number differs a little between two runs, and how many there are.
            if run.was_cut {
                let kind = kind(&run.disk.calls()[*call]);
                println!("{}: call {call}, {kind}: {effect:?}, {left:?}", stage.name);
                judged(run, left, &mut Rng::new(*call as u64));
                tried.lock().expect("no one panics with it").push(kind);
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(try_all)).collect();
        threads.into_iter().for_each(|thread| thread.join().expect("what was acknowledged is counted once"));
    });
    let tried = tried.into_inner().expect("no one panics with it");
    assert!(tried.len() * 10 >= tries.len() * 9, "{}: {} of {} calls were met", stage.name, tried.len(), tries.len());
    tried.into_iter().for_each(|kind| kinds.entry(kind).or_default().1 += 1);
    kinds
}

#[test]
fn it_may_end_at_every_call_that_changes_the_disk() {
    let (folder, began) = (tempfile::tempdir().expect("a folder"), Instant::now());
    let mut client = Client::new(1, Shape::Lines(CLICKS), 47);
    // A log that is full gives up what was acknowledged long ago.
    (client.late, client.pause) = (true, PAUSE);
    let mut base = Base { folder: folder.path().join("empty"), client };
    std::fs::create_dir(&base.folder).expect("ours");
    let mut kinds: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (number, stage) in STAGES.iter().enumerate() {
        if number + 1 == STAGES.len() {
            (0..KILLS_BEFORE_THE_LAST)
                .for_each(|kill| base = base.after(&STAGES[1], &folder.path().join(format!("kill {kill}"))));
        }
        for (kind, (all, tried)) in end_at_each_call(number, stage, &base) {
            let sum = kinds.entry(kind).or_default();
            *sum = (sum.0 + all, sum.1 + tried);
        }
        base = base.after(stage, &folder.path().join(stage.name));
    }
    let all: u64 = kinds.values().map(|(all, _)| all).sum();
    let tried: u64 = kinds.values().map(|(_, tried)| tried).sum();
    let kinds: Vec<_> = kinds.iter().map(|(kind, (all, tried))| format!("\"{kind}\":[{all},{tried}]")).collect();
    let counts = format!("\"calls\":{all},\"ends\":{tried},\"kinds\":{{{}}}", kinds.join(","));
    println!("{}", timed_document("disk calls", &counts, began));
}
