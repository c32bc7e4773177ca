//! The process or the power ends at every call of the real binary that changes something on its disk: from the making of its directory over
//! its identity, its store's commits and its logs to what a recovery deletes. What was acknowledged is counted once, and taken no second time.
//!
//! `DISK_CALLS=all cargo test --test crash every_call`: at all of them; a normal run tries some of each kind. What another sink, another
//! command or the global tier does with a disk is not here.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::campaign::{check_counts, wait_for_export};
use crate::client::{Client, Shape, sums};
use crate::document::timed_document;
use crate::forgetful::{Cut, Disk, Effect, Left};
use crate::rng::Rng;
use crate::server::{PATIENCE, Server, audited, wait_until};

const EXCHANGES: u32 = 8;
/// Between two of them, so that several exports come in between.
const PAUSE: Duration = Duration::from_millis(40);
const CLICKS: usize = 12;
const FLAGS: [&str; 4] = ["--export-interval", "100ms", "--dedup-window-min", "2s"];

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
        calls: &["unlink a segment", "unlink a first segment"],
    },
];
/// Runs with two cores, killed, each of which begins a segment in both logs: more than the last stage has room for.
const KILLS_BEFORE_THE_LAST: usize = 7;

/// How it is ended at a call, and what is left of what was not synced.
const WAYS: [(Effect, Left); 4] = [
    (Effect::None, Left::All),
    (Effect::Begun, Left::Some),
    (Effect::Untold, Left::Nothing),
    (Effect::Untold, Left::Some),
];
/// Runs until a call is met: how many there are of a kind differs a little between two. The later ones go on for longer.
const TRIES: usize = 6;
const TRIES_AS_LONG: usize = 2;
const LONGER: u32 = 3;

/// Where a stage begins: a disk on which not all is synced, since a process that ends takes nothing along.
struct Base {
    disk: Disk,
    client: Client,
}

struct Run {
    disk: Disk,
    client: Client,
    was_cut: bool,
}

impl Stage {
    /// `cut`: the call at which it is ended, and how many exchanges it may take to get there.
    fn run(&self, base: &Base, cut: Option<(Cut, u32)>) -> Run {
        let (mounted, disk) = (tempfile::tempdir().expect("a folder"), base.disk.fork());
        let ends_early = cut.is_some();
        let mut exchanges = EXCHANGES;
        if let Some((cut, most)) = cut {
            disk.cut_at(cut);
            exchanges = most;
        }
        let mount = disk.mount(mounted.path());
        let flags = [&FLAGS, self.flags].concat();
        let errors = tempfile::NamedTempFile::new().expect("a file");
        let mut server = Server::spawn_telling(&mounted.path().join("data"), &flags, errors.path().to_owned());
        let (pid, mut client, over) = (server.pid(), base.client.clone(), AtomicBool::new(false));
        let was_cut = std::thread::scope(|scope| {
            let over = Over(&over);
            let power = scope.spawn(|| {
                while !disk.is_cut_within(Duration::from_millis(10)) {
                    if over.0.load(Ordering::SeqCst) {
                        // A check failed, or it has ended.
                        disk.let_go();
                        return false;
                    }
                }
                // It waits for an answer, and so has not ended; one that was killed anyway may have.
                let _ = kill_process(pid, Signal::KILL);
                disk.let_go();
                true
            });
            let is_ready = server.ready_or_gone();
            let mut sent = Ok(());
            if is_ready {
                sent = client.try_exchanges(server.clicks, exchanges);
                server.signal(if self.stops { Signal::TERM } else { Signal::KILL });
            }
            let ended = server.ended_within(PATIENCE);
            over.0.store(true, Ordering::SeqCst);
            let was_cut = power.join().expect("it only waits");
            let as_told = is_ready && sent.is_ok() && ended.code == self.stops.then_some(0);
            assert!(was_cut || as_told, "{}: {sent:?}, {ended:?}", self.name);
            was_cut
        });
        assert!(ends_early || !was_cut);
        // Whoever clears the mount point away would clear it, too.
        disk.let_go();
        drop(mount);
        Run { disk, client, was_cut }
    }
}

/// Whoever waits for its end would wait for ever if a check failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Base {
    /// Where a run of that stage leaves off.
    fn after(&self, stage: &Stage) -> Base {
        let Run { disk, client, .. } = stage.run(self, None);
        Base { disk, client }
    }
}

/// It starts on what is left, takes no click a second time, and counts each once.
fn judged(Run { disk, mut client, .. }: Run, left: Left, rng: &mut Rng) {
    let folder = tempfile::tempdir().expect("a folder");
    disk.after_a_power_cut(left, rng, folder.path());
    let data = folder.path().join("data");
    let server = Server::start(&data, &[&FLAGS[..], &["--cores", "1", "--wal-bytes-max", "64MiB"]].concat());
    client.settle(server.clicks);
    let taken = |client: &Client| client.ads.values().map(|ad| ad.acknowledged).sum::<u64>();
    let before = taken(&client);
    wait_until("new clicks are taken", || {
        client.try_exchanges(server.clicks, 1).expect("it answers");
        taken(&client) > before
    });
    let (duplicates, shed) = (client.duplicates, client.shed);
    client.send_again(server.clicks).expect("it answers");
    assert!(client.duplicates > duplicates && client.shed == shed, "those that were just taken are remembered");
    let (acknowledged, ads) = (taken(&client), sums(&[client]));
    // What a log holds that has no core now is exported by and by, too.
    wait_until("all is exported", || server.gross(None) >= acknowledged);
    wait_for_export(&server);
    check_counts(&server, &ads);
    server.stop();
    audited(&data);
}

