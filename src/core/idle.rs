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

    /// All of it is exported.
    pub fn settled(&self) -> bool {
        self.segments.back().is_none_or(|newest| newest.last_lsn <= self.exported_lsn)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_settled_when_its_last_record_is_exported() {
        let segment = |segment: u64| SegmentSummary {
            segment,
            base_lsn: 10 * segment,
            last_lsn: 10 * segment + 10,
            newest_ms: 0,
            built_ms: 0,
        };
        let mut idle = IdleLog::new(vec![segment(1), segment(2)], 10, 20);
        for (lsn, settled) in [(10, false), (29, false), (30, true)] {
            idle.exported(lsn);
            assert_eq!(idle.settled(), settled, "exported up to {lsn}");
        }
        assert!(IdleLog::new(Vec::new(), 0, 0).settled(), "a log without a frame");
    }
}
