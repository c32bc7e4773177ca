//! Pure. The reading side: judges frame by frame whether a log goes on, ends, was torn by a crash, or is damaged. The driver
//! (`recover.rs`) only fetches bytes.
//!
//! A frame is accepted if identity, dense LSN, chain and both checksums hold. At the first that fails:
//! - a later segment's header names exactly this place as its base: the log was cut here, what lies beyond is never read;
//! - anything that proves that the frame had been durable (a later frame, a later segment, a checkpoint): damaged;
//! - no trace of tearing (an all-zero sector, a zero last byte): damaged, because only a write that never ended tears;
//! - otherwise torn: nothing in it was acknowledged, and the log goes on after the frame before.

use super::frame::{
    BLOCK_BYTES, FrameHeader, HeaderError, SEGMENT_HEADER_BYTES, SegmentHeader, has_zero_sector, is_zero,
};
use super::record::{self, Record, RecordError};
use crate::cut::{LogId, Position, Totals};

/// A frame that holds, decoded. The LSN of `records[i]` is `header.first_lsn + i`.
#[derive(Debug, PartialEq, Eq)]
pub struct ReplayedFrame<'a> {
    pub header: FrameHeader,
    pub chain: u64,
    pub records: Vec<Record<'a>>,
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    #[error("the bytes are all zero")]
    Blank,
    #[error("{0}")]
    Header(#[from] HeaderError),
    #[error("the payload or its padding is not what the checksum says")]
    Payload,
    #[error("the frame is {frame_bytes} bytes long and {left} bytes are left in the segment")]
    BeyondEnd { frame_bytes: u32, left: u64 },
    #[error("the frame says that it belongs to segment {segment} of log {}", hex(.log_id))]
    Foreign { log_id: LogId, segment: u64 },
    #[error("the frame begins at LSN {found}, and the log goes on at LSN {expected}")]
    Lsn { found: u64, expected: u64 },
    #[error("the frame follows a frame with chain {found:#018x}, the one before it has {expected:#018x}")]
    Chain { found: u64, expected: u64 },
    #[error("record {index} of the frame: {error}")]
    Record { index: u32, error: RecordError },
    #[error("the frame holds {found} records, its header says {expected}")]
    Records { found: u32, expected: u32 },
    #[error("the frame's totals do not follow from those of the frame before")]
    Totals,
}

/// What proves that a bad frame had been durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Proof {
    #[error("it shows no trace of a torn write")]
    NotTorn,
    #[error("a later frame exists, at byte {offset} of segment {segment}")]
    LaterFrame { segment: u64, offset: u64 },
    #[error("segment {segment} goes on after LSN {base_lsn}")]
    LaterSegment { segment: u64, base_lsn: u64 },
    #[error("the checkpoint says that everything up to LSN {lsn} was exported")]
    Checkpoint { lsn: u64 },
    #[error("everything up to LSN {lsn} had been acknowledged")]
    Acknowledged { lsn: u64 },
}

/// Where a log stops being what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("{bad}, and {proof}")]
    Frame { bad: BadFrame, proof: Proof },
    #[error("the segment's header: {error}, and {proof}")]
    SegmentHeader { error: HeaderError, proof: Proof },
    #[error("the segment says that it is segment {segment} of log {}", hex(.log_id))]
    SegmentForeign { log_id: LogId, segment: u64 },
    #[error("the file has {found} bytes and should have {expected}")]
    Truncated { found: u64, expected: u64 },
    #[error("the records up to LSN {base_lsn} are missing, after which segment {segment} goes on")]
    Missing { segment: u64, base_lsn: u64 },
    #[error("the log has segments, but no frame that says what its totals and its horizon are")]
    NoFrame,
    #[error(
        "the chain at LSN {lsn} is not the one that the checkpoint names: another log, or an older copy of this one"
    )]
    Checkpoint { lsn: u64 },
}

/// Acknowledged data is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("log {} is damaged in segment {segment:010} at byte {offset}: {fault}. Sound up to LSN {lsn}", hex(log_id))]
pub struct Damage {
    pub log_id: LogId,
    pub segment: u64,
    pub offset: u64,
    /// Everything up to here is sound.
    pub lsn: u64,
    pub chain: u64,
    /// At `lsn`, where they are known.
    pub totals: Option<Totals>,
    pub fault: Fault,
}

