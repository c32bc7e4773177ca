//! Pure. What awaits export of one log: its ranges in order, each with the table that is exactly it, or without.

use crate::cut::{Cut, CutTable, LogId, Position, Totals};
use crate::export::{Halt, Rebuilt, Room};
use std::collections::VecDeque;
use tollgate_wire::{Checkpoint, LogPosition};

/// What the exporter knows of its own host when it starts, from recovery.
#[derive(Clone, Debug)]
pub struct Start {
    pub edge_id: String,
    pub data_dir: [u8; 16],
    /// Ours: already synced into the log.
    pub nonce: [u8; 16],
    /// Of every incarnation that this data directory remembers, ours included.
    pub nonces: Vec<[u8; 16]>,
    pub logs: Vec<LogStart>,
    pub mirror: Mirror,
}

/// What this data directory itself remembers of its last transaction. The sink's checkpoint is the truth; the mirror tells a sink
/// that lost, or gained, what we did not.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Mirror {
    /// The sink lies in the data directory and cannot part from it.
    #[default]
    Unkept,
    Kept {
        /// Synced after each transaction, before the next begins.
        checkpoint: Option<Checkpoint>,
        adopted: Option<Adopted>,
    },
}

impl Mirror {
    /// The last sequence number that is known to be used: the sink must have it, or the one after it.
    pub fn txn_seq(&self) -> u64 {
        let Mirror::Kept { checkpoint, adopted } = self else { return 0 };
        let ours = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.txn_seq);
        ours.max(adopted.as_ref().and_then(|adopted| adopted.found).unwrap_or(0))
    }
}

/// An operator's word (`tollgate adopt`): where the sink says this, export goes on from there.
#[derive(Clone, Debug, PartialEq)]
pub struct Adopted {
    /// Sequence number of the sink's checkpoint that the word is about; `None`: it has none.
    pub found: Option<u64>,
    pub logs: Vec<LogPosition>,
}

/// One log as recovery found it.
#[derive(Clone, Debug)]
pub struct LogStart {
    /// Where it ends, and where its first cut will begin.
    pub end: Position,
    /// At `end`, from its last frame; 0 where it has none.
    pub totals: Totals,
    pub horizon_ms: i64,
    pub watermark_ms: i64,
    /// Records up to and including this one are freed.
    pub base_lsn: u64,
    /// A core writes to it. A sealed one holds back no watermark once it is exported.
    pub open: bool,
    pub behind: Behind,
}

/// What of a log lies behind the last checkpoint that was known without asking anybody. For the metrics alone: the sink may know
/// another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    pub clicks: u64,
    /// When the oldest of them was taken.
    pub oldest_ms: Option<i64>,
}

impl Behind {
    /// Takes a frame in that recovery read: built then, and after it the log has so many clicks, of which `exported` are known to
    /// be exported.
    pub fn frame(&mut self, built_ms: i64, clicks: u64, exported: u64) {
        if clicks > exported {
            self.clicks = clicks - exported;
            self.oldest_ms.get_or_insert(built_ms);
        }
    }
}

/// Records after `from_lsn` up to `to`, exported all or not at all.
#[derive(Debug)]
pub(super) struct Range {
    pub from_lsn: u64,
    pub to: Position,
    pub from_clicks: u64,
    pub to_clicks: u64,
    pub horizon_ms: i64,
    pub watermark_ms: i64,
    /// When its oldest click was taken, where that is known.
    pub oldest_ms: Option<i64>,
    pub content: Content,
    /// Cuts that it came in; their credits go back when it is exported.
    pub cuts: u32,
    pub last: bool,
}

#[derive(Debug)]
pub(super) enum Content {
    /// To be rebuilt from the log, if there are clicks in it.
    Absent,
    /// A core's table, which goes back to it.
    Handed(CutTable),
    /// Built from the log by the exporter's own thread, asked for at most this.
    Rebuilt(CutTable, Room),
}

impl Range {
    pub fn clicks(&self) -> u64 {
        self.to_clicks - self.from_clicks
    }

