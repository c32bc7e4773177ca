//! A log that no core writes to, left by a run with more cores, is cleared away up to its last segment; no other log's segment goes in
//! its place, and every count stays.

use std::collections::BTreeMap;
use std::path::Path;

use tollgate::wal::segments::{LogDir, list_logs};

use crate::campaign::check_counts;
use crate::client::{Client, send_one_by_one, sums, while_sending};
use crate::server::{EXPORTS, Server, audited, wait_until};

/// A single core's log gives way early: else a window would have to pass, which is a minute at least.
fn start(data_dir: &Path, cores: &str) -> Server {
    let room = if cores == "1" { "24MiB" } else { "1GiB" };
    let flags = ["--cores", cores, "--wal-bytes-max", room, "--segment-bytes", "4MiB", "--dedup-window-min", "1s"];
    Server::start(data_dir, &[&flags[..], &EXPORTS].concat())
}

/// How many segments each core's log has.
fn segments(data_dir: &Path) -> BTreeMap<u32, usize> {
    let logs = list_logs(data_dir).expect("readable");
    let segments = |log: &LogDir| std::fs::read_dir(&log.path).expect("readable").count();
    logs.iter().map(|log| (log.core, segments(log))).collect()
}

#[test]
fn a_log_that_no_core_writes_to_is_cleared_away_and_counts_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    // No repeats: what the log gives up early is too old from then on.
    let mut clients = [Client::of_fresh_ids(1, 16, 2), Client::of_fresh_ids(2, 40, 4)];
    // Each start begins a segment in each of the two.
    for _ in 0..3 {
        let server = start(&data_dir, "2");
        let accepted = || server.scrape().sum("tollgate_clicks_accepted_total") > 500;
        while_sending(&mut clients, server.clicks, || wait_until("clicks are accepted", accepted), |()| ());
        server.kill();
    }
    let before = segments(&data_dir);
    assert!(before.len() == 2 && before.values().all(|segments| *segments >= 3), "{before:?}");
    let server = start(&data_dir, "1");
    let cleared = || segments(&data_dir).iter().all(|(core, segments)| *core == 0 || *segments == 1);
    while_sending(&mut clients, server.clicks, || wait_until("the idle log is cleared away", cleared), |()| ());
    clients.iter_mut().for_each(|client| client.settle(server.clicks));
    let ads = sums(&clients);
    let acknowledged: u64 = ads.values().map(|ad| ad.acknowledged).sum();
    wait_until("all is exported", || server.gross(None) >= acknowledged);
    let counted = check_counts(&server, &ads);
    server.kill();
    // Each core goes on with its own.
    let server = start(&data_dir, "2");
    assert_eq!(check_counts(&server, &ads), counted);
    send_one_by_one(server.clicks, 0, 3);
    server.wait_for_gross(counted + 3);
    server.stop();
    audited(&data_dir);
}
