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

/// What a writer needs of the configuration, and the nonce.
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
    /// This incarnation's: it rides in the header of every segment that it begins.
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

/// Records of a frame: what the exporter's table has room for when it rebuilds one (216 B of key each in 131,072 x 48 B).
const FRAME_RECORDS_MAX: u32 = 25_000;

/// Memory of a frame buffer for frames of up to `frame_bytes`.
pub fn buffer_bytes(frame_bytes: u32) -> usize {
    SEGMENT_HEADER_BYTES + frame_bytes as usize
}

/// Whether a record can be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameRoom {
    /// Now.
    Now,
    /// After `seal`: the open frame is full, and there is a buffer for the next one.
    AfterSeal,
    /// When a write ends: every buffer is in use.
    AfterWrite,
}

/// A log write failed: nothing in it was acknowledged, it is not retried, the process ends (`Exit::LogWriteFailed`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a write to segment {segment:010} of the log failed; records {}-{end_lsn} are not acknowledged", durable_lsn + 1)]
pub struct WriteFailed {
    pub segment: u64,
    pub durable_lsn: u64,
    pub end_lsn: u64,
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
    /// The chain of the frame that holds the last record sealed. An empty frame moves `chain` but no LSN, and may be lost
    /// after the LSN before it was exported: a position never names it.
    record_chain: u64,
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
            record_chain: start.chain,
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
        self.room(bytes) == FrameRoom::Now
    }

    pub fn room(&self, bytes: usize) -> FrameRoom {
        debug_assert!(bytes <= self.record_bytes_max(), "the caller refuses records that fit into no frame");
        match &self.open {
            Some(open) if open.payload_bytes + bytes <= self.record_bytes_max() && open.records < FRAME_RECORDS_MAX => {
                FrameRoom::Now
            }
            Some(_) if !self.free.is_empty() => FrameRoom::AfterSeal,
            None if !self.free.is_empty() => FrameRoom::Now,
            Some(_) | None => FrameRoom::AfterWrite,
        }
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

    /// The end of the last sealed frame that holds a record.
    pub fn position(&self) -> Position {
        Position { log_id: self.log_id, lsn: self.sealed_lsn, chain: self.record_chain }
    }

    /// Bytes of sealed and open frames that are not yet written.
    pub fn unwritten(&self) -> bool {
        self.open.is_some() || !self.sealed.is_empty() || !self.in_flight.is_empty()
    }

    /// What is to be written next has no segment yet.
    pub fn waits_for_segment(&self) -> bool {
        self.in_flight.is_empty() && self.sealed.front().is_some_and(|sealed| !self.is_ready(sealed))
    }

    /// Whether the core should seal now: its oldest record is old enough, or it would otherwise sleep. (A full frame is
    /// sealed when [`Writer::room`] asks for it.)
    pub fn due(&mut self, mono_ns: u64, would_sleep: bool) -> bool {
        let could_start = self.could_start(mono_ns);
        let Some(open) = &mut self.open else { return false };
        let since_ns = *open.since_ns.get_or_insert(mono_ns);
        let old = mono_ns.saturating_sub(since_ns) >= self.config.commit_delay_ns;
        could_start && (would_sleep || old)
    }

    /// Whether a write could start now with what the open frame holds.
    pub fn could_start(&self, mono_ns: u64) -> bool {
        let disk_waits = self.in_flight.is_empty() && self.sealed.is_empty() && self.spaced(mono_ns) && !self.failed;
        self.open.is_some() && disk_waits
    }

    /// A write is under way.
    pub fn in_flight(&self) -> bool {
        !self.in_flight.is_empty()
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
            let (segment, end_lsn) = (flight.segment, flight.end_lsn);
            return Err(WriteFailed { segment, durable_lsn: self.durable_lsn, end_lsn });
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

    /// The oldest segment, if a newer one has a durable frame: totals, horizon and chain must survive its deletion.
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
        if header.records > 0 {
            self.record_chain = chain;
        }
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
#[path = "writer_tests.rs"]
mod tests;