/// One segment file before its frames are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    pub segment: u64,
    pub file_bytes: u64,
    pub header: Result<SegmentHeader, HeaderError>,
    /// Of the first 4 KiB: whether a sector is all zero.
    pub torn: bool,
}

impl Probe {
    /// From a segment's number, its file's length and its first 4 KiB (fewer where the file is shorter).
    pub fn new(segment: u64, file_bytes: u64, first_block: &[u8]) -> Probe {
        let header = SegmentHeader::decode(first_block);
        let torn = first_block.len() < SEGMENT_HEADER_BYTES || has_zero_sector(first_block);
        Probe { segment, file_bytes, header, torn }
    }
}

/// The place at which a segment's frames end, because a later segment begins there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    pub segment: u64,
    pub lsn: u64,
    pub chain: u64,
}

/// What a step found at a segment's next frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// The frame holds and is taken.
    Frame(ReplayedFrame<'a>),
    /// The frame is longer than the bytes at hand.
    More {
        frame_bytes: usize,
    },
    /// The segment ends here: the next one's base is reached.
    Cut,
    Bad {
        bad: BadFrame,
        torn: bool,
    },
}

/// How far one log has been read, and all that its frames say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogReplay {
    pub log_id: LogId,
    pub lsn: u64,
    pub chain: u64,
    pub totals: Totals,
    pub incarnation: u64,
    /// The highest that any frame names; `i64::MIN` where there is none.
    pub horizon_ms: i64,
    pub watermark_ms: i64,
    pub built_ms: i64,
    pub flags: u32,
    pub frames: u64,
    /// Whether the next frame's totals must follow from these.
    totals_known: bool,
}

impl LogReplay {
    /// Begins at the base of the log's first segment.
    pub fn new(log_id: LogId, base_lsn: u64, base_chain: u64) -> LogReplay {
        LogReplay {
            log_id,
            lsn: base_lsn,
            chain: base_chain,
            totals: Totals::default(),
            incarnation: 0,
            horizon_ms: i64::MIN,
            watermark_ms: i64::MIN,
            built_ms: i64::MIN,
            flags: 0,
            frames: 0,
            totals_known: base_lsn == 0,
        }
    }

    pub fn position(&self) -> Position {
        Position { log_id: self.log_id, lsn: self.lsn, chain: self.chain }
    }

    pub fn is_at(&self, base: &Base) -> bool {
        (self.lsn, self.chain) == (base.lsn, base.chain)
    }

