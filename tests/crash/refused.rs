//! A click that is refused has its dead letter in the log before its sender is told, as far as the budget goes; and keeps no other click
//! from being counted.

use std::path::Path;
use std::time::{Duration, Instant};

use tollgate::wal::record::Record;
use tollgate::wal::recover::{Progress, walk_log};
use tollgate::wal::segments::list_logs;

use crate::client::{Connection, request, send_number, verdicts};
use crate::server::{EXPORTS, Server, now_ms, wait_until};

/// The texts of the dead letters in a directory.
fn letters(data_dir: &Path) -> Vec<String> {
    let mut letters = Vec::new();
    for log in list_logs(data_dir).expect("readable") {
        walk_log(&log, None, &mut Progress::default(), &mut |_| {}, &mut |_, _, frame| {
            letters.extend(frame.records.iter().filter_map(|record| match record {
                Record::DeadLetter(letter) => Some(String::from_utf8_lossy(&letter.raw()).into_owned()),
                _ => None,
            }));
        })
        .expect("a kill damages nothing");
    }
    letters
}

fn refused(connection: &mut Connection, body: &str) {
    connection.send(request("application/json", body).as_bytes()).expect("it reads");
    let reply = connection.reply().expect("it answers").expect("it answers");
    assert_eq!((reply.status, verdicts(&reply.body)), (422, (0, 0, 1)), "{body}");
}

#[test]
fn what_is_refused_is_on_disk_before_it_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    // The disk is asked once in that time: whoever is told earlier is told too early.
    let server = Server::start(&data_dir, &["--commit-spacing", "300ms", "--commit-delay-max", "300ms"]);
    let mut connection = Connection::open(server.clicks).expect("it listens");
    let now = now_ms();
    let bodies = [
        format!("{{\"timestamp\":{now},\"request_id\":\"no ad\"}}"),
        format!("{{\"ad_id\":\"a\",\"timestamp\":{},\"request_id\":\"too old\"}}", now - 86_400_000),
        format!("{{\"ad_id\":7,\"timestamp\":{now},\"request_id\":\"another type\"}}"),
    ];
    for (nth, body) in bodies.iter().enumerate() {
        refused(&mut connection, body);
        if nth == 0 {
            assert_eq!(send_number(&mut connection, 1), (1, 0, 0));
        }
    }
    server.kill();
    assert_eq!(letters(&data_dir), bodies);
}

/// For so long: cuts without clicks by the dozen.
const ONLY_REFUSED: Duration = Duration::from_secs(3);
/// A cut, a commit and time to spare; where each few of those cuts wait for a heartbeat of the export it is over 15 s. That waiting cuts
/// become one, and that those without clicks are exported where no more may be handed over, is held by tests of `core::cuts` and `export`:
/// either is enough for this.
const COUNTED_WITHIN: Duration = Duration::from_secs(5);

#[test]
fn a_click_is_counted_at_once_however_much_was_refused_before_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(&folder.path().join("data"), &EXPORTS);
    let mut connection = Connection::open(server.clicks).expect("it listens");
    let (began, body) = (Instant::now(), format!("{{\"timestamp\":{},\"request_id\":\"no ad\"}}", now_ms()));
    while began.elapsed() < ONLY_REFUSED {
        refused(&mut connection, &body);
    }
    assert_eq!(send_number(&mut connection, 1), (1, 0, 0));
    let sent = Instant::now();
    wait_until("it is counted", || server.gross(None) == 1);
    assert!(sent.elapsed() < COUNTED_WITHIN, "counted after {:.1?}", sent.elapsed());
}
