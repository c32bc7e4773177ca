//! Pure. The corrections of a minute: what each version added, when and why.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::question::{Correction, CorrectionReason};
use crate::records::{Corrected, History};
use crate::sums::CLASS_VALID;
use crate::window::{MINUTE_MS, Marks, Window};

/// Corrections of one minute that are kept one by one; of more, the oldest two become one.
pub const CORRECTIONS_MAX: usize = 32;
/// Corrections that come within this of event time after closing are expected.
pub const EXPECTED_MS: i64 = 2 * MINUTE_MS;

/// What one commit adds to minutes that are closed, by ad (the ad without a name: all) and start of the minute.
#[derive(Default)]
pub struct Corrections {
    pub by_minute: BTreeMap<(String, i64), Added>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    pub reason: CorrectionReason,
    pub gross: u64,
    pub net: u64,
}

impl Corrections {
    /// Notes clicks of one ad and pane, if their minute was closed before this commit. `silent`: nothing waited for their edge.
    pub fn add(&mut self, marks: Marks, silent: bool, ad_id: &str, pane_ms: i64, class: u32, clicks: u64) {
        let minute = Window::of(pane_ms, MINUTE_MS);
        if minute.end_ms > marks.closed_before_ms {
            return;
        }
        let reason = if minute.end_ms <= marks.final_before_ms {
            CorrectionReason::AfterFinal
        } else if silent {
            CorrectionReason::SilentEdge
        } else if marks.closed_before_ms.saturating_sub(minute.end_ms) > EXPECTED_MS {
            CorrectionReason::VeryLate
        } else {
            CorrectionReason::Late
        };
        let net = if class == CLASS_VALID { clicks } else { 0 };
        for ad_id in [ad_id, ""] {
            let fresh = Added { reason, gross: 0, net: 0 };
            let added = self.by_minute.entry((ad_id.to_owned(), minute.start_ms)).or_insert(fresh);
            added.gross += clicks;
            added.net += net;
            if code(reason) > code(added.reason) {
                added.reason = reason;
            }
        }
    }
}

/// Codes are on disk; the larger, the more out of the ordinary.
fn code(reason: CorrectionReason) -> u32 {
    match reason {
        CorrectionReason::Late => 1,
        CorrectionReason::VeryLate => 2,
        CorrectionReason::SilentEdge => 3,
        CorrectionReason::AfterFinal => 4,
    }
}

fn reason(code: u32) -> CorrectionReason {
    match code {
        1 => CorrectionReason::Late,
        2 => CorrectionReason::VeryLate,
        3 => CorrectionReason::SilentEdge,
        _ => CorrectionReason::AfterFinal,
    }
}

impl History {
    pub fn push(&mut self, added: Added, at_ms: i64) {
        self.corrections += 1;
        let Added { gross, net, .. } = added;
        let corrected =
            Corrected { versions: 1, at_ms, reason: code(added.reason), gross_added: gross, net_added: net };
        self.kept.push(corrected);
        if self.kept.len() > CORRECTIONS_MAX {
            let oldest = self.kept.remove(0);
            let next = &mut self.kept[0];
            next.versions += oldest.versions;
            next.gross_added += oldest.gross_added;
            next.net_added += oldest.net_added;
            next.reason = next.reason.max(oldest.reason);
        }
    }

    /// The corrections of the minute, the oldest first.
    pub fn corrections_of(&self, minute: Window) -> Vec<Correction> {
        let mut version = 1;
        let each = self.kept.iter().map(|corrected| {
            version += corrected.versions;
            Correction {
                minute,
                version,
                versions: corrected.versions,
                at_ms: corrected.at_ms,
                reason: reason(corrected.reason),
                gross_added: corrected.gross_added,
                net_added: corrected.net_added,
            }
        });
        each.collect()
    }
}

/// Corrections of whole minutes, the oldest first: as many as fit, but of one minute at least. Nothing behind it is read.
pub struct CorrectionsPage {
    pub corrections: Vec<Correction>,
    /// The minute that the next page begins with.
    pub next_ms: Option<i64>,
    limit: usize,
}

