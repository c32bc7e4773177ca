//! Pure. How far the store has come with event time: what is closed, folded, rolled up and pruned, and so which rows to read for
//! a span.
//!
//! ```text
//!          kept hours    kept minutes     kept panes      rolled up      folded = closed
//! ─────────────┬──────────────┬───────────────┬───────────────┬───────────────┬─────────▶ event time
//!    pruned    │    hours     │ hours minutes │  all three    │     panes     │   runs
//! ```

use crate::key;
use crate::question_error::QuestionError;
use crate::window::{Grain, Granularity, HOUR_MS, MINUTE_MS, Marks, Window, ceil, floor};

/// How far it is. Times only rise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub marks: Marks,
    /// Panes that begin before this lie in rows, those after it in runs.
    pub folded_before_ms: i64,
    /// Hours that begin before this are rolled up to rows of minutes and hours.
    pub rolled_before_ms: i64,
    /// The hour that is being rolled up, and how far it is.
    pub rolling: Option<Rolling>,
    /// Rows of windows that begin before this are pruned, or about to be; by grain, the finest first.
    pub kept_from_ms: [i64; 3],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rolling {
    pub hour_ms: i64,
    /// Key of the last row of a pane that rows of minutes and hours hold: one of before it that comes late is added to them, one of
    /// after it is not.
    pub row_key: Vec<u8>,
}

impl Default for Progress {
    fn default() -> Progress {
        Progress {
            marks: Marks::default(),
            folded_before_ms: i64::MIN,
            rolled_before_ms: i64::MIN,
            rolling: None,
            kept_from_ms: [i64::MIN; 3],
        }
    }
}

impl Progress {
    /// Whether rows of minutes and hours hold what the row of a pane with this key does.
    pub fn is_rolled(&self, row_key: &[u8]) -> bool {
        let hour_ms = floor(key::window_start(row_key), HOUR_MS);
        hour_ms < self.rolled_before_ms
            || self
                .rolling
                .as_ref()
                .is_some_and(|rolling| rolling.hour_ms == hour_ms && row_key <= &rolling.row_key[..])
    }

    pub fn kept_from(&self, grain: Grain) -> i64 {
        self.kept_from_ms[grain as usize]
    }

    /// The span that can be answered: its ends moved outwards to windows that are still kept apart.
    pub fn widened(&self, span: Window) -> Window {
        let end = |time_ms: i64, to: fn(i64, i64) -> i64| {
            let grain = if time_ms >= self.kept_from(Grain::Pane) {
                Grain::Pane
            } else if time_ms >= self.kept_from(Grain::Minute) {
                Grain::Minute
            } else {
                Grain::Hour
            };
            to(time_ms, grain.ms())
        };
        Window { start_ms: end(span.start_ms, floor), end_ms: end(span.end_ms, ceil) }
    }

    /// Whether all that a widened span had is kept, as finely as it is asked for.
    pub fn check(&self, span: Window, granularity: Option<Granularity>) -> Result<(), QuestionError> {
        let (minutes, hours) = (self.kept_from(Grain::Minute), self.kept_from(Grain::Hour));
        if span.start_ms < hours {
            return Err(QuestionError::Pruned { kept_from_ms: hours });
        }
        if span.start_ms < minutes && granularity.is_some_and(|granularity| granularity.ms() < Grain::Hour.ms()) {
            return Err(QuestionError::TooFine { kept_from_ms: minutes });
        }
        Ok(())
    }

    /// Which rows add up to a span whose windows are of `length_ms` (None: one window), the coarsest where there is a choice. The
    /// span is widened, and its ends are borders of those windows.
    pub fn parts(&self, span: Window, length_ms: Option<i64>) -> Vec<(Grain, Window)> {
        let mut parts = Vec::new();
        let fits = |grain: Grain| length_ms.is_none_or(|length| length % grain.ms() == 0);
        let mut rest = vec![(Grain::Hour, span)];
        while let Some((grain, Window { start_ms, end_ms })) = rest.pop() {
            if start_ms >= end_ms {
                continue;
            }
            let finer = match grain {
                Grain::Hour => Grain::Minute,
                Grain::Minute => Grain::Pane,
                Grain::Pane => {
                    parts.push((Grain::Pane, Window { start_ms, end_ms }));
                    continue;
                }
            };
            let first = ceil(start_ms, grain.ms());
            let last = floor(end_ms.min(self.rolled_before_ms), grain.ms());
            if !fits(grain) || first >= last {
                rest.push((finer, Window { start_ms, end_ms }));
                continue;
            }
            parts.push((grain, Window { start_ms: first, end_ms: last }));
            rest.push((finer, Window { start_ms, end_ms: first }));
            rest.push((finer, Window { start_ms: last, end_ms }));
        }
        parts
    }

