//! Faults of the disk in the directory of a real server that was killed: what a start's reading makes of each; and for some of each kind
//! what the process does: it ends with that exit code and has taken nothing, or every click that can still be read is counted once.
//!
//! `DISK_FAULTS=1000 cargo test --test crash disk_faults -- --nocapture`: so many of each kind. The kinds, and what each may cost, are those
//! that the simulator tries (`tests/sim/damage.rs`).

use std::path::Path;

use tollgate::commands::exported::exported_positions_or_why;
use tollgate::wal::segments::{LogDir, list_logs};

use crate::client::{Connection, send_number, send_one_by_one};
use crate::document::document;
use crate::faults::{Fate, Faults, Kind};
use crate::found::read;
use crate::server::{EXPORTS, PATIENCE, Server, copy, wait_until};

/// Of each kind: faults, and starts of the real process.
const FAULTS: u64 = 20;
const STARTS: u64 = 2;
/// Lives of the server, and clicks in each.
const LIVES: u64 = 6;
const CLICKS: u64 = 40;
/// No cut within the test.
const EXPORTS_NOTHING: [&str; 2] = ["--export-interval", "1m"];

/// A log of several segments, all but the last life's clicks exported.
fn killed_again_and_again(data_dir: &Path, faults: &mut Faults) -> LogDir {
    for life in 0..LIVES {
        let exports = life + 1 < LIVES;
        let server = Server::start(data_dir, if exports { &EXPORTS } else { &EXPORTS_NOTHING });
        send_one_by_one(server.clicks, life * CLICKS, (life + 1) * CLICKS);
        if exports {
            server.wait_for_gross((life + 1) * CLICKS);
        }
        server.kill();
        // Set back, it lacks what is not exported, or more.
        if life == LIVES - 2 {
            faults.remember(&log_of(data_dir));
        }
    }
    log_of(data_dir)
}

fn log_of(data_dir: &Path) -> LogDir {
    let mut logs = list_logs(data_dir).expect("readable");
    assert_eq!(logs.len(), 1, "one core, one log");
    logs.remove(0)
}

/// The process, started on a copy with the fault in it.
fn starts_as_told(data_dir: &Path, folder: &Path, kind: Kind, fate: &Fate) {
    let damaged = folder.join("damaged");
    copy(data_dir, &damaged);
    match fate {
        Fate::Halted(code) => {
            let ended = Server::spawn(&damaged, &EXPORTS).ended_within(PATIENCE);
            assert_eq!(ended.code, Some(*code), "{kind:?}: {}", ended.errors);
        }
        Fate::Survived => counts(&damaged, LIVES * CLICKS),
        Fate::Shorter { clicks } => counts(&damaged, *clicks),
    }
    std::fs::remove_dir_all(&damaged).expect("ours");
    std::fs::remove_file(damaged.with_extension("stderr")).expect("ours");
}

/// So many clicks, and then one more.
fn counts(data_dir: &Path, clicks: u64) {
    let server = Server::start(data_dir, &EXPORTS);
    server.wait_for_gross(clicks);
    let mut connection = Connection::open(server.clicks).expect("it listens");
    assert_eq!(send_number(&mut connection, 1_000_000), (1, 0, 0));
    wait_until("one more", || server.gross(None) == clicks + 1);
    server.kill();
}

#[test]
fn faults_of_the_disk_lose_nothing_or_halt_or_take_back_the_end_alone() {
    let of_each = std::env::var("DISK_FAULTS").map_or(FAULTS, |text| text.parse().expect("a whole number"));
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let mut faults = Faults::new(1);
    let log = killed_again_and_again(&data_dir, &mut faults);
    let known = exported_positions_or_why(&data_dir).expect("a store");
    let known = known.iter().find(|position| position.log_id == log.log_id);
    let (frames, _) = read(&log, known).expect("as it was left");
    assert_eq!(frames.iter().map(|frame| frame.clicks).sum::<u64>(), LIVES * CLICKS, "nothing is lost by kills");
    let began = std::time::Instant::now();
    for kind in Kind::ALL {
        let (mut tried, mut started) = (0, 0);
        // Some draws find nothing to damage.
        for _ in 0..20 * of_each {
            tried += u64::from(faults.one(kind, &log, known, &mut |fate| {
                if started < STARTS {
                    started += 1;
                    starts_as_told(&data_dir, folder.path(), kind, fate);
                }
            }));
            if tried == of_each {
                break;
            }
        }
        assert_eq!(tried, of_each, "{kind:?}");
    }
    let each = faults.outcomes.iter().map(|(kind, outcomes)| format!("\"{kind:?}\":{}", outcomes.json()));
    let counts = format!("\"faults\":{{{}}}", each.collect::<Vec<_>>().join(","));
    println!("{}", document("disk faults", [1, 1], &counts, began, true));
    assert_eq!(read(&log, known).expect("as it was left").0, frames, "every fault was undone");
}
