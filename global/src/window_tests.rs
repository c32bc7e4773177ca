//! Time, versions and roll-ups of the store against a plain map: whatever the order of deliveries, and wherever it stands with
//! closing, rolling up and pruning, an answer is the sum of its parts.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tollgate_wire::Partial;

use crate::batch::{Batch, Delivered, Delivery, TornTransaction};
use crate::edges::{Presence, TroubleKind};
use crate::fixture::{partial, transaction};
use crate::key::{self, PANE_MS};
use crate::question::{
    CorrectionReason, Filter, Group, GroupBy, Question, RankBy, Scope, Subject, TopQuestion, TopWindow, UserAgent,
};
use crate::question_error::QuestionError;
use crate::records::Place;
use crate::snapshot::Snapshot;
use crate::store::{Options, Store};
use crate::tables::{HISTORY, begin_write, commit_file};
use crate::window::{DAY_MS, Grain, Granularity, HOUR_MS, MINUTE_MS, Retention, Window, WindowState, floor};

/// 2024-04-12T08:00:00Z.
pub(crate) const START_MS: i64 = 1_712_908_800_000;
const ADS: [&str; 3] = ["a", "b", "long ad"];
const REGIONS: [&str; 2] = ["DE", "FR"];

pub(crate) struct Fixed {
    pub store: Store,
    pub folder: tempfile::TempDir,
    seqs: BTreeMap<String, (u64, u64)>,
    offset: i64,
}

impl Fixed {
    pub fn new(options: Options) -> Fixed {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open_with(&folder.path().join("store"), options).expect("a new store");
        Fixed { store, folder, seqs: BTreeMap::new(), offset: 0 }
    }

    /// The edge's next transaction.
    fn next(&mut self, edge: &str, watermark_ms: i64, partials: Vec<Partial>) -> Delivery {
        let (seq, lsn) = self.seqs.entry(edge.to_owned()).or_default();
        *seq += 1;
        let mut sent = transaction(edge, *seq, watermark_ms, partials);
        let range = &mut sent.end.ranges[0];
        (range.from_lsn, range.to_lsn) = (*lsn, *lsn + range.clicks);
        range.clicks_total = range.to_lsn;
        *lsn = range.to_lsn;
        sent.end.horizon_ms = watermark_ms - 10 * MINUTE_MS;
        self.offset += 1;
        Delivery::of(sent, Place { partition: 0, offset: self.offset }).expect("rows")
    }

    fn apply(&self, deliveries: Vec<Delivery>, now_ms: i64) -> crate::batch::Applied {
        let deliveries: Vec<Delivered> = deliveries.into_iter().map(Delivered::Whole).collect();
        let offsets = BTreeMap::from([(0, self.offset + 1)]);
        let batch = Batch { deliveries: &deliveries, offsets: &offsets, now_ms, closing_cap_ms: None };
        self.store.apply(&batch).expect("applied")
    }

    pub fn sends(&mut self, edge: &str, watermark_ms: i64, partials: Vec<Partial>) {
        let delivery = self.next(edge, watermark_ms, partials);
        self.apply(vec![delivery], watermark_ms + 5_000);
    }

    pub fn keep_up(&self, now_ms: i64) {
        while self.store.keep_up(now_ms).expect("kept") {}
    }

    pub fn snapshot(&self) -> Snapshot {
        self.store.snapshot().expect("snapshot")
    }
}

fn question(subject: Subject, from_ms: i64, to_ms: i64) -> Question {
    let span = Window { start_ms: from_ms, end_ms: to_ms };
    Question {
        subject,
        span,
        granularity: None,
        group_by: None,
        filter: Filter::default(),
        after: None,
        rows_max: 1_000,
    }
}

fn of_ad(ad: &str) -> Subject {
    Subject::Ad(ad.to_owned())
}

/// One row of the model.
#[derive(Clone, Debug)]
pub(crate) struct Drawn {
    ad: usize,
    pane: i64,
    region: usize,
    pub class: u32,
    pub clicks: u64,
}

pub(crate) fn drawn(panes: std::ops::Range<i64>) -> impl Strategy<Value = Drawn> {
    (0..ADS.len(), panes, 0..REGIONS.len(), 0u32..3, 1u64..9).prop_map(|(ad, pane, region, class, clicks)| Drawn {
        ad,
        pane,
        region,
        class,
        clicks,
    })
}

pub(crate) fn sent(one: &Drawn) -> Partial {
    let mut sent = partial(ADS[one.ad], START_MS + one.pane * PANE_MS, one.class, one.clicks, &[one.clicks]);
    (sent.region, sent.device) = (REGIONS[one.region].into(), 1 + one.region as u32);
    (sent.campaign_id, sent.advertiser_id) = (format!("c{}", one.ad % 2), "adv".to_owned());
    sent
}

