//! The state that live clients are told: what was committed lately, and how the books stand. Never a scan of the store.

use std::collections::BTreeMap;

use serde::Serialize;

use super::answers::{Standing, TopAdAnswer, top_ads};
use super::edges::EdgeAnswer;
use super::times::format_time;
use super::{Access, names};
use crate::question::{Filter, Group, GroupBy, Question, RankBy, Subject, Top, TopQuestion, TopWindow};
use crate::question_error::QuestionError;
use crate::snapshot::Snapshot;
use crate::sums::CLASS_VALID;
use crate::window::{MINUTE_MS, Window};

/// Ads that are shown.
const TOP_K: usize = 10;

/// Where nothing was committed for so long, nothing comes.
const LULL_MS: i64 = 5_000;

/// What was counted, ever, and as of when.
#[derive(Clone, Debug)]
pub struct Sample {
    pub at_ms: i64,
    pub clicks_by_class: BTreeMap<u32, u64>,
}

#[derive(Serialize)]
struct State<'a> {
    now: String,
    #[serde(flatten)]
    standing: Standing,
    clicks_per_second: Rates,
    top_ads: Option<TopAds<'a>>,
    edges: Vec<EdgeAnswer>,
    /// Not for who may see campaigns alone: the books are everybody's.
    #[serde(skip_serializing_if = "Option::is_none")]
    ledger: Option<Ledger>,
}

/// Of everything: what was committed over the last seconds. Of campaigns: their clicks of the last closed minute.
#[derive(Serialize)]
struct Rates {
    /// Over so long; 0: not known yet.
    over_ms: i64,
    net: f64,
    /// By class; those that occurred.
    invalid: BTreeMap<String, f64>,
}

#[derive(Serialize)]
struct TopAds<'a> {
    window_start: String,
    window_end: String,
    ads: Vec<TopAdAnswer<'a>>,
}

/// What the edges sent is what the rows hold: `accepted = net + invalid`, at every commit.
#[derive(Serialize)]
struct Ledger {
    /// Clicks that edges say their transactions hold.
    accepted: u64,
    /// Clicks of the rows that were counted for them.
    gross: u64,
    net: u64,
    invalid: BTreeMap<String, u64>,
    /// `accepted` less `gross`: anything but 0 is a bug.
    difference: i64,
    /// Clicks that are known to be missing, because transactions are: not in `accepted`.
    missing: u64,
    /// Transactions that were missing, not whole, or half counted before.
    gaps: u64,
}

/// The state as JSON, and the sample that later ones are compared with.
pub fn state(
    snapshot: &Snapshot,
    access: &Access,
    before: Option<&Sample>,
    now_ms: i64,
) -> Result<(String, Sample), QuestionError> {
    let as_of = snapshot.as_of();
    // From commit to commit: when anybody looks between two says nothing of how fast clicks come.
    let at_ms = as_of.committed_ms.map_or(now_ms, |at| at.max(now_ms.saturating_sub(LULL_MS)));
    let sample = Sample { at_ms, clicks_by_class: snapshot.counted().clone() };
    let edges = snapshot.edges(now_ms)?;
    let question =
        TopQuestion { window: TopWindow::Minute, k: TOP_K, by: RankBy::Net, region: None, scope: access.scope() };
    let top = match snapshot.top(&question) {
        // Before anything is closed there is no window.
        Ok(top) => Some(top).filter(|top| top.window.start_ms > 0),
        Err(QuestionError::NotYet) => None,
        Err(error) => return Err(error),
    };
    let rates = match access {
        Access::All => Rates::between(before.unwrap_or(&sample), &sample),
        Access::Scoped(_) => Rates::of_minute(snapshot, access, as_of.marks.closed_before_ms)?,
    };
    let accepted: u64 = edges.iter().map(|edge| edge.clicks).sum();
    let gross: u64 = sample.clicks_by_class.values().sum();
    let ledger = access.is_all().then(|| Ledger {
        accepted,
        gross,
        net: sample.clicks_by_class.get(&CLASS_VALID).copied().unwrap_or(0),
        invalid: invalid(&sample.clicks_by_class).collect(),
        difference: accepted as i64 - gross as i64,
        missing: edges.iter().map(|edge| edge.clicks_missing).sum(),
        // Of kinds, what is repeated lacks nothing.
        gaps: edges.iter().map(|edge| edge.troubles_seen[0] + edge.troubles_seen[1] + edge.troubles_seen[3]).sum(),
    });
    let state = State {
        now: format_time(now_ms),
        standing: Standing::of(&as_of),
        clicks_per_second: rates,
        top_ads: top.as_ref().map(TopAds::of),
        edges: edges.iter().map(|edge| EdgeAnswer::of(edge, now_ms, access)).collect(),
        ledger,
    };
    Ok((serde_json::to_string(&state).expect("plain data"), sample))
}

