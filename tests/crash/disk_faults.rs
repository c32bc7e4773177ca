//! Faults of the disk in the directory of a real server that was killed: what a start's reading makes of each; and what the process does, for
//! one of each outcome in a directory: it ends with that exit code and has taken nothing, or every click that can still be read is counted once.
//!
//! `DISK_FAULTS=1000 cargo test --test crash disk_faults -- --nocapture`: so many of each kind, [`A_DIRECTORY`] in each directory, and the
//! process is started on every one. The kinds, and what each may cost, are those that the simulator tries (`tests/sim/damage.rs`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tollgate::commands::exported::exported_positions_or_why;
use tollgate::cut::Position;
use tollgate::wal::segments::{LogDir, list_logs};

use crate::client::{Connection, send_number, send_number_of};
use crate::document::document;
use crate::faults::{Fate, Faults, Kind, Outcomes};
use crate::found::read;
use crate::rng::Rng;
use crate::server::{EXPORTS, PATIENCE, Server, copy, wait_until};

/// Of each kind.
const FAULTS: u64 = 20;
/// Of them, in one directory: the last write of a log is but one.
const A_DIRECTORY: u64 = 10;
/// In turn, so that a click that is lost beside one that counts twice shows.
const ADS: u64 = 8;
/// No cut within the test.
const EXPORTS_NOTHING: [&str; 2] = ["--export-interval", "1m"];

/// A directory whose server was killed again and again, the clicks of its last life not exported.
struct Killed {
    data_dir: PathBuf,
    log: LogDir,
    clicks: u64,
    known: Option<Position>,
}

/// Lives and clicks follow from the seed.
fn killed_again_and_again(folder: &Path, seed: u64, faults: &mut Faults) -> Killed {
    let mut rng = Rng::new(seed);
    let data_dir = folder.join("data");
    let (lives, mut clicks) = (rng.between(4, 7), 0);
    for life in 0..lives {
        let exports = life + 1 < lives;
        let server = Server::start(&data_dir, if exports { &EXPORTS } else { &EXPORTS_NOTHING });
        let more = rng.between(5, 40);
        send(&server, clicks, clicks + more);
        clicks += more;
        if exports {
            server.wait_for_gross(clicks);
        }
        server.kill();
        // Set back, it lacks what was not exported, or more.
        if life + 1 < lives && (life == 1 || rng.percent(50)) {
            faults.remember(&log_of(&data_dir));
        }
    }
    let log = log_of(&data_dir);
    let known = exported(&data_dir).into_iter().find(|position| position.log_id == log.log_id);
    Killed { data_dir, log, clicks, known }
}

fn ad(number: u64) -> String {
    format!("ad_{}", number % ADS)
}

/// Clicks of these numbers, a frame each.
fn send(server: &Server, from: u64, to: u64) {
    let mut connection = Connection::open(server.clicks).expect("it listens");
    for number in from..to {
        assert_eq!(send_number_of(&ad(number), &mut connection, number), (1, 0, 0), "click {number}");
    }
}

fn exported(data_dir: &Path) -> Vec<Position> {
    exported_positions_or_why(data_dir).expect("a store")
}

fn log_of(data_dir: &Path) -> LogDir {
    let mut logs = list_logs(data_dir).expect("readable");
    assert_eq!(logs.len(), 1, "one core, one log");
    logs.remove(0)
}

/// The process, started on a copy with the fault in it.
fn starts_as_told(killed: &Killed, folder: &Path, kind: Kind, fate: &Fate) {
    let damaged = folder.join("damaged");
    copy(&killed.data_dir, &damaged);
    match fate {
        Fate::Halted(code) => {
            let mut server = Server::spawn(&damaged, &EXPORTS);
            assert!(!server.has_been_ready(), "{kind:?}: it took clicks");
            let ended = server.ended_within(PATIENCE);
            assert_eq!(ended.code, Some(*code), "{kind:?}: {}", ended.errors);
            assert_eq!(exported(&damaged), exported(&killed.data_dir), "{kind:?}: it exported something");
        }
        Fate::Survived { .. } => counts(&damaged, killed.clicks),
        Fate::Shorter { clicks } => counts(&damaged, *clicks),
    }
    std::fs::remove_dir_all(&damaged).expect("ours");
    std::fs::remove_file(damaged.with_extension("stderr")).expect("ours");
}