/// Gross and net by window of what the model holds.
fn expected(rows: &[Drawn], wanted: impl Fn(&Drawn) -> bool, window: impl Fn(i64) -> i64) -> BTreeMap<i64, (u64, u64)> {
    let mut sums: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
    for row in rows.iter().filter(|row| wanted(row)) {
        let sum = sums.entry(window(START_MS + row.pane * PANE_MS)).or_default();
        sum.0 += row.clicks;
        sum.1 += if row.class == 0 { row.clicks } else { 0 };
    }
    sums
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Hours of clicks, some of them late, whatever is closed and rolled up: totals are the sum of their parts by window, by
    /// region, by device, by ad and by class; and the order of deliveries changes nothing.
    #[test]
    fn every_answer_is_the_sum_of_its_parts(
        rows in prop::collection::vec(drawn(0..1_400), 1..120),
        late in prop::collection::vec(drawn(0..1_400), 0..40),
        at_panes in prop::collection::vec(0i64..1_500, 1..6),
    ) {
        let mut fixed = Fixed::new(Options::default());
        let mut marks = at_panes;
        marks.sort_unstable();
        let mut left = rows.clone();
        for mark in marks {
            let now = left.extract_if(.., |row| row.pane <= mark).map(|row| sent(&row)).collect();
            fixed.sends("e", START_MS + mark * PANE_MS, now);
            fixed.keep_up(START_MS + mark * PANE_MS);
        }
        fixed.sends("e", START_MS, left.iter().map(sent).collect());
        fixed.sends("e", START_MS, late.iter().map(sent).collect());
        let all: Vec<Drawn> = rows.into_iter().chain(late).collect();
        check_all(&fixed.snapshot(), &all)?;
        fixed.sends("e", START_MS + 2 * DAY_MS, Vec::new());
        fixed.keep_up(START_MS + 2 * DAY_MS);
        prop_assert!(fixed.snapshot().progress().rolled_before_ms >= START_MS);
        check_all(&fixed.snapshot(), &all)?;

        let mut other = Fixed::new(Options::default());
        for row in all.iter().rev() {
            other.sends("f", START_MS, vec![sent(row)]);
        }
        check_all(&other.snapshot(), &all)?;
    }
}

pub(crate) fn check_all(snapshot: &Snapshot, rows: &[Drawn]) -> Result<(), TestCaseError> {
    let (from, to) = (START_MS, START_MS + DAY_MS);
    let by_ad = |ad: usize| move |row: &Drawn| row.ad == ad;
    for granularity in Granularity::ALL {
        for (ad, name) in ADS.iter().enumerate() {
            let counts = snapshot
                .count(&Question { granularity: Some(granularity), ..question(of_ad(name), from, to) })
                .expect("counted");
            let found: BTreeMap<i64, (u64, u64)> =
                counts.rows.iter().map(|row| (row.window.start_ms, (row.sums.gross(), row.sums.net()))).collect();
            prop_assert_eq!(&found, &expected(rows, by_ad(ad), |at| floor(at, granularity.ms())), "{:?}", granularity);
            let total = found.values().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
            prop_assert_eq!((counts.total.sums.gross(), counts.total.sums.net()), total);
        }
    }
    // A span whose ends are on no border but a pane's.
    let (from, to) = (START_MS + 7 * PANE_MS, START_MS + 777 * PANE_MS);
    let inside = |row: &Drawn| (7..777).contains(&row.pane);
    let one = |subject: Subject, filter: Filter, group_by: Option<GroupBy>| {
        snapshot.count(&Question { filter, group_by, ..question(subject, from, to) }).expect("counted")
    };
    let gross = |wanted: &dyn Fn(&Drawn) -> bool| {
        rows.iter().filter(|row| inside(row) && wanted(row)).map(|row| row.clicks).sum::<u64>()
    };
    prop_assert_eq!(one(Subject::All, Filter::default(), None).total.sums.gross(), gross(&|_| true));
    let in_france = Filter { region: Some("FR".into()), ..Filter::default() };
    prop_assert_eq!(one(Subject::All, in_france.clone(), None).total.sums.gross(), gross(&|row| row.region == 1));
    prop_assert_eq!(one(of_ad("a"), in_france, None).total.sums.gross(), gross(&|row| row.ad == 0 && row.region == 1));
    let mobile = Filter { user_agent: Some(UserAgent::Device(1)), ..Filter::default() };
    prop_assert_eq!(one(of_ad("b"), mobile, None).total.sums.gross(), gross(&|row| row.ad == 1 && row.region == 0));
    let campaign = one(Subject::Campaign("c0".into()), Filter::default(), Some(GroupBy::Ad));
    prop_assert_eq!(campaign.total.sums.gross(), gross(&|row| row.ad % 2 == 0));
    for row in &campaign.rows {
        let Some(Group::Ad(name)) = &row.group else { panic!("by ad") };
        prop_assert_eq!(row.sums.gross(), gross(&|row| ADS[row.ad] == name));
    }
    prop_assert_eq!(
        one(Subject::Advertiser("adv".into()), Filter::default(), None).total.sums.gross(),
        gross(&|_| true)
    );
    let scope = Scope { campaigns: ["c1".to_owned()].into(), ..Scope::default() };
    let seen = Filter { scope: Some(scope.into()), ..Filter::default() };
    prop_assert_eq!(one(Subject::All, seen.clone(), None).total.sums.gross(), gross(&|row| row.ad == 1));
    prop_assert_eq!(one(of_ad("a"), seen, None).total.sums.gross(), 0, "another's ad");
    for by in [GroupBy::Ad, GroupBy::Region, GroupBy::Device, GroupBy::Class] {
        let grouped = one(Subject::All, Filter::default(), Some(by));
        prop_assert_eq!(grouped.rows.iter().map(|row| row.sums.gross()).sum::<u64>(), gross(&|_| true), "{:?}", by);
    }
    Ok(())
}

