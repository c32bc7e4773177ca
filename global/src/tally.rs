//! Pure. An answer in the making: rows go in, windows and groups come out, page by page.

use std::collections::BTreeMap;
use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashSet};

use crate::key::Parts;
use crate::question::{AsOf, CountRow, Counts, Group, Question, Subject};
use crate::sums::Sums;
use crate::tables::{StoreError, damaged_users};
use crate::window::{Window, WindowState};

/// The window of the answer that a moment lies in.
pub fn window_of(question: &Question, span: Window, time_ms: i64) -> Window {
    question.granularity.map_or(span, |granularity| Window::of(time_ms, granularity.ms()))
}

/// Rows of an answer over all its pages: what one question may ask of the store.
pub const ROWS_MAX: usize = 200_000;
/// What the rows of a page may take of memory; it ends before the one with which they would take more.
const PAGE_BYTES_MAX: usize = 8 << 20;
/// What an answer in the making may take of memory: its page with one row beyond, and a set with a hash of each row of all pages, while
/// that grows.
pub const ANSWER_BYTES_MAX: usize = PAGE_BYTES_MAX + ROW_BYTES_MAX + SEEN_BYTES_MAX;
/// Of that, the set.
pub const SEEN_BYTES_MAX: usize = 2 * (size_of::<u64>() + 1) * ROWS_MAX.next_power_of_two();
/// A row's place in its map, which may be half full, and the node of its first classes; users come on top.
const ROW_BYTES: usize = 2 * size_of::<(Place, Sums)>() + 200;
/// With an ad's id and all its users.
const ROW_BYTES_MAX: usize = 16 << 10;

/// Where a row stands among those of an answer.
type Place = (i64, Option<Group>);

/// An answer in the making.
pub struct Tally<'a> {
    question: &'a Question,
    span: Window,
    total: Sums,
    /// The first rows of the page, as many as it may have.
    rows: BTreeMap<Place, Sums>,
    rows_bytes: usize,
    /// The first row that the page has no room for: of all from there on nothing is kept.
    end: Option<Place>,
    /// The rows of all pages, each a hash.
    seen: HashSet<u64>,
    hasher: DefaultHashBuilder,
    /// More rows than a question may ask for.
    pub too_wide: bool,
}

impl<'a> Tally<'a> {
    pub fn new(question: &'a Question, span: Window) -> Tally<'a> {
        Tally {
            question,
            span,
            total: Sums::default(),
            rows: BTreeMap::new(),
            rows_bytes: 0,
            end: None,
            seen: HashSet::default(),
            hasher: DefaultHashBuilder::default(),
            too_wide: false,
        }
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
        if self.too_wide || self.question.granularity.is_none() && self.question.group_by.is_none() {
            return Ok(());
        }
        let start_ms = window_of(self.question, self.span, row.window_start_ms).start_ms;
        let group = self.question.group_by.map(|by| by.of(row));
        let at = (start_ms, group);
        self.seen.insert(self.hasher.hash_one(&at));
        self.too_wide = self.seen.len() > ROWS_MAX;
        let is_of_page = self.question.after.as_ref().is_none_or(|after| at > *after)
            && self.end.as_ref().is_none_or(|end| at < *end);
        if is_of_page && !self.too_wide { self.add_to_page(at, row.class, clicks, users) } else { Ok(()) }
    }

    fn add_to_page(&mut self, at: Place, class: u32, clicks: u64, users: &[u8]) -> Result<(), StoreError> {
        let bytes = bytes_of(&at);
        let sums = self.rows.entry(at).or_insert_with(|| {
            self.rows_bytes += bytes;
            Sums::default()
        });
        let before = sums.users_bytes();
        sums.add(class, clicks, users).map_err(damaged_users)?;
        self.rows_bytes = self.rows_bytes - before + sums.users_bytes();
        // One row is a page, whatever it takes.
        let rows_max = self.question.rows_max;
        while self.rows.len() > rows_max || self.rows_bytes > PAGE_BYTES_MAX && self.rows.len() > 1 {
            let Some((at, sums)) = self.rows.pop_last() else { break };
            self.rows_bytes -= bytes_of(&at) + sums.users_bytes();
            self.end = Some(at);
        }
        Ok(())
    }

    /// `corrections`: how many there were, by start of the window.
    pub fn answer(self, as_of: AsOf, corrections: &BTreeMap<i64, u64>) -> Counts {
        let Tally { question, span, total, rows, end, .. } = self;
        let row = |window: Window, group: Option<Group>, sums: Sums, corrected: u64| {
            let state = as_of.marks.state(window);
            let version = if state == WindowState::Open { 0 } else { 1 + corrected };
            CountRow { window, group, sums, state, version }
        };
        let total = row(span, None, total, corrections.values().sum());
        let more = end.and_then(|_| rows.last_key_value().map(|(at, _)| at.clone()));
        let page = rows.into_iter().map(|((start_ms, group), sums)| {
            let corrected = corrections.get(&start_ms).copied().unwrap_or(0);
            row(window_of(question, span, start_ms), group, sums, corrected)
        });
        Counts { total, rows: page.collect(), more, as_of }
    }
}

/// What a row takes, its users aside.
fn bytes_of((_, group): &Place) -> usize {
    let named = match group {
        Some(Group::Ad(name) | Group::Region(name)) => name.len() + 16,
        Some(Group::Device(_) | Group::Agent(_) | Group::Class(_)) | None => 0,
    };
    ROW_BYTES + named
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::{Filter, GroupBy};
    use crate::window::{Granularity, MINUTE_MS, Marks};
    use tollgate_wire::users::Users;

    const SPAN: Window = Window { start_ms: 0, end_ms: 1_000 * MINUTE_MS };
    const AS_OF: AsOf = AsOf {
        generation: 1,
        committed_ms: None,
        watermark_ms: None,
        marks: Marks { closed_before_ms: 0, final_before_ms: 0 },
    };

    fn question(group_by: GroupBy, rows_max: usize, after: Option<Place>) -> Question {
        Question {
            subject: Subject::All,
            span: SPAN,
            granularity: Some(Granularity::Minute),
            group_by: Some(group_by),
            filter: Filter::default(),
            after,
            rows_max,
        }
    }

    fn parts(ad_id: &str, minute: i64) -> Parts<'_> {
        Parts {
            ad_id,
            window_start_ms: minute * MINUTE_MS,
            campaign_id: "",
            advertiser_id: "",
            region: "",
            device: 0,
            agent: 0,
            class: 0,
            rules: 0,
        }
    }