    /// The hour that can be rolled up next among those that have rows, once its corrections have mostly come.
    pub fn can_roll(&self, hour_ms: i64) -> bool {
        let end_ms = hour_ms.saturating_add(HOUR_MS);
        end_ms <= self.folded_before_ms && end_ms.saturating_add(2 * MINUTE_MS) <= self.marks.closed_before_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PANE_MS;
    use proptest::prelude::*;
    use tollgate_wire::PartialView;

    fn rolled(rolled_before_ms: i64) -> Progress {
        Progress { rolled_before_ms, ..Progress::default() }
    }

    proptest! {
        /// The parts of a span are the span: nothing is read twice, nothing left out; and every part is of whole rows.
        #[test]
        fn parts_add_up_to_the_span(
            from in 0i64..2_000, panes in 0i64..2_000, rolled_hours in 0i64..6, length in prop::option::of(0usize..4),
        ) {
            let length_ms = length.map(|at| crate::window::Granularity::ALL[at].ms());
            let (from_ms, to_ms) = (from * PANE_MS, (from + panes) * PANE_MS);
            let span = length_ms.map_or(Window { start_ms: from_ms, end_ms: to_ms }, |length| Window {
                start_ms: floor(from_ms, length), end_ms: ceil(to_ms, length),
            });
            let mut parts = rolled(rolled_hours * HOUR_MS).parts(span, length_ms);
            parts.sort_by_key(|(_, part)| part.start_ms);
            let mut at = span.start_ms;
            for (grain, part) in parts {
                prop_assert_eq!(part.start_ms, at);
                prop_assert!(part.end_ms > part.start_ms);
                prop_assert_eq!((part.start_ms % grain.ms(), part.end_ms % grain.ms()), (0, 0));
                prop_assert!(grain == Grain::Pane || part.end_ms <= rolled_hours * HOUR_MS);
                prop_assert!(length_ms.is_none_or(|length| length % grain.ms() == 0));
                at = part.end_ms;
            }
            prop_assert_eq!(at, span.end_ms.max(span.start_ms));
        }
    }

    #[test]
    fn a_day_is_read_from_hours() {
        let day = Window { start_ms: 0, end_ms: 24 * HOUR_MS };
        assert_eq!(rolled(24 * HOUR_MS).parts(day, None), [(Grain::Hour, day)]);
        let parts = rolled(23 * HOUR_MS).parts(day, None);
        assert_eq!(parts.iter().map(|(grain, _)| *grain).collect::<Vec<_>>(), [Grain::Hour, Grain::Pane]);
        assert_eq!(rolled(24 * HOUR_MS).parts(day, Some(MINUTE_MS)), [(Grain::Minute, day)]);
    }

    #[test]
    fn a_span_is_widened_to_what_is_kept_apart() {
        let progress = Progress { kept_from_ms: [10 * HOUR_MS, 5 * HOUR_MS, 0], ..Progress::default() };
        let widened = |start_ms, end_ms| {
            let Window { start_ms, end_ms } = progress.widened(Window { start_ms, end_ms });
            (start_ms, end_ms)
        };
        assert_eq!(widened(10 * HOUR_MS + 1, 11 * HOUR_MS + 1), (10 * HOUR_MS, 11 * HOUR_MS + PANE_MS));
        assert_eq!(widened(6 * HOUR_MS + 1, 11 * HOUR_MS), (6 * HOUR_MS, 11 * HOUR_MS));
        assert_eq!(widened(6 * HOUR_MS + 61_000, 7 * HOUR_MS - 1), (6 * HOUR_MS + MINUTE_MS, 7 * HOUR_MS));
        assert_eq!(widened(HOUR_MS + 1, 2 * HOUR_MS + 1), (HOUR_MS, 3 * HOUR_MS));
    }

    #[test]
    fn what_is_rolled_is_known_by_row_while_an_hour_is_under_way() {
        let row_key = |ad: &str, window_ms: i64, region: &str| {
            let mut key = Vec::new();
            key::append(
                &PartialView { ad_id: ad, pane_start_ms: window_ms, region, ..PartialView::default() },
                &mut key,
            );
            key
        };
        let rolling = Rolling { hour_ms: HOUR_MS, row_key: row_key("bb", HOUR_MS + PANE_MS, "DE") };
        let progress = Progress { rolling: Some(rolling), ..rolled(HOUR_MS) };
        let is_rolled = |ad, window_ms, region| progress.is_rolled(&row_key(ad, window_ms, region));
        assert!(is_rolled("zz", 0, ""), "an hour of before");
        assert!(is_rolled("", HOUR_MS, "") && is_rolled("z", HOUR_MS, ""), "ads of before, the shorter first");
        assert!(!is_rolled("bc", HOUR_MS, "") && !is_rolled("aaa", HOUR_MS, ""), "ads of after");
        assert!(is_rolled("bb", HOUR_MS, "FR") && is_rolled("bb", HOUR_MS + PANE_MS, "DE"), "rows up to it");
        assert!(
            !is_rolled("bb", HOUR_MS + PANE_MS, "FR") && !is_rolled("bb", HOUR_MS + 2 * PANE_MS, ""),
            "rows of after"
        );
        assert!(!is_rolled("a", 2 * HOUR_MS, ""), "an hour of after");
    }
}