/// Pages are the whole, in order, whatever their size.
#[test]
fn pages_make_up_the_whole() {
    let mut fixed = Fixed::new(Options::default());
    let rows = (0..50).map(|at| partial("a", START_MS + at * MINUTE_MS, 0, at as u64 + 1, &[]));
    fixed.sends("e", START_MS, rows.collect());
    let snapshot = fixed.snapshot();
    let asked =
        Question { granularity: Some(Granularity::Minute), ..question(of_ad("a"), START_MS, START_MS + HOUR_MS) };
    let whole: Vec<_> = snapshot.count(&asked).expect("counted").rows.iter().map(|row| row.window).collect();
    assert_eq!(whole.len(), 50);
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let page = snapshot.count(&Question { rows_max: 7, after, ..asked.clone() }).expect("counted");
        assert_eq!(page.total.sums.gross(), 1_275, "the total is of all pages");
        pages.extend(page.rows.iter().map(|row| row.window));
        after = page.more;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(pages, whole);
}

/// A click 3 min 47 s late lands in its window; each commit that corrects a closed minute is a version, with its reason.
#[test]
fn a_late_click_is_a_new_version_of_its_minute() {
    let mut fixed = Fixed::new(Options { idle_after_ms: DAY_MS, ..Options::default() });
    let minute = Granularity::Minute;
    let row = |fixed: &Fixed| {
        let asked = Question { granularity: Some(minute), ..question(of_ad("a"), START_MS, START_MS + MINUTE_MS) };
        let mut counts = fixed.snapshot().count(&asked).expect("counted");
        let row = counts.rows.remove(0);
        (row.state, row.version, row.sums.gross())
    };
    let hour = |fixed: &Fixed| {
        let asked =
            Question { granularity: Some(Granularity::Hour), ..question(of_ad("a"), START_MS, START_MS + HOUR_MS) };
        let row = fixed.snapshot().count(&asked).expect("counted").rows.remove(0);
        (row.state, row.version)
    };
    fixed.sends("e", START_MS, vec![partial("a", START_MS, 0, 5, &[])]);
    assert_eq!(row(&fixed), (WindowState::Open, 0, 5));
    fixed.sends("e", START_MS + 50_000, vec![partial("a", START_MS, 0, 1, &[])]);
    assert_eq!(row(&fixed), (WindowState::Open, 0, 6), "its pane is closed, the minute is not");
    fixed.sends("e", START_MS + 2 * MINUTE_MS, vec![partial("a", START_MS + 50_000, 0, 1, &[])]);
    assert_eq!(row(&fixed), (WindowState::Closed, 1, 7), "what came with its closing is the first version");
    fixed.sends("e", START_MS + 3 * MINUTE_MS, vec![partial("a", START_MS, 1, 2, &[])]);
    assert_eq!(row(&fixed), (WindowState::Closed, 2, 9));
    fixed.sends("e", START_MS + 4 * MINUTE_MS, vec![partial("a", START_MS + 13_000 - 3_000, 0, 3, &[])]);
    assert_eq!(row(&fixed), (WindowState::Closed, 3, 12));
    fixed.sends("e", START_MS + 5 * MINUTE_MS, vec![partial("a", START_MS, 0, 1, &[])]);
    let span = Window { start_ms: START_MS, end_ms: START_MS + MINUTE_MS };
    let history = fixed.snapshot().history(Some("a"), span, 1_000).expect("read").corrections;
    let seen: Vec<_> = history.iter().map(|one| (one.version, one.reason, one.gross_added, one.net_added)).collect();
    assert_eq!(
        seen,
        [(2, CorrectionReason::Late, 2, 0), (3, CorrectionReason::Late, 3, 3), (4, CorrectionReason::VeryLate, 1, 1)]
    );
    assert_eq!(
        fixed.snapshot().history(None, span, 1_000).expect("read").corrections.len(),
        3,
        "of all ads together, too"
    );
    assert_eq!(hour(&fixed), (WindowState::Open, 0), "the hour has no settled count yet");
    fixed.sends("e", START_MS + 12 * MINUTE_MS, Vec::new());
    assert_eq!(row(&fixed), (WindowState::Final, 4, 13));
    fixed.sends("e", START_MS + 12 * MINUTE_MS, vec![partial("a", START_MS, 0, 1, &[])]);
    let history = fixed.snapshot().history(Some("a"), span, 1_000).expect("read").corrections;
    assert_eq!(history.last().map(|one| one.reason), Some(CorrectionReason::AfterFinal));
    assert_eq!(row(&fixed), (WindowState::Final, 5, 14), "billing never drops");
    fixed.sends("e", START_MS + HOUR_MS, Vec::new());
    assert_eq!(hour(&fixed), (WindowState::Closed, 5), "those of before it was closed are in its version");
}

