//! What the writer promises: the durable prefix, spacing, one write in flight, and no buffer lost.

use proptest::prelude::*;

use super::*;
use crate::wal::frame::FLAG_CUT;
use crate::wal::replay::{Base, LogReplay, Step};
use crate::wal::testing::{FRAME_BYTES, LOG_ID, SEGMENT_BYTES, buffers, click_record, config, meta};

fn writer(buffer_count: u32) -> Writer {
    let mut writer = Writer::new(config(), LogStart::new(LOG_ID, 1), buffers(buffer_count));
    assert_eq!(writer.wants_segment(), Some(1));
    writer.segment_ready(1);
    writer
}

#[test]
fn a_commit_is_due_when_the_core_would_sleep_or_the_oldest_record_is_old() {
    let mut writer = writer(3);
    assert!(!writer.due(0, true), "nothing to commit");
    assert_eq!(writer.next_deadline_ns(), None);
    writer.append(&click_record(1));
    assert!(!writer.due(5_000, false), "young, and the core is busy");
    assert!(writer.due(5_000, true));
    assert!(!writer.due(1_004_999, false));
    assert!(writer.due(1_005_000, false), "1 ms old");
}

#[test]
fn starts_of_writes_are_spaced_and_one_is_in_flight() {
    let mut writer = writer(3);
    writer.append(&click_record(1));
    writer.seal(meta(1, 0));
    let (first, write) = writer.next_write(1_000_000).expect("the disk is idle");
    assert_eq!((write.segment, write.file_offset, write.buffer_offset), (1, 0, 0));
    writer.append(&click_record(2));
    assert!(!writer.due(2_000_000, true), "a write is in flight");
    assert_eq!(writer.next_deadline_ns(), None, "its end wakes the core");
    writer.seal(meta(2, 0));
    assert!(writer.next_write(2_000_000).is_none());
    assert_eq!(writer.durable_lsn(), 0);
    writer.written(first, true).expect("a good write");
    assert_eq!(writer.durable_lsn(), 1);
    assert_eq!(writer.next_deadline_ns(), Some(1_200_000));
    assert!(writer.next_write(1_199_999).is_none(), "too soon after the last start");
    let (_, write) = writer.next_write(1_200_000).expect("spaced");
    let frame_end = (SEGMENT_HEADER_BYTES + BLOCK_BYTES) as u64;
    assert_eq!((write.file_offset, write.buffer_offset), (frame_end, SEGMENT_HEADER_BYTES as u32));
}

#[test]
fn a_failed_write_is_never_retried_and_nothing_more_becomes_durable() {
    let mut writer = writer(3);
    writer.append(&click_record(1));
    writer.seal(meta(1, 0));
    let (buffer, _) = writer.next_write(0).expect("the disk is idle");
    writer.append(&click_record(2));
    writer.seal(meta(2, 0));
    let failed = writer.written(buffer, false);
    let failed = failed.expect_err("it failed");
    assert_eq!(failed, WriteFailed { segment: 1, durable_lsn: 0, end_lsn: 1 });
    let said = "a write to segment 0000000001 of the log failed; records 1-1 are not acknowledged";
    assert_eq!(failed.to_string(), said);
    assert!(writer.next_write(u64::MAX / 2).is_none());
    assert_eq!((writer.durable_lsn(), writer.next_deadline_ns()), (0, None));
    assert!(!writer.due(u64::MAX / 2, true));
}

#[test]
fn frames_that_complete_out_of_order_make_only_the_gap_free_prefix_durable() {
    let mut writer = writer(3);
    let mut flying = Vec::new();
    for number in 1..=3 {
        writer.append(&click_record(number));
        writer.seal(meta(1, 0));
        // As a writer with several writes in flight would: the accounting does not rest on the policy of one.
        let Sealed { buffer, write, end_lsn, horizon_ms } = writer.sealed.pop_front().expect("just sealed");
        let flight = InFlight { buffer_id: buffer.id, segment: write.segment, end_lsn, horizon_ms, done: false };
        writer.in_flight.push_back(flight);
        flying.push(buffer);
    }
    let expected = [0, 0, 3];
    for (index, durable) in [2, 1, 0].into_iter().zip(expected) {
        writer.written(flying.remove(index), true).expect("a good write");
        assert_eq!(writer.durable_lsn(), durable);
    }
}

