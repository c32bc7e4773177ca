//! Pure. A log that no core writes to, left by a run with more cores: read at each start, exported, and cleared away segment by segment.
//! Its last segment stays, so that the log can be told from one that is lost; a run with as many cores goes on with it.

use std::collections::VecDeque;

use crate::wal::writer::SegmentSummary;

#[derive(Clone, Debug)]
pub struct IdleLog {
    segments: VecDeque<SegmentSummary>,
    exported_lsn: u64,
    clicks: u64,
}

impl IdleLog {
    /// Records up to and including `base_lsn` are gone; `clicks`: since the log's creation.
    pub fn new(segments: Vec<SegmentSummary>, base_lsn: u64, clicks: u64) -> IdleLog {
        IdleLog { segments: segments.into(), exported_lsn: base_lsn, clicks }
    }

    pub fn clicks(&self) -> u64 {
        self.clicks
    }

    pub fn exported(&mut self, lsn: u64) {
        assert!(lsn >= self.exported_lsn, "the exported LSN went back");
        self.exported_lsn = lsn;
    }

    pub fn exported_lsn(&self) -> u64 {
        self.exported_lsn
    }

    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// The oldest segment, if another is behind it.
    pub fn oldest_closed(&self) -> Option<&SegmentSummary> {
        self.segments.front().filter(|_| self.segments.len() > 1)
    }

    pub fn free_oldest(&mut self) -> Option<SegmentSummary> {
        self.segments.pop_front()
    }
}
