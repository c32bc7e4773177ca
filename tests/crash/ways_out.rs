//! Each way to end that can be provoked from outside: its exit code, and a line that says what to do.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use rustix::process::{Resource, Rlimit, prlimit};
use tollgate::wal::segments::list_logs;

use crate::client::{Connection, request, send_number, send_one_by_one};
use crate::server::{EXPORTS, Ended, PATIENCE, Server, audited, binary, copy, now_ms, stopped, tollgate, wait_until};

#[track_caller]
fn ends(ended: &Ended, code: i32, names: &[&str]) {
    let text = &ended.errors;
    assert_eq!(ended.code, Some(code), "{text}");
    let line = text.lines().rfind(|line| line.starts_with("tollgate: ")).unwrap_or_else(|| panic!("no line: {text}"));
    assert!(names.iter().all(|name| line.contains(name)), "{names:?} not all in: {line}");
}

fn start_ends(data_dir: &Path, flags: &[&str], code: i32, names: &[&str]) {
    ends(&Server::spawn(data_dir, flags).ended_within(PATIENCE), code, names);
}

#[test]
fn a_wrong_value_64_and_a_port_in_use_69() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    start_ends(&data_dir, &["--frame-bytes", "5KiB"], 64, &["--frame-bytes", "5KiB", "16KiB"]);
    assert!(!data_dir.exists(), "nothing was started");
    stopped(&data_dir, 0, 5);
    start_ends(&data_dir, &["--frame-bytes", "5KiB"], 64, &["--frame-bytes"]);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("a port").to_string();
    for flag in ["--listen", "--query-listen", "--admin-listen"] {
        start_ends(&data_dir, &[flag, &address], 69, &[flag, &address, "in use"]);
    }
    // All at once.
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let admin = other.local_addr().expect("a port").to_string();
    let flags = ["--listen", &address, "--admin-listen", &admin];
    start_ends(&data_dir, &flags, 69, &["with --listen;", "with --admin-listen", &address, &admin]);
    // Corrected, and free.
    drop(taken);
    let server = Server::start(&data_dir, &[&EXPORTS[..], &["--frame-bytes", "64KiB", "--listen", &address]].concat());
    send_one_by_one(server.clicks, 5, 9);
    server.wait_for_gross(9);
    server.stop();
    audited(&data_dir);
}

#[test]
fn a_second_process_on_a_directory_73_and_the_first_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let mut first = Server::start(&data_dir, &EXPORTS);
    send_one_by_one(first.clicks, 0, 5);
    let shown = data_dir.display().to_string();
    start_ends(&data_dir, &EXPORTS, 73, &[&shown, "in use by another process", "--data-dir"]);
    let admin = first.admin.to_string();
    let beside = ["--until-exported", "--admin-listen", &admin];
    start_ends(&data_dir, &beside, 73, &[&shown, "in use by another process"]);
    for arguments in [&["audit"][..], &["wal", "repair", "--accept-loss", "x:1-2", "--yes"]] {
        let (code, text) = tollgate(&data_dir, arguments);
        assert!(code == Some(73) && text.contains("in use by another process"), "{arguments:?}: {code:?} {text}");
    }
    let (code, text) = tollgate(&data_dir, &["wal", "verify"]);
    assert!(code == Some(0) && text.contains("what was exported is not known"), "verify only reads: {text}");
    assert!(first.is_running());
    send_one_by_one(first.clicks, 5, 10);
    first.wait_for_gross(10);
    first.stop();
    audited(&data_dir);
}

/// A mistyped directory must not be told to be exported.
#[test]
fn a_directory_without_a_log_is_not_exported_64() {
    let folder = tempfile::tempdir().expect("a folder");
    let (missing, empty) = (folder.path().join("missing"), folder.path().join("empty"));
    start_ends(&missing, &["--until-exported"], 64, &[&missing.display().to_string(), "holds no log", "--data-dir"]);
    assert!(!missing.exists(), "nothing was made");
    std::fs::create_dir(&empty).expect("made");
    start_ends(&empty, &["--until-exported"], 64, &[&empty.display().to_string(), "holds no log"]);
    assert_eq!(std::fs::read_dir(&empty).expect("a directory").count(), 0, "nothing was made");
    stopped(&empty, 0, 3);
    let ended = Server::spawn(&empty, &["--until-exported"]).ended_within(PATIENCE);
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
}

/// Two cores would write to it, or one while the other's clicks are never exported.
#[test]
fn a_log_that_is_there_twice_73_until_one_is_moved_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    stopped(&data_dir, 0, 5);
    let [log] = &list_logs(&data_dir).expect("readable")[..] else { panic!("one core, one log") };
    let name = log.path.file_name().and_then(|name| name.to_str()).expect("a name");
    let twice = log.path.with_file_name(name.replacen('0', "1", 1));
    copy(&log.path, &twice);
    for cores in ["1", "2"] {
        let paths = [&log.path, &twice].map(|path| path.display().to_string());
        start_ends(&data_dir, &["--cores", cores], 73, &[&paths[0], &paths[1], "move the older out"]);
    }
    std::fs::remove_dir_all(&twice).expect("ours");
    let server = Server::start(&data_dir, &EXPORTS);
    send_one_by_one(server.clicks, 5, 9);
    server.wait_for_gross(9);
    server.stop();
    audited(&data_dir);
}

