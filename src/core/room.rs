//! Pure. What gives way when the log's room runs short, before any click is shed: first the retention, then the remembered
//! window down to its minimum. Only what is exported can go; where that is not enough, clicks are shed.

use crate::core::Core;
use crate::event::{Action, Actions, Now};
use crate::wal::writer::SegmentSummary;

/// The log's room as the core was told it last, and what it has cost.
#[derive(Debug)]
pub struct LogRoom {
    open: bool,
    /// Oldest segments that should still go early.
    segments_over: u32,
    /// The newest segment for which the horizon was raised.
    raised_for: u64,
    freed_early: u64,
    /// Segments that went, for whatever reason.
    freed: u64,
}

impl Default for LogRoom {
    fn default() -> LogRoom {
        LogRoom { open: true, segments_over: 0, raised_for: 0, freed_early: 0, freed: 0 }
    }
}

impl LogRoom {
    /// Each report replaces the last one. What was freed after the first `frees_seen` does not show in it yet.
    pub fn told(&mut self, open: bool, segments_over: u32, frees_seen: u64) {
        let unseen = u32::try_from(self.freed.saturating_sub(frees_seen)).unwrap_or(u32::MAX);
        (self.open, self.segments_over) = (open, segments_over.saturating_sub(unseen));
    }

    /// Whether clicks may be taken.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Segments whose last frame is from then on are kept.
    pub fn keep_from_ms(&self, retention_from_ms: i64) -> i64 {
        if self.segments_over > 0 { i64::MAX } else { retention_from_ms }
    }

    /// The horizon that lets go of the oldest segment, where it would go with it and the least window stays remembered.
    pub fn horizon_for(&mut self, oldest: &SegmentSummary, exported_lsn: u64, limit_ms: i64) -> Option<i64> {
        let helps = self.segments_over > 0 && oldest.last_lsn < exported_lsn && oldest.newest_ms < limit_ms;
        if !helps || self.raised_for == oldest.segment {
            return None;
        }
        self.raised_for = oldest.segment;
        Some(oldest.newest_ms + 1)
    }

    /// A segment went, early or not.
    pub fn freed(&mut self, segment: &SegmentSummary, retention_from_ms: i64) {
        let early = segment.built_ms >= retention_from_ms || self.raised_for == segment.segment;
        self.freed_early += u64::from(early && self.segments_over > 0);
        self.segments_over = self.segments_over.saturating_sub(1);
        self.freed += 1;
    }

    /// Segments that went before `--retention` or `--dedup-window` was over.
    pub fn freed_early(&self) -> u64 {
        self.freed_early
    }
}

impl Core {
    /// A segment may go when it is exported, below a horizon that is itself durable, and past retention. A record behind it
    /// must be exported too: frames without records may separate it from the next segment, whose base then has another
    /// chain than the checkpoint at the same LSN, and recovery could not tell it from a foreign one.
    pub(super) fn free_segments(&mut self, now: Now, actions: &mut Actions) {
        let retention_from_ms = now.wall_ms - self.config.log.retention_ms;
        self.give_way(now);
        let (exported_lsn, horizon_ms) = (self.home.cuts.exported_lsn(), self.home.writer.durable_horizon_ms());
        while let Some(oldest) = self.home.writer.oldest_closed_segment() {
            let kept = oldest.built_ms >= self.room.keep_from_ms(retention_from_ms);
            if oldest.last_lsn >= exported_lsn || oldest.newest_ms >= horizon_ms || kept {
                break;
            }
            if let Some(freed) = self.home.writer.free_oldest_segment() {
                self.room.freed(&freed, retention_from_ms);
                actions.push(Action::FreeSegment { segment: freed.segment });
            }
        }
        for (log, idle) in (0..).zip(&mut self.idle_logs) {
            while let Some(oldest) = idle.oldest_closed()
                && oldest.last_lsn < idle.exported_lsn()
                && oldest.newest_ms < horizon_ms
                && oldest.built_ms < self.room.keep_from_ms(retention_from_ms)
                && let Some(freed) = idle.free_oldest()
            {
                self.room.freed(&freed, retention_from_ms);
                actions.push(Action::FreeIdleSegment { log, segment: freed.segment });
            }
        }
    }

    /// Where room is short, ids are forgotten before their time so that the oldest segment may go.
    fn give_way(&mut self, now: Now) {
        let limit_ms = now.wall_ms - self.config.dedup.window_min_ms;
        if let Some(oldest) = self.home.writer.oldest_closed_segment()
            && !self.clock.leapt()
            && let Some(horizon_ms) = self.room.horizon_for(oldest, self.home.cuts.exported_lsn(), limit_ms)
        {
            self.home.dedup.raise_horizon(horizon_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(segment: u64) -> SegmentSummary {
        let (base_lsn, last_lsn) = (segment * 10, segment * 10 + 10);
        SegmentSummary { segment, base_lsn, last_lsn, newest_ms: 1_000 * segment as i64, built_ms: 0 }
    }

    #[test]
    fn retention_and_window_yield_for_as_many_segments_as_are_asked_for() {
        let mut room = LogRoom::default();
        assert_eq!((room.keep_from_ms(7), room.horizon_for(&segment(1), 100, 9_000)), (7, None));
        room.told(true, 2, 0);
        for number in [1, 2] {
            assert_eq!(room.keep_from_ms(7), i64::MAX);
            let oldest = segment(number);
            assert_eq!(room.horizon_for(&oldest, 100, 9_000), Some(oldest.newest_ms + 1));
            assert_eq!(room.horizon_for(&oldest, 100, 9_000), None, "once is enough");
            room.freed(&oldest, 7);
        }
        assert_eq!((room.keep_from_ms(7), room.horizon_for(&segment(3), 100, 9_000)), (7, None));
        room.freed(&segment(3), 7);
        assert_eq!(room.freed_early(), 2);
    }

    #[test]
    fn what_was_freed_since_a_report_was_made_is_not_asked_for_again() {
        let mut room = LogRoom::default();
        room.told(true, 1, 0);
        room.freed(&segment(1), 7);
        room.told(true, 1, 0);
        assert_eq!(room.keep_from_ms(7), 7, "the report is of before the free");
        room.told(true, 1, 1);
        assert_eq!(room.keep_from_ms(7), i64::MAX);
    }

    #[test]
    fn neither_what_is_not_exported_nor_the_least_window_yields() {
        let mut room = LogRoom::default();
        room.told(false, 5, 0);
        assert_eq!(room.horizon_for(&segment(4), 50, 9_000), None, "its last record is the last one exported");
        assert_eq!(room.horizon_for(&segment(4), 100, 4_000), None, "within the least window");
        assert_eq!(room.horizon_for(&segment(4), 100, 4_001), Some(4_001));
    }
}