    pub fn table(&self) -> Option<&CutTable> {
        match &self.content {
            Content::Absent => None,
            Content::Handed(table) | Content::Rebuilt(table, _) => Some(table),
        }
    }

    /// What it takes of a transaction.
    pub fn size(&self) -> Room {
        let nothing = Room { clicks: self.clicks(), ..Room::default() };
        self.table().map_or(nothing, |table| Room::of(table, self.clicks()))
    }

    pub fn wants_rebuild(&self) -> bool {
        self.clicks() > 0 && self.table().is_none()
    }

    /// Whether rebuilding it could split it for a transaction of this room.
    pub fn may_split(&self, room: Room) -> bool {
        let several = self.to.lsn - self.from_lsn > 1;
        let too_large = several && !room.holds(self.size());
        match &self.content {
            Content::Absent => false,
            Content::Handed(_) => too_large,
            // What was asked for no more than that cannot be split further.
            Content::Rebuilt(_, asked) => too_large && !room.holds(*asked),
        }
    }
}

/// One log on its way out.
#[derive(Debug)]
pub(super) struct Log {
    pub start: LogStart,
    /// The stored checkpoint's position; only meaningful once the checkpoint is compared.
    pub exported: Position,
    pub exported_clicks: u64,
    /// As of the last range exported; `None` while this incarnation does not know.
    pub exported_times: Option<Times>,
    pub queue: VecDeque<Range>,
    /// So many ranges at the front are in a transaction whose outcome is not known: nothing is merged into them.
    pub sent: usize,
    /// Its core's last cut is exported.
    pub ended: bool,
    /// What its owner was last told is exported.
    pub told_lsn: u64,
    /// Where the next cut must begin.
    tail: Position,
    tail_clicks: u64,
    resumed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    pub horizon_ms: i64,
    pub watermark_ms: i64,
}

impl Log {
    pub fn new(start: LogStart) -> Log {
        Log {
            exported: Position { lsn: 0, chain: 0, ..start.end },
            exported_clicks: 0,
            exported_times: None,
            queue: VecDeque::new(),
            sent: 0,
            ended: false,
            told_lsn: start.base_lsn,
            tail: start.end,
            tail_clicks: start.totals.clicks,
            resumed: false,
            start,
        }
    }

    pub fn id(&self) -> LogId {
        self.start.end.log_id
    }

    /// Queues a cut. Its table comes straight back where it is not needed.
    pub fn push(&mut self, cut: Cut) -> Option<CutTable> {
        assert_eq!(cut.from.lsn, self.tail.lsn, "a cut must begin where the one before it ended");
        assert!(
            cut.to.lsn >= cut.from.lsn && cut.totals.clicks >= self.tail_clicks,
            "a cut cannot end before it begins"
        );
        // A frame without records ends where the one before it did, and may be lost without any record being lost: the
        // position keeps the older chain, which is on disk.
        let to = if cut.to.lsn == self.tail.lsn { self.tail } else { cut.to };
        let mut range = Range {
            from_lsn: cut.from.lsn,
            to,
            from_clicks: self.tail_clicks,
            to_clicks: cut.totals.clicks,
            horizon_ms: cut.horizon_ms,
            watermark_ms: cut.watermark_ms,
            oldest_ms: cut.oldest_ms,
            content: Content::Absent,
            cuts: 1,
            last: cut.last,
        };
        (self.tail, self.tail_clicks) = (to, cut.totals.clicks);
        let mut unused = None;
        match cut.table {
            Some(table) if range.clicks() > 0 => range.content = Content::Handed(table),
            table => unused = table,
        }
        self.push_or_merge(range);
        unused
    }

    /// Neighbours without tables that were never sent become one range, so that hours without a sink cost no memory.
    fn push_or_merge(&mut self, range: Range) {
        let unsent = self.queue.len() > self.sent;
        match self.queue.back_mut() {
            Some(back) if unsent && back.table().is_none() && range.table().is_none() => {
                let cuts = back.cuts + range.cuts;
                let (from_lsn, from_clicks) = (back.from_lsn, back.from_clicks);
                *back = Range { from_lsn, from_clicks, oldest_ms: back.oldest_ms.or(range.oldest_ms), cuts, ..range };
            }
            Some(_) | None => self.queue.push_back(range),
        }
    }