impl CorrectionsPage {
    pub fn new(limit: usize) -> CorrectionsPage {
        CorrectionsPage { corrections: Vec::new(), next_ms: None, limit }
    }

    /// Takes the next minute in; breaks where it has no room.
    pub fn take(&mut self, minute: Window, history: &History) -> ControlFlow<()> {
        let more = history.kept.len();
        if !self.corrections.is_empty() && self.corrections.len() + more > self.limit {
            self.next_ms = Some(minute.start_ms);
            return ControlFlow::Break(());
        }
        self.corrections.extend(history.corrections_of(minute));
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_between_two_minutes() {
        let page_of = |versions: &[u32], limit: usize| {
            let mut page = CorrectionsPage::new(limit);
            for (minute, versions) in versions.iter().enumerate() {
                let mut history = History::default();
                for at_ms in 0..i64::from(*versions) {
                    history.push(Added { reason: CorrectionReason::Late, gross: 1, net: 1 }, at_ms);
                }
                if page.take(Window::of(minute as i64 * MINUTE_MS, MINUTE_MS), &history).is_break() {
                    break;
                }
            }
            (page.corrections.len(), page.next_ms.map(|at_ms| at_ms / MINUTE_MS))
        };
        let cases = [(1, 2, Some(1)), (2, 2, Some(1)), (3, 2, Some(1)), (4, 2, Some(1)), (5, 5, Some(2)), (6, 6, None)];
        for (limit, length, next) in cases {
            assert_eq!(page_of(&[2, 3, 1], limit), (length, next), "{limit}");
        }
        assert_eq!(page_of(&[3], 1), (3, None), "one minute is never divided");
    }

    #[test]
    fn only_what_was_closed_is_corrected_and_why_is_said() {
        let marks = Marks { closed_before_ms: 600_000, final_before_ms: 120_000 };
        let mut corrections = Corrections::default();
        let cases = [
            (590_000, false, Some(CorrectionReason::Late)),
            (600_000, false, None),
            (430_000, false, Some(CorrectionReason::Late)),
            (410_000, false, Some(CorrectionReason::VeryLate)),
            (410_000, true, Some(CorrectionReason::SilentEdge)),
            (110_000, true, Some(CorrectionReason::AfterFinal)),
        ];
        for (pane_ms, silent, expected) in cases {
            corrections.by_minute.clear();
            corrections.add(marks, silent, "a", pane_ms, 0, 3);
            let minute = Window::of(pane_ms, MINUTE_MS).start_ms;
            let found = corrections.by_minute.get(&("a".to_owned(), minute)).map(|added| added.reason);
            assert_eq!(found, expected, "{pane_ms} {silent}");
            assert_eq!(corrections.by_minute.get(&(String::new(), minute)).map(|added| added.reason), expected);
        }
        corrections.by_minute.clear();
        let half_open = Marks { closed_before_ms: 50_000, final_before_ms: 0 };
        corrections.add(half_open, false, "a", 0, 0, 1);
        assert!(corrections.by_minute.is_empty(), "the pane is closed, its minute is not");
    }

    /// However many there are: the sum of what is kept is the sum of all, and the last version is counted to.
    #[test]
    fn history_is_bounded_and_loses_no_click() {
        let mut history = History::default();
        for at_ms in 0..100 {
            history.push(Added { reason: CorrectionReason::Late, gross: 2, net: 1 }, at_ms);
        }
        let kept = history.corrections_of(Window::of(0, MINUTE_MS));
        assert_eq!((kept.len(), history.corrections), (CORRECTIONS_MAX, 100));
        assert_eq!(kept.iter().map(|one| one.gross_added).sum::<u64>(), 200);
        assert_eq!(kept.iter().map(|one| one.net_added).sum::<u64>(), 100);
        assert_eq!(kept.iter().map(|one| one.versions).sum::<u64>(), 100);
        assert_eq!(kept.last().map(|one| (one.version, one.at_ms)), Some((101, 99)));
    }
}
