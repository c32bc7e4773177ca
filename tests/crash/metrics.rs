//! /metrics: scrapes side by side, and numbers that move when what they count happens.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::client::{Client, Connection, Shape, request, while_sending};
use crate::server::{Metrics, Server, now_ms, scrape, wait_until};

#[test]
fn two_scrapes_at_once_are_both_answered_and_balance() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(&folder.path().join("data"), &["--export-interval", "100ms"]);
    let (mut client, done, start) = (Client::new(1, Shape::Lines(100), 1), AtomicBool::new(false), Barrier::new(2));
    client.pause = Duration::ZERO;
    std::thread::scope(|scope| {
        let (address, admin, done, start) = (server.clicks, server.admin, &done, &start);
        scope.spawn(move || client.run(address, done));
        let scrapers = [(); 2].map(|()| {
            scope.spawn(move || {
                let mut received = Some(0);
                for _ in 0..100 {
                    start.wait();
                    // A status other than 200, or a ledger that does not balance, is told at the end: the other one waits.
                    let now = std::panic::catch_unwind(|| scrape(admin).sum("tollgate_clicks_received_total"));
                    received = received.and_then(|before| now.ok().filter(|now| *now >= before));
                }
                received
            })
        });
        let received = scrapers.map(|scraper| scraper.join().expect("it does not panic"));
        done.store(true, Ordering::SeqCst);
        assert!(received.iter().all(|received| received.is_some_and(|received| received > 0)), "{received:?}");
    });
}

/// What moves in tests of their own: a log that outgrows its room in `limits.rs`, a sink that is away in `tests/kafka/night.rs`,
/// a clock that leaps in the simulator alone. What the query side shows, `tollgate_global_…`, moves in `tests/access`.
const ELSEWHERE: [&str; 4] = [
    "tollgate_log_segments_freed_early_total",
    "tollgate_export_doubts_total",
    "tollgate_export_sink_away_seconds",
    "tollgate_clock_leapt",
];

/// The highest of each sample that was ever shown.
#[derive(Default)]
struct Seen(BTreeMap<String, f64>);

impl Seen {
    fn note(&mut self, metrics: &Metrics) {
        for (name, value) in metrics.samples() {
            let highest = self.0.entry(name.to_owned()).or_default();
            *highest = highest.max(value);
        }
    }

    /// Notes what a server shows until this sample is over nothing.
    fn note_until(&mut self, server: &Server, name: &str) {
        wait_until(name, || {
            let metrics = server.scrape();
            self.note(&metrics);
            metrics.sum(name) > 0
        });
    }
}

/// Every number that tollgate shows is made to move, by what it says that it counts.
#[test]
fn every_metric_moves_when_what_it_counts_happens() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut seen = Seen::default();
    recovered_and_busy(&folder.path().join("busy"), &mut seen);
    waiting_for_the_disk(&folder.path().join("waiting"), &mut seen);
    short_of_everything(&folder.path().join("short"), &mut seen);
    let elsewhere = |name: &str| ELSEWHERE.contains(&name) || name.starts_with("tollgate_global_");
    let still = seen.0.iter().filter(|(name, value)| **value == 0.0 && !elsewhere(name));
    let still: Vec<_> = still.map(|(name, _)| name).collect();
    assert!(still.is_empty(), "never moved: {still:?}");
    assert!(seen.0.len() > 40, "{} samples are shown", seen.0.len());
}

