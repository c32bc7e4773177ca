//! Pure. The writing side of one log as a state machine: records go into the open frame, a sealed frame waits for its
//! write, a write's end raises the durable LSN. It owns the core's frame buffers but for the one that the kernel has.
//!
//! ```text
//! free ──append──▶ open ──seal──▶ sealed ──next_write──▶ with the kernel ──written──▶ free
//! ```
//!
//! Only one write is in flight, whatever the number of buffers: hence any valid frame proves that the one before it was
//! durable, and recovery can tell damage from a torn tail. A buffer's first 4 KiB are kept for the segment header, which is
//! written together with the segment's first frame.

use std::collections::VecDeque;

use super::frame::{
    BLOCK_BYTES, FLAG_IDLE, FLAG_STOPPED, FRAME_HEADER_BYTES, FrameHeader, PADDING, SEGMENT_HEADER_BYTES,
    SegmentHeader, crc32c, frame_bytes, payload_bytes_max,
};
use super::record::{KIND_CLICK, KIND_DEAD_LETTER, record_length};
use crate::cut::{LogId, Position, Totals};
use crate::event::{FrameBuffer, LogWrite};

/// What a writer needs of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterConfig {
    /// Largest frame, header and padding included; a multiple of 4 KiB.
    pub frame_bytes: u32,
    pub segment_bytes: u64,
    pub commit_delay_ns: u64,
    pub commit_spacing_ns: u64,
    pub core: u32,
    /// Code of the rule that makes click keys.
    pub dedup_key: u32,
    /// Of this incarnation.
    pub nonce: [u8; 16],
}

/// Where a log goes on: what recovery found, or a new log's beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStart {
    pub log_id: LogId,
    pub incarnation: u64,
    /// The segment that the first frame begins; it is not yet prepared.
    pub segment: u64,
    /// The last record of the log; 0 where there is none.
    pub lsn: u64,
    pub chain: u64,
    pub totals: Totals,
    /// The older segments, oldest first.
    pub segments: Vec<SegmentSummary>,
}

impl LogStart {
    /// A log that never had a record.
    pub fn new(log_id: LogId, incarnation: u64) -> LogStart {
        LogStart { log_id, incarnation, segment: 1, lsn: 0, chain: 0, totals: Totals::default(), segments: Vec::new() }
    }
}

/// What decides when a segment may be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSummary {
    pub segment: u64,
    /// The segment's records are those after `base_lsn` up to and including `last_lsn`.
    pub base_lsn: u64,
    pub last_lsn: u64,
    /// Newest event or received time of its records; `i64::MIN` where there are none.
    pub newest_ms: i64,
    /// When its last frame was built.
    pub built_ms: i64,
}

/// What goes into the header of the frame that a seal makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameMeta {
    pub built_ms: i64,
    pub horizon_ms: i64,
    pub watermark_ms: i64,
    /// `frame::FLAG_*`.
    pub flags: u32,
}

/// Memory of a frame buffer for frames of up to `frame_bytes`.
pub fn buffer_bytes(frame_bytes: u32) -> usize {
    SEGMENT_HEADER_BYTES + frame_bytes as usize
}

/// Whether a record can be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Now.
    Now,
    /// After `seal`: the open frame is full, and there is a buffer for the next one.
    AfterSeal,
    /// When a write ends: every buffer is in use.
    AfterWrite,
}

/// A log write failed: nothing in it was acknowledged, it is not retried, the process ends (`Exit::LogWriteFailed`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a write of the log failed at segment {segment}, records after LSN {durable_lsn} are not acknowledged")]
pub struct WriteFailed {
    pub segment: u64,
    pub durable_lsn: u64,
}

#[derive(Debug)]
struct Open {
    buffer: Box<FrameBuffer>,
    payload_bytes: usize,
    records: u32,
    newest_ms: i64,
    /// When the frame got its first record, as of the first `due` after it.
    since_ns: Option<u64>,
}