/// A page of history is read as far as it goes: what is behind it may be as much as it likes, and as damaged.
#[test]
fn nothing_behind_a_page_of_history_is_read() {
    let mut fixed = Fixed::new(Options::default());
    fixed.sends("e", START_MS + HOUR_MS, Vec::new());
    for _ in 0..3 {
        let late = (0..5).map(|minute| partial("a", START_MS + minute * MINUTE_MS, 0, 1, &[]));
        fixed.sends("e", START_MS + HOUR_MS, late.collect());
    }
    let page = |from_ms, limit| {
        let span = Window { start_ms: from_ms, end_ms: START_MS + HOUR_MS };
        fixed.snapshot().history(Some("a"), span, limit).map(|page| (page.corrections.len(), page.next_ms))
    };
    assert_eq!(page(START_MS, 100).expect("read"), (15, None));
    let file = begin_write(&fixed.store.database).expect("begun");
    let mut stored = Vec::new();
    let fourth_ms = START_MS + 3 * MINUTE_MS;
    key::stored(&key::start("a", fourth_ms), floor(fourth_ms, Grain::Minute.bucket_ms()), &mut stored);
    file.open_table(HISTORY).expect("there").insert(stored.as_slice(), &[0xff; 9][..]).expect("put");
    commit_file(file).expect("written");
    assert_eq!(page(START_MS, 3).expect("read"), (3, Some(START_MS + MINUTE_MS)));
    assert_eq!(page(START_MS + MINUTE_MS, 5).expect("read"), (3, Some(START_MS + 2 * MINUTE_MS)));
    assert!(page(START_MS, 9).is_err(), "the fourth minute is looked at: whether the page ends there");
}

/// Silence lets windows close and not become final; an edge that is retired holds nothing; one that is back, everything.
#[test]
fn a_silent_edge_holds_nothing_open() {
    let mut fixed = Fixed::new(Options { idle_after_ms: 10_000, ..Options::default() });
    let minute = Window::of(START_MS, MINUTE_MS);
    let state = |fixed: &Fixed| fixed.snapshot().as_of().marks.state(minute);
    let now = START_MS + 20 * MINUTE_MS;
    let (quiet, live) = (fixed.next("quiet", START_MS, Vec::new()), fixed.next("live", now, Vec::new()));
    fixed.apply(vec![quiet, live], now);
    assert_eq!(state(&fixed), WindowState::Open);
    fixed.keep_up(now + 9_000);
    assert_eq!(state(&fixed), WindowState::Open);
    let live = fixed.next("live", now, Vec::new());
    fixed.apply(vec![live], now + 9_000);
    fixed.keep_up(now + 11_000);
    assert_eq!(state(&fixed), WindowState::Closed, "no transaction is needed for it");
    let presences = |fixed: &Fixed, now| {
        let edges = fixed.snapshot().edges(now).expect("read");
        edges.into_iter().map(|edge| (edge.edge_id, edge.presence)).collect::<Vec<_>>()
    };
    let named = [("live".to_owned(), Presence::Live), ("quiet".to_owned(), Presence::Silent)];
    assert_eq!(presences(&fixed, now + 11_000), named);
    let late = fixed.next("quiet", START_MS, vec![partial("a", START_MS, 0, 1, &[])]);
    fixed.apply(vec![late], now + 12_000);
    let history = fixed.snapshot().history(Some("a"), minute, 1_000).expect("read").corrections;
    assert_eq!(history[0].reason, CorrectionReason::SilentEdge);
    assert!(fixed.store.retire("quiet", now + 12_000).expect("retired"));
    assert_eq!(state(&fixed), WindowState::Final, "the other's horizon has passed its end");
    assert!(!fixed.store.retire("nobody", now).expect("asked"));
}

