//! Power cuts of a disk that forgets what was not synced, under the real binary, mostly in the middle of a write: what was acknowledged is
//! counted once.
//!
//! `POWER_CUTS=200 cargo test --test crash power`: as many as one likes.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tollgate::wal::segments::{LogDir, list_logs};

use crate::campaign::{check_counts, load, wait_for_export};
use crate::client::{Client, Random, Shape, sums};
use crate::document::timed_document;
use crate::forgetful::{Disk, Dropped, Left};
use crate::rng::Rng;
use crate::server::{Server, audited, wait_until};

const CUTS: u64 = 12;
/// Ids are remembered for longer than a client takes to send one again.
const FLAGS: [&str; 4] = ["--export-interval", "100ms", "--dedup-window-min", "1s"];

/// Segments that have gone from the logs, of which there are so many.
fn freed(data_dir: &Path, logs: usize) -> u64 {
    let found = list_logs(data_dir).expect("readable");
    assert_eq!(found.len(), logs);
    let oldest = |log: &LogDir| log.segments().expect("readable").first().expect("a log keeps its last").segment;
    found.iter().map(|log| oldest(log) - 1).sum()
}

#[test]
fn what_was_acknowledged_outlives_a_power_cut_of_a_disk_that_forgets_what_was_not_synced() {
    power_cuts(&["1"], "12MiB");
}

/// The cores of each start are drawn anew: logs are made, become idle and are cleared away, while the disk forgets.
#[test]
fn and_while_the_cores_change() {
    power_cuts(&["1", "2"], "24MiB");
}

/// The log's room is used up within the first lives, and from then on its oldest segments go.
fn power_cuts(cores: &[&str], room: &str) {
    let flags = |cores| [&FLAGS[..], &["--cores", cores, "--wal-bytes-max", room]].concat();
    let folder = tempfile::tempdir().expect("a folder");
    let (plain, mounted) = (folder.path().join("plain"), folder.path().join("mounted"));
    [&plain, &mounted].into_iter().for_each(|path| std::fs::create_dir(path).expect("ours"));
    let cuts = std::env::var("POWER_CUTS").map_or(CUTS, |text| text.parse().expect("a number of power cuts"));
    let (mut random, mut rng, began) = (Random::new(31), Rng::new(31), Instant::now());
    let shapes = [Shape::Single, Shape::Pipelined(8), Shape::Lines(20)];
    let mut clients: Vec<Client> = (1..).zip(shapes).map(|(number, shape)| Client::new(number, shape, 31)).collect();
    // Once the log has given way, one that was acknowledged long ago is refused as too old. All send until the power is gone.
    clients.iter_mut().for_each(|client| (client.late, client.to_the_end) = (true, true));
    let (mut dropped, in_flight) = (Dropped::default(), AtomicU64::new(0));
    for cut in 0..cuts {
        let disk = Disk::of(&plain);
        let data = mounted.join("data");
        let mount = disk.mount(&mounted);
        let server = Server::start(&data, &flags(rng.pick(cores)));
        let end = |server: Server| {
            // A start that finds the log full sheds what comes, and has nothing to write until segments have gone.
            if cut % 3 != 0 {
                wait_until("clicks are taken", || server.scrape().sum("tollgate_ready") > 0);
            }
            in_flight.fetch_add(u64::from(disk.cut()), Ordering::Relaxed);
            server.signal(Signal::KILL);
            disk.let_go();
            server.kill();
        };
        load(server, &mut clients, Duration::from_millis(100 + random.below(500)), end);
        drop(mount);
        assert!(disk.syncs() > 10, "cut {cut}: {} syncs reached the disk", disk.syncs());
        std::fs::remove_dir_all(&plain).expect("ours");
        let left = if cut % 2 == 0 { Left::Nothing } else { Left::Some };
        let Dropped { bytes, names } = disk.after_a_power_cut(left, &mut rng, &plain);
        dropped = Dropped { bytes: dropped.bytes + bytes, names: dropped.names + names };
    }
    let data = plain.join("data");
    let server = Server::start(&data, &flags(cores[cores.len() - 1]));
    clients.iter_mut().for_each(|client| client.settle(server.clicks));
    wait_for_export(&server);
    let counted = check_counts(&server, &sums(&clients));
    assert!(counted > 50 * cuts, "{counted} clicks are too few to prove anything");
    server.stop();
    audited(&data);
    let (freed, forgotten) = (freed(&data, cores.len()), clients.iter().map(|client| client.forgotten).sum::<u64>());
    assert!(freed > 0, "nothing was deleted");
    // More than what the process says, which nobody syncs.
    assert!(dropped.bytes > 1_000 * cuts, "the disk has forgotten only {dropped:?} in {cuts} power cuts");
    let in_flight = in_flight.into_inner();
    assert!(in_flight * 2 > cuts, "only {in_flight} of {cuts} power cuts met a write or a sync");
    assert!(forgotten * 10 <= counted, "{forgotten} clicks were refused that were sent again, {counted} counted");
    let Dropped { bytes, names } = dropped;
    let counts = format!(
        "\"power_cuts\":{cuts},\"in_a_write\":{in_flight},\"clicks\":{counted},\"forgotten\":{forgotten},\"segments_freed\":{freed},\"dropped_bytes\":{bytes},\"dropped_names\":{names}"
    );
    println!("{}", timed_document(&format!("power cuts, {} cores", cores.join(" or ")), &counts, began));
}
