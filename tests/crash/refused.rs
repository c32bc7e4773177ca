//! A click that is refused has its dead letter in the log before its sender is told, as far as the budget goes.

use std::path::Path;

use tollgate::wal::record::Record;
use tollgate::wal::recover::{Progress, walk_log};
use tollgate::wal::segments::list_logs;

use crate::client::{Connection, request, send_number, verdicts};
use crate::server::{Server, now_ms};

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
        connection.send(request("application/json", body).as_bytes()).expect("it reads");
        let reply = connection.reply().expect("it answers").expect("it answers");
        assert_eq!((reply.status, verdicts(&reply.body)), (422, (0, 0, 1)), "{body}");
        if nth == 0 {
            assert_eq!(send_number(&mut connection, 1), (1, 0, 0));
        }
    }
    server.kill();
    assert_eq!(letters(&data_dir), bodies);
}
