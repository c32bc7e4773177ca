//! Pure. What a core has cut off its log for the exporter, and what it has not yet been able to hand over.
//!
//! The open table is exactly (last cut, log end], or it is `dropped` and the exporter rebuilds the range from the log. A cut
//! leaves when its last record is durable and an export credit is free; of those that wait, ones without clicks become one with the next,
//! and ones without a table one.

use std::collections::VecDeque;

use crate::config::EXPORT_CREDITS;
use crate::cut::{Cut, CutTable, Position};
use crate::event::{Action, Actions, Exported};

/// Tables beside the open one: one on its way to the exporter, one in its hands.
pub const SPARE_TABLES: usize = 2;

pub struct Cuts {
    last: Position,
    /// Clicks of the log at `last`, and when the first one after it was taken.
    last_clicks: u64,
    oldest_open_ms: Option<i64>,
    waiting: VecDeque<Cut>,
    /// Of each cut with clicks that was handed over and is not known exported: its last LSN, and when its oldest click was
    /// taken. Each has an export credit, so there are no more than those.
    handed_over: VecDeque<(u64, i64)>,
    spares: Vec<CutTable>,
    credits: u32,
    /// The open table lacks clicks of its range.
    pub dropped: bool,
    exported_lsn: u64,
}

impl Cuts {
    /// `from` is the log's end at the start: what lies before it the exporter knows from recovery. `spare` makes an empty
    /// table with all the memory it will need.
    pub fn new(from: Position, clicks: u64, exported_lsn: u64, spare: impl Fn() -> CutTable) -> Cuts {
        let spares = (0..SPARE_TABLES).map(|_| spare()).collect();
        Cuts {
            last: from,
            last_clicks: clicks,
            oldest_open_ms: None,
            waiting: VecDeque::new(),
            handed_over: VecDeque::with_capacity(EXPORT_CREDITS as usize),
            spares,
            credits: EXPORT_CREDITS,
            dropped: false,
            exported_lsn,
        }
    }

    pub fn last(&self) -> Position {
        self.last
    }

    pub fn exported_lsn(&self) -> u64 {
        self.exported_lsn
    }

    /// Cuts that are not yet exported.
    pub fn pending(&self) -> usize {
        self.waiting.len() + (EXPORT_CREDITS - self.credits) as usize
    }

    /// At each turn: so many clicks are in the log.
    pub fn note_clicks(&mut self, clicks: u64, now_ms: i64) {
        if clicks > self.last_clicks {
            self.oldest_open_ms.get_or_insert(now_ms);
        }
    }

    /// When the oldest click was taken that this core took and does not know exported, whoever holds it. The exporter may be
    /// blocked in its sink, and not have seen what was handed to it.
    pub fn oldest_ms(&self) -> Option<i64> {
        let handed_over = self.handed_over.front().map(|(_, oldest_ms)| *oldest_ms);
        handed_over.or_else(|| self.waiting.iter().find_map(|cut| cut.oldest_ms)).or(self.oldest_open_ms)
    }

    /// The same of what is not cut yet.
    pub fn oldest_open_ms(&self) -> Option<i64> {
        self.oldest_open_ms
    }

    /// Everything cut was exported.
    pub fn settled(&self) -> bool {
        self.waiting.is_empty() && self.credits == EXPORT_CREDITS
    }

    pub fn spare(&mut self) -> Option<CutTable> {
        self.spares.pop()
    }

    /// A table that was not used up after all. One without memory stood for an empty range: it would have to grow in a turn,
    /// and keep a real one out.
    pub fn give_back(&mut self, table: CutTable) {
        if self.spares.len() < SPARE_TABLES && table.rows.capacity() > 0 {
            self.spares.push(table);
        }
    }

    /// Adds the next range. It must begin where the last one ended.
    pub fn push(&mut self, cut: Cut) {
        assert_eq!(cut.from, self.last, "a cut begins where the last one ended");
        (self.last, self.last_clicks, self.oldest_open_ms) = (cut.to, cut.totals.clicks, None);
        self.dropped = false;
        let is_empty = |cut: &Cut| cut.table.as_ref().is_some_and(|table| table.rows.is_empty());
        if let Some(back) = self.waiting.back_mut()
            && (is_empty(back) || (back.table.is_none() && (cut.table.is_none() || is_empty(&cut))))
        {
            let table = if is_empty(back) { cut.table } else { None };
            *back = Cut { from: back.from, oldest_ms: back.oldest_ms.or(cut.oldest_ms), table, ..cut };
            return;
        }
        self.waiting.push_back(cut);
    }

