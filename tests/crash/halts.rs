//! Store and log that do not belong together: the process ends before anything is counted, and with the files put back as the
//! message says it goes on and counts what was acknowledged, once.

use std::path::Path;
use std::time::Instant;

use crate::client::{Connection, request, send_one_by_one, verdicts};
use crate::server::{EXPORTS, PATIENCE, Server, audited, copy, halts, now_ms, stopped, tollgate};

/// The way out of every contradiction, where the files are gone for good.
const ANEW: [&str; 2] = ["start with an empty --data-dir", "`tollgate wal export`"];

/// More rows than two transactions take.
const MANY: u64 = 300_000;

/// It goes on with the clicks up to `acknowledged` counted, takes two more, and the log says the same.
fn goes_on(data_dir: &Path, acknowledged: u64) {
    let server = Server::start(data_dir, &EXPORTS);
    server.wait_for_gross(acknowledged);
    let fresh = 1_000 + acknowledged;
    send_one_by_one(server.clicks, fresh, fresh + 2);
    server.wait_for_gross(acknowledged + 2);
    server.stop();
    audited(data_dir);
}

/// Puts a copy of a directory's store into another, in the place of what is there.
fn put_store(from: &Path, to: &Path) {
    std::fs::copy(from.join("store.redb"), to.join("store.redb")).expect("copied");
}

/// As `put_store`, with all files of the log.
fn put_logs(from: &Path, to: &Path) {
    std::fs::remove_dir_all(to.join("logs")).expect("removed");
    copy(&from.join("logs"), &to.join("logs"));
}

/// A directory with so many clicks, each of its own ad and so a row of its own, stopped.
fn stopped_with_rows(data_dir: &Path, rows: u64) {
    let server = Server::start(data_dir, &EXPORTS);
    let mut connection = Connection::open(server.clicks).expect("it listens");
    for from in (0..rows).step_by(5_000) {
        let click =
            |number| format!("{{\"ad_id\":\"a{number}\",\"timestamp\":{},\"request_id\":\"r{number}\"}}", now_ms());
        let lines: Vec<_> = (from..from + 5_000).map(click).collect();
        connection.send(request("application/x-ndjson", &lines.join("\n")).as_bytes()).expect("it reads");
        let reply = connection.reply().expect("it answers").expect("it answers");
        assert_eq!(verdicts(&reply.body), (5_000, 0, 0));
    }
    server.stop();
}

/// Kills a server that exports a log anew between its first transaction and its last; false where it was faster.
fn exported_in_part(data_dir: &Path) -> bool {
    std::fs::remove_file(data_dir.join("store.redb")).expect("removed");
    let server = Server::start(data_dir, &EXPORTS);
    let deadline = Instant::now() + PATIENCE;
    while server.gross(None) == 0 {
        assert!(Instant::now() < deadline, "nothing is exported");
    }
    server.kill();
    let (code, text) = tollgate(data_dir, &["audit"]);
    assert_eq!(code, Some(0), "{text}");
    !text.contains("behind the checkpoint 0")
}

#[test]
fn a_store_of_another_directory_is_replaced_by_the_own_one_or_moved_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let [data_dir, other, kept] = ["data", "other", "kept"].map(|name| folder.path().join(name));
    stopped(&data_dir, 0, 5);
    stopped(&other, 0, 3);
    copy(&data_dir, &kept);
    put_store(&other, &data_dir);
    let named = ["the checkpoint is of data directory", "Put the store.redb of this directory back", "move the one"];
    halts(&data_dir, 74, &[&named[..], &ANEW].concat());
    put_store(&kept, &data_dir);
    goes_on(&data_dir, 5);

    put_store(&other, &data_dir);
    halts(&data_dir, 74, &named);
    std::fs::rename(data_dir.join("store.redb"), folder.path().join("away")).expect("moved");
    goes_on(&data_dir, 7);
    goes_on(&other, 3);
}

#[test]
fn a_store_of_another_edge_is_replaced_by_the_own_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let [data_dir, other, kept] = ["data", "other", "kept"].map(|name| folder.path().join(name));
    stopped(&data_dir, 0, 5);
    let server = Server::start(&other, &[&EXPORTS[..], &["--edge-id", "other"]].concat());
    send_one_by_one(server.clicks, 0, 3);
    server.stop();
    copy(&data_dir, &kept);
    put_store(&other, &data_dir);
    let named = ["of edge \"other\"", "Put the store.redb of this directory back"];
    halts(&data_dir, 74, &[&named[..], &ANEW].concat());
    put_store(&kept, &data_dir);
    goes_on(&data_dir, 5);
}

