//! What recovery promises: acknowledged records come back or the process halts; what was never acknowledged may go.

use std::fs::OpenOptions;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::frame::{BLOCK_BYTES, FRAME_HEADER_BYTES, FrameHeader};
use super::reader::LogReader;
use super::record::Record;
use super::recover::{Tail, recover};
use super::replay::{BadFrame, Damage, Fault, Proof, ReplayedFrame};
use super::segments::LogError;
use super::testing::{SEGMENT_BYTES, TestLog, click_record, recover_one, test_dir};
use super::writer::LogStart;
use crate::cut::Position;

fn segment(dir: &Path, number: u64) -> PathBuf {
    super::segments::list_logs(dir).expect("a log")[0].segment_path(number)
}

fn patch(path: &Path, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).expect("the segment is there");
    file.write_all_at(bytes, offset).expect("a write");
}

fn damage(dir: &Path) -> Damage {
    match recover_one(dir) {
        Err(LogError::Damaged(damage)) => *damage,
        Err(other) => panic!("damage expected, found {other}"),
        Ok((recovered, _)) => panic!("damage expected, found {recovered:?}"),
    }
}

/// (offset, header) of each frame of a segment, by walking its bytes.
fn frames(bytes: &[u8]) -> Vec<(usize, FrameHeader)> {
    let mut at = BLOCK_BYTES;
    let mut found = Vec::new();
    while let Some(Ok((header, _))) = bytes.get(at..).map(FrameHeader::decode) {
        found.push((at, header));
        at += header.frame_bytes as usize;
    }
    found
}

fn expected(clicks: u64) -> Vec<Vec<u8>> {
    // LSN 1 is the start record.
    (2..2 + clicks).map(click_record).collect()
}

#[test]
fn everything_written_comes_back_in_order_over_many_segments() {
    let dir = test_dir();
    let mut log = TestLog::create(dir.path());
    log.fill(40, 60);
    let (end, totals) = (log.writer.position(), log.writer.totals());
    let summaries: Vec<_> = log.writer.segments().iter().copied().collect();
    assert!(summaries.len() > 3, "the test must cross segments");
    let (recovered, clicks) = recover_one(dir.path()).expect("a sound log");
    assert_eq!(clicks, expected(2_400));
    assert_eq!((recovered.position, recovered.start.totals), (end, totals));
    assert_eq!(recovered.start.segments, summaries);
    assert_eq!(recovered.tail, Tail::Clean);
    assert_eq!((recovered.nonces.len(), recovered.start.incarnation), (1, 2));
    assert_eq!(recovered.horizon_ms, recovered.built_ms - 600_000);
}

#[test]
fn a_log_goes_on_after_each_recovery_and_keeps_every_record() {
    let dir = test_dir();
    drop(TestLog::create(dir.path()));
    for (starts, round) in (1..).zip(0..6_u64) {
        let (recovered, clicks) = recover_one(dir.path()).expect("a sound log");
        assert_eq!(clicks.len() as u64, round * 20);
        assert_eq!(recovered.nonces.len(), starts);
        let mut log = TestLog::go_on(recovered.dir, recovered.start);
        log.fill(2, 10);
    }
}

#[test]
fn an_incarnation_is_known_by_its_segments_when_its_start_record_is_deleted() {
    let dir = test_dir();
    let mut log = TestLog::create(dir.path());
    log.fill(30, 60);
    let first = log.writer.segments()[0].segment;
    std::fs::remove_file(log.dir.segment_path(first)).expect("deleted");
    let (recovered, _) = recover_one(dir.path()).expect("a log without its oldest segment");
    assert!(recovered.base_lsn > 0);
    assert_eq!(recovered.nonces.iter().collect::<Vec<_>>(), [&[1; 16]]);
}

#[test]
fn a_frame_torn_at_any_byte_costs_that_frame_alone() {
    let dir = test_dir();
    let mut log = TestLog::create(dir.path());
    log.fill(2, 5);
    let before = log.writer.position();
    log.fill(1, 95);
    let path = segment(dir.path(), 1);
    let whole = std::fs::read(&path).expect("the segment");
    let (at, header) = *frames(&whole).last().expect("frames");
    assert!(header.frame_bytes > 2 * BLOCK_BYTES as u32, "the test must cut inside blocks and between them");
    // Descending, so that each step only zeroes one more byte.
    for cut in (0..header.frame_bytes as usize).rev() {
        patch(&path, (at + cut) as u64, &[0]);
        let (recovered, clicks) = recover_one(dir.path()).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        assert_eq!(recovered.position, before, "cut at {cut}");
        assert_eq!(clicks, expected(10), "cut at {cut}");
        let torn = Tail::Torn { segment: 1, offset: at as u64 };
        assert_eq!(recovered.tail, if cut == 0 { Tail::Clean } else { torn }, "cut at {cut}");
        assert_eq!(recovered.start.segment, 2, "the unused segment is prepared anew, the torn one not written to");
        if cut == header.frame_bytes as usize - 1 {
            // Recovery removed the segment prepared ahead; later rounds run without it, as after a second kill.
            assert!(!segment(dir.path(), 2).exists());
        }
    }
}