/// A killed server goes on: load, repeats, clicks that are late, broken or of another payload, and then nothing for a while.
fn recovered_and_busy(data_dir: &std::path::Path, seen: &mut Seen) {
    let flags = ["--export-interval", "100ms", "--connections-max", "4", "--body-timeout", "2s", "--cores", "2"];
    let mut clients = [Client::new(1, Shape::Pipelined(16), 1), Client::new(2, Shape::Lines(200), 1)];
    let server = Server::start(data_dir, &flags);
    clients.iter_mut().for_each(|client| client.once(&mut open(&server)).expect("it answers"));
    server.kill();
    let server = Server::start(data_dir, &flags);
    let meanwhile = || {
        let at = now_ms();
        let bodies = [
            format!("{{\"ad_id\":\"a\",\"timestamp\":{at},\"request_id\":\"same\",\"user_id\":\"one\"}}"),
            format!("{{\"ad_id\":\"a\",\"timestamp\":{at},\"request_id\":\"same\",\"user_id\":\"other\"}}"),
            format!("{{\"ad_id\":\"a\",\"timestamp\":{},\"request_id\":\"late\"}}", at - 86_400_000),
            "{\"ad_id\":".to_owned(),
        ];
        let mut connection = open(&server);
        for body in bodies {
            connection.send(request("application/json", &body).as_bytes()).expect("it reads");
            connection.reply().expect("it answers").expect("it answers");
        }
        for name in ["duplicate_other_payload", "rejected", "duplicate"] {
            seen.note_until(&server, &format!("tollgate_clicks_{name}_total"));
        }
        seen.note_until(&server, "tollgate_table_rows");
        // One open, two load: the next is the last that has room, and never sends its body.
        let mut half = open(&server);
        half.send(&request("application/json", "{}").as_bytes()[..60]).expect("it reads");
        let _beyond = [open(&server), open(&server)];
        seen.note_until(&server, "tollgate_connections_refused_total");
        seen.note_until(&server, "tollgate_connections_timed_out_total");
    };
    while_sending(&mut clients, server.clicks, meanwhile, |()| ());
    seen.note_until(&server, "tollgate_log_seal_frames_total");
    server.stop();
}

/// A write a second of a small frame: clicks wait for a place in the log, and cuts until they are on disk.
fn waiting_for_the_disk(data_dir: &std::path::Path, seen: &mut Seen) {
    let flags = [
        ["--export-interval", "100ms"],
        ["--commit-spacing", "1s"],
        ["--frame-bytes", "16KiB"],
        ["--body-bytes-max", "16KiB"],
        ["--batch-clicks-max", "100"],
    ];
    let server = Server::start(data_dir, &flags.concat());
    let mut clients: Vec<_> = (1..25).map(|number| Client::new(number, Shape::Lines(100), 2)).collect();
    let address = server.clicks;
    let meanwhile = || {
        for name in ["tollgate_export_pending_ranges", "tollgate_clicks_in_flight"] {
            seen.note_until(&server, name);
        }
        server
    };
    while_sending(&mut clients, address, meanwhile, Server::kill);
}

/// Hardly any buffers, memory or disk.
fn short_of_everything(data_dir: &std::path::Path, seen: &mut Seen) {
    let flags = [
        ["--export-interval", "100ms"],
        ["--recv-buffers", "16"],
        ["--recv-buffer-bytes", "1KiB"],
        ["--dedup-memory-bytes", "8MiB"],
        ["--dedup-window", "1m"],
        ["--dedup-window-min", "1s"],
        ["--wal-bytes-max", "128MiB"],
    ];
    let server = Server::start(data_dir, &flags.concat());
    let mut clients: Vec<_> = (1..4).map(|number| Client::of_fresh_ids(number, 1_000, 0)).collect();
    let address = server.clicks;
    let meanwhile = || {
        seen.note_until(&server, "tollgate_receive_buffers_starved_total");
        seen.note_until(&server, "tollgate_dedup_generations_dropped_early_total");
        std::fs::write(data_dir.join("logs/ballast"), vec![1; 127 << 20]).expect("written");
        seen.note_until(&server, "tollgate_clicks_shed_total");
        server
    };
    while_sending(&mut clients, address, meanwhile, Server::kill);
}

fn open(server: &Server) -> Connection {
    Connection::open(server.clicks).expect("it listens")
}