/// The first so many clicks, each with its ad, and then one more.
fn counts(data_dir: &Path, clicks: u64) {
    let server = Server::start(data_dir, &EXPORTS);
    server.wait_for_gross(clicks);
    let mut connection = Connection::open(server.clicks).expect("it listens");
    assert_eq!(send_number(&mut connection, 1_000_000), (1, 0, 0));
    wait_until("one more", || server.gross(None) == clicks + 1);
    for first in 0..ADS {
        let of_ad = (first..clicks).step_by(ADS as usize).count() as u64;
        assert_eq!(server.gross(Some(&ad(first))), of_ad, "{} of {clicks} clicks", ad(first));
    }
    server.kill();
}

/// Each kind in one directory, and how often the real process was started: on `every` fault, or on one of each outcome.
fn in_one_directory(seed: u64, every: bool) -> (Faults, u64) {
    let (folder, mut faults) = (tempfile::tempdir().expect("a folder"), Faults::new(seed));
    let killed = killed_again_and_again(folder.path(), seed, &mut faults);
    let (log, known) = (&killed.log, killed.known.as_ref());
    let frames = read(log, known).expect("as it was left").0;
    assert_eq!(frames.iter().map(|frame| frame.clicks).sum::<u64>(), killed.clicks, "kills lose nothing");
    let mut starts = 0;
    for kind in Kind::ALL {
        let (mut tried, mut seen) = (0, Vec::new());
        // Some draws find nothing to damage.
        for _ in 0..20 * A_DIRECTORY {
            tried += u64::from(faults.one(kind, log, known, &mut |fate| {
                let fate_kind = std::mem::discriminant(fate);
                if every || !seen.contains(&fate_kind) {
                    seen.push(fate_kind);
                    starts += 1;
                    starts_as_told(&killed, folder.path(), kind, fate);
                }
                false
            }));
            if tried == A_DIRECTORY {
                break;
            }
        }
        assert_eq!(tried, A_DIRECTORY, "{kind:?}");
    }
    assert_eq!(read(log, known).expect("as it was left").0, frames, "every fault was undone");
    (faults, starts)
}

#[test]
fn faults_of_the_disk_lose_nothing_or_halt_or_take_back_the_end_alone() {
    let of_each = std::env::var("DISK_FAULTS").map(|text| text.parse().expect("a whole number"));
    let directories = of_each.clone().unwrap_or(FAULTS).div_ceil(A_DIRECTORY);
    let (next, began) = (AtomicU64::new(1), std::time::Instant::now());
    let (mut outcomes, mut starts) = (BTreeMap::<Kind, Outcomes>::new(), 0);
    std::thread::scope(|scope| {
        let some = || {
            let seeds = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)));
            seeds.take_while(|seed| *seed <= directories).map(|seed| in_one_directory(seed, of_each.is_ok())).collect()
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(some)).collect();
        for thread in threads {
            let done: Vec<(Faults, u64)> = thread.join().expect("each ends as it should");
            for (faults, started) in done {
                starts += started;
                faults.outcomes.iter().for_each(|(kind, of_one)| outcomes.entry(*kind).or_default().add(of_one));
            }
        }
    });
    let each = outcomes.iter().map(|(kind, outcomes)| format!("\"{kind:?}\":{}", outcomes.json()));
    let counts = format!("\"starts\":{starts},\"faults\":{{{}}}", each.collect::<Vec<_>>().join(","));
    println!("{}", document("disk faults", [1, directories], &counts, began, true));
}
