//! Restarts with other settings, and of logs whose oldest segments were freed.

use std::time::Duration;

use crate::campaign::{check_counts, load, wait_for_export};
use crate::client::{Client, Connection, Shape, request, send_one_by_one, sums, while_sending};
use crate::server::{Server, answer, audited, now_ms, wait_until};

fn clients(seed: u64) -> Vec<Client> {
    let shapes = [Shape::Single, Shape::Pipelined(8), Shape::Lines(40)];
    (1..).zip(shapes).map(|(number, shape)| Client::new(seed * 10 + number, shape, seed)).collect()
}

#[test]
fn other_settings_over_the_same_directory_change_no_count() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let mut clients = clients(7);
    let settings: [&[&str]; 9] = [
        &[],
        &["--frame-bytes", "1MiB", "--segment-bytes", "8MiB"],
        &["--frame-bytes", "64KiB", "--segment-bytes", "1MiB"],
        &["--dedup-window", "2m"],
        &["--dedup-window", "6h"],
        &["--dedup-memory-bytes", "8MiB"],
        &["--dedup-memory-bytes", "64MiB", "--dedup-window", "1m"],
        &["--segment-bytes", "4MiB", "--recv-buffers", "16", "--recv-buffer-bytes", "1KiB"],
        &["--commit-spacing", "20ms", "--commit-delay-max", "0s"],
    ];
    for (round, flags) in settings.iter().enumerate() {
        let server = Server::start(&data_dir, &[flags, &["--export-interval", "100ms"][..]].concat());
        load(
            server,
            &mut clients,
            Duration::from_millis(150),
            if round % 3 == 2 { Server::stop } else { Server::kill },
        );
    }
    let server = Server::start(&data_dir, &["--export-interval", "100ms"]);
    clients.iter_mut().for_each(|client| client.settle(server.clicks));
    wait_for_export(&server);
    assert!(check_counts(&server, &sums(&clients)) > 1_000, "too little load to prove anything");
    server.stop();
    audited(&data_dir);
}

/// Its records fill every frame buffer several times over: it goes on as they are written.
#[test]
fn one_request_larger_than_all_frame_buffers_is_taken_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let flags = ["--frame-bytes", "16KiB", "--segment-bytes", "1MiB", "--export-interval", "100ms"];
    let server = Server::start(&data_dir, &flags);
    let mut connection = Connection::open(server.clicks).expect("it listens");
    let at = now_ms();
    let click = |number| format!("{{\"ad_id\":\"a\",\"timestamp\":{at},\"request_id\":\"click {number}\"}}\n");
    let body: String = (0..5_000).map(click).collect();
    assert!(body.len() > 2 * 6 * (16 << 10), "{} B", body.len());
    for expected in [(5_000, 0), (0, 5_000)] {
        connection.send(request("application/x-ndjson", &body).as_bytes()).expect("it reads");
        let reply = connection.reply().expect("it answers").expect("it answers");
        let counts: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
        let counted = |name: &str| counts[name].as_u64();
        assert_eq!(
            (reply.status, counted("accepted"), counted("duplicates")),
            (202, Some(expected.0), Some(expected.1))
        );
    }
    server.wait_for_gross(5_000);
    server.stop();
    audited(&data_dir);
}

/// Little memory for ids makes the horizon rise within seconds, and segments behind it are freed.
#[test]
fn a_log_whose_first_segments_are_freed_goes_on_after_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let flags = [
        ["--dedup-memory-bytes", "8MiB"],
        ["--dedup-window", "1m"],
        ["--dedup-window-min", "1s"],
        ["--retention", "0s"],
        ["--export-interval", "100ms"],
    ];
    let server = Server::start(&data_dir, &flags.concat());
    let log = std::fs::read_dir(data_dir.join("logs")).expect("logs").next().expect("a log").expect("a log").path();
    let first = log.join("0000000001.seg");
    assert!(first.exists());
    let mut clients: Vec<_> = (1..4).map(|number| Client::of_fresh_ids(number, 1_000, 0)).collect();
    let address = server.clicks;
    let wait = || {
        wait_until("the first segment, and with it the start record, is freed", || {
            server.scrape();
            !first.exists()
        });
        server
    };
    while_sending(&mut clients, address, wait, Server::kill);
    audited(&data_dir);
    let server = Server::start(&data_dir, &["--export-interval", "100ms"]);
    wait_for_export(&server);
    let counted = check_counts(&server, &sums(&clients));
    send_one_by_one(server.clicks, 0, 3);
    server.wait_for_gross(counted + 3);
    server.stop();
    audited(&data_dir);
}

/// A table that was full when the process was killed cannot be filled again as it was: its keys have other places under a new
/// secret. It loses its newest generation, and until that is over what could be a repeat is shed. Nothing is refused as too
/// old, which a client would take for final.
#[test]
fn a_memory_that_was_full_at_a_kill_sheds_and_never_refuses_a_fresh_click() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let flags = ["--dedup-memory-bytes", "8MiB", "--export-interval", "100ms"];
    let server = Server::start(&data_dir, &flags);
    let mut connection = Connection::open(server.clicks).expect("it listens");
    // Ahead of the clock, within the skew: one generation takes them all, and is not over soon.
    let (at, keys) = (now_ms() + 50_000, || server.scrape().sum("tollgate_dedup_keys"));
    // At the first that is shed some blocks of the table have room. With so few places left no other secret suits.
    let filled = (0..400).any(|batch: u64| {
        let click = |number| format!("{{\"ad_id\":\"a\",\"timestamp\":{at},\"request_id\":\"{batch}-{number}\"}}");
        let body = (0..4_000).map(click).collect::<Vec<_>>().join("\n");
        connection.send(request("application/x-ndjson", &body).as_bytes()).expect("it reads");
        let status = connection.reply().expect("it answers").expect("it answers").status;
        status == 503 && keys() > 522_000
    });
    assert!(filled, "{} keys in 524,288 slots", keys());
    let (head, body) = answer(server.admin, "/readyz");
    assert!(head.starts_with("HTTP/1.1 503") && body.contains("--dedup-memory-bytes"), "{head} {body}");
    server.kill();
    let server = Server::start(&data_dir, &flags);
    let mut connection = Connection::open(server.clicks).expect("it listens");
    for number in 0..50 {
        let body = format!("{{\"ad_id\":\"a\",\"timestamp\":{},\"request_id\":\"fresh {number}\"}}", now_ms());
        connection.send(request("application/json", &body).as_bytes()).expect("it reads");
        let reply = connection.reply().expect("it answers").expect("it answers");
        let text = String::from_utf8_lossy(&reply.body);
        assert_eq!(reply.status, 503, "fresh click {number}: {text}");
        assert!(reply.head.contains("\r\nRetry-After: 30\r\n"), "{}", reply.head);
    }
    server.stop();
    audited(&data_dir);
}
