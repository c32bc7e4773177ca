//! Pure. What a core has cut off its log for the exporter, and what it has not yet been able to hand over.
//!
//! The open table is exactly (last cut, log end], or it is `dropped` and the exporter rebuilds the range from the log. A cut
//! leaves when its last record is durable and an export credit is free. Without a credit, cuts that carry no table of clicks
//! become one.

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

    /// Adds the next range, or makes the last one longer by it. It must begin where the last one ended.
    pub fn push(&mut self, cut: Cut) {
        assert_eq!(cut.from, self.last, "a cut begins where the last one ended");
        (self.last, self.last_clicks, self.oldest_open_ms) = (cut.to, cut.totals.clicks, None);
        self.dropped = false;
        // With a credit it waits for the disk alone: one that went on growing might never be durable.
        if self.credits == 0
            && let Some(back) = self.waiting.back_mut()
            && let Some(table) = joined(back, &cut)
        {
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

/// The table of two cuts in one, if they may be one: two without clicks, or one whose clicks the exporter reads in the log, and one that
/// has no more to hand over than that. A range of hours before a click's own table would be read again with it, raw.
fn joined(one: &Cut, next: &Cut) -> Option<Option<CutTable>> {
    let is_empty = |cut: &Cut| cut.table.as_ref().is_some_and(|table| table.rows.is_empty());
    match one.table {
        Some(_) => (is_empty(one) && is_empty(next)).then(|| Some(CutTable::default())),
        None => (next.table.is_none() || is_empty(next)).then_some(None),
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

    /// A cut of ten records that ends there; everything in it says which it is. A click in it was taken at its end.
    fn cut(to_lsn: u64, table: Option<CutTable>) -> Cut {
        let of = to_lsn as i64;
        let oldest_ms = table.as_ref().is_none_or(|table| !table.rows.is_empty()).then_some(of);
        let totals = Totals { clicks: to_lsn, ..Totals::default() };
        let (from, to) = (up_to(to_lsn - 10), up_to(to_lsn));
        Cut { from, to, totals, horizon_ms: of, watermark_ms: of, oldest_ms, table, last: to_lsn == 1_000 }
    }

    /// Whose credits are all used up by cuts of no records.
    fn without_credit() -> Cuts {
        let mut cuts = Cuts::new(up_to(0), 0, 0, CutTable::default);
        for _ in 0..EXPORT_CREDITS {
            cuts.push(Cut { from: up_to(0), to: up_to(0), ..cut(10, table(0)) });
            cuts.hand_over(0, 0, &mut Actions::default());
        }
        assert_eq!((cuts.credits, cuts.waiting.len()), (0, 0));
        cuts
    }

    /// Where each begins and ends, with its rows, and when its oldest click was taken.
    type Waiting = (u64, u64, Option<usize>, Option<i64>);

    /// What comes of cuts of ten records each; the one up to 1,000 is the last.
    fn waiting(mut cuts: Cuts, tables: impl IntoIterator<Item = Option<CutTable>>) -> Vec<Waiting> {
        for (table, to_lsn) in tables.into_iter().zip((10..).step_by(10)) {
            cuts.push(cut(to_lsn, table));
        }
        let of = |waiting: &Cut| {
            let end = cut(waiting.to.lsn, None);
            let says = |cut: &Cut| (cut.to, cut.totals, cut.horizon_ms, cut.watermark_ms, cut.last);
            assert_eq!(says(waiting), says(&end), "it says what its end says");
            let rows = waiting.table.as_ref().map(|table| table.rows.len());
            (waiting.from.lsn, waiting.to.lsn, rows, waiting.oldest_ms)
        };
        cuts.waiting.iter().map(of).collect()
    }

    /// Hours without a sink cost no memory, whatever came meanwhile.
    #[test]
    fn without_a_credit_cuts_that_carry_no_table_of_clicks_become_one() {
        let empty = || table(0);
        let joined = |tables: Vec<_>| waiting(without_credit(), tables);
        assert_eq!(joined((0..100).map(|_| empty()).collect()), [(0, 1_000, Some(0), None)]);
        assert_eq!(
            joined(vec![empty(), empty(), table(3), empty(), empty(), table(4)]),
            [(0, 20, Some(0), None), (20, 30, Some(3), Some(30)), (30, 50, Some(0), None), (50, 60, Some(4), Some(60))]
        );
        assert_eq!(
            joined(vec![None, empty(), None, table(3), None, empty()]),
            [(0, 30, None, Some(10)), (30, 40, Some(3), Some(40)), (40, 60, None, Some(50))]
        );
        assert_eq!(joined(vec![empty(), None, empty()]), [(0, 10, Some(0), None), (10, 30, None, Some(20))]);
    }

    /// One that went on growing behind a slow disk would never be durable, and what is counted in it not exported.
    #[test]
    fn with_a_credit_a_cut_that_waits_for_the_disk_leaves_as_it_is() {
        let cuts = || Cuts::new(up_to(0), 0, 0, CutTable::default);
        for tables in [[None, None], [None, table(0)], [table(0), table(0)]] {
            assert_eq!(
                waiting(cuts(), tables).iter().map(|(from, to, ..)| (*from, *to)).collect::<Vec<_>>(),
                [(0, 10), (10, 20)]
            );
        }
    }

    #[test]
    fn of_cuts_that_became_one_nothing_leaves_before_all_is_durable() {
        let mut cuts = without_credit();
        [10, 20].into_iter().for_each(|to_lsn| cuts.push(cut(to_lsn, None)));
        cuts.exported(Exported { lsn: 0, table: None, cuts: 1 });
        for (durable_lsn, left) in [(10, 0), (19, 0), (20, 1)] {
            let mut actions = Actions::default();
            cuts.hand_over(durable_lsn, 15, &mut actions);
            assert_eq!(actions.len(), left, "{durable_lsn}");
            for action in actions {
                let Action::Export(cut) = action else { panic!("{action:?}") };
                assert_eq!((cut.from.lsn, cut.to.lsn, cut.horizon_ms), (0, 20, 15));
            }
        }
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