#[test]
fn sectors_of_the_last_frame_that_never_landed_cost_that_frame_alone() {
    let dir = test_dir();
    let mut log = TestLog::create(dir.path());
    log.fill(1, 5);
    let before = log.writer.position();
    log.fill(1, 60);
    let path = segment(dir.path(), 1);
    let whole = std::fs::read(&path).expect("the segment");
    let (at, header) = *frames(&whole).last().expect("frames");
    for sector in 0..header.frame_bytes as usize / 512 {
        std::fs::write(&path, &whole).expect("the segment");
        patch(&path, (at + sector * 512) as u64, &[0; 512]);
        let (recovered, _) = recover_one(dir.path()).unwrap_or_else(|error| panic!("sector {sector}: {error}"));
        assert_eq!(recovered.position, before, "sector {sector}");
    }
}

#[test]
fn a_flipped_bit_in_the_last_frame_is_damage_and_never_a_torn_tail() {
    let dir = test_dir();
    let mut log = TestLog::create(dir.path());
    log.fill(1, 5);
    let before = log.writer.position();
    log.fill(1, 40);
    let path = segment(dir.path(), 1);
    let whole = std::fs::read(&path).expect("the segment");
    let (at, header) = *frames(&whole).last().expect("frames");
    for index in 0..header.frame_bytes as usize {
        patch(&path, (at + index) as u64, &[whole[at + index] ^ (1 << (index % 8))]);
        let damage = damage(dir.path());
        assert_eq!((damage.segment, damage.offset, damage.lsn), (1, at as u64, before.lsn), "byte {index}");
        patch(&path, (at + index) as u64, &[whole[at + index]]);
    }
    recover_one(dir.path()).expect("the restored log is sound");
}

#[test]
fn a_flipped_bit_in_an_earlier_frame_or_a_segment_header_is_damage() {
    let dir = test_dir();
    let mut log = TestLog::create(dir.path());
    log.fill(30, 60);
    assert!(log.writer.segments().len() >= 3);
    let newest = log.writer.segments().back().expect("segments").segment;
    for number in [1, 2, newest] {
        let path = segment(dir.path(), number);
        let whole = std::fs::read(&path).expect("the segment");
        let used = frames(&whole).iter().map(|(at, header)| at + header.frame_bytes as usize).max().expect("frames");
        for index in (0..used).step_by(97) {
            patch(&path, index as u64, &[whole[index] ^ (1 << (index % 8))]);
            damage(dir.path());
            patch(&path, index as u64, &[whole[index]]);
        }
    }
    recover_one(dir.path()).expect("the restored log is sound");
}

#[test]
fn zeroed_sectors_before_a_later_frame_are_damage() {
    let dir = test_dir();
    let mut log = TestLog::create(dir.path());
    log.fill(2, 30);
    log.idle();
    let path = segment(dir.path(), 1);
    let whole = std::fs::read(&path).expect("the segment");
    let all = frames(&whole);
    let end = all.last().expect("frames").0;
    for sector in (BLOCK_BYTES..end).step_by(512) {
        patch(&path, sector as u64, &[0; 512]);
        let found = damage(dir.path());
        let proof = matches!(found.fault, Fault::Frame { proof: Proof::LaterFrame { .. }, .. });
        assert!(proof, "sector at {sector}: {found}");
        patch(&path, sector as u64, &whole[sector..sector + 512]);
    }
    // The segment header has frames behind its own write.
    patch(&path, 0, &[0; 512]);
    assert!(matches!(damage(dir.path()).fault, Fault::SegmentHeader { proof: Proof::LaterFrame { .. }, .. }));
}