#[derive(Debug)]
struct Sealed {
    buffer: Box<FrameBuffer>,
    write: LogWrite,
    end_lsn: u64,
    horizon_ms: i64,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    buffer_id: u32,
    segment: u64,
    end_lsn: u64,
    horizon_ms: i64,
    done: bool,
}

#[derive(Debug)]
#[expect(
    clippy::vec_box,
    reason = "buffers travel boxed in actions and events; unboxing them here would only move them"
)]
pub struct Writer {
    config: WriterConfig,
    log_id: LogId,
    incarnation: u64,
    free: Vec<Box<FrameBuffer>>,
    open: Option<Open>,
    sealed: VecDeque<Sealed>,
    in_flight: VecDeque<InFlight>,
    /// The last record appended, and the totals including it.
    end_lsn: u64,
    totals: Totals,
    /// The last record sealed, and the chain at it.
    sealed_lsn: u64,
    chain: u64,
    durable_lsn: u64,
    durable_horizon_ms: i64,
    /// The newest segment in which this incarnation has a durable frame; 0: none.
    durable_segment: u64,
    /// The segment that frames are sealed into, and where in it the next one begins; 0: it has no header yet.
    segment: u64,
    segment_offset: u64,
    segments: VecDeque<SegmentSummary>,
    /// Every segment up to this one reads as zeros or is in use.
    segment_ready: u64,
    segment_wanted: u64,
    last_start_ns: Option<u64>,
    failed: bool,
}

impl Writer {
    /// `buffers` hold `SEGMENT_HEADER_BYTES + config.frame_bytes` each.
    pub fn new(config: WriterConfig, start: LogStart, buffers: Vec<Box<FrameBuffer>>) -> Writer {
        let frame = config.frame_bytes as usize;
        assert!(frame.is_multiple_of(BLOCK_BYTES) && frame > 0, "a frame is a multiple of 4 KiB");
        assert!(config.segment_bytes >= (SEGMENT_HEADER_BYTES + frame) as u64, "a segment holds its largest frame");
        assert!(
            buffers.iter().all(|buffer| buffer.memory.len() >= SEGMENT_HEADER_BYTES + frame),
            "buffers fit a frame"
        );
        assert!(!buffers.is_empty(), "a writer needs a buffer");
        assert!(start.segments.iter().all(|summary| summary.segment < start.segment), "a start begins a new segment");
        Writer {
            config,
            log_id: start.log_id,
            incarnation: start.incarnation,
            free: buffers,
            open: None,
            sealed: VecDeque::new(),
            in_flight: VecDeque::new(),
            end_lsn: start.lsn,
            totals: start.totals,
            sealed_lsn: start.lsn,
            chain: start.chain,
            durable_lsn: start.lsn,
            durable_horizon_ms: i64::MIN,
            durable_segment: 0,
            segment: start.segment,
            segment_offset: 0,
            segments: start.segments.into(),
            segment_ready: start.segment - 1,
            segment_wanted: start.segment - 1,
            last_start_ns: None,
            failed: false,
        }
    }

