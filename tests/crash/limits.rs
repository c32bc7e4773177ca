//! What is promised of limits: the sum of memory holds, the log yields before clicks are shed, and where it has
//! yielded a lost store has a way out.

use crate::client::{Client, Connection, request, send_one_by_one, while_sending};
use crate::server::{EXPORTS, Server, audited, halts, tollgate, wait_until};

/// Sends from so many clients until it is so.
fn load_until(server: &Server, clients: &mut [Client], what: &str, is: impl FnMut() -> bool) {
    while_sending(clients, server.clicks, || wait_until(what, is), |()| ());
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
    let accepted = || server.scrape().sum("tollgate_clicks_accepted_total");
    load_until(&server, &mut clients, "two million clicks are accepted", || accepted() >= 2_000_000);
    // Taken at start or passed through by every click; and of the six tables what two take. All else that is in the sum, four
    // clients and 16 ads hardly use. 50 bytes of each click kept would be too much.
    let used = ["dedup table", "indexes of partials", "frame buffers", "receive buffers", "connections", "process"];
    let bound = used.map(line).iter().sum::<u64>() + line("tables of partials") / 3;
    let (peak, sum) = (server.peak_memory_bytes(), report["memory_bytes"].as_u64().expect("bytes"));
    println!("peak {peak}, of these lines {bound}, sum {sum}");
    assert!(line("dedup table") < peak && peak < bound && bound < sum);
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
    load_until(&server, &mut clients, "three segments are freed early", || freed() >= 3);
    assert_eq!(clients[0].shed, 0);
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