    /// Hands over what is durable, as far as credits go. A cut whose records had all been sealed before it, or that has
    /// none, knows a higher horizon than any frame does: windows would be final that a restart opens again.
    pub fn hand_over(&mut self, durable_lsn: u64, durable_horizon_ms: i64, actions: &mut Actions) {
        while self.credits > 0 && self.waiting.front().is_some_and(|cut| cut.to.lsn <= durable_lsn) {
            if let Some(mut cut) = self.waiting.pop_front() {
                self.credits -= 1;
                cut.horizon_ms = cut.horizon_ms.min(durable_horizon_ms);
                self.handed_over.extend(cut.oldest_ms.map(|oldest_ms| (cut.to.lsn, oldest_ms)));
                assert!(
                    self.handed_over.len() <= EXPORT_CREDITS as usize,
                    "more cuts were handed over than there are credits"
                );
                actions.push(Action::Export(Box::new(cut)));
            }
        }
    }

    pub fn exported(&mut self, exported: Exported) {
        assert!(exported.lsn >= self.exported_lsn, "the exported LSN went back");
        self.exported_lsn = exported.lsn;
        while self.handed_over.front().is_some_and(|(lsn, _)| *lsn <= exported.lsn) {
            self.handed_over.pop_front();
        }
        self.credits += exported.cuts;
        assert!(self.credits <= EXPORT_CREDITS, "more export credits came back than were taken");
        if let Some(mut table) = exported.table {
            table.clear();
            self.give_back(table);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cut::{CutRow, Totals};

    fn up_to(lsn: u64) -> Position {
        Position { log_id: [1; 16], lsn, chain: lsn }
    }

    fn table(rows: usize) -> Option<CutTable> {
        Some(CutTable { rows: vec![CutRow::default(); rows], ..CutTable::default() })
    }

    /// What comes of cuts of ten records each, while none may leave: the last record and the rows of each.
    fn waiting(tables: Vec<Option<CutTable>>) -> Vec<(u64, Option<usize>)> {
        let mut cuts = Cuts::new(up_to(0), 0, 0, CutTable::default);
        for (table, lsn) in tables.into_iter().zip((0..).step_by(10)) {
            let (from, to, totals) = (up_to(lsn), up_to(lsn + 10), Totals::default());
            cuts.push(Cut { from, to, totals, horizon_ms: 0, watermark_ms: 0, oldest_ms: None, table, last: false });
        }
        let begins: Vec<u64> = cuts.waiting.iter().map(|cut| cut.from.lsn).collect();
        let ends: Vec<u64> = cuts.waiting.iter().map(|cut| cut.to.lsn).collect();
        assert_eq!(begins[1..], ends[..ends.len() - 1], "each begins where the one before it ended");
        cuts.waiting.iter().map(|cut| (cut.to.lsn, cut.table.as_ref().map(|table| table.rows.len()))).collect()
    }

    /// Hours without a sink cost no memory, whatever came meanwhile; and clicks do not wait behind what has none.
    #[test]
    fn cuts_without_clicks_wait_as_one_with_the_next_and_those_without_a_table_as_one() {
        let empty = || table(0);
        assert_eq!(waiting((0..100).map(|_| empty()).collect()), [(1_000, Some(0))]);
        assert_eq!(waiting(vec![empty(), empty(), table(3), empty(), table(4)]), [(30, Some(3)), (50, Some(4))]);
        assert_eq!(waiting(vec![None, empty(), None, table(3), None]), [(30, None), (40, Some(3)), (50, None)]);
        assert_eq!(waiting(vec![empty(), None, empty()]), [(30, None)]);
    }

    #[test]
    fn a_spare_always_has_its_memory() {
        let start = Position { log_id: [1; 16], lsn: 0, chain: 0 };
        let mut cuts = Cuts::new(start, 0, 0, || CutTable::with_capacity(10, 10, 10));
        let used = cuts.spare().expect("two at the start");
        cuts.give_back(CutTable::default());
        cuts.give_back(used);
        while let Some(spare) = cuts.spare() {
            assert!(spare.rows.capacity() >= 10);
        }
    }
}