#[test]
fn stale_bytes_missing_doubled_and_shortened_segments_are_damage() {
    let dir = test_dir();
    let mut log = TestLog::create(dir.path());
    log.fill(30, 60);
    let newest = log.writer.segments().back().expect("segments").segment;
    let files: Vec<_> = (1..=newest).map(|n| std::fs::read(segment(dir.path(), n)).expect("a segment")).collect();
    let restore = || {
        for (index, bytes) in files.iter().enumerate() {
            std::fs::write(segment(dir.path(), index as u64 + 1), bytes).expect("a segment");
        }
    };
    // An older frame in the place of a newer one.
    let all = frames(&files[0]);
    let (from, to) = (all[1].0, all[2].0);
    patch(&segment(dir.path(), 1), to as u64, &files[0][from..from + all[1].1.frame_bytes as usize]);
    assert!(matches!(damage(dir.path()).fault, Fault::Frame { .. }));
    restore();
    // A sector of another frame.
    patch(&segment(dir.path(), 1), to as u64 + 1024, &files[0][from + 1024..from + 1536]);
    assert!(matches!(damage(dir.path()).fault, Fault::Frame { .. }));
    restore();
    std::fs::remove_file(segment(dir.path(), 2)).expect("deleted");
    assert!(matches!(damage(dir.path()).fault, Fault::Missing { segment: 3, .. }));
    restore();
    std::fs::copy(segment(dir.path(), 1), segment(dir.path(), 2)).expect("copied");
    assert!(matches!(damage(dir.path()).fault, Fault::SegmentForeign { segment: 1, .. }));
    restore();
    let last = segment(dir.path(), newest);
    OpenOptions::new().write(true).open(&last).expect("open").set_len(SEGMENT_BYTES / 2 + 100).expect("shortened");
    assert!(matches!(damage(dir.path()).fault, Fault::Truncated { .. }));
    restore();
    // The newest segments gone: only a checkpoint can tell, and then it does.
    let end = log.writer.position();
    std::fs::remove_file(&last).expect("deleted");
    let beyond = recover(dir.path(), &[end], &mut |_| {}, &mut |_, _| {});
    assert!(matches!(beyond, Err(LogError::Damaged(_))), "{beyond:?}");
    restore();
    recover_one(dir.path()).expect("the restored log is sound");
}

#[test]
fn a_sound_frame_of_another_history_is_damage_even_where_its_lsns_fit() {
    let (dir, other) = (test_dir(), test_dir());
    let (mut log, mut clone) = (TestLog::create(dir.path()), TestLog::create(other.path()));
    log.fill(3, 10);
    for number in 900..910 {
        clone.append(&click_record(number));
    }
    clone.commit(0);
    clone.fill(2, 10);
    let foreign = std::fs::read(segment(other.path(), 1)).expect("the segment");
    let (at, header) = *frames(&foreign).last().expect("frames");
    patch(&segment(dir.path(), 1), at as u64, &foreign[at..at + header.frame_bytes as usize]);
    let found = damage(dir.path());
    let chain = matches!(found.fault, Fault::Frame { bad: BadFrame::Chain { .. }, proof: Proof::NotTorn });
    assert!(chain && found.lsn + 1 == header.first_lsn, "{found}");
}

#[test]
fn a_checkpoint_must_name_a_frame_of_this_log() {
    let dir = test_dir();
    let mut log = TestLog::create(dir.path());
    log.fill(3, 5);
    let middle = log.writer.position();
    log.fill(3, 5);
    let run = |position: Position| recover(dir.path(), &[position], &mut |_| {}, &mut |_, _| {}).map(|_| ());
    run(middle).expect("a frame's end");
    run(log.writer.position()).expect("the log's end");
    let forged = run(Position { chain: middle.chain ^ 1, ..middle });
    assert!(matches!(forged, Err(LogError::Damaged(d)) if matches!(d.fault, Fault::Checkpoint { .. })));
}

#[test]
fn a_late_write_of_a_dead_process_beyond_the_cut_is_never_read() {
    let dir = test_dir();
    let mut log = TestLog::create(dir.path());
    log.fill(2, 5);
    let path = segment(dir.path(), 1);
    let before = std::fs::read(&path).expect("the segment");
    log.fill(1, 5);
    let after = std::fs::read(&path).expect("the segment");
    std::fs::write(&path, &before).expect("as if the write had not landed");
    let (recovered, _) = recover_one(dir.path()).expect("a sound log");
    let mut next = TestLog::go_on(recovered.dir, recovered.start);
    next.fill(1, 7);
    let end = next.writer.position();
    std::fs::write(&path, &after).expect("and now it lands");
    let (recovered, clicks) = recover_one(dir.path()).expect("the cut holds");
    assert_eq!(recovered.position, end);
    assert_eq!(clicks.len(), 17);
}

