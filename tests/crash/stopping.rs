//! SIGTERM under load, and a disk budget that is used up.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::campaign::{check_counts, load};
use crate::client::{Client, Connection, Shape, request, send_one_by_one, sums, verdicts, while_sending};
use crate::server::{EXPORTS, PATIENCE, Server, answer, audited, killed, now_ms, wait_until};

#[test]
fn a_stop_under_load_answers_what_was_received_and_keeps_every_count() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    for seed in 1..4 {
        let shapes = [Shape::Single, Shape::Pipelined(8), Shape::Pipelined(64), Shape::Lines(30), Shape::Lines(500)];
        let mut clients: Vec<_> =
            (1..).zip(shapes).map(|(number, shape)| Client::new(seed * 10 + number, shape, seed)).collect();
        clients.iter_mut().for_each(|client| client.to_the_end = true);
        let server = Server::start(&data_dir, &["--export-interval", "100ms"]);
        let before = server.gross(None);
        load(server, &mut clients, Duration::from_millis(300), |server| {
            server.signal(Signal::TERM);
            let ended = server.ended_within(PATIENCE);
            assert_eq!(ended.code, Some(0), "{}", ended.errors);
        });
        audited(&data_dir);
        let server = Server::start(&data_dir, &[]);
        let ads = sums(&clients);
        let acknowledged: u64 = ads.values().map(|ad| ad.acknowledged).sum();
        let counted = server.gross(None) - before;
        assert!(acknowledged > 100, "no load");
        assert_eq!(counted, acknowledged, "a click that was taken and not answered: its request was wholly received");
        server.stop();
    }
}

/// A load balancer that asks /readyz has the drain delay to notice: until it is over, clicks are taken on connections old
/// and new. Then what was received is answered, and the process ends.
#[test]
fn readiness_fails_first_and_clicks_are_taken_until_the_drain_delay_is_over() {
    const DELAY: Duration = Duration::from_secs(3);
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let server = Server::start(&data_dir, &["--export-interval", "100ms", "--drain-delay", "3s"]);
    let shapes = [Shape::Single, Shape::Pipelined(16), Shape::Lines(100)];
    let mut clients: Vec<_> = (1..).zip(shapes).map(|(number, shape)| Client::new(number, shape, 5)).collect();
    clients.iter_mut().for_each(|client| client.to_the_end = true);
    let mut sent_while_draining = 0;
    load(server, &mut clients, Duration::from_millis(200), |server| {
        let (head, _) = answer(server.admin, "/readyz");
        assert!(head.starts_with("HTTP/1.1 200"), "ready under load: {head}");
        let told = Instant::now();
        server.signal(Signal::TERM);
        wait_until("/readyz fails", || answer(server.admin, "/readyz").0.starts_with("HTTP/1.1 503"));
        let (_, body) = answer(server.admin, "/readyz");
        assert!(body.contains("draining"), "{body}");
        let received = server.scrape().sum("tollgate_clicks_received_total");
        send_one_by_one(server.clicks, 0, 3);
        sent_while_draining = 3;
        wait_until("the load goes on", || server.scrape().sum("tollgate_clicks_received_total") > received + 200);
        assert!(told.elapsed() < DELAY, "too slow a machine to see it: {:?}", told.elapsed());
        let ended = server.ended_within(Duration::from_secs(30).saturating_sub(told.elapsed()));
        assert_eq!(ended.code, Some(0), "{}", ended.errors);
        assert!(told.elapsed() >= DELAY, "it ended after {:?}", told.elapsed());
    });
    audited(&data_dir);
    let server = Server::start(&data_dir, &[]);
    let acknowledged: u64 = sums(&clients).values().map(|ad| ad.acknowledged).sum();
    assert_eq!(server.gross(None), acknowledged + sent_while_draining, "taken and not answered, or lost");
}

/// What waits for the disk when the signal comes has been received: it is answered, however many there are.
#[test]
fn requests_that_wait_for_the_disk_at_a_stop_are_all_answered() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let server = Server::start(&data_dir, &["--commit-spacing", "1s", "--commit-delay-max", "1s"]);
    let mut connections: Vec<_> = (0..40).map(|_| Connection::open(server.clicks).expect("it listens")).collect();
    send_one_by_one(server.clicks, 0, 1);
    for (number, connection) in connections.iter_mut().enumerate() {
        let click = |part| {
            let (at, id) = (now_ms(), number * 2 + part);
            request("application/json", &format!("{{\"ad_id\":\"a\",\"timestamp\":{at},\"request_id\":\"{id}\"}}"))
        };
        connection.send((click(0) + &click(1)).as_bytes()).expect("it reads");
    }
    wait_until("all are received", || server.scrape().sum("tollgate_clicks_received_total") == 81);
    let metrics = server.scrape();
    let waiting = metrics.sum("tollgate_log_end_lsn") > metrics.sum("tollgate_log_durable_lsn");
    server.signal(Signal::TERM);
    for connection in &mut connections {
        for _ in 0..2 {
            let reply = connection.reply().expect("it answers").expect("it answers");
            assert_eq!((reply.status, verdicts(&reply.body)), (202, (1, 0, 0)));
        }
        assert!(connection.reply().expect("it closes").is_none());
    }
    let ended = server.ended_within(PATIENCE);
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    assert!(waiting, "everything was on disk when the signal came");
    let server = Server::start(&data_dir, &[]);
    assert_eq!(server.gross(None), 81);
}