#[test]
fn another_edge_73() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    stopped(&data_dir, 0, 3);
    start_ends(&data_dir, &["--edge-id", "other"], 73, &["belongs to edge `edge`", "`other`", "--edge-id"]);
    let server = Server::start(&data_dir, &EXPORTS);
    assert_eq!(server.gross(None), 3, "unharmed");
}

#[test]
fn no_data_directory_64_and_nothing_is_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("none");
    for arguments in [
        &["wal", "verify"][..],
        &["wal", "inspect"],
        &["wal", "export"],
        &["audit"],
        &["wal", "repair", "--raise-horizon", "--yes"],
    ] {
        let (code, text) = tollgate(&data_dir, arguments);
        assert!(code == Some(64) && text.contains("is no data directory") && text.contains("--data-dir"), "{text}");
    }
    assert!(!data_dir.exists());
}

#[test]
fn a_store_that_counts_otherwise_is_found_by_audit() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data_dir, early) = (folder.path().join("data"), folder.path().join("early"));
    stopped(&data_dir, 0, 5);
    copy(&data_dir, &early);
    stopped(&data_dir, 5, 9);
    // The older store lacks what the log has: it is behind, and exported at the next start.
    std::fs::copy(early.join("store.redb"), data_dir.join("store.redb")).expect("copied");
    let (code, text) = tollgate(&data_dir, &["audit"]);
    assert!(code == Some(0) && text.contains("behind the checkpoint 4"), "{text}");
    let server = Server::start(&data_dir, &EXPORTS);
    server.wait_for_gross(9);
    server.stop();
    audited(&data_dir);
    // Without a store everything is behind.
    std::fs::remove_file(data_dir.join("store.redb")).expect("removed");
    let (code, text) = tollgate(&data_dir, &["audit"]);
    assert!(code == Some(0) && text.contains("behind the checkpoint 9"), "{text}");
    let server = Server::start(&data_dir, &EXPORTS);
    server.wait_for_gross(9);
}

#[test]
fn a_broken_store_76() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    stopped(&data_dir, 0, 3);
    let copied = folder.path().join("copied");
    std::fs::copy(data_dir.join("store.redb"), &copied).expect("copied");
    stopped(&data_dir, 3, 5);
    std::fs::write(data_dir.join("store.redb"), [7; 4096]).expect("written");
    start_ends(&data_dir, &EXPORTS, 76, &["store.redb", "cannot be used", "move it away"]);
    let (code, text) = tollgate(&data_dir, &["wal", "verify"]);
    assert!(code == Some(0) && text.contains("sound"), "the log is read without the store: {text}");
    assert_eq!(tollgate(&data_dir, &["audit"]).0, Some(76));
    // A copy is put back: what came after it is exported from the log.
    std::fs::copy(&copied, data_dir.join("store.redb")).expect("copied");
    let server = Server::start(&data_dir, &EXPORTS);
    server.wait_for_gross(5);
    server.stop();
    // Or it is moved away: all of it is.
    std::fs::write(data_dir.join("store.redb"), [7; 4096]).expect("written");
    start_ends(&data_dir, &EXPORTS, 76, &["move it away"]);
    std::fs::rename(data_dir.join("store.redb"), data_dir.join("broken")).expect("renamed");
    let server = Server::start(&data_dir, &EXPORTS);
    server.wait_for_gross(5);
    server.stop();
    audited(&data_dir);
}

/// What `audited` finds nothing of in every other test here.
#[test]
fn a_count_that_differs_is_found_by_audit_which_ends_with_1() {
    const RUNS: redb::TableDefinition<i64, &[u8]> = redb::TableDefinition::new("runs");
    let folder = tempfile::tempdir().expect("a folder");
    let (data_dir, kept) = (folder.path().join("data"), folder.path().join("kept"));
    stopped(&data_dir, 0, 5);
    let store = data_dir.join("store.redb");
    std::fs::copy(&store, &kept).expect("copied");
    // Counts that are gone, while the checkpoint speaks of them.
    let database = redb::Database::create(&store).expect("a store");
    let transaction = database.begin_write().expect("a transaction");
    let mut gone = 0;
    while transaction.open_table(RUNS).expect("runs").pop_first().expect("readable").is_some() {
        gone += 1;
    }
    assert!(gone > 0, "there were some");
    transaction.commit().expect("committed");
    drop(database);
    let (code, text) = tollgate(&data_dir, &["audit"]);
    assert!(code == Some(1) && text.contains("DIFFERENT: ad \"one\"") && text.contains("log 5, store 0"), "{text}");
    assert!(text.contains("NOT the same: keep the directory as it is"), "{text}");
    std::fs::copy(&kept, &store).expect("copied");
    audited(&data_dir);
    let server = Server::start(&data_dir, &EXPORTS);
    assert_eq!(server.gross(None), 5);
    server.stop();
}

