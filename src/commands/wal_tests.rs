//! What the commands promise: damage is reported with its exact extent, and the command that the report names goes on.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::wal::{CommandError, export, inspect, verify};
use super::wal_repair::{Way, repair};
use crate::cut::Position;
use crate::exit::Exit;
use crate::wal::frame::{BLOCK_BYTES, FRAME_HEADER_BYTES, FrameHeader};
use crate::wal::record::{Cause, encode_dead_letter};
use crate::wal::replay::hex;
use crate::wal::segments::{DataDir, LogError};
use crate::wal::testing::{LOG_ID, SEGMENT_BYTES, TestLog, recover_one, test_dir};

const NOW_MS: i64 = 1_700_000_500_000;

/// (offset, header) of each frame of a segment.
fn frames(log: &TestLog, segment: u64) -> Vec<(u64, FrameHeader)> {
    let bytes = std::fs::read(log.dir.segment_path(segment)).expect("a segment");
    let mut at = BLOCK_BYTES;
    let mut found = Vec::new();
    while let Some(Ok((header, _))) = bytes.get(at..).map(FrameHeader::decode) {
        found.push((at as u64, header));
        at += header.frame_bytes as usize;
    }
    found
}

fn flip(log: &TestLog, segment: u64, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(log.dir.segment_path(segment)).expect("a segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("a byte");
    file.write_all_at(&[byte[0] ^ 4], offset).expect("a byte");
}

fn verified(dir: &Path) -> (Exit, serde_json::Value) {
    let mut out = Vec::new();
    let exit = verify(dir, true, &[], &mut out).expect("verify runs");
    (exit, serde_json::from_slice(&out).expect("JSON"))
}

fn run_repair(dir: &Path, loss: &[String], yes: bool, checkpoints: &[Position]) -> Result<String, CommandError> {
    let way = if loss.is_empty() { Way::RaiseHorizon } else { Way::AcceptLoss(loss.to_vec()) };
    let mut out = Vec::new();
    repair(dir, &way, yes, checkpoints, NOW_MS, &mut out).map(|_| String::from_utf8(out).expect("text"))
}

/// Damages a log of 30 frames of 60 clicks; expects exactly this loss, repairs it, and sees that the log goes on.
fn check(what: &str, damage: impl Fn(&TestLog) -> Vec<(u64, u64, Option<u64>)>) {
    let dir = test_dir();
    let mut log = TestLog::create(dir.path());
    log.fill(30, 60);
    let end = log.writer.end_lsn();
    let expected = damage(&log);
    let (exit, report) = verified(dir.path());
    assert_eq!(exit, Exit::Difference, "{what}");
    let found = report["logs"][0]["damage"].as_array().expect("a list").clone();
    let extents: Vec<_> = found
        .iter()
        .map(|finding| {
            let extent = &finding["extent"];
            let lsn = |name: &str| extent[name].as_u64().expect("an LSN");
            (lsn("from_lsn"), lsn("to_lsn"), extent["lost_clicks"].as_u64())
        })
        .collect();
    assert_eq!(extents, expected, "{what}: {report:#}");
    assert!(matches!(recover_one(dir.path()), Err(LogError::Damaged(_))), "{what}");

    let losses: Vec<_> =
        extents.iter().filter(|e| e.1 >= e.0).map(|e| format!("{}:{}-{}", hex(&LOG_ID), e.0, e.1)).collect();
    let losses = if losses.is_empty() { vec!["none".to_owned()] } else { losses };
    assert!(run_repair(dir.path(), &losses, false, &[]).expect(what).contains("nothing was changed"), "{what}");
    assert!(matches!(recover_one(dir.path()), Err(LogError::Damaged(_))), "{what}: a dry run changes nothing");
    run_repair(dir.path(), &losses, true, &[]).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(verified(dir.path()).0, Exit::Clean, "{what}");

    let (lost, sound) = (extents.iter().map(|e| e.1 + 1 - e.0).sum::<u64>(), recover_gaps(dir.path(), what));
    let (recovered, clicks) = sound;
    let last = extents.last().expect("a finding").1.max(end);
    assert_eq!(recovered.position.lsn, last, "{what}: no LSN is used again");
    assert!(clicks + lost >= 1_800, "{what}: {clicks} clicks and {lost} lost");
    if lost > 0 {
        assert!(recovered.horizon_ms > 1_700_000_000_000, "{what}: lost ids are behind the horizon");
    }
    let mut log = TestLog::go_on(recovered.dir, recovered.start);
    log.fill(3, 10);
    let (again, more) = recover_gaps(dir.path(), what);
    assert_eq!((again.position, more), (log.writer.position(), clicks + 30), "{what}: and it goes on");
    assert_eq!(verified(dir.path()).0, Exit::Clean, "{what}");
}

/// Recovers and counts the clicks; LSNs only ever rise.
fn recover_gaps(dir: &Path, what: &str) -> (crate::wal::recover::RecoveredLog, u64) {
    let (mut clicks, mut last) = (0, 0);
    let mut logs = crate::wal::recover::recover(dir, &[], &mut |_| {}, &mut |_, frame| {
        assert!(frame.header.first_lsn > last, "{what}");
        last = frame.header.last_lsn();
        clicks += frame.records.iter().filter(|r| matches!(r, crate::wal::record::Record::Click(_))).count() as u64;
    })
    .unwrap_or_else(|error| panic!("{what}: {error}"));
    (logs.remove(0), clicks)
}

#[test]
fn damage_is_reported_with_its_exact_extent_and_the_named_repair_goes_on() {
    let lost = |header: &FrameHeader| (header.first_lsn, header.last_lsn(), Some(u64::from(header.records)));
    check("a payload in the middle", |log| {
        let (at, header) = frames(log, 2)[3];
        flip(log, 2, at + FRAME_HEADER_BYTES as u64 + 10);
        vec![lost(&header)]
    });
    check("a frame header in the middle", |log| {
        let (at, header) = frames(log, 2)[3];
        flip(log, 2, at + 20);
        vec![lost(&header)]
    });
    check("two frames in a row, and one in another segment", |log| {
        let (two, three) = (frames(log, 2), frames(log, 3));
        flip(log, 2, two[1].0 + 500);
        flip(log, 2, two[2].0 + 40);
        flip(log, 3, three[4].0 + 500);
        vec![(two[1].1.first_lsn, two[2].1.last_lsn(), Some(120)), lost(&three[4].1)]
    });
    check("the last frame of a segment that is not the last", |log| {
        let (at, header) = *frames(log, 2).last().expect("frames");
        flip(log, 2, at + 4_000);
        vec![lost(&header)]
    });
    check("the header of a segment in the middle", |log| {
        flip(log, 3, 50);
        let first = frames(log, 3)[0].1.first_lsn;
        vec![(first, first - 1, Some(0))]
    });
    check("the header of the last segment", |log| {
        let newest = log.writer.segments().back().expect("segments").segment;
        flip(log, newest, 50);
        let first = frames(log, newest)[0].1.first_lsn;
        vec![(first, first - 1, Some(0))]
    });
    check("the payload of the last frame", |log| {
        let newest = log.writer.segments().back().expect("segments").segment;
        let (at, header) = *frames(log, newest).last().expect("frames");
        flip(log, newest, at + 1_000);
        vec![lost(&header)]
    });
    check("the header of the last frame", |log| {
        let newest = log.writer.segments().back().expect("segments").segment;
        let (at, header) = *frames(log, newest).last().expect("frames");
        flip(log, newest, at + 20);
        // Nothing says how many records it had: the most that fit into its bytes.
        vec![(header.first_lsn, header.first_lsn - 1 + u64::from(header.frame_bytes) / 32, None)]
    });
    check("a missing segment", |log| {
        let all = frames(log, 3);
        std::fs::remove_file(log.dir.segment_path(3)).expect("deleted");
        let (from, to) = (all[0].1.first_lsn, all.last().expect("frames").1.last_lsn());
        vec![(from, to, None)]
    });
    check("a last segment cut short", |log| {
        let newest = log.writer.segments().back().expect("segments").segment;
        let (at, header) = *frames(log, newest).last().expect("frames");
        let file = OpenOptions::new().write(true).open(log.dir.segment_path(newest)).expect("open");
        file.set_len(at + 4_096).expect("cut");
        let missing = (SEGMENT_BYTES - at - 4_096) / 32;
        vec![(header.first_lsn, header.last_lsn() + missing, None)]
    });
}

#[test]
fn the_horizon_is_raised_without_loss_only_where_the_checkpoint_covers_the_damage() {
    let dir = test_dir();
    let mut log = TestLog::create(dir.path());
    log.fill(5, 10);
    let damaged = frames(&log, 1)[2];
    let before = log.writer.position();
    log.fill(2, 10);
    flip(&log, 1, damaged.0 + 1_000);
    let refused = |checkpoints: &[Position]| match run_repair(dir.path(), &[], true, checkpoints) {
        Err(CommandError::Refused(text)) => assert!(text.contains("--accept-loss"), "{text}"),
        other => panic!("refusal expected, found {other:?}"),
    };
    refused(&[]);
    refused(&[Position { lsn: damaged.1.last_lsn() - 1, ..before }]);
    run_repair(dir.path(), &[], true, &[before]).expect("the checkpoint is beyond the damage");
    let (recovered, _) = recover_gaps(dir.path(), "repaired");
    assert_eq!(recovered.position, log.writer.position());
    assert_eq!(recovered.horizon_ms, damaged.1.newest_ms + 1);
}

/// The server that took them may have run with the largest `--clock-skew`.
#[test]
fn records_of_which_nothing_can_be_read_may_be_as_far_ahead_as_any_setting_allows() {
    let dir = test_dir();
    let mut log = TestLog::create(dir.path());
    log.fill(5, 10);
    let (at, header) = *frames(&log, 1).last().expect("frames");
    flip(&log, 1, at + 20);
    let to = header.first_lsn - 1 + u64::from(header.frame_bytes) / 32;
    let loss = format!("{}:{}-{to}", hex(&LOG_ID), header.first_lsn);
    let said = run_repair(dir.path(), &[loss], true, &[]).expect("named exactly");
    assert!(said.contains("shed with 503 until that time, 3600 s from now"), "{said}");
    assert_eq!(recover_gaps(dir.path(), "repaired").0.horizon_ms, NOW_MS + 3_600_001);
}

#[test]
fn a_loss_must_be_named_exactly_and_the_directory_be_free() {
    let dir = test_dir();
    let mut log = TestLog::create(dir.path());
    log.fill(5, 10);
    let (at, header) = frames(&log, 1)[2];
    flip(&log, 1, at + 1_000);
    let name = |from: u64, to: u64| vec![format!("{}:{from}-{to}", hex(&LOG_ID))];
    let (from, to) = (header.first_lsn, header.last_lsn());
    for wrong in [name(from, to - 1), name(from - 1, to), vec!["x".to_owned()]] {
        assert!(matches!(run_repair(dir.path(), &wrong, true, &[]), Err(CommandError::Refused(_))), "{wrong:?}");
    }
    let lock = DataDir::open(dir.path()).expect("free");
    let in_use = run_repair(dir.path(), &name(from, to), true, &[]);
    assert!(matches!(in_use, Err(CommandError::Log(LogError::InUse { .. }))));
    run_repair(dir.path(), &name(from, to), false, &[]).expect("a dry run takes no lock");
    drop(lock);
    run_repair(dir.path(), &name(from, to), true, &[]).expect("named exactly");
    let nothing = run_repair(dir.path(), &name(from, to), true, &[]).expect("sound");
    assert!(nothing.contains("nothing to repair"));
}

#[test]
fn clicks_and_dead_letters_are_exported_with_every_field() {
    let dir = test_dir();
    let mut log = TestLog::create(dir.path());
    log.fill(1, 2);
    let mut letter = Vec::new();
    encode_dead_letter(Cause::OtherPayload, None, 77, b"{\"ad_id\":\xff}", &mut letter);
    log.append(&letter);
    log.commit(0);
    let lines = |dead_letters: bool| {
        let mut out = Vec::new();
        export(dir.path(), dead_letters, &mut out).expect("export runs");
        let text = String::from_utf8(out).expect("text");
        text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")).collect::<Vec<_>>()
    };
    let clicks = lines(false);
    assert_eq!(clicks.len(), 2);
    let expected = serde_json::json!({
        "log": hex(&LOG_ID), "lsn": 2, "key": "02000000000000000000000000000000", "key_hashed": false,
        "event_ms": 1_700_000_000_002_i64, "received_ms": 1_700_000_000_002_i64, "class": "valid",
        "device": "mobile", "agent": "chrome", "ad_id": "ad_1", "campaign_id": "campaign_7", "region": "DE",
        "user_id": "user", "click_id": "click-id",
    });
    assert_eq!(clicks[0], expected);
    let letters = lines(true);
    let expected = serde_json::json!({
        "log": hex(&LOG_ID), "lsn": 4, "reason": "other_payload", "received_ms": 77, "cut_off": false,
        "raw_hex": hex(b"{\"ad_id\":\xff}"),
    });
    assert_eq!(letters, [expected]);
}

#[test]
fn inspect_counts_what_is_there_and_says_so_where_it_is_damaged() {
    let dir = test_dir();
    let mut log = TestLog::create(dir.path());
    log.fill(30, 60);
    let run = |json: bool| {
        let mut out = Vec::new();
        let exit = inspect(dir.path(), json, &mut out).expect("inspect runs");
        (exit, String::from_utf8(out).expect("text"))
    };
    let (exit, text) = run(true);
    let view: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let segments = view["logs"][0]["segments"].as_array().expect("a list");
    let sum: u64 = segments.iter().map(|segment| segment["clicks"].as_u64().expect("a number")).sum();
    assert_eq!((exit, sum, &view["logs"][0]["last_lsn"]), (Exit::Clean, 1_800, &serde_json::json!(1_801)));
    assert!(run(false).1.contains("LSN 1 to 1801"));
    flip(&log, 1, frames(&log, 1)[1].0 + 700);
    let (exit, text) = run(false);
    assert!(exit == Exit::LogDamaged && text.contains("tollgate wal verify"), "{text}");
    let none = inspect(&dir.path().join("logs"), false, &mut Vec::new());
    assert!(matches!(none, Err(CommandError::Refused(_))));
}