#[test]
fn room_ends_with_the_buffers_and_returns_with_a_write() {
    let mut writer = writer(2);
    let record = click_record(1);
    let per_frame = writer.record_bytes_max() / record.len();
    let fill = |writer: &mut Writer| {
        for _ in 0..per_frame {
            writer.append(&record);
        }
    };
    fill(&mut writer);
    assert_eq!(writer.room(record.len()), FrameRoom::AfterSeal);
    writer.seal(meta(1, 0));
    assert_eq!(writer.room(record.len()), FrameRoom::Now);
    fill(&mut writer);
    assert_eq!(writer.room(record.len()), FrameRoom::AfterWrite);
    let (buffer, write) = writer.next_write(0).expect("the disk is idle");
    assert!(write.length as u64 <= u64::from(FRAME_BYTES) + SEGMENT_HEADER_BYTES as u64);
    writer.written(buffer, true).expect("a good write");
    assert_eq!(writer.room(record.len()), FrameRoom::AfterSeal);
}

#[test]
fn an_empty_seal_makes_a_frame_only_where_asked() {
    let mut writer = writer(1);
    let start = writer.position();
    assert_eq!(writer.seal(meta(1, FLAG_CUT)), start);
    assert!(!writer.unwritten());
    let idle = writer.seal(meta(2, FLAG_IDLE));
    assert!((idle, writer.unwritten()) == (start, true), "a position never names an empty frame");
    assert_eq!(writer.seal(meta(3, FLAG_IDLE)), idle, "no buffer is free");
}

#[test]
fn a_segment_is_freed_only_when_a_newer_one_has_a_durable_frame() {
    let mut writer = writer(2);
    let mut switched = false;
    for number in 0.. {
        for _ in 0..100 {
            writer.append(&click_record(number));
        }
        writer.seal(meta(1, 0));
        while let Some(segment) = writer.wants_segment() {
            writer.segment_ready(segment);
        }
        let (buffer, write) = writer.next_write(number * 1_000_000).expect("the disk is idle");
        assert_eq!(writer.oldest_closed_segment(), None);
        writer.written(buffer, true).expect("a good write");
        if write.segment == 2 {
            switched = true;
            break;
        }
    }
    assert!(switched);
    let oldest = *writer.oldest_closed_segment().expect("segment 1 is closed");
    assert_eq!((oldest.segment, oldest.base_lsn, writer.segments()[1].base_lsn), (1, 0, oldest.last_lsn));
    assert_eq!(writer.free_oldest_segment(), Some(oldest));
    assert_eq!(writer.free_oldest_segment(), None);
}

/// Its id is remembered by when it came, however late that was: a segment goes by the newest of both.
#[test]
fn a_segment_is_as_new_as_its_clicks_came() {
    let event_ms = i64_at(&click_record(1), 24);
    for (received_ms, newest_ms) in [(event_ms + 500_000, event_ms + 500_000), (event_ms - 40_000, event_ms)] {
        let mut writer = writer(2);
        let mut record = click_record(1);
        record[32..40].copy_from_slice(&received_ms.to_le_bytes());
        writer.append(&record);
        writer.seal(meta(1, 0));
        let (buffer, _) = writer.next_write(0).expect("the disk is idle");
        writer.written(buffer, true).expect("a good write");
        assert_eq!(writer.segments()[0].newest_ms, newest_ms);
    }
}

#[derive(Clone, Debug)]
enum Op {
    Append(usize),
    Seal(u32),
    Write,
    Written,
    Prepare,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1..60_usize).prop_map(Op::Append),
        2 => prop_oneof![Just(0), Just(FLAG_CUT), Just(FLAG_IDLE)].prop_map(Op::Seal),
        3 => Just(Op::Write),
        3 => Just(Op::Written),
        1 => Just(Op::Prepare),
    ]
}

