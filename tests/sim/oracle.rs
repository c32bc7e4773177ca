//! Pure. The judge. It knows which clicks clients sent and what they were answered, and sums what the sink holds; it shares
//! no code with the product. Its sentences:
//!
//! - answered as taken (accepted or duplicate): counted exactly once;
//! - refused, and no other try may have been taken: never counted; and never refused while it is fresh, where the clock is right and
//!   nothing is forgotten early;
//! - 503, reset, silence: at most once;
//! - nothing else is counted;
//! - answered before an exported watermark: counted with it, where the clock never leaps and no directory is cloned.
//!
//! "Once" is by id and event time, for ever; over all event times of an id, for as long as keys are remembered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One click as its owner knows it; every try of it has the same id.
pub struct Id {
    pub ad: u32,
    pub campaign: String,
    /// No try of it may ever be taken.
    pub never: bool,
    /// The event times it was sent with.
    stamps: BTreeSet<i64>,
    /// Of those, the ones a try with which was answered as taken; and who said so.
    taken_stamps: BTreeSet<i64>,
    taken_by: BTreeSet<Side>,
    /// Tries that were answered `accepted`, not `duplicate`.
    accepted: u64,
    /// Tries that may have been taken: never answered, or answered 503.
    unknown: u64,
    /// Tries with no answer yet.
    pub open: u64,
    /// The last answer was a refusal of this very click.
    pub refused: bool,
    first_sent_ms: i64,
    last_ended_ms: i64,
}

pub struct Try {
    pub id: usize,
    pub stamp: i64,
    sent_ms: i64,
    /// When it was sent, an answer had already said that this id is counted, and it never had another event time.
    known_taken: bool,
    over: bool,
    /// An answer that it was taken, and whose.
    taken: Option<(Verdict, Side)>,
}

/// What became of one try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accepted,
    /// Accepted or duplicate: the answer does not say which.
    Taken,
    Refused,
    /// The request was refused as a whole, before any click was looked at.
    NotTaken,
    Unknown,
}

/// Who answers: where a data directory is copied, two may answer for the same edge, and one of them in the end for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// It was not copied yet: both hold it.
    Before,
    First,
    Second,
}

pub struct Oracle {
    pub ids: Vec<Id>,
    pub tries: Vec<Try>,
    remembered_ms: i64,
    /// No click that is younger is refused; 0 where that may be.
    fresh_ms: i64,
    /// Clicks that were answered `accepted`, and when, which no watermark has passed yet.
    answered: VecDeque<(i64, usize)>,
    /// The others, by campaign.
    complete: BTreeMap<String, u64>,
    /// Of these ids so many were accepted, it was not said which; and who said so.
    some_accepted: Vec<(BTreeSet<usize>, usize, Side)>,
    /// Who is asked or answers now; and whose answers are not owed.
    pub side: Side,
    lost: Option<Side>,
}

/// What the sink counts, as far as the oracle looks: by campaign, ad and start of the pane.
pub type Rows = BTreeMap<(String, String, i64), u64>;

/// Whether everything is drained: else what was taken may not be counted yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exported {
    All,
    InPart,
}

/// A try may be judged this long after its client gave it up.
const LATE_MS: i64 = 8_000;

impl Oracle {
    pub fn new(remembered_ms: i64, fresh_ms: i64) -> Oracle {
        let (answered, complete, some_accepted) = (VecDeque::new(), BTreeMap::new(), Vec::new());
        let (ids, tries) = (Vec::new(), Vec::new());
        Oracle {
            ids,
            tries,
            remembered_ms,
            fresh_ms,
            answered,
            complete,
            some_accepted,
            side: Side::Before,
            lost: None,
        }
    }

    pub fn id(&mut self, ad: u32, campaign: String, never: bool) -> usize {
        self.ids.push(Id {
            ad,
            campaign,
            never,
            stamps: BTreeSet::new(),
            taken_stamps: BTreeSet::new(),
            taken_by: BTreeSet::new(),
            accepted: 0,
            unknown: 0,
            open: 0,
            refused: false,
            first_sent_ms: i64::MAX,
            last_ended_ms: i64::MIN,
        });
        self.ids.len() - 1
    }

