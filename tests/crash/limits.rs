//! What is promised of limits: the sum of memory holds, the log yields before clicks are shed, and where it has
//! yielded a lost store has a way out.

use std::time::{Duration, Instant};

use crate::client::{Client, Connection, request, send_one_by_one, while_sending};
use crate::server::{EXPORTS, PATIENCE, Server, audited, halts, tollgate};

/// Sends from so many clients until it is told to stop or patience ends.
fn load_until(server: &Server, clients: &mut [Client], mut done: impl FnMut() -> bool) {
    let wait = || {
        let deadline = Instant::now() + PATIENCE;
        while !done() && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(50));
        }
    };
    while_sending(clients, server.clicks, wait, |()| ());
}

fn peak_bytes(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
}

#[test]
fn a_server_under_load_stays_within_the_sum_of_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let flags = ["--dedup-memory-bytes", "64MiB", "--segment-bytes", "8MiB", "--recv-buffers", "64"];
    let (code, report) = tollgate(&data_dir, &[&["check", "--for", "up", "--json"], &flags[..]].concat());
    let report: serde_json::Value = serde_json::from_str(&report).unwrap_or_else(|_| panic!("{code:?}: {report}"));
    let line = |name: &str| {
        let lines = report["memory"].as_array().expect("lines");
        lines.iter().find(|line| line["name"] == name).expect(name)["bytes"].as_u64().expect("bytes")
    };
    let server = Server::start(&data_dir, &flags);
    let mut clients: Vec<_> = (1..5).map(|number| Client::of_fresh_ids(number, 1_000, 0)).collect();
    let until = Instant::now() + Duration::from_secs(3);
    load_until(&server, &mut clients, || Instant::now() > until);
    let (peak, sum) = (peak_bytes(&server), report["memory_bytes"].as_u64().expect("bytes"));
    // What no load of four clients reaches.
    let reached = sum - line("replies not yet taken") - line("requests not yet whole");
    println!("peak {peak}, sum {sum}, of which within reach {reached}");
    assert!(line("dedup table") < peak && peak < reached);
}

#[test]
fn a_log_at_its_mark_gives_way_before_clicks_are_shed_and_a_lost_store_has_a_way_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data_dir, anew) = (folder.path().join("data"), folder.path().join("anew"));
    let limits = ["--wal-bytes-max", "8MiB", "--retention", "1h", "--dedup-window-min", "1s"];
    let flags = [&limits[..], &EXPORTS].concat();
    let server = Server::start(&data_dir, &flags);
    let mut clients = [Client::of_fresh_ids(1, 40, 8)];
    let freed = || server.scrape().sum("tollgate_log_segments_freed_early_total");
    load_until(&server, &mut clients, || freed() >= 3);
    assert!(freed() >= 3 && clients[0].shed == 0, "{} freed, {} shed", freed(), clients[0].shed);
    assert!(server.scrape().sum("tollgate_log_disk_bytes") <= 8 << 20);
    let (head, body) = crate::server::answer(server.admin, "/readyz");
    assert!(head.contains("200") && body.contains("--wal-bytes-max"), "{body}");
    let acknowledged = clients[0].ads.values().map(|ad| ad.acknowledged).sum();
    server.wait_for_gross(acknowledged);
    server.stop();
    audited(&data_dir);

    // The store held what the freed segments counted.
    std::fs::remove_file(data_dir.join("store.redb")).expect("removed");
    halts(&data_dir, 74, &["oldest segment begins after", "start with an empty --data-dir", "`tollgate wal export`"]);
    let (code, text) = tollgate(&data_dir, &["wal", "export"]);
    assert!(code == Some(0) && text.lines().count() > 1_000, "{code:?}");
    let server = Server::start(&anew, &EXPORTS);
    send_one_by_one(server.clicks, 0, 3);
    server.wait_for_gross(3);
}

#[test]
fn a_body_that_cannot_be_read_is_answered_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(&folder.path().join("data"), &EXPORTS);
    let mut connection = Connection::open(server.clicks).expect("it listens");
    for (body, why) in [("nonsense", "neither a JSON object"), ("[{}", "not closed"), ("[] 1", "something else")] {
        connection.send(request("application/json", body).as_bytes()).expect("it reads");
        let reply = connection.reply().expect("it answers").expect("it answers");
        let text = String::from_utf8_lossy(&reply.body);
        assert!(reply.status == 400 && text.contains(why), "{body}: {text}");
    }
}