/// Deliveries that are read again are passed over; what was counted and comes again is told from it.
#[test]
fn what_is_delivered_again_counts_once() {
    let mut fixed = Fixed::new(Options::default());
    let first = fixed.next("e", START_MS, vec![partial("a", START_MS, 0, 5, &[])]);
    let second = fixed.next("e", START_MS, vec![partial("a", START_MS, 0, 7, &[])]);
    let third = fixed.next("e", START_MS, vec![partial("a", START_MS, 0, 9, &[])]);
    assert_eq!(fixed.apply(vec![first.clone(), second.clone()], START_MS).clicks, 12);
    let again = fixed.apply(vec![first.clone(), second.clone()], START_MS);
    assert_eq!((again.transactions, again.troubles.len()), (0, 0), "after a restart the same records are read again");
    let moved = Delivery { place: Place { partition: 0, offset: 50 }, ..second };
    let repeated = fixed.apply(vec![moved], START_MS);
    assert_eq!((repeated.transactions, repeated.troubles[0].1.kind), (0, TroubleKind::Repeated.code()));
    let behind = Delivery { place: Place { partition: 0, offset: 51 }, ..third };
    assert_eq!(fixed.apply(vec![behind], START_MS).clicks, 9);
    assert_eq!(fixed.snapshot().totals(i64::MIN, i64::MAX).expect("sum").gross(), 21);
    let gap = {
        fixed.next("e", START_MS, vec![partial("a", START_MS, 0, 4, &[])]);
        let sent = fixed.next("e", START_MS, vec![partial("a", START_MS, 0, 2, &[])]);
        fixed.apply(vec![Delivery { place: Place { partition: 0, offset: 60 }, ..sent }], START_MS)
    };
    let (edge, trouble) = &gap.troubles[0];
    assert_eq!((edge.as_str(), trouble.kind, trouble.clicks), ("e", TroubleKind::Gap.code(), 4));
    assert_eq!(fixed.snapshot().totals(i64::MIN, i64::MAX).expect("sum").gross(), 23);
}

/// Pruning takes what is old at each grain, in steps; what is asked for then is widened to what is kept, and still right.
#[test]
fn what_is_pruned_is_still_there_at_a_coarser_grain() {
    let retention = Retention { panes_ms: 2 * HOUR_MS, minutes_ms: 2 * DAY_MS, hours_ms: 90 * DAY_MS };
    let mut fixed = Fixed::new(Options { retention, ..Options::default() });
    for hour in 0..120 {
        let at = START_MS + hour * HOUR_MS;
        fixed.sends("e", at, vec![partial("a", at, 0, 1, &[hour as u64]), partial("a", at + 60_000, 0, 2, &[])]);
    }
    let end = START_MS + 121 * HOUR_MS;
    fixed.sends("e", end, Vec::new());
    fixed.keep_up(end);
    let snapshot = fixed.snapshot();
    let total = snapshot.totals(i64::MIN, i64::MAX).expect("sum");
    assert_eq!((total.net(), total.users()), (360, 120));
    assert!(snapshot.rows(crate::window::Grain::Pane).expect("rows") < 40);
    assert!(snapshot.rows(crate::window::Grain::Minute).expect("rows") < 4 * 75);
    assert_eq!(snapshot.rows(crate::window::Grain::Hour).expect("rows"), 240, "of the ad, and of all ads");
    let counts = snapshot.count(&question(of_ad("a"), START_MS + 1, START_MS + 2)).expect("counted");
    let hour = Window::of(START_MS, HOUR_MS);
    assert_eq!((counts.total.window, counts.total.sums.net()), (hour, 3), "the answer says to what it was widened");
    // A click for an hour whose panes and minutes are gone.
    fixed.sends("e", end, vec![partial("a", START_MS, 0, 5, &[])]);
    assert_eq!(fixed.snapshot().ad("a", START_MS, START_MS + HOUR_MS).expect("sum").net(), 8);
}

/// Finer windows than are kept are refused: an answer without them would be too little.
#[test]
fn minutes_that_are_pruned_are_not_asked_for() {
    let retention = Retention { panes_ms: HOUR_MS, minutes_ms: DAY_MS, hours_ms: 90 * DAY_MS };
    let mut fixed = Fixed::new(Options { retention, ..Options::default() });
    for hour in 0..60 {
        let at = START_MS + hour * HOUR_MS;
        fixed.sends("e", at, vec![partial("a", at, 0, 1, &[])]);
    }
    fixed.keep_up(START_MS + 60 * HOUR_MS);
    let ask = |from_ms, granularity| {
        let asked = question(of_ad("a"), from_ms, START_MS + 50 * HOUR_MS);
        let counted = fixed.snapshot().count(&Question { granularity: Some(granularity), ..asked });
        counted.map(|counts| counts.total.sums.net())
    };
    assert_eq!(ask(START_MS, Granularity::Hour).expect("hours are kept"), 50);
    let refused = ask(START_MS, Granularity::FiveMinutes);
    let Err(QuestionError::TooFine { kept_from_ms }) = refused else { panic!("{refused:?}") };
    let hours = (START_MS + 50 * HOUR_MS - kept_from_ms) / HOUR_MS;
    assert_eq!(ask(kept_from_ms, Granularity::Minute).expect("kept from there on"), hours as u64);
}