    /// Whether a record of this size can be appended now.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.room(bytes) == Room::Now
    }

    pub fn room(&self, bytes: usize) -> Room {
        debug_assert!(bytes <= self.record_bytes_max(), "the caller refuses records that fit into no frame");
        match &self.open {
            Some(open) if open.payload_bytes + bytes <= self.record_bytes_max() => Room::Now,
            Some(_) if !self.free.is_empty() => Room::AfterSeal,
            None if !self.free.is_empty() => Room::Now,
            Some(_) | None => Room::AfterWrite,
        }
    }

    /// Payload bytes that can still be appended, with a seal whenever a frame is full, before a write must end. A record
    /// may leave up to its own size unused at a frame's end.
    pub fn room_bytes(&self) -> usize {
        let open = self.open.as_ref().map_or(0, |open| self.record_bytes_max() - open.payload_bytes);
        open + self.free.len() * self.record_bytes_max()
    }

    /// Largest record, and largest payload of a frame.
    pub fn record_bytes_max(&self) -> usize {
        payload_bytes_max(self.config.frame_bytes as usize)
    }

    /// Appends one encoded record, for which there is room; returns its LSN.
    pub fn append(&mut self, record: &[u8]) -> u64 {
        debug_assert!(self.has_room(record.len()), "the caller asks for room first");
        debug_assert_eq!(record_length(record), record.len(), "one whole record");
        let open = self.open.get_or_insert_with(|| {
            let buffer = self.free.pop().expect("room was there: a buffer is free");
            Open { buffer, payload_bytes: 0, records: 0, newest_ms: i64::MIN, since_ns: None }
        });
        let at = SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES + open.payload_bytes;
        open.buffer.memory[at..at + record.len()].copy_from_slice(record);
        open.payload_bytes += record.len();
        open.records += 1;
        self.end_lsn += 1;
        match record[2] {
            KIND_CLICK => {
                self.totals.clicks += 1;
                open.newest_ms = open.newest_ms.max(i64_at(record, 24)).max(i64_at(record, 32));
            }
            KIND_DEAD_LETTER => {
                self.totals.dead_letters += 1;
                open.newest_ms = open.newest_ms.max(i64_at(record, 24));
            }
            _ => {}
        }
        self.end_lsn
    }

    /// The last record appended.
    pub fn end_lsn(&self) -> u64 {
        self.end_lsn
    }

    /// End of the gap-free prefix of completed frames.
    pub fn durable_lsn(&self) -> u64 {
        self.durable_lsn
    }

    /// The horizon in the newest frame of that prefix: no restart begins below it.
    pub fn durable_horizon_ms(&self) -> i64 {
        self.durable_horizon_ms
    }

    /// Of the log since its creation, the open frame included.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The end of the last sealed frame.
    pub fn position(&self) -> Position {
        Position { log_id: self.log_id, lsn: self.sealed_lsn, chain: self.chain }
    }

    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Bytes of sealed and open frames that are not yet written.
    pub fn unwritten(&self) -> bool {
        self.open.is_some() || !self.sealed.is_empty() || !self.in_flight.is_empty()
    }

    /// Whether the core should seal now: its oldest record is old enough, or it would otherwise sleep. (A full frame is
    /// sealed when [`Writer::room`] asks for it.)
    pub fn due(&mut self, mono_ns: u64, would_sleep: bool) -> bool {
        let Some(open) = &mut self.open else { return false };
        let since_ns = *open.since_ns.get_or_insert(mono_ns);
        let old = mono_ns.saturating_sub(since_ns) >= self.config.commit_delay_ns;
        let disk_waits = self.in_flight.is_empty() && self.sealed.is_empty() && self.spaced(mono_ns) && !self.failed;
        disk_waits && (would_sleep || old)
    }

    /// When a sleeping core must wake for the log: a write may start then. `None`: a completion wakes it, or nothing waits.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        let waits = match self.sealed.front() {
            Some(sealed) => self.is_ready(sealed),
            None => self.open.is_some(),
        };
        let idle_disk = self.in_flight.is_empty() && !self.failed;
        (waits && idle_disk).then(|| self.last_start_ns.map_or(0, |start| start + self.config.commit_spacing_ns))
    }

    /// Closes the open frame; returns the log's end. Without records it makes an empty frame, where the flags ask for
    /// one (idle, stopped) and a buffer is free; otherwise nothing happens and the end is that of the last frame.
    pub fn seal(&mut self, meta: FrameMeta) -> Position {
        let asked = meta.flags & (FLAG_IDLE | FLAG_STOPPED) != 0;
        let open = match self.open.take() {
            Some(open) => open,
            None if asked && !self.free.is_empty() => {
                let buffer = self.free.pop().expect("just seen");
                Open { buffer, payload_bytes: 0, records: 0, newest_ms: i64::MIN, since_ns: None }
            }
            None => return self.position(),
        };
        self.seal_frame(open, meta);
        self.position()
    }

    /// The next write that may start now. Its buffer comes back with [`Writer::written`].
    pub fn next_write(&mut self, mono_ns: u64) -> Option<(Box<FrameBuffer>, LogWrite)> {
        let ready = self.sealed.front().is_some_and(|sealed| self.is_ready(sealed));
        if !ready || !self.in_flight.is_empty() || !self.spaced(mono_ns) || self.failed {
            return None;
        }
        let Sealed { buffer, write, end_lsn, horizon_ms } = self.sealed.pop_front()?;
        self.last_start_ns = Some(mono_ns);
        let (buffer_id, segment) = (buffer.id, write.segment);
        self.in_flight.push_back(InFlight { buffer_id, segment, end_lsn, horizon_ms, done: false });
        Some((buffer, write))
    }

    /// A write ended, synced if `ok`. After a failure nothing is written any more.
    pub fn written(&mut self, buffer: Box<FrameBuffer>, ok: bool) -> Result<(), WriteFailed> {
        let flight = self.in_flight.iter_mut().find(|flight| flight.buffer_id == buffer.id);
        let flight = flight.expect("only a buffer that next_write gave out comes back");
        if !ok || self.failed {
            self.failed = true;
            return Err(WriteFailed { segment: flight.segment, durable_lsn: self.durable_lsn });
        }
        flight.done = true;
        self.free.push(buffer);
        while let Some(flight) = self.in_flight.front().filter(|flight| flight.done) {
            self.durable_lsn = flight.end_lsn;
            self.durable_horizon_ms = flight.horizon_ms;
            self.durable_segment = flight.segment;
            self.in_flight.pop_front();
        }
        Ok(())
    }

    /// The segment to have prepared, once each: the first one, and then always one ahead of the one in use.
    pub fn wants_segment(&mut self) -> Option<u64> {
        (self.segment_wanted <= self.segment).then(|| {
            self.segment_wanted += 1;
            self.segment_wanted
        })
    }

    /// The segment reads as zeros, and it and its directory are synced.
    pub fn segment_ready(&mut self, segment: u64) {
        assert_eq!(segment, self.segment_ready + 1, "segments are prepared in order");
        self.segment_ready = segment;
    }

    /// The segments on disk that have a frame, oldest first; the last one may be in use.
    pub fn segments(&self) -> &VecDeque<SegmentSummary> {
        &self.segments
    }

    /// The oldest segment, if a newer one has a durable frame: totals, horizon and chain must survive its deletion (L1).
    pub fn oldest_closed_segment(&self) -> Option<&SegmentSummary> {
        self.segments.front().filter(|oldest| oldest.segment < self.durable_segment)
    }

    /// Forgets the oldest closed segment: the core has its file deleted.
    pub fn free_oldest_segment(&mut self) -> Option<SegmentSummary> {
        self.oldest_closed_segment()?;
        self.segments.pop_front()
    }

    fn seal_frame(&mut self, mut open: Open, meta: FrameMeta) {
        let length = frame_bytes(open.payload_bytes);
        let frame = &mut open.buffer.memory[SEGMENT_HEADER_BYTES..SEGMENT_HEADER_BYTES + length];
        let (payload_from, payload_to) = (FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + open.payload_bytes);
        frame[payload_to..].fill(PADDING);
        if self.segment_offset != 0 && self.segment_offset + length as u64 > self.config.segment_bytes {
            self.segment += 1;
            self.segment_offset = 0;
        }
        let header = FrameHeader {
            frame_bytes: length as u32,
            payload_bytes: open.payload_bytes as u32,
            log_id: self.log_id,
            segment: self.segment,
            incarnation: self.incarnation,
            first_lsn: self.sealed_lsn + 1,
            records: open.records,
            flags: meta.flags,
            durable_lsn: self.durable_lsn,
            horizon_ms: meta.horizon_ms,
            watermark_ms: meta.watermark_ms,
            built_ms: meta.built_ms,
            newest_ms: open.newest_ms,
            totals: self.totals,
            previous_chain: self.chain,
            payload_crc: crc32c(&frame[payload_from..payload_to]),
        };
        let chain = header.encode(frame);
        let write = self.place(&mut open.buffer, length, meta.built_ms);
        self.chain = chain;
        self.sealed_lsn = header.last_lsn();
        assert_eq!(self.sealed_lsn, self.end_lsn, "the open frame holds everything after the sealed ones");
        let summary = self.segments.back_mut().expect("place put the frame's segment there");
        summary.last_lsn = self.sealed_lsn;
        summary.newest_ms = summary.newest_ms.max(open.newest_ms);
        summary.built_ms = meta.built_ms;
        let (end_lsn, horizon_ms) = (self.sealed_lsn, meta.horizon_ms);
        self.sealed.push_back(Sealed { buffer: open.buffer, write, end_lsn, horizon_ms });
    }

    /// Finds the frame's place, with a segment header before it where it is its segment's first.
    fn place(&mut self, buffer: &mut FrameBuffer, length: usize, built_ms: i64) -> LogWrite {
        let segment = self.segment;
        if self.segment_offset != 0 {
            let file_offset = self.segment_offset;
            self.segment_offset += length as u64;
            let buffer_offset = SEGMENT_HEADER_BYTES as u32;
            return LogWrite { segment, file_offset, buffer_offset, length: length as u32 };
        }
        let header = SegmentHeader {
            core: self.config.core,
            log_id: self.log_id,
            segment,
            base_lsn: self.sealed_lsn,
            base_chain: self.chain,
            segment_bytes: self.config.segment_bytes,
            created_ms: built_ms,
            dedup_key: self.config.dedup_key,
            nonce: self.config.nonce,
        };
        header.encode(&mut buffer.memory);
        let length = SEGMENT_HEADER_BYTES + length;
        self.segment_offset = length as u64;
        let base_lsn = self.sealed_lsn;
        self.segments.push_back(SegmentSummary {
            segment,
            base_lsn,
            last_lsn: base_lsn,
            newest_ms: i64::MIN,
            built_ms,
        });
        LogWrite { segment, file_offset: 0, buffer_offset: 0, length: length as u32 }
    }

    fn is_ready(&self, sealed: &Sealed) -> bool {
        sealed.write.segment <= self.segment_ready
    }

    fn spaced(&self, mono_ns: u64) -> bool {
        self.last_start_ns.is_none_or(|start| mono_ns >= start + self.config.commit_spacing_ns)
    }
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