#[test]
fn a_store_that_a_copy_wrote_goes_back_to_it_and_both_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let [data_dir, clone, kept] = ["data", "clone", "kept"].map(|name| folder.path().join(name));
    stopped_with_rows(&data_dir, MANY);
    copy(&data_dir, &kept);
    let in_part = (0..5).any(|_| {
        // What an earlier try wrote is not wanted.
        let _ = std::fs::remove_dir_all(&clone);
        copy(&kept, &clone);
        exported_in_part(&clone)
    });
    assert!(in_part, "each copy had exported all before it was killed");
    put_store(&clone, &data_dir);
    let named = ["the checkpoint's nonce", "a copy of this data directory", "Start that one", "store.redb"];
    halts(&data_dir, 74, &[&named[..], &ANEW].concat());
    goes_on(&clone, MANY);
    put_store(&kept, &data_dir);
    goes_on(&data_dir, MANY);
}

#[test]
fn a_log_that_is_gone_comes_back_in_the_place_of_the_new_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let [data_dir, kept] = ["data", "kept"].map(|name| folder.path().join(name));
    stopped(&data_dir, 0, 5);
    copy(&data_dir, &kept);
    std::fs::remove_dir_all(data_dir.join("logs")).expect("removed");
    halts(&data_dir, 74, &[&["lists log", "in the place of those in logs/"][..], &ANEW].concat());
    // Beside the new one it serves as well: one of them no core writes to.
    let two = folder.path().join("two");
    copy(&data_dir, &two);
    copy(&kept.join("logs"), &two.join("logs"));
    goes_on(&two, 5);
    put_logs(&kept, &data_dir);
    goes_on(&data_dir, 5);
}

/// Recovery finds it before the exporter can: no `Halt::BeyondEnd`.
#[test]
fn a_log_older_than_its_store_is_replaced_by_the_newer_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let [data_dir, older, newer] = ["data", "older", "newer"].map(|name| folder.path().join(name));
    stopped(&data_dir, 0, 5);
    copy(&data_dir, &older);
    stopped(&data_dir, 5, 9);
    copy(&data_dir, &newer);
    put_logs(&older, &data_dir);
    let named =
        ["the checkpoint says that everything up to LSN", "was exported", "bring its newer files back", "repair"];
    halts(&data_dir, 71, &named);
    // Where they are gone for good: the counts are in the store, the ids are not remembered.
    let repaired = folder.path().join("repaired");
    copy(&data_dir, &repaired);
    let (code, text) = tollgate(&repaired, &["wal", "repair", "--raise-horizon", "--yes"]);
    assert_eq!(code, Some(0), "{text}");
    for _ in 0..2 {
        let server = Server::start(&repaired, &EXPORTS);
        server.wait_for_gross(9);
        server.stop();
        audited(&repaired);
    }
    put_logs(&newer, &data_dir);
    goes_on(&data_dir, 9);
}

/// Recovery finds it before the exporter can: no `Halt::OtherChain`.
#[test]
fn a_log_that_parted_from_its_store_gets_the_own_one_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let [data_dir, clone, kept] = ["data", "clone", "kept"].map(|name| folder.path().join(name));
    stopped(&data_dir, 0, 3);
    copy(&data_dir, &clone);
    stopped(&data_dir, 10, 13);
    stopped(&clone, 20, 23);
    copy(&data_dir, &kept);
    put_store(&clone, &data_dir);
    let named = ["chain", "put the log and the store that belong together back", "audit"];
    halts(&data_dir, 74, &named);
    let (code, text) = tollgate(&data_dir, &["audit"]);
    assert!(code == Some(74) && text.contains("chain"), "{text}");
    put_store(&kept, &data_dir);
    goes_on(&data_dir, 6);
    goes_on(&clone, 6);
}

/// With a sink that is far away its first answer may be hours off; ids that are not remembered until then would be accepted again.
#[test]
fn a_listed_log_of_several_that_is_missing_ends_the_start_before_the_first_click() {
    let folder = tempfile::tempdir().expect("a folder");
    let [data_dir, aside] = ["data", "aside"].map(|name| folder.path().join(name));
    let server = Server::start(&data_dir, &[&EXPORTS[..], &["--cores", "2"]].concat());
    send_one_by_one(server.clicks, 0, 20);
    server.wait_for_gross(20);
    server.stop();
    let logs = std::fs::read_dir(data_dir.join("logs")).expect("logs").map(|entry| entry.expect("an entry").path());
    let second =
        logs.into_iter().find(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"1-")));
    let second = second.expect("the second core's log");
    std::fs::rename(&second, &aside).expect("moved");
    for cores in ["1", "2"] {
        let _ = std::fs::remove_file(data_dir.with_extension("stderr"));
        let ended = Server::spawn(&data_dir, &[&EXPORTS[..], &["--cores", cores]].concat()).ended_within(PATIENCE);
        assert_eq!(ended.code, Some(74), "{}", ended.errors);
        assert!(ended.errors.contains("nothing is served") && ended.errors.contains("lists log"), "{}", ended.errors);
    }
    std::fs::rename(&aside, &second).expect("moved back");
    goes_on(&data_dir, 20);
}