/// A sum that lacks what is pruned would be too small, and nobody would know.
#[test]
fn hours_that_are_pruned_are_not_asked_for() {
    let retention = Retention { panes_ms: HOUR_MS, minutes_ms: DAY_MS, hours_ms: 32 * DAY_MS };
    let mut fixed = Fixed::new(Options { retention, ..Options::default() });
    let sends = |fixed: &mut Fixed, days: std::ops::Range<i64>| {
        for day in days.clone() {
            let at = START_MS + day * DAY_MS;
            fixed.sends("e", at, vec![partial("a", at, 0, 1, &[])]);
        }
        fixed.keep_up(START_MS + days.end * DAY_MS);
    };
    let end = START_MS + 90 * DAY_MS;
    let ask = |fixed: &Fixed, from_ms, granularity| {
        let counted = fixed.snapshot().count(&Question { granularity, ..question(of_ad("a"), from_ms, end) });
        counted.map(|counts| counts.total.sums.net())
    };
    sends(&mut fixed, 0..10);
    // Older than anything that could be kept, and whole all the same: there never was anything.
    assert_eq!(ask(&fixed, 0, None).expect("nothing is pruned"), 10);
    sends(&mut fixed, 10..100);
    for granularity in [None, Some(Granularity::Minute), Some(Granularity::Hour), Some(Granularity::Day)] {
        for from_ms in [0, START_MS, START_MS + DAY_MS + 1] {
            let refused = ask(&fixed, from_ms, granularity);
            let Err(QuestionError::Pruned { kept_from_ms }) = refused else { panic!("{granularity:?}: {refused:?}") };
            ask(&fixed, kept_from_ms - 1, granularity).expect_err("before it");
            let days = (end - kept_from_ms) / DAY_MS;
            assert!((25..85).contains(&days), "{days}");
            if granularity != Some(Granularity::Minute) {
                assert_eq!(
                    ask(&fixed, kept_from_ms, granularity).expect("kept from there on"),
                    days as u64 + u64::from(granularity == Some(Granularity::Day))
                );
            }
        }
    }
    assert!(fixed.snapshot().totals(0, end).is_ok(), "of what is kept");
}

/// Clicks for an earlier hour that had none come while a later hour is rolled up, which takes several commits.
#[test]
fn what_comes_to_an_empty_hour_while_a_later_one_is_rolled_up_counts_at_every_grain() {
    let mut fixed = Fixed::new(Options::default());
    let full = START_MS + 5 * HOUR_MS;
    let ads = (0..4_500).map(|ad| partial(&format!("ad {ad}"), full, 0, 1, &[])).collect();
    fixed.sends("e", full, ads);
    let end = full + 2 * HOUR_MS;
    fixed.sends("e", end, Vec::new());
    assert!(fixed.store.keep_up(end).expect("kept"), "there is more to roll up");
    for minute in 0..60 {
        let at = START_MS + 2 * HOUR_MS + minute * MINUTE_MS;
        fixed.sends("late", end, vec![partial("late", at, 0, 1, &[])]);
    }
    fixed.keep_up(end);
    for granularity in [None, Some(Granularity::Minute), Some(Granularity::Hour), Some(Granularity::Day)] {
        let asked = question(of_ad("late"), START_MS, end);
        let counts = fixed.snapshot().count(&Question { granularity, ..asked }).expect("counted");
        assert_eq!(counts.total.sums.net(), 60, "{granularity:?}");
    }
    assert_eq!(fixed.snapshot().totals(START_MS, end).expect("sum").net(), 4_560);
}

/// The ranking is of the last closed window, by ad, and follows corrections; after a restart it is read from the store.
#[test]
fn the_ranking_is_of_the_last_closed_window() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    let mut fixed = Fixed { store: Store::open(&path).expect("new"), ..Fixed::new(Options::default()) };
    let top = |store: &Store, window, by, region: Option<&str>| {
        let asked = TopQuestion { window, k: 2, by, region: region.map(str::to_owned), scope: None };
        store.snapshot().expect("snapshot").top(&asked).map(|top| {
            (top.window.end_ms - START_MS, top.ads.into_iter().map(|ad| (ad.ad_id, ad.net)).collect::<Vec<_>>())
        })
    };
    fixed.sends("e", START_MS, vec![partial("old", START_MS - 2 * MINUTE_MS, 0, 100, &[])]);
    assert!(matches!(top(&fixed.store, TopWindow::Minute, RankBy::Net, None), Err(QuestionError::NotYet)));
    fixed.keep_up(START_MS);
    let mut french = partial("b", START_MS, 0, 4, &[]);
    french.region = "FR".into();
    let rows = vec![partial("a", START_MS, 0, 3, &[]), french, partial("c", START_MS + 50_000, 1, 9, &[])];
    fixed.sends("e", START_MS + MINUTE_MS, rows);
    let names = |ads: &[(&str, u64)]| ads.iter().map(|(ad, net)| ((*ad).to_owned(), *net)).collect::<Vec<_>>();
    let both = |store: &Store| {
        let net = top(store, TopWindow::Minute, RankBy::Net, None).expect("warm");
        assert_eq!(net, (MINUTE_MS, names(&[("b", 4), ("a", 3)])));
        let gross = top(store, TopWindow::Minute, RankBy::Gross, None).expect("warm");
        assert_eq!(gross.1[0], ("c".to_owned(), 0));
        let german = top(store, TopWindow::Minute, RankBy::Net, Some("DE")).expect("warm");
        assert_eq!(german.1, names(&[("a", 3)]));
        assert_eq!(
            top(store, TopWindow::FiveMinutes, RankBy::Net, None).expect("warm").1,
            names(&[("old", 100), ("b", 4)])
        );
        assert_eq!(top(store, TopWindow::Hour, RankBy::Net, None).expect("warm").1, names(&[("old", 100), ("b", 4)]));
    };
    both(&fixed.store);
    drop(std::mem::replace(&mut fixed.store, Store::open(&folder.path().join("other")).expect("another")));
    fixed.store = Store::open(&path).expect("the same");
    fixed.keep_up(START_MS + MINUTE_MS);
    both(&fixed.store);
    fixed.sends("e", START_MS + MINUTE_MS, vec![partial("a", START_MS + 10_000, 0, 2, &[])]);
    let corrected = top(&fixed.store, TopWindow::Minute, RankBy::Net, None).expect("warm");
    assert_eq!(corrected.1, names(&[("a", 5), ("b", 4)]), "a correction moves the ranking");
    fixed.sends("e", START_MS + MINUTE_MS + 10_000, Vec::new());
    assert_eq!(
        top(&fixed.store, TopWindow::Minute, RankBy::Net, None).expect("warm").1,
        names(&[("a", 2)]),
        "it slides"
    );
}

