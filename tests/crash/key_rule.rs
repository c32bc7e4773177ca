//! Another `--dedup-key` over a live log: ids made by the old rule are of no use, so nothing that was accepted under it may be
//! taken again, wherever the change was interrupted and whatever else changed with it.

use std::path::{Path, PathBuf};

use crate::client::{Connection, request, verdicts};
use crate::server::{EXPORTS, Server, audited, now_ms, tollgate, wait_until};

fn start(data_dir: &Path, rule: &str, skew: &str) -> Server {
    Server::start(data_dir, &[&EXPORTS[..], &["--dedup-key", rule, "--clock-skew", skew]].concat())
}

/// Clicks accepted of one that has an id for each rule.
fn accepted(server: &Server, id: &str, at_ms: i64) -> u64 {
    answered(server, id, at_ms).1
}

/// With its status.
fn answered(server: &Server, id: &str, at_ms: i64) -> (u16, u64) {
    let click = format!("{{\"ad_id\":\"a\",\"timestamp\":{at_ms},\"request_id\":\"{id}\",\"click_id\":\"{id}\"}}");
    let mut connection = Connection::open(server.clicks).expect("it listens");
    connection.send(request("application/json", &click).as_bytes()).expect("it reads");
    let reply = connection.reply().expect("it answers").expect("it answers");
    match reply.status {
        status @ (202 | 422) => (status, verdicts(&reply.body).0),
        503 => (503, 0),
        status => panic!("{status}: {}", reply.head),
    }
}

fn newest_segment_with_a_header(data_dir: &Path) -> PathBuf {
    let log = std::fs::read_dir(data_dir.join("logs")).expect("logs").next().expect("a log").expect("a log").path();
    let files = std::fs::read_dir(log).expect("segments").map(|entry| entry.expect("a segment").path());
    // One that is being prepared may still be short.
    let head = |path: &PathBuf| std::fs::read(path).expect("a segment").first_chunk::<4096>().copied();
    let begun = |path: &PathBuf| head(path).is_some_and(|head| head != [0; 4096]);
    files.filter(begun).max().expect("one begun")
}

#[test]
fn an_id_of_the_old_rule_is_not_taken_again_after_a_change_that_was_torn() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let (server, at_ms) = (start(&data_dir, "request_id", "1s"), now_ms());
    assert_eq!(accepted(&server, "one", at_ms), 1);
    server.kill();
    let before = newest_segment_with_a_header(&data_dir);
    let store = std::fs::read(data_dir.join("store.redb")).expect("the store");
    start(&data_dir, "click_id", "1s").kill();
    // What it may have exported would know of the frame that is lost here.
    std::fs::write(data_dir.join("store.redb"), store).expect("written");
    // The header of the new run's segment got to the disk, its first frame did not.
    let segment = newest_segment_with_a_header(&data_dir);
    assert_ne!(segment, before);
    let mut bytes = std::fs::read(&segment).expect("the segment");
    bytes[4096..].fill(0);
    std::fs::write(&segment, bytes).expect("written");
    let server = start(&data_dir, "click_id", "1s");
    assert_eq!(accepted(&server, "one", at_ms), 0, "it was counted under the old rule");
    wait_until("a click of now is taken", || accepted(&server, "two", now_ms()) == 1);
    server.wait_for_gross(2);
    server.stop();
    audited(&data_dir);
}

#[test]
fn an_id_of_the_old_rule_is_not_taken_again_under_a_smaller_skew() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let (server, at_ms) = (start(&data_dir, "request_id", "1m"), now_ms() + 3_000);
    assert_eq!(accepted(&server, "one", at_ms), 1);
    server.kill();
    let server = start(&data_dir, "click_id", "1s");
    // Nothing can be told from it until its time has come.
    wait_until("its time has come", || {
        assert_eq!(accepted(&server, "one", at_ms), 0, "it was counted under the old rule");
        now_ms() > at_ms
    });
    wait_until("a click of now is taken", || accepted(&server, "two", now_ms()) == 1);
    server.wait_for_gross(2);
    server.stop();
    audited(&data_dir);
}

/// Until nothing that was counted under the old rule can come again, clicks of now are shed, for a while, and not refused for ever.
#[test]
fn no_core_takes_an_id_of_the_old_rule_and_clicks_of_now_are_shed_meanwhile() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let cores = |rule, skew| {
        let flags = ["--cores", "2", "--dedup-key", rule, "--clock-skew", skew];
        Server::start(&data_dir, &[&EXPORTS[..], &flags].concat())
    };
    let ids: Vec<_> = (0..16).map(|number| format!("id {number}")).collect();
    let (server, early_ms) = (cores("request_id", "1m"), now_ms());
    ids.iter().for_each(|id| assert_eq!(accepted(&server, id, early_ms), 1));
    let at_ms = now_ms() + 8_000;
    assert_eq!(accepted(&server, "the newest", at_ms), 1);
    server.kill();
    let server = cores("click_id", "1m");
    let mut shed = 0;
    // One that was sent before that time may have been taken when it is looked at after it.
    let of_now = loop {
        let replies: Vec<_> = ids.iter().map(|id| answered(&server, id, early_ms)).collect();
        let of_now = answered(&server, "of now", now_ms());
        if now_ms() >= at_ms {
            assert!(replies.iter().all(|(_, accepted)| *accepted == 0), "counted under the old rule: {replies:?}");
            break of_now.1;
        }
        assert_eq!((replies, of_now), (vec![(503, 0); ids.len()], (503, 0)));
        shed += 1;
    };
    assert!(shed > 0, "too slow a machine to see it");
    assert!(server.scrape().sum("tollgate_clicks_shed_total{reason=\"horizon_ahead\"}") > 0);
    ids.iter().for_each(|id| assert_eq!(accepted(&server, id, early_ms), 0, "{id} was counted under the old rule"));
    wait_until("a click of now is taken", || accepted(&server, "two", now_ms()) == 1);
    server.wait_for_gross(ids.len() as u64 + 2 + of_now);
    server.stop();
    audited(&data_dir);
}

#[test]
fn an_id_of_a_rule_that_a_damaged_header_named_is_not_taken_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let (server, at_ms) = (start(&data_dir, "request_id", "1s"), now_ms());
    assert_eq!(accepted(&server, "one", at_ms), 1);
    server.stop();
    let segment = newest_segment_with_a_header(&data_dir);
    let mut bytes = std::fs::read(&segment).expect("the segment");
    bytes[50] ^= 1;
    std::fs::write(&segment, bytes).expect("written");
    let (code, text) = tollgate(&data_dir, &["wal", "repair", "--raise-horizon", "--yes"]);
    assert_eq!(code, Some(0), "{text}");
    let server = start(&data_dir, "click_id", "1s");
    assert_eq!(accepted(&server, "one", at_ms), 0, "it was counted under a rule that nobody knows any more");
    wait_until("a click of now is taken", || accepted(&server, "two", now_ms()) == 1);
    server.wait_for_gross(2);
    server.stop();
    audited(&data_dir);
}
