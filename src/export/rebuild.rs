//! Pure. Builds the table of a range from the log's frames, where the core's own table is gone.

use crate::click::EventTime;
use crate::config::{TABLE_ROWS_MAX, TABLE_USERS_MAX};
use crate::cut::{CutTable, Position};
use crate::export::{Rebuilt, Room};
use crate::preagg::Table;
use crate::wal::record::Record;
use crate::wal::replay::ReplayedFrame;
use std::ops::ControlFlow;

/// Tables that a rebuilder works with: its own, and the one to swap in.
pub const REBUILD_TABLES: usize = 2;

/// Rebuilds one range at a time, frame by frame; its memory is used again.
pub struct Rebuilder {
    table: Table,
    spare: Option<CutTable>,
    room: Room,
    /// The last frame taken, without its table.
    reached: Option<Reached>,
    lsn: u64,
    clicks: u64,
    lost_clicks: u64,
    merged: u64,
}

struct Reached {
    to: Position,
    totals: crate::cut::Totals,
    built_ms: i64,
    horizon_ms: i64,
    watermark_ms: i64,
}

impl Rebuilder {
    pub fn new(secret: u64) -> Rebuilder {
        let table = Table::new(TABLE_ROWS_MAX, TABLE_USERS_MAX, secret);
        let spare = Some(table.spare());
        let room = Room::default();
        Rebuilder { table, spare, room, reached: None, lsn: 0, clicks: 0, lost_clicks: 0, merged: 0 }
    }

    /// Begins after `from_lsn`, where the log had counted `from_clicks` clicks.
    pub fn begin(&mut self, from_lsn: u64, from_clicks: u64, room: Room) {
        self.table.discard();
        (self.room, self.reached, self.merged) = (room, None, 0);
        (self.lsn, self.clicks, self.lost_clicks) = (from_lsn, from_clicks, 0);
    }

    /// Takes the next frame, all of it, or breaks because it would not fit; the first one always does.
    pub fn frame(&mut self, frame: &ReplayedFrame<'_>) -> ControlFlow<()> {
        let header = &frame.header;
        let records = frame.records.len();
        if records == 0 || header.first_lsn + records as u64 <= self.lsn + 1 {
            return ControlFlow::Continue(()); // Without records, or before the range.
        }
        // As if each of its records were a click with a key of its own.
        let key_bytes: usize = frame.records.iter().map(key_bytes).sum();
        let (rows, users) = (self.table.rows() + records, self.table.users() + records);
        let size = Room::taken(rows, self.table.key_bytes() + key_bytes, users, self.merged + records as u64);
        let holds = self.room.holds(size);
        let full = !self.table.has_room(records) || !holds;
        if full && self.reached.is_some() {
            return ControlFlow::Break(());
        }
        assert!(self.table.has_room(records), "a frame of {records} records is larger than the table");
        let clicks = self.merge(&frame.records);
        self.merged += clicks;
        if header.first_lsn > self.lsn + 1 {
            // LSNs are dense but where a person accepted a loss.
            self.lost_clicks += header.totals.clicks.saturating_sub(self.clicks + clicks);
        }
        (self.lsn, self.clicks) = (header.first_lsn + records as u64 - 1, header.totals.clicks);
        self.reached = Some(Reached {
            to: Position { log_id: header.log_id, lsn: self.lsn, chain: frame.chain },
            totals: header.totals,
            built_ms: header.built_ms,
            horizon_ms: header.horizon_ms,
            watermark_ms: header.watermark_ms,
        });
        ControlFlow::Continue(())
    }

    fn merge(&mut self, records: &[Record<'_>]) -> u64 {
        let mut clicks = 0;
        for record in records {
            match record {
                Record::Click(click) => {
                    let pane = EventTime(click.event_ms()).pane();
                    self.table.merge(pane, click.dims_hash(), click.partial_key(), click.user_token());
                    clicks += 1;
                }
                Record::DeadLetter(_) | Record::Start(_) => {}
            }
        }
        clicks
    }

    /// What was built; `None` where no frame was.
    pub fn finish(&mut self) -> Option<Rebuilt> {
        let Reached { to, totals, built_ms, horizon_ms, watermark_ms } = self.reached.take()?;
        let spare = self.spare.take().unwrap_or_else(|| self.table.spare());
        let mut built = self.table.swap(spare);
        // Only as much memory as it needs waits for its transaction.
        let table = CutTable { rows: built.rows.clone(), keys: built.keys.clone(), users: built.users.clone() };
        built.clear();
        self.spare = Some(built);
        let lost_clicks = self.lost_clicks;
        Some(Rebuilt { to, totals, built_ms, lost_clicks, horizon_ms, watermark_ms, table })
    }
}

fn key_bytes(record: &Record<'_>) -> usize {
    match record {
        Record::Click(click) => click.partial_key().len(),
        Record::DeadLetter(_) | Record::Start(_) => 0,
    }
}