/// The writer beside what it must amount to: a plain list of records, and the bytes of the files.
struct Model {
    writer: Writer,
    records: Vec<Vec<u8>>,
    files: Vec<Vec<u8>>,
    flying: Option<(Box<FrameBuffer>, LogWrite)>,
    ready: u64,
    now_ns: u64,
}

impl Model {
    fn run(&mut self, op: &Op) {
        self.now_ns += 300_000;
        match op {
            Op::Append(count) => {
                for _ in 0..*count {
                    let record = click_record(self.records.len() as u64 + 1);
                    if self.writer.room(record.len()) == FrameRoom::AfterSeal {
                        self.writer.seal(meta(1, 0));
                    }
                    if self.writer.has_room(record.len()) {
                        self.records.push(record);
                        let lsn = self.writer.append(self.records.last().expect("just pushed"));
                        assert_eq!(lsn, self.records.len() as u64);
                    }
                }
            }
            Op::Seal(flags) => drop(self.writer.seal(meta(1, *flags))),
            Op::Write => {
                if let Some(write) = self.writer.next_write(self.now_ns) {
                    assert!(write.1.segment <= self.ready, "only prepared segments are written to");
                    assert!(self.flying.replace(write).is_none(), "one write in flight");
                }
            }
            Op::Written => {
                if let Some((buffer, write)) = self.flying.take() {
                    let (from, length) = (write.buffer_offset as usize, write.length as usize);
                    let (file, at) = (&mut self.files[write.segment as usize - 1], write.file_offset as usize);
                    assert!(file[at..at + length].iter().all(|byte| *byte == 0), "nothing is written twice");
                    file[at..at + length].copy_from_slice(&buffer.memory[from..from + length]);
                    self.writer.written(buffer, true).expect("a good write");
                }
            }
            Op::Prepare => {
                if let Some(segment) = self.writer.wants_segment() {
                    self.ready += 1;
                    assert_eq!(segment, self.ready);
                    self.files.push(vec![0; SEGMENT_BYTES as usize]);
                    self.writer.segment_ready(segment);
                }
            }
        }
        assert_eq!(self.writer.end_lsn(), self.records.len() as u64);
        assert_eq!(self.writer.totals().clicks, self.records.len() as u64);
        assert!(self.writer.durable_lsn() <= self.writer.position().lsn);
        let held = self.writer.free.len() + self.writer.sealed.len() + usize::from(self.writer.open.is_some());
        assert_eq!(held + usize::from(self.flying.is_some()), 3, "no buffer is lost");
    }

    /// What a reader of the files finds must be exactly the durable prefix.
    fn check(&self) {
        let mut replay = LogReplay::new(LOG_ID, 0, 0);
        let mut lsn = 0;
        for (index, file) in self.files.iter().enumerate() {
            if let Ok(header) = SegmentHeader::decode(file) {
                let base = Base { segment: header.segment, lsn: header.base_lsn, chain: header.base_chain };
                assert!(replay.is_at(&base));
            }
            let mut at = SEGMENT_HEADER_BYTES;
            while at < file.len() {
                let left = (file.len() - at) as u64;
                let Step::Frame(frame) = replay.step(index as u64 + 1, &file[at..], left, None) else { break };
                at += frame.header.frame_bytes as usize;
                for record in frame.records {
                    let crate::wal::record::Record::Click(click) = record else { panic!("only clicks") };
                    assert_eq!(click.bytes(), self.records[lsn as usize]);
                    lsn += 1;
                }
            }
        }
        assert_eq!(lsn, self.writer.durable_lsn());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn any_order_of_work_leaves_the_durable_prefix_in_the_files(ops in proptest::collection::vec(op(), 1..120)) {
        let writer = Writer::new(config(), LogStart::new(LOG_ID, 1), buffers(3));
        let mut model =
            Model { writer, records: Vec::new(), files: Vec::new(), flying: None, ready: 0, now_ns: 0 };
        for op in &ops {
            model.run(op);
        }
        model.check();
    }
}