    /// The checkpoint says that the log is exported up to here: what recovery found behind it is the first range.
    pub fn resume(&mut self, position: Position, clicks: u64) -> Result<(), Halt> {
        let (log, end) = (self.id(), &self.start);
        if position.lsn > end.end.lsn {
            return Err(Halt::BeyondEnd { log, lsn: position.lsn, end: end.end.lsn });
        }
        let gone = position.lsn == end.end.lsn && clicks != end.totals.clicks;
        if gone || clicks > end.totals.clicks {
            return Err(Halt::Totals { log, found: end.totals.clicks, expected: clicks });
        }
        (self.exported, self.exported_clicks, self.resumed) = (position, clicks, true);
        let times = Times { horizon_ms: end.horizon_ms, watermark_ms: end.watermark_ms };
        if position.lsn == end.end.lsn {
            self.exported_times = Some(times);
            return Ok(());
        }
        self.queue.push_front(Range {
            from_lsn: position.lsn,
            to: end.end,
            from_clicks: clicks,
            to_clicks: end.totals.clicks,
            horizon_ms: times.horizon_ms,
            watermark_ms: times.watermark_ms,
            oldest_ms: self.start.behind.oldest_ms,
            content: Content::Absent,
            cuts: 0,
            last: false,
        });
        Ok(())
    }

    /// Puts what was rebuilt in the place of the front range; what lies behind it stays to be rebuilt.
    pub fn rebuilt(&mut self, rebuilt: Rebuilt, asked: Room) -> Result<(), Halt> {
        let Rebuilt { to, totals, built_ms, lost_clicks, horizon_ms, watermark_ms, table } = rebuilt;
        let front =
            self.queue.pop_front().expect("a rebuild is asked for the front range, which stays until it is told");
        let lsns = front.from_lsn + 1..=front.to.lsn;
        let clicks = front.from_clicks + lost_clicks..=front.to_clicks;
        if !lsns.contains(&to.lsn) || !clicks.contains(&totals.clicks) {
            let why = format!(
                "asked for LSN {lsns:?} and clicks {clicks:?} of log {:02x?}, it gave LSN {} and click {}",
                self.id(),
                to.lsn,
                totals.clicks
            );
            return Err(Halt::Log(why));
        }
        let (from_lsn, from_clicks) = (front.from_lsn, front.from_clicks + lost_clicks);
        let content = Content::Rebuilt(table, asked);
        if to.lsn == front.to.lsn {
            self.queue.push_front(Range { from_clicks, content, ..front });
            return Ok(());
        }
        let oldest_ms = front.oldest_ms;
        // What lies behind it was taken later.
        let rest_ms = Some(built_ms);
        self.queue.push_front(Range { from_lsn: to.lsn, from_clicks: totals.clicks, oldest_ms: rest_ms, ..front });
        self.queue.push_front(Range {
            from_lsn,
            to,
            from_clicks,
            to_clicks: totals.clicks,
            horizon_ms,
            watermark_ms,
            oldest_ms,
            content,
            cuts: 0,
            last: false,
        });
        Ok(())
    }

    /// Clicks handed over or found at the start that are not known to be exported.
    pub fn clicks_behind(&self) -> u64 {
        let found = if self.resumed { 0 } else { self.start.behind.clicks };
        found + self.queue.iter().map(Range::clicks).sum::<u64>()
    }

    /// So many clicks of the log are known to be exported.
    pub fn clicks_exported(&self) -> u64 {
        self.tail_clicks.saturating_sub(self.clicks_behind())
    }

    /// When the oldest of those behind was taken.
    pub fn oldest_ms(&self) -> Option<i64> {
        let found = self.start.behind.oldest_ms.filter(|_| !self.resumed);
        found.or_else(|| self.queue.iter().find(|range| range.clicks() > 0)?.oldest_ms)
    }