    /// A try is sent at `wall_ms` of the server's clock.
    pub fn send(&mut self, id: usize, stamp: i64, wall_ms: i64) -> usize {
        let click = &mut self.ids[id];
        click.stamps.insert(stamp);
        click.open += 1;
        click.first_sent_ms = click.first_sent_ms.min(wall_ms);
        // A duplicate with another event time may outlive the first one's generation, and is then new.
        let known_here = [Side::Before, self.side].iter().any(|side| click.taken_by.contains(side));
        let known_taken = click.stamps.len() == 1 && click.taken_stamps.contains(&stamp) && known_here;
        self.tries.push(Try { id, stamp, sent_ms: wall_ms, known_taken, over: false, taken: None });
        self.tries.len() - 1
    }

    /// A try is over. An answer that cannot be is an error.
    pub fn end(&mut self, at: usize, verdict: Verdict, wall_ms: i64) -> Result<(), String> {
        let attempt = &mut self.tries[at];
        assert!(!attempt.over, "a try ends once");
        attempt.over = true;
        let click = &mut self.ids[attempt.id];
        click.open -= 1;
        let taken = matches!(verdict, Verdict::Accepted | Verdict::Taken);
        let verdict = if taken && self.lost == Some(self.side) { Verdict::Unknown } else { verdict };
        click.last_ended_ms = click.last_ended_ms.max(wall_ms);
        match verdict {
            Verdict::Accepted | Verdict::Taken if click.never => {
                return Err(format!("click {} must be refused and was taken", attempt.id));
            }
            Verdict::Accepted if attempt.known_taken => {
                return Err(format!("click {} was answered as taken, sent again, and accepted anew", attempt.id));
            }
            Verdict::Accepted | Verdict::Taken => {
                if verdict == Verdict::Accepted {
                    click.accepted += 1;
                    self.answered.push_back((wall_ms, attempt.id));
                }
                click.taken_stamps.insert(attempt.stamp);
                click.taken_by.insert(self.side);
                attempt.taken = Some((verdict, self.side));
            }
            Verdict::Refused
                if !click.never
                    && self.fresh_ms > 0
                    && attempt.stamp <= attempt.sent_ms
                    && attempt.stamp > wall_ms.saturating_sub(self.fresh_ms) =>
            {
                let (id, stamp) = (attempt.id, attempt.stamp);
                return Err(format!("click {id} of {stamp}, answered at {wall_ms}, is fresh and was refused"));
            }
            Verdict::Refused if attempt.known_taken => {}
            Verdict::Refused => click.refused = true,
            Verdict::NotTaken => {}
            Verdict::Unknown => click.unknown += 1,
        }
        Ok(())
    }

    /// An answer that does not say which of these were accepted.
    pub fn some_accepted(&mut self, tries: &[usize], accepted: u64) {
        let ids = tries.iter().map(|at| self.tries[*at].id).collect();
        self.some_accepted.push((ids, accepted as usize, self.side));
    }

    /// What this side answered is not owed: it may be counted, or not.
    pub fn lose(&mut self, side: Side) {
        self.lost = Some(side);
        self.some_accepted.retain(|(_, _, by)| *by != side);
        for id in &mut self.ids {
            id.taken_by.remove(&side);
            id.taken_stamps.clear();
        }
        for attempt in &mut self.tries {
            let click = &mut self.ids[attempt.id];
            match attempt.taken {
                Some((verdict, by)) if by == side => {
                    click.accepted -= u64::from(verdict == Verdict::Accepted);
                    click.unknown += 1;
                    attempt.taken = None;
                }
                Some(_) => drop(click.taken_stamps.insert(attempt.stamp)),
                None => {}
            }
        }
    }

    /// How many of a batch that was wholly answered as taken may have been accepted anew.
    pub fn may_be_accepted(&self, tries: &[usize]) -> usize {
        let fresh = tries.iter().filter(|at| !self.tries[**at].known_taken).map(|at| {
            let attempt = &self.tries[*at];
            (attempt.id, attempt.stamp)
        });
        fresh.collect::<BTreeSet<_>>().len()
    }