    /// All rows, page by page, with the clicks of each, and how many pages that were.
    fn paged(rows_max: usize, fill: &dyn Fn(&mut Tally<'_>)) -> (Vec<(Place, u64)>, usize) {
        let (mut rows, mut pages, mut after) = (Vec::new(), 0, None);
        loop {
            let question = question(GroupBy::Ad, rows_max, after);
            let mut tally = Tally::new(&question, SPAN);
            fill(&mut tally);
            assert!(tally.rows_bytes <= PAGE_BYTES_MAX && !tally.too_wide);
            let counts = tally.answer(AS_OF, &BTreeMap::new());
            assert!((1..=rows_max).contains(&counts.rows.len()));
            rows.extend(counts.rows.into_iter().map(|row| ((row.window.start_ms, row.group), row.sums.gross())));
            (pages, after) = (pages + 1, counts.more);
            if after.is_none() {
                return (rows, pages);
            }
        }
    }

    /// In whatever order rows come, and however often each.
    #[test]
    fn pages_together_are_all_rows_once_each_in_order() {
        let names: Vec<String> = (0..7).map(|n| format!("ad_{n}")).collect();
        let fill = |tally: &mut Tally<'_>| {
            for turn in 0..3 {
                for at in 0..70 {
                    let at = if turn == 1 { 69 - at } else { (at * 11) % 70 };
                    tally.add(&parts(&names[at % 7], at as i64 / 7), 1 + at as u64, &[]).expect("counted");
                }
            }
        };
        let expected: Vec<(Place, u64)> = (0..70)
            .map(|at| ((at as i64 / 7 * MINUTE_MS, Some(Group::Ad(names[at % 7].clone()))), 3 * (1 + at as u64)))
            .collect();
        for (rows_max, pages) in [(1, 70), (9, 8), (69, 2), (70, 1), (1_000, 1)] {
            assert_eq!(paged(rows_max, &fill), (expected.clone(), pages), "{rows_max} rows a page");
        }
    }

    /// Rows with many users fill a page before its rows are as many as were asked for.
    #[test]
    fn a_page_ends_where_its_memory_does() {
        let users = Users::bytes_of((0..5_000_u64).map(|user| user.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        let names: Vec<String> = (0..6_000).map(|n| format!("ad_{n:04}")).collect();
        let fill = |tally: &mut Tally<'_>| {
            // A row that had no room fits in again where a larger one went.
            for (at, name) in names.iter().enumerate().rev().chain(names.iter().enumerate()) {
                let users = if at % 2 == 0 { &users[..] } else { &[] };
                tally.add(&parts(name, 0), 6_000 + at as u64, users).expect("counted");
            }
        };
        let (rows, pages) = paged(10_000, &fill);
        assert!((2..=3).contains(&pages), "{pages}");
        assert_eq!(rows.len(), names.len());
        assert!(rows.iter().enumerate().all(|(at, (_, clicks))| *clicks == 2 * (6_000 + at as u64)));
    }

    #[test]
    fn rows_are_counted_over_all_pages() {
        let question = question(GroupBy::Ad, 10, None);
        let mut tally = Tally::new(&question, SPAN);
        for n in 0..=ROWS_MAX {
            assert!(!tally.too_wide, "after {n}");
            tally.add(&parts(&format!("ad_{n}"), 0), 1, &[]).expect("counted");
        }
        assert!(tally.too_wide && tally.rows.len() <= 10);
    }
}