#[test]
fn recovery_killed_at_any_step_and_run_again_gives_the_same_state() {
    let dir = test_dir();
    let mut log = TestLog::create(dir.path());
    log.fill(3, 60);
    let path = segment(dir.path(), 1);
    let whole = std::fs::read(&path).expect("the segment");
    let (at, _) = *frames(&whole).last().expect("frames");
    patch(&path, at as u64 + 600, &vec![0; 9_000]);
    let (first, clicks) = recover_one(dir.path()).expect("a torn tail");
    let same = |what: &str| {
        let (again, again_clicks) = recover_one(dir.path()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(again_clicks, clicks, "{what}");
        let lasting = |start: &LogStart| (start.lsn, start.chain, start.totals, start.incarnation);
        assert_eq!(lasting(&again.start), lasting(&first.start), "{what}");
        again
    };
    same("at once");
    let next = segment(dir.path(), first.start.segment);
    std::fs::write(&next, vec![0; 12_288]).expect("a file");
    same("while the new segment was zeroed");
    std::fs::write(&next, vec![0; SEGMENT_BYTES as usize]).expect("a file");
    same("with the new segment prepared");
    // The first write of the new incarnation, torn at every sector.
    let dead = TestLog::go_on(first.dir.clone(), first.start.clone());
    let begun = std::fs::read(&next).expect("the new segment");
    let length = 2 * BLOCK_BYTES;
    for landed in 1..length / 512 {
        let mut torn = vec![0; SEGMENT_BYTES as usize];
        torn[..landed * 512].copy_from_slice(&begun[..landed * 512]);
        std::fs::write(&next, &torn).expect("a file");
        let again = same(&format!("torn after sector {landed}"));
        assert_eq!(again.start.segment, first.start.segment + 1, "a touched segment is not written again");
        // Or the other way round: the end landed and the beginning did not.
        torn[..length].copy_from_slice(&begun[..length]);
        torn[..landed * 512].fill(0);
        std::fs::write(&next, &torn).expect("a file");
        same(&format!("torn before sector {landed}"));
    }
    drop(dead);
    // The next incarnation goes on behind the torn segment; then the log is whole again.
    let again = same("before it goes on");
    let mut log = TestLog::go_on(again.dir, again.start);
    log.fill(1, 3);
    let (last, all) = recover_one(dir.path()).expect("a sound log");
    assert_eq!(last.position, log.writer.position());
    assert_eq!(all.len(), clicks.len() + 3);
}

#[test]
fn ranges_read_again_are_exactly_what_was_written() {
    let dir = test_dir();
    let mut log = TestLog::create(dir.path());
    log.fill(30, 60);
    let mut reader = LogReader::new(log.dir.clone());
    let mut read = |from: u64, to: u64| {
        let mut records = Vec::new();
        let mut next = from + 1;
        let mut each = |frame: &ReplayedFrame<'_>| {
            for (lsn, record) in (frame.header.first_lsn..).zip(&frame.records) {
                if (from + 1..=to).contains(&lsn) {
                    assert_eq!(lsn, next);
                    next += 1;
                    match record {
                        Record::Click(click) => records.push(click.bytes().to_vec()),
                        Record::DeadLetter(_) | Record::Start(_) => {}
                    }
                }
            }
            ControlFlow::Continue(())
        };
        reader.read_frames(from, to, &mut each).expect("a sound range");
        assert_eq!(next, to + 1);
        records
    };
    let all = expected(1_800);
    assert_eq!(read(1, 1_801), all);
    assert_eq!(read(100, 200), all[99..199]);
    assert_eq!(read(200, 500), all[199..499]);
    assert_eq!(read(10, 11), all[9..10]);
    assert_eq!(read(1_801, 1_801), Vec::<Vec<u8>>::new());
    // A log that is written to meanwhile.
    log.fill(8, 60);
    assert_eq!(read(1_801, 2_281).len(), 480);
    let mut each = |frame: &ReplayedFrame<'_>| {
        assert!(matches!(frame.records.first(), Some(Record::Start(_))));
        ControlFlow::Continue(())
    };
    reader.read_frames(0, 1, &mut each).expect("the first record");
    let beyond = reader.read_frames(2_281, 2_282, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(beyond, Err(LogError::Damaged(_))));
}

#[test]
fn no_frame_holds_a_zero_sector() {
    let dir = test_dir();
    let mut log = TestLog::create(dir.path());
    log.fill(6, 50);
    log.idle();
    let whole = std::fs::read(segment(dir.path(), 1)).expect("the segment");
    for (at, header) in frames(&whole) {
        let frame = &whole[at..at + header.frame_bytes as usize];
        assert!(!super::frame::has_zero_sector(frame) && frame.last() != Some(&0));
        assert!(header.payload_bytes as usize + FRAME_HEADER_BYTES < frame.len());
    }
}
