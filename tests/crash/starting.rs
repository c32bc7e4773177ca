//! What a start waits for.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use tollgate::wal::frame::{BLOCK_BYTES, FRAME_HEADER_BYTES, FrameHeader};
use tollgate::wal::segments::list_logs;

use crate::found::read;
use crate::server::{EXPORTS, PATIENCE, Server, audited, killed, now_ms};

/// The last frame of the log says that it was made then.
fn as_if_made_at(data_dir: &Path, built_ms: i64) {
    let log = list_logs(data_dir).expect("readable").remove(0);
    let last = *read(&log, None).expect("as it was left").1.last().expect("a frame");
    let file = File::options().read(true).write(true).open(log.segment_path(last.segment)).expect("it is there");
    let mut bytes = [0; BLOCK_BYTES];
    file.read_exact_at(&mut bytes, last.offset).expect("it was read");
    let (header, _) = FrameHeader::decode(&bytes).expect("it was read");
    FrameHeader { built_ms, ..header }.encode(&mut bytes[..FRAME_HEADER_BYTES]);
    file.write_all_at(&bytes, last.offset).expect("written");
}

/// Under a clock that is behind, ids would be forgotten or remembered by another time than they were taken at.
#[test]
fn a_start_waits_until_the_clock_has_reached_the_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    killed(&data_dir, 5);
    let built_ms = now_ms() + 4_000;
    as_if_made_at(&data_dir, built_ms);
    let mut server = Server::spawn(&data_dir, &EXPORTS);
    let ready = server.ready_within(Duration::from_millis((built_ms - now_ms() - 500).max(0) as u64));
    assert!(!ready, "it took clicks by a clock that is behind its log");
    assert!(server.ready_within(PATIENCE) && now_ms() >= built_ms, "ready at {}, the log is of {built_ms}", now_ms());
    server.wait_for_gross(5);
    server.stop();
    audited(&data_dir);
}