fn invalid(by_class: &BTreeMap<u32, u64>) -> impl Iterator<Item = (String, u64)> {
    by_class.iter().filter(|(class, _)| **class != CLASS_VALID).map(|(class, clicks)| (names::class(*class), *clicks))
}

impl Rates {
    fn between(before: &Sample, now: &Sample) -> Rates {
        let over_ms = (now.at_ms - before.at_ms).max(0);
        let grown = |class: &u32, clicks: &u64| {
            let more = clicks - before.clicks_by_class.get(class).copied().unwrap_or(0).min(*clicks);
            if over_ms > 0 { more as f64 * 1e3 / over_ms as f64 } else { 0.0 }
        };
        let rates = now.clicks_by_class.iter().map(|(class, clicks)| (*class, grown(class, clicks)));
        Rates::of(over_ms, rates.collect())
    }

    fn of_minute(snapshot: &Snapshot, access: &Access, closed_before_ms: i64) -> Result<Rates, QuestionError> {
        if closed_before_ms == i64::MIN {
            return Ok(Rates::of(0, BTreeMap::new()));
        }
        let question = Question {
            subject: Subject::All,
            span: Window { start_ms: closed_before_ms.saturating_sub(MINUTE_MS), end_ms: closed_before_ms },
            granularity: None,
            group_by: Some(GroupBy::Class),
            filter: Filter { scope: access.scope(), ..Filter::default() },
            after: None,
            rows_max: 1_000,
        };
        let counts = snapshot.count(&question)?;
        let rates = counts.rows.iter().filter_map(|row| match row.group {
            Some(Group::Class(class)) => Some((class, row.sums.gross() as f64 * 1e3 / MINUTE_MS as f64)),
            _ => None,
        });
        Ok(Rates::of(MINUTE_MS, rates.collect()))
    }

    fn of(over_ms: i64, mut rates: BTreeMap<u32, f64>) -> Rates {
        let rounded = |rate: f64| (rate * 10.0).round() / 10.0;
        let net = rates.remove(&CLASS_VALID).map_or(0.0, rounded);
        let invalid = rates.into_iter().map(|(class, rate)| (names::class(class), rounded(rate)));
        Rates { over_ms, net, invalid: invalid.collect() }
    }
}

impl<'a> TopAds<'a> {
    fn of(top: &'a Top) -> TopAds<'a> {
        let (window_start, window_end) = (format_time(top.window.start_ms), format_time(top.window.end_ms));
        TopAds { window_start, window_end, ads: top_ads(top) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Batch, Delivered, Delivery};
    use crate::fixture::{partial, transaction};
    use crate::records::Place;
    use crate::store::Store;

    /// 2024-04-12T08:00:00Z.
    const START_MS: i64 = 1_712_908_800_000;

    /// A state may be told any time after a commit: the rate is that of what was committed, not of when one looked.
    #[test]
    fn clicks_a_second_are_of_the_time_between_commits() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open(&folder.path().join("store")).expect("a new store");
        let commits = |second: i64| {
            let now_ms = START_MS + second * 1_000;
            let mut sent = transaction("e", second as u64 + 1, now_ms, vec![partial("a", START_MS, 0, 400, &[])]);
            let (range, before) = (&mut sent.end.ranges[0], 400 * second as u64);
            (range.from_lsn, range.to_lsn, range.clicks_total) = (before, before + 400, before + 400);
            let place = Place { partition: 0, offset: second };
            let whole = [Delivered::Whole(Delivery::of(sent, place).expect("rows"))];
            let offsets = BTreeMap::from([(0, second + 1)]);
            let batch = Batch { deliveries: &whole, offsets: &offsets, now_ms, closing_cap_ms: None };
            store.apply(&batch).expect("committed");
        };
        let told = |before: Option<&Sample>, now_ms| {
            let snapshot = store.snapshot().expect("snapshot");
            let (text, sample) = state(&snapshot, &Access::All, before, START_MS + now_ms).expect("told");
            let state: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            (state["clicks_per_second"]["net"].as_f64().expect("a rate"), sample)
        };
        commits(0);
        let (first, at_first) = told(None, 300);
        commits(1);
        let (second, _) = told(Some(&at_first), 1_001);
        assert_eq!((first, second), (0.0, 400.0));
        let (third, _) = told(Some(&at_first), 1_900);
        assert_eq!(third, 400.0, "nothing more was committed");
        let (fourth, _) = told(Some(&at_first), 13_000);
        assert_eq!(fourth, 50.0, "nothing comes any more");
    }
}