/// Each pane leaves the ranking of an hour by itself, also after a start.
#[test]
fn the_ranking_of_an_hour_slides_by_panes() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    let mut fixed = Fixed { store: Store::open(&path).expect("new"), ..Fixed::new(Options::default()) };
    fixed.keep_up(START_MS);
    let clicked = (0..6).map(|pane| partial("a", START_MS + pane * PANE_MS, 0, 1, &[])).collect();
    fixed.sends("e", START_MS + MINUTE_MS, clicked);
    let of_an_hour = |fixed: &Fixed| {
        let asked = TopQuestion { window: TopWindow::Hour, k: 2, by: RankBy::Net, region: None, scope: None };
        let top = fixed.snapshot().top(&asked).expect("warm");
        (top.window.start_ms, top.ads.first().map_or(0, |ad| ad.net))
    };
    for pane in 0..=6 {
        let start_ms = START_MS + pane * PANE_MS;
        fixed.sends("e", start_ms + HOUR_MS + 9_999, Vec::new());
        assert_eq!(of_an_hour(&fixed), (start_ms, 6 - pane as u64));
        if pane == 2 {
            drop(std::mem::replace(&mut fixed.store, Store::open(&folder.path().join("other")).expect("another")));
            fixed.store = Store::open(&path).expect("the same");
            fixed.keep_up(start_ms + HOUR_MS);
            assert_eq!(of_an_hour(&fixed), (start_ms, 6 - pane as u64), "after a start");
        }
    }
}

/// Of two kinds: what is no edge's at all, and an edge's whose first transaction was damaged. Which, a person decides.
#[test]
fn an_edge_of_which_nothing_came_whole_holds_final_until_it_is_accepted_and_closing_never() {
    let mut fixed = Fixed::new(Options::default());
    fixed.sends("e", START_MS, vec![partial("a", START_MS - MINUTE_MS, 0, 5, &[])]);
    let marks = |fixed: &Fixed| {
        let as_of = fixed.snapshot().as_of();
        (as_of.watermark_ms, as_of.marks.closed_before_ms - START_MS, as_of.marks.final_before_ms - START_MS)
    };
    assert_eq!(marks(&fixed), (Some(START_MS), 0, -10 * MINUTE_MS));
    let torn = |offset, fixed: &Fixed| {
        let place = Place { partition: 1, offset };
        let torn = [Delivered::Torn(TornTransaction { edge_id: "x".into(), txn_seq: 0, place, why: "?".into() })];
        let offsets = BTreeMap::from([(1, offset + 1)]);
        let batch = Batch { deliveries: &torn, offsets: &offsets, now_ms: START_MS + 5_000, closing_cap_ms: None };
        fixed.store.apply(&batch).expect("applied");
    };
    torn(1, &fixed);
    fixed.sends("e", START_MS + 20_000, Vec::new());
    assert_eq!(marks(&fixed), (Some(START_MS + 20_000), 20_000, -10 * MINUTE_MS), "shortly after a start, too");
    fixed.sends("e", START_MS + MINUTE_MS, Vec::new());
    let held = (Some(START_MS + MINUTE_MS), MINUTE_MS, -10 * MINUTE_MS);
    assert_eq!(marks(&fixed), held, "windows close as if it were not there, and none becomes final");
    fixed.store.accept("x", START_MS + MINUTE_MS).expect("accepted");
    let free = (Some(START_MS + MINUTE_MS), MINUTE_MS, -9 * MINUTE_MS);
    assert_eq!(marks(&fixed), free, "what nobody ever claimed holds nothing");
    torn(2, &fixed);
    fixed.sends("e", START_MS + 2 * MINUTE_MS, Vec::new());
    assert_eq!(marks(&fixed).2, -9 * MINUTE_MS, "what comes after that holds again");
    fixed.store.retire("x", START_MS + 2 * MINUTE_MS).expect("retired");
    torn(3, &fixed);
    assert_eq!(marks(&fixed).2, -8 * MINUTE_MS, "a name that is no edge's is retired for good");
    // It is one, after all: its first transaction was torn, its second is whole.
    fixed.next("x", START_MS, Vec::new());
    fixed.sends("x", START_MS + 140_000, vec![partial("b", START_MS, 0, 3, &[])]);
    fixed.sends("e", START_MS + 150_000, Vec::new());
    let claimed = (Some(START_MS + 140_000), 140_000, -8 * MINUTE_MS);
    assert_eq!(marks(&fixed), claimed, "it is live like any other, and lacks clicks");
    fixed.store.accept("x", START_MS + 150_000).expect("accepted");
    assert_eq!(marks(&fixed).2, 140_000 - 10 * MINUTE_MS, "and holds by what it claims itself");
}