#[cfg(test)]
mod tests {
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
        assert_eq!(failed, Err(WriteFailed { segment: 1, durable_lsn: 0 }));
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
            let (buffer_id, segment) = (buffer.id, write.segment);
            let flight = InFlight { buffer_id, segment, end_lsn, horizon_ms, done: false };
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
        assert_eq!(writer.room(record.len()), Room::AfterSeal);
        writer.seal(meta(1, 0));
        assert_eq!(writer.room(record.len()), Room::Now);
        fill(&mut writer);
        assert_eq!(writer.room(record.len()), Room::AfterWrite);
        assert!(writer.room_bytes() < record.len());
        let (buffer, write) = writer.next_write(0).expect("the disk is idle");
        assert!(write.length as u64 <= u64::from(FRAME_BYTES) + SEGMENT_HEADER_BYTES as u64);
        writer.written(buffer, true).expect("a good write");
        assert_eq!(writer.room(record.len()), Room::AfterSeal);
    }

    #[test]
    fn an_empty_seal_makes_a_frame_only_where_asked() {
        let mut writer = writer(1);
        let start = writer.position();
        assert_eq!(writer.seal(meta(1, FLAG_CUT)), start);
        assert!(!writer.unwritten());
        let idle = writer.seal(meta(2, FLAG_IDLE));
        assert!((idle.lsn, writer.unwritten()) == (0, true) && idle.chain != start.chain);
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
                        if self.writer.room(record.len()) == Room::AfterSeal {
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
}
