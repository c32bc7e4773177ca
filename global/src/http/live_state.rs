//! The state that live clients are told: what was committed lately, and how the books stand. Never a scan of the store.

use std::collections::BTreeMap;

use serde::Serialize;

use super::answers::{Standing, TopAdAnswer, top_ads};
use super::edges::EdgeAnswer;
use super::rates::{Rates, Samples};
use super::times::format_time;
use super::{Access, names};
use crate::question::{Filter, Group, GroupBy, Question, RankBy, Subject, Top, TopQuestion, TopWindow};
use crate::question_error::QuestionError;
use crate::snapshot::Snapshot;
use crate::sums::CLASS_VALID;
use crate::window::{MINUTE_MS, Window};

/// Ads that are shown.
const TOP_K: usize = 10;

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

/// The state as JSON, and the samples that later ones are compared with.
pub fn state(
    snapshot: &Snapshot,
    access: &Access,
    mut samples: Samples,
    now_ms: i64,
) -> Result<(String, Samples), QuestionError> {
    let (as_of, counted) = (snapshot.as_of(), snapshot.counted());
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
        Access::All => samples.rates(counted, as_of.committed_ms.unwrap_or(now_ms), now_ms),
        Access::Scoped(_) => rates_of_minute(snapshot, access, as_of.marks.closed_before_ms)?,
    };
    let accepted: u64 = edges.iter().map(|edge| edge.clicks).sum();
    let gross: u64 = counted.values().sum();
    let ledger = access.is_all().then(|| Ledger {
        accepted,
        gross,
        net: counted.get(&CLASS_VALID).copied().unwrap_or(0),
        invalid: invalid(counted).collect(),
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
    Ok((serde_json::to_string(&state).expect("plain data"), samples))
}

fn invalid(by_class: &BTreeMap<u32, u64>) -> impl Iterator<Item = (String, u64)> {
    by_class.iter().filter(|(class, _)| **class != CLASS_VALID).map(|(class, clicks)| (names::class(*class), *clicks))
}

fn rates_of_minute(snapshot: &Snapshot, access: &Access, closed_before_ms: i64) -> Result<Rates, QuestionError> {
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

impl<'a> TopAds<'a> {
    fn of(top: &'a Top) -> TopAds<'a> {
        let (window_start, window_end) = (format_time(top.window.start_ms), format_time(top.window.end_ms));
        TopAds { window_start, window_end, ads: top_ads(top) }
    }
}