/// Whoever keeps answers takes the highest version of each: it must not fall when minutes, and what is known of each correction, go.
#[test]
fn versions_do_not_fall_when_minutes_are_pruned() {
    let retention = Retention { panes_ms: HOUR_MS, minutes_ms: 2 * DAY_MS, hours_ms: 700 * DAY_MS };
    let mut fixed = Fixed::new(Options { retention, ..Options::default() });
    for seq in 0..4 {
        fixed.sends("e", START_MS + 3 * HOUR_MS, vec![partial("a", START_MS, 0, 1 + seq, &[])]);
        fixed.sends("e", START_MS + 3 * HOUR_MS, vec![partial("b", START_MS + HOUR_MS, 0, 1, &[])]);
        fixed.keep_up(START_MS + 3 * HOUR_MS);
    }
    let versions = |fixed: &Fixed, subject: Subject, granularity| {
        let asked = question(subject, START_MS, START_MS + 2 * HOUR_MS);
        let counts = fixed.snapshot().count(&Question { granularity, ..asked }).expect("counted");
        let rows: Vec<_> = counts.rows.iter().map(|row| (row.version, row.sums.gross())).collect();
        ((counts.total.version, counts.total.sums.gross()), rows)
    };
    let answers = |fixed: &Fixed| {
        let of = |subject: &Subject| [None, Some(Granularity::Hour)].map(|by| versions(fixed, subject.clone(), by));
        [of_ad("a"), of_ad("b"), Subject::All].each_ref().map(of)
    };
    let before = answers(&fixed);
    assert_eq!(before[0][1], ((4, 10), vec![(4, 10)]), "one and three corrections");
    assert_eq!(before[2][1], ((8, 14), vec![(4, 10), (5, 4)]), "of all ads");
    // The first of `b` was late, too: its minute was closed by then.
    let later = START_MS + 10 * DAY_MS;
    fixed.sends("e", later, vec![partial("a", later - HOUR_MS, 0, 7, &[])]);
    fixed.sends("e", later + 4 * HOUR_MS, vec![partial("a", later + 3 * HOUR_MS, 0, 7, &[])]);
    fixed.keep_up(later + 4 * HOUR_MS);
    assert_eq!(
        fixed
            .snapshot()
            .history(None, Window { start_ms: 0, end_ms: i64::MAX }, 1_000)
            .expect("read")
            .corrections
            .len(),
        0
    );
    assert_eq!(answers(&fixed), before);
    fixed.sends("e", later + 4 * HOUR_MS, vec![partial("a", START_MS, 0, 5, &[])]);
    fixed.keep_up(later + 4 * HOUR_MS);
    assert_eq!(answers(&fixed)[0][1], ((5, 15), vec![(5, 15)]), "and rises with a correction that comes after that");
}

/// A copy made while it serves is the store of one moment.
#[test]
fn a_backup_is_of_one_moment() {
    let mut fixed = Fixed::new(Options::default());
    fixed.sends(
        "e",
        START_MS + MINUTE_MS,
        vec![partial("a", START_MS, 0, 5, &[1]), partial("b", START_MS + MINUTE_MS, 0, 2, &[])],
    );
    let folder = tempfile::tempdir().expect("folder");
    let copy = folder.path().join("copy");
    fixed.store.backup(&copy).expect("copied");
    assert!(fixed.store.backup(&copy).is_err(), "nothing is written over");
    fixed.sends("e", START_MS + MINUTE_MS, vec![partial("a", START_MS, 0, 5, &[])]);
    let back = folder.path().join("back");
    crate::backup::restore(&copy, &back).expect("restored");
    let restored = Store::open(&back.join(crate::STORE_FILE)).expect("a store");
    let gross = |store: &Store| store.snapshot().expect("snapshot").totals(i64::MIN, i64::MAX).expect("sum").gross();
    assert_eq!((gross(&restored), gross(&fixed.store)), (7, 12));
    assert_eq!(restored.offsets().expect("read"), BTreeMap::from([(0, 2)]));
}
