//! Pure. An answer in the making: rows go in, windows and groups come out, page by page.

use std::collections::BTreeMap;

use crate::key::Parts;
use crate::question::{AsOf, CountRow, Counts, Group, Question, Subject};
use crate::snapshot::ROWS_MAX;
use crate::sums::Sums;
use crate::tables::{StoreError, damaged_users};
use crate::window::{Window, WindowState};

/// The window of the answer that a moment lies in.
pub fn window_of(question: &Question, span: Window, time_ms: i64) -> Window {
    question.granularity.map_or(span, |granularity| Window::of(time_ms, granularity.ms()))
}

/// An answer in the making.
pub struct Tally<'a> {
    question: &'a Question,
    span: Window,
    total: Sums,
    rows: BTreeMap<(i64, Option<Group>), Sums>,
    /// More rows than one question may hold in memory.
    pub too_wide: bool,
}

impl<'a> Tally<'a> {
    pub fn new(question: &'a Question, span: Window) -> Tally<'a> {
        Tally { question, span, total: Sums::default(), rows: BTreeMap::new(), too_wide: false }
    }

    pub fn add(&mut self, row: &Parts<'_>, clicks: u64, users: &[u8]) -> Result<(), StoreError> {
        let wanted = match &self.question.subject {
            Subject::All | Subject::Ad(_) => true,
            Subject::Campaign(id) => id == row.campaign_id,
            Subject::Advertiser(id) => id == row.advertiser_id,
        };
        if !wanted || !self.question.filter.takes(row) {
            return Ok(());
        }
        self.total.add(row.class, clicks, users).map_err(damaged_users)?;
        if self.question.granularity.is_none() && self.question.group_by.is_none() {
            return Ok(());
        }
        let start_ms = window_of(self.question, self.span, row.window_start_ms).start_ms;
        let group = self.question.group_by.map(|by| by.of(row));
        let at = (start_ms, group);
        if self.rows.len() == ROWS_MAX && !self.rows.contains_key(&at) {
            self.too_wide = true;
            return Ok(());
        }
        let sums = self.rows.entry(at).or_default();
        sums.add(row.class, clicks, users).map_err(damaged_users)
    }

    /// `corrections`: how many there were, by start of the window.
    pub fn answer(self, as_of: AsOf, corrections: &BTreeMap<i64, u64>) -> Counts {
        let Tally { question, span, total, rows, too_wide: _ } = self;
        let row = |window: Window, group: Option<Group>, sums: Sums, corrected: u64| {
            let state = as_of.marks.state(window);
            let version = if state == WindowState::Open { 0 } else { 1 + corrected };
            CountRow { window, group, sums, state, version }
        };
        let total = row(span, None, total, corrections.values().sum());
        let mut left =
            rows.into_iter().filter(|(at, _)| question.after.as_ref().is_none_or(|after| at > after)).peekable();
        let mut page = Vec::new();
        let mut last = None;
        while page.len() < question.rows_max {
            let Some(((start_ms, group), sums)) = left.next() else { break };
            last = Some((start_ms, group.clone()));
            let window = window_of(question, span, start_ms);
            page.push(row(window, group, sums, corrections.get(&start_ms).copied().unwrap_or(0)));
        }
        let more = if left.peek().is_some() { last } else { None };
        Counts { total, rows: page, more, as_of }
    }
}