    /// Judges the frame that should begin `bytes`; `left` bytes of the segment lie from there to its end, `bytes` may be
    /// fewer. Takes it if it holds.
    pub fn step<'a>(&mut self, segment: u64, bytes: &'a [u8], left: u64, cut: Option<&Base>) -> Step<'a> {
        if cut.is_some_and(|base| self.is_at(base)) {
            return Step::Cut;
        }
        let first = &bytes[..bytes.len().min(BLOCK_BYTES)];
        let (header, chain) = match FrameHeader::decode(first) {
            Ok(decoded) => decoded,
            Err(_) if is_zero(first) => return Step::Bad { bad: BadFrame::Blank, torn: true },
            // A header is within one sector: it is there whole, or cut off with zeros behind it.
            Err(error) => return Step::Bad { bad: BadFrame::Header(error), torn: has_zero_sector(first) },
        };
        let frame_bytes = header.frame_bytes;
        if u64::from(frame_bytes) > left {
            return Step::Bad { bad: BadFrame::BeyondEnd { frame_bytes, left }, torn: false };
        }
        if bytes.len() < frame_bytes as usize {
            return Step::More { frame_bytes: frame_bytes as usize };
        }
        let frame = &bytes[..frame_bytes as usize];
        match self.accept(segment, &header, frame) {
            Ok(records) => {
                self.take(&header, chain);
                Step::Frame(ReplayedFrame { header, chain, records })
            }
            Err(bad) => {
                let torn = bad == BadFrame::Payload && (has_zero_sector(frame) || frame.last() == Some(&0));
                Step::Bad { bad, torn }
            }
        }
    }

    fn accept<'a>(&self, segment: u64, header: &FrameHeader, frame: &'a [u8]) -> Result<Vec<Record<'a>>, BadFrame> {
        if header.log_id != self.log_id || header.segment != segment {
            return Err(BadFrame::Foreign { log_id: header.log_id, segment: header.segment });
        }
        if header.first_lsn != self.lsn + 1 {
            return Err(BadFrame::Lsn { found: header.first_lsn, expected: self.lsn + 1 });
        }
        if header.previous_chain != self.chain {
            return Err(BadFrame::Chain { found: header.previous_chain, expected: self.chain });
        }
        if !header.holds(frame) {
            return Err(BadFrame::Payload);
        }
        let records = decode_records(header, frame)?;
        if self.totals_known && totals_with(self.totals, &records) != header.totals {
            return Err(BadFrame::Totals);
        }
        Ok(records)
    }

    fn take(&mut self, header: &FrameHeader, chain: u64) {
        self.lsn = header.last_lsn();
        self.chain = chain;
        self.totals = header.totals;
        self.incarnation = self.incarnation.max(header.incarnation);
        self.horizon_ms = self.horizon_ms.max(header.horizon_ms);
        self.watermark_ms = self.watermark_ms.max(header.watermark_ms);
        self.built_ms = self.built_ms.max(header.built_ms);
        self.flags = header.flags;
        self.frames += 1;
        self.totals_known = true;
    }

    /// Goes on beyond records that an operator gave up; the totals are taken from the next frame.
    pub fn jump(&mut self, lsn: u64, chain: u64, horizon_ms: i64) {
        assert!(lsn >= self.lsn, "LSNs are never reused");
        self.lsn = lsn;
        self.chain = chain;
        self.horizon_ms = self.horizon_ms.max(horizon_ms);
        self.totals_known = false;
    }

    pub fn damage(&self, segment: u64, offset: u64, fault: Fault) -> Damage {
        let totals = self.totals_known.then_some(self.totals);
        Damage { log_id: self.log_id, segment, offset, lsn: self.lsn, chain: self.chain, totals, fault }
    }
}

/// Totals after these records.
pub fn totals_with(mut totals: Totals, records: &[Record<'_>]) -> Totals {
    for record in records {
        match record {
            Record::Click(_) => totals.clicks += 1,
            Record::DeadLetter(_) => totals.dead_letters += 1,
            Record::Start(_) => {}
        }
    }
    totals
}

/// Decodes the payload of a frame whose checksums hold.
pub fn decode_records<'a>(header: &FrameHeader, frame: &'a [u8]) -> Result<Vec<Record<'a>>, BadFrame> {
    let payload_from = super::frame::FRAME_HEADER_BYTES;
    let mut rest = &frame[payload_from..payload_from + header.payload_bytes as usize];
    let mut records = Vec::with_capacity(header.records as usize);
    while !rest.is_empty() {
        let index = records.len() as u32;
        let (record, length) = record::decode(rest).map_err(|error| BadFrame::Record { index, error })?;
        records.push(record);
        rest = &rest[length..];
    }
    let found = records.len() as u32;
    if found == header.records { Ok(records) } else { Err(BadFrame::Records { found, expected: header.records }) }
}

/// The first frame header of this log and segment in `bytes`, which lie on block boundaries; its offset in them.
pub fn find_frame(log_id: &LogId, segment: u64, bytes: &[u8]) -> Option<(usize, FrameHeader)> {
    bytes.chunks(BLOCK_BYTES).enumerate().find_map(|(index, block)| {
        let (header, _) = FrameHeader::decode(block).ok()?;
        (header.log_id == *log_id && header.segment == segment).then_some((index * BLOCK_BYTES, header))
    })
}

/// Whether this frame header, found at the start of a segment whose own header never got to the disk, can be the first
/// write after the log's end (LSN and chain). If not, something lay between them that was durable.
pub fn follows((lsn, chain): (u64, u64), header: &FrameHeader) -> bool {
    header.first_lsn == lsn + 1 && header.previous_chain == chain
}

pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
