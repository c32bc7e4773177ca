//! What recovery finds of a log: how far it was read, where it goes on, how it ends.

use super::frame::SegmentHeader;
use super::record::Start;
use super::repairs::Repair;
use super::replay::LogReplay;
use super::segments::LogDir;
use super::writer::{LogStart, SegmentSummary};
use crate::cut::Position;

/// How far recovery is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub bytes_done: u64,
    pub bytes_total: u64,
    pub records: u64,
}

/// How a log's last frame is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nothing but zeros.
    Clean,
    /// A write that never ended, at this place; nothing in it was acknowledged.
    Torn { segment: u64, offset: u64 },
}

/// Everything that a log's files say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walked {
    pub replay: LogReplay,
    /// LSN at which the oldest segment begins.
    pub base_lsn: u64,
    pub tail: Tail,
    /// Every segment file but those that wholly read as zeros.
    pub segments: Vec<SegmentSummary>,
    /// Segments at the end without a header: never used, or torn in their first write.
    pub headerless: Vec<u64>,
    /// Header of the newest segment that has one.
    pub newest_header: Option<SegmentHeader>,
    /// The starts of incarnations that are still in the log, oldest first.
    pub starts: Vec<Start>,
    /// Of every incarnation that began a segment that is still there.
    pub nonces: Vec<[u8; 16]>,
    /// Repairs that the walk went over.
    pub repairs: Vec<Repair>,
    pub records: u64,
}

/// A log that can go on.
#[derive(Clone, Debug)]
pub struct RecoveredLog {
    pub dir: LogDir,
    pub start: LogStart,
    /// The log's end, and the first LSN less one that it still holds.
    pub position: Position,
    pub base_lsn: u64,
    /// The highest in any frame; `i64::MIN` where there is none.
    pub horizon_ms: i64,
    pub watermark_ms: i64,
    /// When the newest frame was built: a clock behind it is wrong.
    pub built_ms: i64,
    /// Code of the rule that made the keys; `None` where the log is empty.
    pub dedup_key: Option<u32>,
    pub starts: Vec<Start>,
    /// Of every incarnation that the log remembers.
    pub nonces: Vec<[u8; 16]>,
    /// The last frame is that of a clean stop.
    pub stopped: bool,
    pub tail: Tail,
}
