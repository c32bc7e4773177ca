//! A disk that others fill: what has no room waits for it, clicks are shed meanwhile, and nothing that was acknowledged depends on it. Nor does
//! anything on what can be said.

use std::path::Path;

use crate::client::{Connection, request, send_one_by_one};
use crate::forgetful::{Disk, Mounted};
use crate::server::{EXPORTS, PATIENCE, Server, answer, audited, binary, now_ms, shell, stopped, wait_until};

const SEGMENT_BYTES: u64 = 1 << 20;

/// Twenty clicks are counted on it, and one segment of its log is begun.
fn disk(at: &Path) -> (Disk, Mounted) {
    let (plain, mounted) = (at.join("plain"), at.join("mounted"));
    [&plain, &mounted].into_iter().for_each(|path| std::fs::create_dir(path).expect("ours"));
    let disk = Disk::of(&plain);
    let mount = disk.mount(&mounted);
    let server = Server::start(&mounted.join("data"), &EXPORTS);
    send_one_by_one(server.clicks, 0, 20);
    server.wait_for_gross(20);
    server.stop();
    (disk, mount)
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
    let folder = tempfile::tempdir().expect("a folder");
    let (disk, mount) = disk(folder.path());
    let data_dir = folder.path().join("mounted/data");
    // A start takes the place of the segment that was prepared and never begun; the one after it does not fit, and what the store takes does.
    disk.leave_free(SEGMENT_BYTES / 2);
    let mut server = Server::start(&data_dir, &EXPORTS);
    let told = || std::fs::read_to_string(data_dir.with_extension("stderr")).expect("a file");
    wait_until("the next segment has no room", || told().contains("no room for the next segment"));
    wait_until("it says so", || answer(server.admin, "/readyz").0.starts_with("HTTP/1.1 503"));
    assert_eq!(status_of_a_click(&server, 20), 503);
    assert!(server.is_running(), "it waits for room");

    disk.leave_free(64 * SEGMENT_BYTES);
    wait_until("clicks are taken again", || status_of_a_click(&server, 20) == 202);
    send_one_by_one(server.clicks, 21, 40);
    server.wait_for_gross(40);
    server.stop();
    audited(&data_dir);
    drop(mount);
}

#[test]
fn a_start_without_room_for_its_segment_ends_with_72_takes_none_and_the_next_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let (disk, mount) = disk(folder.path());
    let data_dir = folder.path().join("mounted/data");
    // The place of the segment that was never begun goes to somebody else.
    let others = folder.path().join("mounted/others");
    disk.leave_free(SEGMENT_BYTES / 2);
    let free =
        || rustix::fs::statvfs(folder.path().join("mounted").as_path()).map(|disk| disk.f_bavail * disk.f_frsize);
    std::fs::remove_file(unbegun(&data_dir)).expect("it is there");
    std::fs::write(&others, vec![1; SEGMENT_BYTES as usize]).expect("it has room");
    let before = free().expect("it tells");
    let ended = Server::spawn(&data_dir, &EXPORTS).ended_within(PATIENCE);
    assert!(
        ended.code == Some(72) && ended.errors.contains("could not be prepared: it takes 1048576 bytes, and "),
        "{ended:?}"
    );
    assert!(free().expect("it tells") + SEGMENT_BYTES / 4 > before, "a part of a segment is left");

    std::fs::remove_file(&others).expect("ours");
    disk.leave_free(64 * SEGMENT_BYTES);
    let server = Server::start(&data_dir, &EXPORTS);
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

fn unbegun(data_dir: &Path) -> std::path::PathBuf {
    let logs = tollgate::wal::segments::list_logs(data_dir).expect("readable");
    let last = logs[0].segments().expect("readable").pop().expect("one is always ahead");
    logs[0].segment_path(last.segment)
}