/// Calls, each with its kind's count before it, and the way in which to end there.
fn to_try(kinds: &BTreeMap<String, usize>, stage: usize, all: bool) -> Vec<(Cut, Left)> {
    let way = |call: &str, nth, way: usize| {
        let (effect, left) = WAYS[way % WAYS.len()];
        (Cut { call: call.to_owned(), nth, effect }, left)
    };
    let of_kind = |(at, (call, count)): (usize, (&String, &usize))| -> Vec<(Cut, Left)> {
        if all {
            let ways = |nth| (0..WAYS.len()).map(move |number| way(call, nth, number));
            return (0..*count).flat_map(ways).collect();
        }
        // The first, and one in the middle.
        let some = [way(call, 0, at + stage), way(call, count / 2, at + stage + 2)];
        some.into_iter().take(*count).collect()
    };
    kinds.iter().enumerate().flat_map(of_kind).collect()
}

/// Of a kind of call: how many there are, how often the stage was ended at one, and how often none was met.
#[derive(Clone, Copy, Default)]
struct Tried {
    calls: u64,
    ends: u64,
    missed: u64,
}

/// Ends a stage at its calls, on all CPUs if at all of them.
fn end_at_each_call(number: usize, stage: &Stage, base: &Base, all: bool) -> BTreeMap<String, Tried> {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    stage.run(base, None).disk.calls().into_iter().for_each(|call| *kinds.entry(call).or_default() += 1);
    let missing: Vec<_> = stage.calls.iter().filter(|call| !kinds.contains_key(**call)).collect();
    assert!(missing.is_empty(), "{} has none of {missing:?}: {kinds:?}", stage.name);
    let counts = kinds.iter().map(|(call, count)| (call.clone(), Tried { calls: *count as u64, ..Tried::default() }));
    let tried: Mutex<BTreeMap<String, Tried>> = Mutex::new(counts.collect());
    let (tries, next, failed) = (to_try(&kinds, number, all), AtomicUsize::new(0), AtomicBool::new(false));
    let try_some = || {
        let failing = Over(&failed);
        while !failed.load(Ordering::SeqCst) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some((cut, left)) = tries.get(number) else { break };
            println!("{}, {number}: {cut:?}, {left:?}", stage.name);
            let exchanges = |tried| if tried < TRIES_AS_LONG { EXCHANGES } else { LONGER * EXCHANGES };
            let run = |tried| stage.run(base, Some((cut.clone(), exchanges(tried))));
            let met = (0..TRIES).map(run).find(|run| run.was_cut);
            let mut tried = tried.lock().expect("no one panics with it");
            let of_kind = tried.get_mut(&cut.call).expect("one of them");
            *(if met.is_some() { &mut of_kind.ends } else { &mut of_kind.missed }) += 1;
            drop(tried);
            if let Some(run) = met {
                judged(run, *left, &mut Rng::new(number as u64));
            }
        }
        std::mem::forget(failing);
    };
    std::thread::scope(|scope| {
        let threads = if all { std::thread::available_parallelism().map_or(1, usize::from) } else { 1 };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(try_some)).collect();
        threads.into_iter().for_each(|thread| thread.join().expect("what was acknowledged is counted once"));
    });
    let tried = tried.into_inner().expect("no one panics with it");
    // One that another run may do without need not be met.
    let must = |call: &str, tried: &Tried| tried.calls > 1 || stage.calls.contains(&call);
    let never: Vec<_> =
        tried.iter().filter(|(call, tried)| tried.ends == 0 && must(call, tried)).map(|(call, _)| call).collect();
    assert!(never.is_empty(), "{} was never ended at {never:?}", stage.name);
    tried
}

#[test]
fn it_may_end_at_every_call_that_changes_the_disk() {
    let (folder, began) = (tempfile::tempdir().expect("a folder"), Instant::now());
    let all = std::env::var("DISK_CALLS").ok();
    assert!(all.as_deref().is_none_or(|text| text == "all"), "DISK_CALLS is `all`, or not set");
    let all = all.is_some();
    let mut client = Client::new(1, Shape::Lines(CLICKS), 47);
    // A log that is full gives up what was acknowledged long ago.
    (client.late, client.pause) = (true, PAUSE);
    let mut base = Base { disk: Disk::of(folder.path()), client };
    let mut kinds: BTreeMap<String, Tried> = BTreeMap::new();
    for (number, stage) in STAGES.iter().enumerate() {
        if number + 1 == STAGES.len() {
            (0..KILLS_BEFORE_THE_LAST).for_each(|_| base = base.after(&STAGES[1]));
        }
        for (call, Tried { calls, ends, missed }) in end_at_each_call(number, stage, &base, all) {
            let sum = kinds.entry(call).or_default();
            *sum = Tried { calls: sum.calls + calls, ends: sum.ends + ends, missed: sum.missed + missed };
        }
        base = base.after(stage);
    }
    let sum = |of: fn(&Tried) -> u64| kinds.values().map(of).sum::<u64>();
    let (calls, ends, missed) = (sum(|kind| kind.calls), sum(|kind| kind.ends), sum(|kind| kind.missed));
    assert!(missed * 50 <= ends, "{missed} calls were never met in {TRIES} runs, {ends} were");
    let each =
        kinds.iter().map(|(call, Tried { calls, ends, missed })| format!("\"{call}\":[{calls},{ends},{missed}]"));
    let each = each.collect::<Vec<_>>().join(",");
    let counts = format!("\"calls\":{calls},\"ends\":{ends},\"missed\":{missed},\"kinds\":{{{each}}}");
    println!("{}", timed_document(if all { "disk calls" } else { "some disk calls" }, &counts, began));
}
