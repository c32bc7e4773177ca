//! Torn tails and flipped bits in the directory of a server that was killed. Each click has a frame of its own.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tollgate::wal::frame::{BLOCK_BYTES, FrameHeader};
use tollgate::wal::recover::recover;

use crate::client::{Connection, send_number, send_one_by_one};
use crate::server::{self, EXPORTS, Server, audited, copy, shell, tollgate};

const CLICKS: u64 = 12;
/// No cut within the test.
const EXPORTS_NOTHING: [&str; 2] = ["--export-interval", "1m"];

/// A directory whose server was killed after it had acknowledged the clicks 0 to 11.
fn killed(data_dir: &Path, exported: bool) {
    let server = Server::start(data_dir, if exported { &EXPORTS } else { &EXPORTS_NOTHING });
    send_one_by_one(server.clicks, 0, CLICKS);
    if exported {
        server.wait_for_gross(CLICKS);
    }
    server.kill();
}

/// The only segment with frames, and (offset, header) of each frame.
fn frames(data_dir: &Path) -> (PathBuf, Vec<(u64, FrameHeader)>) {
    let log = std::fs::read_dir(data_dir.join("logs")).expect("logs").next().expect("a log").expect("a log").path();
    let path = log.join("0000000001.seg");
    let bytes = std::fs::read(&path).expect("a segment");
    let (mut at, mut found) = (BLOCK_BYTES, Vec::new());
    while let Ok((header, _)) = FrameHeader::decode(&bytes[at..]) {
        found.push((at as u64, header));
        at += header.frame_bytes as usize;
    }
    (path, found)
}

fn write(path: &Path, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).expect("the segment");
    file.write_all_at(bytes, offset).expect("written");
}

fn flip(path: &Path, offset: u64) {
    let byte = std::fs::read(path).expect("the segment")[offset as usize];
    write(path, offset, &[byte ^ 0x10]);
}

/// The command between backticks that begins so.
fn printed(text: &str, begins: &str, contains: &str) -> String {
    let mut between = text.split('`').skip(1).step_by(2);
    let found = between.find(|command| command.starts_with(begins) && command.contains(contains));
    found.unwrap_or_else(|| panic!("no `{begins} … {contains}` in: {text}")).to_owned()
}

/// It does not start, and says what to run.
fn halts(data_dir: &Path) -> String {
    let errors = server::halts(data_dir, 71, &["tollgate wal repair"]);
    printed(&errors, "tollgate wal verify", "--data-dir")
}

#[test]
fn a_tail_torn_at_any_byte_costs_that_frame_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data_dir, torn) = (folder.path().join("data"), folder.path().join("torn"));
    killed(&data_dir, false);
    copy(&data_dir, &torn);
    let (path, found) = frames(&torn);
    let (at, last) = *found.last().expect("frames");
    assert_eq!((last.records, last.first_lsn), (1, CLICKS + 1), "the last frame is the last click");
    for cut in (0..u64::from(last.frame_bytes)).rev() {
        write(&path, at + cut, &[0]);
        let logs = recover(&torn, &[], &mut |_| {}, &mut |_, _| {}).unwrap_or_else(|error| panic!("{cut}: {error}"));
        assert_eq!((logs.len(), logs[0].position.lsn), (1, CLICKS), "cut at {cut}");
    }
    for cut in [0, 1, 150, 152, 300, 511, 512, 2_048, 4_095] {
        let data = folder.path().join(format!("torn-{cut}"));
        copy(&data_dir, &data);
        write(&frames(&data).0, at + cut, &vec![0; (u64::from(last.frame_bytes) - cut) as usize]);
        let (code, text) = tollgate(&data, &["wal", "verify"]);
        assert!(code == Some(0) && text.contains("sound") && (cut == 0 || text.contains("torn tail")), "{cut}: {text}");
        let server = Server::start(&data, &EXPORTS);
        server.wait_for_gross(CLICKS - 1);
        let mut connection = Connection::open(server.clicks).expect("it listens");
        assert_eq!(send_number(&mut connection, CLICKS - 2), (0, 1, 0), "cut at {cut}: remembered");
        assert_eq!(send_number(&mut connection, CLICKS - 1), (1, 0, 0), "cut at {cut}: the one that was cut off");
        server.wait_for_gross(CLICKS);
        server.stop();
        audited(&data);
    }
}

#[test]
fn a_flipped_bit_halts_and_the_printed_commands_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    killed(&data_dir, false);
    let (path, found) = frames(&data_dir);
    flip(&path, found[5].0 + 200);
    let (code, report) = shell(&halts(&data_dir));
    assert_eq!(code, Some(1), "{report}");
    let lsn = found[5].1.first_lsn;
    assert!(report.contains(&format!("lost: LSN {lsn} to {lsn}, 1 records (1 clicks)")), "{report}");
    assert!(!report.contains("--raise-horizon"), "only what applies is printed: {report}");
    let repair = printed(&report, "tollgate wal repair", "--accept-loss");
    let without_loss = format!("{} --raise-horizon", repair.split(" --accept-loss").next().expect("a command"));
    let (code, text) = shell(&without_loss);
    assert!(code == Some(64) && text.contains("were exported"), "not exported, so not without loss: {text}");
    let (code, text) = shell(&repair);
    assert!(code == Some(0) && text.contains("nothing was changed"), "{text}");
    halts(&data_dir);
    let (code, text) = shell(&format!("{repair} --yes"));
    assert!(code == Some(0) && text.contains("written:"), "{text}");
    let server = Server::start(&data_dir, &EXPORTS);
    server.wait_for_gross(CLICKS - 1);
    send_one_by_one(server.clicks, 100, 105);
    server.wait_for_gross(CLICKS + 4);
    server.stop();
    audited(&data_dir);
}

#[test]
fn a_flipped_bit_in_what_is_exported_costs_no_count() {
    // In the middle; and in the last click, with and without the empty frames behind it.
    for (name, frame, behind) in [("middle", 5, true), ("last", CLICKS as usize, true), ("end", CLICKS as usize, false)]
    {
        let folder = tempfile::tempdir().expect("a folder");
        let data_dir = folder.path().join(name);
        killed(&data_dir, true);
        let (path, found) = frames(&data_dir);
        flip(&path, found[frame].0 + 200);
        if !behind {
            for (at, header) in &found[frame + 1..] {
                write(&path, *at, &vec![0; header.frame_bytes as usize]);
            }
        }
        let (code, report) = shell(&halts(&data_dir));
        assert_eq!(code, Some(1), "{name}: {report}");
        let (code, text) = shell(&(printed(&report, "tollgate wal repair", "--raise-horizon") + " --yes"));
        assert_eq!(code, Some(0), "{name}: {text}");
        let server = Server::start(&data_dir, &EXPORTS);
        server.wait_for_gross(CLICKS);
        send_one_by_one(server.clicks, 100, 105);
        server.wait_for_gross(CLICKS + 5);
        server.stop();
        audited(&data_dir);
    }
}