/// A log may take long to be read back: a stop does not wait for it, and does not say that all is exported.
#[test]
fn a_stop_while_starting_ends_at_once_with_76_and_the_next_start_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    killed(&data_dir, 20);
    // Recovery waits for the lock of each segment: a write of a dead process may be in flight.
    let held = hold_segments(&data_dir);
    for flags in [&[][..], &["--until-exported"]] {
        let mut server = Server::spawn(&data_dir, flags);
        wait_until("it starts", || server.find_thread("start").is_some());
        let ready = server.ready_within(Duration::from_millis(500));
        assert!(!ready, "it did not wait for who has the segments");
        let told = Instant::now();
        server.signal(Signal::TERM);
        let ended = server.ended_within(PATIENCE);
        assert!(ended.code == Some(76) && ended.errors.contains("while starting"), "{ended:?}");
        assert!(told.elapsed() < Duration::from_secs(5), "it waited for the log: {:?}", told.elapsed());
    }
    drop(held);
    let server = Server::start(&data_dir, &EXPORTS);
    server.wait_for_gross(20);
    server.stop();
    audited(&data_dir);
}

fn hold_segments(data_dir: &Path) -> Vec<File> {
    let files =
        |path: &Path| std::fs::read_dir(path).expect("a directory").map(|entry| entry.expect("an entry").path());
    let segments = files(&data_dir.join("logs")).flat_map(|log| files(&log).collect::<Vec<_>>());
    let locked = |path| {
        let file = File::open(path).expect("a segment");
        file.lock().expect("nobody has it for ever");
        file
    };
    segments.map(locked).collect()
}

#[test]
fn a_stop_with_idle_connections_and_half_a_request_ends_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let server = Server::start(&data_dir, &["--body-timeout", "2s"]);
    let _idle = Connection::open(server.clicks).expect("it listens");
    let mut half = Connection::open(server.clicks).expect("it listens");
    half.send(
        b"POST /v1/clicks HTTP/1.1\r\nHost: edge\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    )
    .expect("it reads");
    let began = Instant::now();
    server.stop();
    assert!(began.elapsed() < Duration::from_secs(15), "its time-out is two seconds: {:?}", began.elapsed());
    let server = Server::start(&data_dir, &[]);
    assert_eq!(server.gross(None), 0);
}

#[test]
fn a_full_disk_sheds_with_503_and_goes_on_when_room_comes() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let flags = ["--wal-bytes-max", "16MiB", "--export-interval", "100ms"];
    let server = Server::start(&data_dir, &flags);
    let mut clients = vec![Client::new(1, Shape::Single, 1), Client::new(2, Shape::Lines(40), 1)];
    let ballast = data_dir.join("logs/ballast");
    let fill_and_empty = || {
        let shed = || server.scrape().sum("tollgate_clicks_shed_total");
        let accepted = || server.scrape().sum("tollgate_clicks_accepted_total");
        wait_until("clicks are taken", || accepted() > 50);
        std::fs::write(&ballast, vec![1; 14 << 20]).expect("written");
        wait_until("clicks are shed", || shed() > 50);
        let while_full = accepted();
        let shed_before = shed();
        wait_until("more are shed", || shed() > shed_before + 50);
        assert_eq!(accepted(), while_full, "a full disk takes nothing");
        let (head, body) = answer(server.admin, "/readyz");
        assert!(head.starts_with("HTTP/1.1 503") && body.contains("--wal-bytes-max"), "{head} {body}");
        std::fs::remove_file(&ballast).expect("removed");
        wait_until("clicks are taken again", || accepted() > while_full + 50);
        let (head, body) = answer(server.admin, "/readyz");
        assert!(head.starts_with("HTTP/1.1 200"), "{head} {body}");
        let exported = || server.scrape().sum("tollgate_export_transactions_total");
        wait_until("an export is counted", || exported() > 0);
    };
    while_sending(&mut clients, server.clicks, fill_and_empty, |()| ());
    assert!(clients.iter().any(|client| client.shed > 0), "the client saw 503");
    clients.iter_mut().for_each(|client| client.settle(server.clicks));
    let ads = sums(&clients);
    let unknown: u64 = ads.values().map(|ad| ad.unknown).sum();
    let acknowledged: u64 = ads.values().map(|ad| ad.acknowledged).sum();
    server.wait_for_gross(acknowledged);
    assert!(unknown > 0, "some were shed and never sent again: none of them counts");
    assert_eq!(check_counts(&server, &ads), acknowledged);
    server.stop();
    audited(&data_dir);
}