    /// What these tries are, for a person.
    pub fn story(&self, tries: &[usize]) -> String {
        let one = |at: &usize| {
            let attempt = &self.tries[*at];
            let click = &self.ids[attempt.id];
            let Id { stamps, taken_stamps, accepted, unknown, open, first_sent_ms, last_ended_ms, .. } = click;
            format!(
                "click {} with {}, sent with {stamps:?}, taken {taken_stamps:?}, accepted {accepted}, unknown {unknown}, \
                 open {open}, first sent {first_sent_ms}, last ended {last_ended_ms}",
                attempt.id, attempt.stamp
            )
        };
        tries.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    /// Whether the click needs no further try.
    pub fn settled(&self, id: usize) -> bool {
        let click = &self.ids[id];
        click.never || click.refused || !click.taken_stamps.is_empty()
    }

    pub fn last_stamp(&self, id: usize) -> i64 {
        self.ids[id].stamps.iter().next_back().copied().unwrap_or(0)
    }

    /// How often a click may be counted: at least, at most.
    fn bounds(&self, id: usize) -> (u64, u64) {
        let click = &self.ids[id];
        let taken = !click.taken_stamps.is_empty();
        if click.never || (!taken && click.unknown == 0 && click.open == 0) {
            return (0, 0);
        }
        let late_ms = if click.unknown + click.open > 0 { LATE_MS } else { 0 };
        let span_ms = click.last_ended_ms.saturating_sub(click.first_sent_ms).saturating_add(late_ms);
        // Between two tries the clock may have gone an hour ahead and back: the stamps tell.
        let stamps_ms = click.stamps.last().zip(click.stamps.first()).map_or(0, |(last, first)| last - first);
        let remembered = span_ms.max(stamps_ms) < self.remembered_ms;
        let most = if remembered { 1 } else { click.stamps.len() as u64 };
        (click.accepted.max(u64::from(taken)), most)
    }

    /// What is exported is said to be complete up to then: what was answered as accepted before is counted. By campaign, in a world whose
    /// clock is right.
    pub fn passed_by(&mut self, watermark_ms: i64, counted: &BTreeMap<String, u64>) -> Result<(), String> {
        while let Some((answered_ms, id)) = self.answered.pop_front_if(|(answered_ms, _)| *answered_ms < watermark_ms) {
            let campaign = &self.ids[id].campaign;
            let least = self.complete.entry(campaign.clone()).or_default();
            *least += 1;
            let clicks = counted.get(campaign).copied().unwrap_or(0);
            if clicks < *least {
                return Err(format!(
                    "watermark {watermark_ms} is exported, and of campaign {campaign} {clicks} clicks, not {least}: click {id} was answered \
                     at {answered_ms}"
                ));
            }
        }
        Ok(())
    }

    /// The last word: what the sink holds against what clients were told.
    pub fn judge(&self, rows: &Rows, exported: Exported) -> Result<(), String> {
        let mut expected: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        let mut by_ad: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for (id, click) in self.ids.iter().enumerate() {
            let (least, most) = self.bounds(id);
            if least > most {
                let tries: Vec<usize> = (0..self.tries.len()).filter(|at| self.tries[*at].id == id).collect();
                let story = self.story(&tries);
                return Err(format!("click {id} was accepted {least} times, and may be counted {most} times: {story}"));
            }
            let least = if exported == Exported::All { least } else { 0 };
            let group = expected.entry(&click.campaign).or_default();
            *group = (group.0 + least, group.1 + most);
            let ad = by_ad.entry(ad_name(click.ad)).or_default();
            *ad = (ad.0 + least, ad.1 + most);
        }
        let sent: BTreeSet<(&str, String, i64)> = self
            .tries
            .iter()
            .map(|attempt| (&self.ids[attempt.id], attempt.stamp.div_euclid(10_000) * 10_000))
            .filter(|(click, _)| !click.never)
            .map(|(click, pane)| (click.campaign.as_str(), ad_name(click.ad), pane))
            .collect();
        let (mut found, mut found_by_ad): (BTreeMap<&str, u64>, BTreeMap<&str, u64>) = Default::default();
        for ((campaign, ad, pane), clicks) in rows {
            if !sent.contains(&(campaign.as_str(), ad.clone(), *pane)) {
                return Err(format!("{clicks} clicks of campaign {campaign}, ad {ad}, pane {pane}: nobody sent that"));
            }
            *found.entry(campaign).or_default() += clicks;
            *found_by_ad.entry(ad).or_default() += clicks;
        }
        for (ids, accepted, _) in &self.some_accepted {
            let counted = ids.iter().filter(|id| found.contains_key(self.ids[**id].campaign.as_str())).count();
            if exported == Exported::All && counted < *accepted {
                return Err(format!("{accepted} of the clicks {ids:?} were accepted, and {counted} are counted"));
            }
        }
        within("campaign", expected.iter().map(|(name, bounds)| (*name, *bounds)), &found)?;
        within("ad", by_ad.iter().map(|(name, bounds)| (name.as_str(), *bounds)), &found_by_ad)
    }
}

fn within<'a>(
    what: &str,
    expected: impl Iterator<Item = (&'a str, (u64, u64))>,
    found: &BTreeMap<&str, u64>,
) -> Result<(), String> {
    for (name, (least, most)) in expected {
        let clicks = found.get(name).copied().unwrap_or(0);
        if clicks < least || clicks > most {
            return Err(format!("{what} {name} is counted {clicks} times, and answers allow {least} to {most}"));
        }
    }
    Ok(())
}

pub fn ad_name(ad: u32) -> String {
    format!("ad_{ad}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(clicks: u64) -> Rows {
        BTreeMap::from([(("c".to_owned(), "ad_1".to_owned(), 10_000), clicks)])
    }

    /// One click, tried once for each verdict; how often it may be counted.
    fn allowed(verdicts: &[Verdict], never: bool) -> Vec<u64> {
        let mut oracle = Oracle::new(60_000, 0);
        let id = oracle.id(1, "c".to_owned(), never);
        let tries: Vec<usize> = verdicts.iter().map(|_| oracle.send(id, 12_345, 0)).collect();
        for (at, verdict) in tries.into_iter().zip(verdicts) {
            oracle.end(at, *verdict, 10).unwrap();
        }
        (0..4).filter(|clicks| oracle.judge(&rows(*clicks), Exported::All).is_ok()).collect()
    }

    #[test]
    fn answers_say_how_often_a_click_may_be_counted() {
        use Verdict::{Accepted, NotTaken, Refused, Taken, Unknown};
        assert_eq!(allowed(&[Accepted], false), [1]);
        assert_eq!(allowed(&[Taken, Unknown, Refused], false), [1]);
        assert_eq!(allowed(&[Unknown, Unknown], false), [0, 1]);
        assert_eq!(allowed(&[Refused, NotTaken], false), [0]);
        assert_eq!(allowed(&[Accepted, Accepted], false), [0; 0], "an id accepted twice fails whatever is counted");
    }

    #[test]
    fn what_is_fresh_is_not_refused() {
        let refused = |never, stamp, answered_ms| {
            let mut oracle = Oracle::new(0, 1_000);
            let id = oracle.id(1, "c".to_owned(), never);
            let at = oracle.send(id, stamp, 50_000);
            oracle.end(at, Verdict::Refused, answered_ms).is_ok()
        };
        assert_eq!([refused(false, 49_500, 50_100), refused(true, 49_500, 50_100)], [false, true]);
        assert!(refused(false, 49_500, 50_500), "old enough when it was answered");
        assert!(refused(false, 50_001, 50_100), "ahead of its time");
    }

    #[test]
    fn what_was_answered_before_a_watermark_is_counted_with_it() {
        let mut oracle = Oracle::new(0, 0);
        let id = oracle.id(1, "c".to_owned(), false);
        let at = oracle.send(id, 12_345, 0);
        oracle.end(at, Verdict::Accepted, 10).unwrap();
        assert!(oracle.passed_by(10, &BTreeMap::new()).is_ok());
        assert!(oracle.passed_by(11, &BTreeMap::new()).is_err());
    }

    #[test]
    fn a_list_that_was_cut_short_owes_as_many_clicks_as_it_accepted() {
        let allowed = |accepted| {
            let mut oracle = Oracle::new(60_000, 0);
            let tries = ["c", "d"].map(|campaign| {
                let id = oracle.id(1, campaign.to_owned(), false);
                oracle.send(id, 12_345, 0)
            });
            tries.into_iter().for_each(|at| oracle.end(at, Verdict::Unknown, 10).unwrap());
            oracle.some_accepted(&tries, accepted);
            oracle.judge(&rows(1), Exported::All).is_ok()
        };
        assert_eq!([allowed(0), allowed(1), allowed(2)], [true, true, false]);
    }

    #[test]
    fn what_nobody_sent_may_not_be_counted() {
        assert!(Oracle::new(0, 0).judge(&rows(1), Exported::InPart).is_err());
    }
}