    /// Its core's last cut was handed over: nothing comes after what is queued.
    pub fn has_last_cut(&self) -> bool {
        self.ended || self.queue.back().is_some_and(|range| range.last)
    }

    /// Horizon and watermark once the first `taken` ranges are exported too; `None` where the log holds nothing back.
    pub fn times_after(&self, taken: usize) -> Option<Times> {
        if !self.start.open && taken == self.queue.len() {
            return None;
        }
        let exported = self.exported_times.unwrap_or(Times { horizon_ms: 0, watermark_ms: 0 });
        Some(match taken.checked_sub(1).and_then(|last| self.queue.get(last)) {
            Some(range) => Times { horizon_ms: range.horizon_ms, watermark_ms: range.watermark_ms },
            None => exported,
        })
    }

    /// The checkpoint's line for this log once the first `taken` ranges are exported too.
    pub fn position_after(&self, taken: usize) -> LogPosition {
        let (to, clicks_total) = match taken.checked_sub(1).and_then(|last| self.queue.get(last)) {
            Some(range) => (range.to, range.to_clicks),
            None => (self.exported, self.exported_clicks),
        };
        LogPosition { log_uuid: self.id().to_vec(), lsn: to.lsn, chain: to.chain, clicks_total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(lsn: u64) -> Position {
        Position { log_id: [1; 16], lsn, chain: lsn }
    }

    fn cut(from: u64, to: u64, oldest_ms: Option<i64>) -> Cut {
        let totals = Totals { clicks: to, dead_letters: 0 };
        Cut { from: at(from), to: at(to), totals, horizon_ms: 0, watermark_ms: 0, oldest_ms, table: None, last: false }
    }

    /// Ten clicks in the log, of which the first two were known to be exported.
    fn log() -> Log {
        let mut behind = Behind::default();
        for (built_ms, clicks) in [(100, 1), (200, 2), (300, 6), (400, 10)] {
            behind.frame(built_ms, clicks, 2);
        }
        let (totals, horizon_ms, watermark_ms) = (Totals { clicks: 10, dead_letters: 0 }, 0, 0);
        Log::new(LogStart { end: at(10), totals, horizon_ms, watermark_ms, base_lsn: 0, open: true, behind })
    }

    fn shown(log: &Log) -> (u64, u64, Option<i64>) {
        (log.clicks_exported(), log.clicks_behind(), log.oldest_ms())
    }

    #[test]
    fn what_lies_behind_is_known_before_and_after_the_first_contact() {
        let mut log = log();
        assert_eq!(shown(&log), (2, 8, Some(300)));
        log.push(cut(10, 13, Some(500)));
        log.push(cut(13, 14, Some(600)));
        assert_eq!(shown(&log), (2, 12, Some(300)));
        log.resume(at(2), 2).expect("the log begins there");
        assert_eq!(shown(&log), (2, 12, Some(300)));
        let totals = Totals { clicks: 6, dead_letters: 0 };
        let (built_ms, table) = (400, CutTable::default());
        let rebuilt = Rebuilt { to: at(6), totals, built_ms, lost_clicks: 0, horizon_ms: 0, watermark_ms: 0, table };
        log.rebuilt(rebuilt, Room { rows: 1, bytes: usize::MAX, clicks: u64::MAX }).expect("it is of the front range");
        assert_eq!(shown(&log), (2, 12, Some(300)));
        log.queue.pop_front();
        assert_eq!(shown(&log), (6, 8, Some(400)));
        log.queue.pop_front();
        assert_eq!(shown(&log), (10, 4, Some(500)), "cuts without tables are one range, as old as the first");
        log.queue.pop_front();
        assert_eq!(shown(&log), (14, 0, None));
    }

    #[test]
    fn a_sink_that_is_further_than_was_known_leaves_less_behind() {
        let mut log = log();
        log.resume(at(10), 10).expect("the log ends there");
        assert_eq!(shown(&log), (10, 0, None));
    }
}
