//! A disk that others fill: what has no room waits for it, clicks are shed meanwhile, and nothing that was acknowledged depends on it. Nor does
//! anything on what can be said.

use std::path::{Path, PathBuf};

use tollgate::wal::segments::{LogDir, list_logs};

use crate::client::{Connection, request, send_one_by_one};
use crate::forgetful::{Disk, Mounted};
use crate::server::{EXPORTS, PATIENCE, Server, answer, audited, binary, now_ms, shell, stopped, wait_until};

const SEGMENT_BYTES: u64 = 1 << 20;

/// How little room a disk has: what it says is free; or what one user may have, of which nobody says how much is left.
#[derive(Clone, Copy, Debug)]
enum Bound {
    Free,
    Quota,
}

impl Bound {
    fn leave(self, disk: &Disk, bytes: u64) {
        match self {
            Bound::Free => disk.leave_free(bytes),
            Bound::Quota => disk.leave_by_quota(bytes),
        }
    }
}

/// Twenty clicks are counted on it, and one segment of each log is begun.
fn disk(at: &Path, flags: &[&str]) -> (Disk, Mounted) {
    let (plain, mounted) = (at.join("plain"), at.join("mounted"));
    [&plain, &mounted].into_iter().for_each(|path| std::fs::create_dir(path).expect("ours"));
    let disk = Disk::of(&plain);
    let mount = disk.mount(&mounted);
    let server = Server::start(&mounted.join("data"), flags);
    send_one_by_one(server.clicks, 0, 20);
    server.wait_for_gross(20);
    server.stop();
    (disk, mount)
}

/// As many cores as are named.
fn flags(cores: &'static str) -> Vec<&'static str> {
    [&EXPORTS[..], &["--cores", cores]].concat()
}

/// The status of the answer to one click of now.
fn status_of_a_click(server: &Server, number: u64) -> u16 {
    let mut connection = Connection::open(server.clicks).expect("it listens");
    let body = format!("{{\"ad_id\":\"one\",\"timestamp\":{},\"request_id\":\"n{number}\"}}", now_ms());
    connection.send(request("application/json", &body).as_bytes()).expect("it reads");
    connection.reply().expect("it answers").expect("it answers").status
}

#[test]
fn a_next_segment_that_has_no_room_sheds_until_there_is_some() {
    a_next_segment_waits_for_room(Bound::Free, "1");
}

#[test]
fn so_it_does_where_a_quota_is_used_up_and_with_two_cores() {
    a_next_segment_waits_for_room(Bound::Quota, "2");
}

fn a_next_segment_waits_for_room(bound: Bound, cores: &'static str) {
    let (folder, flags) = (tempfile::tempdir().expect("a folder"), flags(cores));
    let (disk, mount) = disk(folder.path(), &flags);
    let data_dir = folder.path().join("mounted/data");
    // A start takes the place of the segment that was prepared and never begun; the one after it does not fit, and what the store takes does.
    bound.leave(&disk, SEGMENT_BYTES / 2);
    let mut server = Server::start(&data_dir, &flags);
    let told = || std::fs::read_to_string(data_dir.with_extension("stderr")).expect("a file");
    wait_until("the next segment has no room", || told().contains("no room for the next segment"));
    wait_until("it says so", || answer(server.admin, "/readyz").0.starts_with("HTTP/1.1 503"));
    assert_eq!(status_of_a_click(&server, 20), 503);
    assert!(server.is_running(), "it waits for room");

    bound.leave(&disk, 64 * SEGMENT_BYTES);
    wait_until("clicks are taken again", || status_of_a_click(&server, 20) == 202);
    send_one_by_one(server.clicks, 21, 40);
    server.wait_for_gross(40);
    server.stop();
    audited(&data_dir);
    drop(mount);
}

#[test]
fn a_start_without_room_for_a_segment_of_each_core_ends_with_72_leaves_none_and_the_next_goes_on() {
    for (bound, cores, why) in [
        (Bound::Free, "1", "it takes 1048576 bytes, and "),
        (Bound::Free, "2", "it takes 1048576 bytes, and "),
        (Bound::Quota, "2", "Disk quota exceeded"),
    ] {
        a_start_leaves_none(bound, cores, why);
    }
}

fn a_start_leaves_none(bound: Bound, cores: &'static str, why: &str) {
    let (folder, flags) = (tempfile::tempdir().expect("a folder"), flags(cores));
    let (disk, mount) = disk(folder.path(), &flags);
    let data_dir = folder.path().join("mounted/data");
    // The place of one of the segments that were never begun goes to somebody else.
    let others = folder.path().join("mounted/others");
    bound.leave(&disk, SEGMENT_BYTES / 2);
    unbegun(&data_dir).iter().for_each(|path| std::fs::remove_file(path).expect("it is there"));
    std::fs::write(&others, vec![1; SEGMENT_BYTES as usize]).expect("it has room");
    let segments = || logs(&data_dir).iter().map(|log| log.segments().expect("readable")).collect::<Vec<_>>();
    let before = segments();
    for _ in 0..2 {
        let ended = Server::spawn(&data_dir, &flags).ended_within(PATIENCE);
        assert!(
            ended.code == Some(72) && ended.errors.contains("could not be prepared: ") && ended.errors.contains(why),
            "{bound:?}, {cores} cores: {ended:?}"
        );
        assert_eq!(segments(), before, "{bound:?}, {cores} cores: a segment is left, or a part of one");
    }

    std::fs::remove_file(&others).expect("ours");
    bound.leave(&disk, 64 * SEGMENT_BYTES);
    let server = Server::start(&data_dir, &flags);
    send_one_by_one(server.clicks, 20, 40);
    server.wait_for_gross(40);
    server.stop();
    audited(&data_dir);
    drop(mount);
}

/// A service manager goes by the code.
#[test]
fn what_nobody_can_read_changes_no_exit_code_and_ends_no_service() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    stopped(&data_dir, 0, 20);
    let (program, data_dir) = (binary(), data_dir.display());
    let ports = "--listen 127.0.0.1:0 --query-listen 127.0.0.1:0 --admin-listen 127.0.0.1:0";
    for (arguments, code) in [
        (format!("up --until-exported --data-dir {data_dir} {ports} --dedup-memory-bytes 16MiB"), 0),
        ("check".to_owned(), 0),
        ("--help".to_owned(), 0),
        ("up --dedup-window 99h".to_owned(), 64),
        (format!("up --data-dir {program}"), 69),
    ] {
        let (ended, told) = shell(&format!("{program} {arguments} >/dev/full 2>/dev/full"));
        assert_eq!(ended, Some(code), "{arguments}: {told}");
    }
}

/// The newest of each log: one is always ahead.
fn unbegun(data_dir: &Path) -> Vec<PathBuf> {
    let newest = |log: &LogDir| {
        let last = log.segments().expect("readable").pop().expect("one is always ahead");
        log.segment_path(last.segment)
    };
    logs(data_dir).iter().map(newest).collect()
}

fn logs(data_dir: &Path) -> Vec<LogDir> {
    list_logs(data_dir).expect("readable")
}