/// The binary as `up`, in a shell that has it survive a write beyond `ulimit -f`.
fn beyond_limits(script: &str, flags: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("trap '' XFSZ; {script} exec \"$@\""), "sh", binary(), "up"]).args(flags);
    for flag in ["--listen", "--query-listen", "--admin-listen"] {
        command.args([flag, "127.0.0.1:0"]);
    }
    command
}

/// The kernel refuses a write in the middle of a segment, as it would with a bad disk, or takes a part of it: what was written there is not
/// acknowledged. Clicks before it lie in a frame of 4 KiB each.
#[test]
fn a_write_of_the_log_that_fails_72() {
    // Standard error stays below the limit.
    a_write_fails(40, 64 << 10, 1, "File too large");
    a_write_fails(10, 64 << 10, 300, "bytes were written");
}

fn a_write_fails(before: u64, limit: u64, clicks: u64, why: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let flags = ["--segment-bytes", "4MiB", "--export-interval", "1m", "--dedup-memory-bytes", "64MiB"];
    let mut server = Server::spawn_command(beyond_limits("", &flags), &data_dir);
    assert!(server.ready_within(PATIENCE), "it starts");
    send_one_by_one(server.clicks, 0, before);
    // The limit is for the log's writes, not for the next segment's preparation.
    let next = tollgate::wal::segments::list_logs(&data_dir).expect("readable").remove(0).segment_path(2);
    wait_until("the next segment is prepared", || next.metadata().is_ok_and(|file| file.len() == 4 << 20));
    let limit = Rlimit { current: Some(limit), maximum: None };
    prlimit(Some(server.pid()), Resource::Fsize, limit).expect("our child");
    let mut connection = Connection::open(server.clicks).expect("it listens");
    let click = |number| format!("{{\"ad_id\":\"one\",\"timestamp\":{},\"request_id\":\"n{number}\"}}", now_ms());
    let lines: Vec<_> = (before..before + clicks).map(click).collect();
    connection.send(request("application/x-ndjson", &lines.join("\n")).as_bytes()).expect("it reads");
    let reply = connection.reply().ok().flatten().map(|reply| reply.status);
    let ended = server.ended_within(PATIENCE);
    assert_eq!(ended.code, Some(72), "{}", ended.errors);
    // Behind the start's record and the clicks before.
    let records = format!("records {}-", before + 2);
    let named = ["a write to segment 0000000001", &records, "are not acknowledged: ", why, "Look at the disk"];
    assert!(named.iter().all(|name| ended.errors.contains(name)), "{}", ended.errors);
    assert_eq!(reply, None, "not acknowledged");
    // The disk is looked at, and it is started again. What was refused may be sent again.
    let server = Server::start(&data_dir, &EXPORTS);
    send_one_by_one(server.clicks, before, before + 5);
    server.wait_for_gross(before + 5);
    server.stop();
    audited(&data_dir);
}

#[test]
fn a_segment_that_cannot_be_prepared_72() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("at-start");
    let command = beyond_limits("ulimit -f 600;", &["--segment-bytes", "4MiB"]);
    let ended = Server::spawn_command(command, &data_dir).ended_within(PATIENCE);
    ends(&ended, 72, &["segment 0000000001", "could not be prepared", "large"]);

    let (data_dir, away) = (folder.path().join("later"), folder.path().join("away"));
    let mut server = Server::start(&data_dir, &EXPORTS);
    std::fs::rename(data_dir.join("logs"), &away).expect("renamed");
    let mut connection = Connection::open(server.clicks).expect("it listens");
    let mut acknowledged = 0;
    // A frame of 4 KiB each: a segment and a half, the prepared one and the next.
    while server.is_running() && acknowledged < 1_000 {
        let sent =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| send_number(&mut connection, acknowledged)));
        match sent {
            Ok(verdict) => assert_eq!(verdict, (1, 0, 0)),
            Err(_) => break,
        }
        acknowledged += 1;
    }
    let ended = server.ended_within(PATIENCE);
    assert_eq!(ended.code, Some(72), "{}", ended.errors);
    let named = ["segment 00000000", "could not be prepared", "No such file or directory", "Look at the disk"];
    assert!(named.iter().all(|name| ended.errors.contains(name)), "{}", ended.errors);
    std::fs::rename(&away, data_dir.join("logs")).expect("renamed");
    let server = Server::start(&data_dir, &EXPORTS);
    wait_until("what was acknowledged is counted", || server.gross(None) >= acknowledged);
    assert!((acknowledged..=acknowledged + 1).contains(&server.gross(None)));
    server.stop();
    audited(&data_dir);
}
