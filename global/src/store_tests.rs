//! The store against a plain map: any transactions, in any order of panes, with restarts anywhere, give the same answers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use crate::fixture::{partial, transaction};
use crate::key::PANE_MS;
use crate::store::{Options, Store};
use crate::sums::Sums;
use crate::tables::StoreError;
use crate::transaction::Refusal;
use crate::window::Grain;
use tollgate_wire::Partial;

const ADS: [&str; 4] = ["a", "aa", "b", "ad with ü"];
const EDGES: [&str; 2] = ["edge-1", "edge-2"];
/// 2024-04-12T08:00:00Z.
const START_MS: i64 = 1_712_908_800_000;

/// All clicks, as (ad, pane, class) to clicks and users.
#[derive(Default)]
struct Model {
    rows: BTreeMap<(String, i64, u32), (u64, BTreeSet<u64>)>,
    seqs: BTreeMap<&'static str, u64>,
}

#[derive(Debug, PartialEq, Eq)]
struct Counts {
    by_class: BTreeMap<u32, u64>,
    users: u64,
}

impl Model {
    fn add(&mut self, ad: &str, pane_ms: i64, class: u32, clicks: u64, users: &[u64]) {
        let row = self.rows.entry((ad.to_owned(), pane_ms, class)).or_default();
        row.0 += clicks;
        row.1.extend(users);
    }

    fn counts(&self, ad: Option<&str>, from_ms: i64, to_ms: i64) -> Counts {
        let mut counts = Counts { by_class: BTreeMap::new(), users: 0 };
        let mut net_users: BTreeSet<u64> = BTreeSet::new();
        for ((row_ad, pane_ms, class), (clicks, users)) in &self.rows {
            if ad.is_none_or(|ad| ad == row_ad) && (from_ms..to_ms).contains(pane_ms) {
                *counts.by_class.entry(*class).or_default() += clicks;
                if *class == 0 {
                    net_users.extend(users);
                }
            }
        }
        counts.users = net_users.len() as u64;
        counts
    }
}

fn counts(sums: &Sums) -> Counts {
    Counts { by_class: sums.clicks_by_class().clone(), users: sums.users() }
}

fn assert_equal(store: &Store, model: &Model, from_ms: i64, to_ms: i64) {
    let snapshot = store.snapshot().expect("snapshot");
    for ad in ADS {
        let found = counts(&snapshot.ad(ad, from_ms, to_ms).expect("ad"));
        assert_eq!(found, model.counts(Some(ad), from_ms, to_ms), "ad {ad:?} in [{from_ms}, {to_ms})");
    }
    let found = counts(&snapshot.totals(from_ms, to_ms).expect("totals"));
    assert_eq!(found, model.counts(None, from_ms, to_ms), "totals in [{from_ms}, {to_ms})");
}

#[derive(Clone, Debug)]
enum Step {
    Commit { edge: usize, watermark_ms: i64, stopped: bool, partials: Vec<Drawn> },
    Reopen,
}

/// Ad, pane, class and the tokens of the users; each user clicks once and one click names nobody.
#[derive(Clone, Debug)]
struct Drawn(usize, i64, u32, Vec<u64>);

fn step() -> impl Strategy<Value = Step> {
    let users = prop::collection::vec(0u64..40, 0..12);
    // Panes around the watermark, and now and then one far in the past or in the future.
    let pane = prop_oneof![8 => 0i64..16, 1 => -1000i64..0, 1 => 16i64..1000];
    let drawn = (0..ADS.len(), pane, 0u32..3, users);
    let partials =
        prop::collection::vec(drawn.prop_map(|(ad, pane, class, users)| Drawn(ad, pane, class, users)), 0..20);
    let commit = (0..EDGES.len(), 0i64..160_000, prop::bool::weighted(0.1), partials)
        .prop_map(|(edge, watermark_ms, stopped, partials)| Step::Commit { edge, watermark_ms, stopped, partials });
    prop_oneof![6 => commit, 1 => Just(Step::Reopen)]
}

fn commit_drawn(store: &Store, model: &mut Model, step: &Step) {
    let Step::Commit { edge, watermark_ms, stopped, partials } = step else { return };
    let seq = model.seqs.entry(EDGES[*edge]).or_default();
    *seq += 1;
    let sent = partials.iter().map(|Drawn(ad, pane, class, users)| {
        partial(ADS[*ad], START_MS + pane * PANE_MS, *class, users.len() as u64 + 1, users)
    });
    let sent = sent.collect();
    let mut whole = transaction(EDGES[*edge], *seq, START_MS + watermark_ms, sent);
    whole.end.stopped = *stopped;
    store.commit(&whole).expect("a whole transaction in its turn is taken");
    for Drawn(ad, pane, class, users) in partials {
        model.add(ADS[*ad], START_MS + pane * PANE_MS, *class, users.len() as u64 + 1, users);
    }
    let again = store.commit(&whole).expect_err("the same transaction again");
    assert!(matches!(again, StoreError::AlreadyCommitted { .. }), "{again}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is open, folded, corrected or loaded again: every answer is the plain map's.
    #[test]
    fn every_answer_is_the_models(
        steps in prop::collection::vec(step(), 1..24),
        spans in prop::collection::vec((-3i64..20, 0i64..20), 3),
    ) {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("store");
        let mut store = Store::open(&path).expect("a new store");
        let mut model = Model::default();
        for step in &steps {
            match step {
                Step::Commit { .. } => commit_drawn(&store, &mut model, step),
                Step::Reopen => {
                    drop(store);
                    store = Store::open(&path).expect("the same store");
                }
            }
            for (from, panes) in &spans {
                let from_ms = START_MS + from * PANE_MS;
                assert_equal(&store, &model, from_ms, from_ms + panes * PANE_MS);
            }
            assert_equal(&store, &model, i64::MIN, i64::MAX);
        }
        let mut clicks: BTreeMap<(String, i64, u32), u64> = BTreeMap::new();
        let visited = store.snapshot().expect("snapshot").visit_counts(|count| {
            *clicks.entry((count.ad_id.to_owned(), count.pane_start_ms, count.class)).or_default() += count.clicks;
        });
        visited.expect("visit");
        let expected: BTreeMap<_, _> = model.rows.into_iter().map(|(key, (clicks, _))| (key, clicks)).collect();
        prop_assert_eq!(clicks, expected);
        for (edge, seq) in &model.seqs {
            prop_assert_eq!(store.last_end(edge).expect("read").expect("committed").txn_seq, *seq);
            let checkpoint = store.checkpoint(edge).expect("read").expect("committed");
            prop_assert_eq!(checkpoint.txn_seq, *seq);
        }
    }
}

fn new_store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("folder");
    let store = Store::open(&folder.path().join("store")).expect("a new store");
    (folder, store)
}

fn gross(store: &Store) -> u64 {
    store.snapshot().and_then(|snapshot| snapshot.totals(i64::MIN, i64::MAX)).expect("totals").gross()
}

#[test]
fn transactions_are_taken_once_and_in_turn() {
    let (_folder, store) = new_store();
    let send = |seq, clicks| store.commit(&transaction("e", seq, 0, vec![partial("a", 0, 0, clicks, &[])]));
    assert_eq!(store.checkpoint("e").expect("read"), None);
    let found = |error| match error {
        StoreError::Sequence { expected, found, .. } => (expected, found),
        other => panic!("{other}"),
    };
    assert_eq!(found(send(2, 1).expect_err("no first")), (1, 2));
    assert_eq!(found(send(0, 1).expect_err("before the first")), (1, 0));
    send(1, 1).expect("first");
    send(2, 1).expect("second");
    assert_eq!(found(send(1, 1).expect_err("long committed")), (3, 1));
    assert_eq!(found(send(4, 1).expect_err("a gap")), (3, 4));
    assert!(matches!(send(2, 1).expect_err("twice"), StoreError::AlreadyCommitted { txn_seq: 2, .. }));
    let mut rival = transaction("e", 2, 0, vec![]);
    rival.checkpoint.nonce = vec![1; 16];
    assert_eq!(found(store.commit(&rival).expect_err("a rival's second")), (3, 2));
    assert_eq!(store.checkpoint("e").expect("read"), Some(transaction("e", 2, 0, vec![]).checkpoint));
    assert_eq!(gross(&store), 2, "what is refused leaves nothing");
}

/// A refusal changes nothing, and the store goes on.
#[test]
fn what_is_refused_leaves_nothing() {
    let (_folder, store) = new_store();
    let mut torn = transaction("e", 1, 0, vec![partial("a", 0, 0, 1, &[]), partial("a", 0, 0, 1, &[])]);
    torn.partials.pop();
    assert!(matches!(store.commit(&torn), Err(StoreError::Refused(Refusal::Torn(_)))));
    for class in [0, 1] {
        let mut broken = partial("a", 0, class, 1, &[1]);
        broken.users.truncate(5);
        let refused = store.commit(&transaction("e", 1, 0, vec![broken]));
        assert!(matches!(refused, Err(StoreError::Refused(Refusal::Run(_)))), "class {class}");
    }
    assert_eq!(store.checkpoint("e").expect("read"), None);
    assert_eq!(gross(&store), 0);
    store.commit(&transaction("e", 1, 0, vec![partial("a", 0, 0, 5, &[])])).expect("the first, whole");
    assert_eq!(gross(&store), 5);
}

/// The watermark is the smallest of the live edges', never falls for one, and a stopped edge holds nothing back.
#[test]
fn the_watermark_is_the_smallest_of_live_edges() {
    let (folder, store) = new_store();
    let watermark = |store: &Store| store.snapshot().expect("snapshot").watermark_ms();
    let send = |edge, seq, watermark_ms, stopped| {
        let mut sent = transaction(edge, seq, watermark_ms, vec![]);
        sent.end.stopped = stopped;
        store.commit(&sent).expect("commit");
        watermark(&store)
    };
    assert_eq!(watermark(&store), None);
    assert_eq!(send("fresh", 1, 0, false), None, "an edge that has claimed nothing yet");
    assert_eq!(send("fresh", 2, 0, true), None);
    assert_eq!(send("a", 1, 50_000, false), Some(50_000));
    assert_eq!(send("a", 2, 40_000, false), Some(50_000), "an edge's highest counts");
    assert_eq!(send("b", 1, 30_000, false), Some(30_000));
    assert_eq!(send("b", 2, 31_000, true), Some(50_000));
    assert_eq!(send("a", 3, 60_000, true), Some(60_000), "all stopped");
    assert_eq!(send("b", 3, 32_000, false), Some(32_000), "back again");
    drop(store);
    let store = Store::open(&folder.path().join("store")).expect("the same store");
    assert_eq!(watermark(&store), Some(32_000), "and after a restart");
}

/// An edge holds the watermark back for as long as it is waited for; what is kept in memory stays bounded and every click counted.
#[test]
fn open_panes_are_bounded_when_nothing_closes() {
    let folder = tempfile::tempdir().expect("folder");
    let patient = Options { idle_after_ms: i64::MAX, ..Options::default() };
    let store = Store::open_with(&folder.path().join("store"), patient).expect("a new store");
    store.commit(&transaction("silent", 1, START_MS, vec![])).expect("commit");
    let commits = 300;
    for seq in 1..=commits {
        let pane_ms = START_MS + seq as i64 / 10 * PANE_MS;
        store.commit(&transaction("e", seq, pane_ms, vec![partial("a", pane_ms, 0, 1, &[seq])])).expect("commit");
        assert!(store.open_runs() <= 256, "{} runs open", store.open_runs());
    }
    let snapshot = store.snapshot().expect("snapshot");
    assert_eq!(snapshot.watermark_ms(), Some(START_MS));
    assert_eq!(snapshot.ad("a", i64::MIN, i64::MAX).expect("ad").net(), commits);
    let early = START_MS + 10 * PANE_MS;
    assert_eq!(snapshot.ad("a", START_MS, early).expect("ad").net(), 99, "seq 1 to 99 lie in the first ten panes");
}

/// Where memory is short, keys that come again and again take their place once, and nothing is written to rows; where they are too
/// many even so, it is.
#[test]
fn runs_are_merged_before_open_panes_are_folded() {
    let folder = tempfile::tempdir().expect("folder");
    let options = Options { open_bytes_max: 60_000, idle_after_ms: i64::MAX, ..Options::default() };
    let open = || Store::open_with(&folder.path().join("store"), options.clone()).expect("a store");
    let mut store = open();
    let users_of = |ad: u64, seq: u64| [(ad * 1_000 + seq).wrapping_mul(0x9e37_79b9_7f4a_7c15), ad];
    let commit = |store: &Store, seq: u64, ads: std::ops::Range<u64>| {
        let row =
            |ad: u64| partial(&format!("ad_{ad}"), START_MS + (ad % 2) as i64 * PANE_MS, 0, 1, &users_of(ad, seq));
        store.commit(&transaction("e", seq, START_MS, ads.map(row).collect())).expect("commit");
    };
    let rows = |store: &Store| store.snapshot().expect("snapshot").rows(Grain::Pane).expect("rows");
    for seq in 1..=100 {
        commit(&store, seq, 0..20);
        assert!(store.open_bytes() <= 60_000, "{} bytes", store.open_bytes());
    }
    for when in ["before", "after a start"] {
        let (runs, snapshot) = (store.open_runs(), store.snapshot().expect("snapshot"));
        assert!((1..20).contains(&runs) && rows(&store) == 0, "{runs} runs, {} rows {when}", rows(&store));
        let sums = snapshot.ad("ad_3", i64::MIN, i64::MAX).expect("ad");
        assert_eq!(sums.net(), 100, "{when}");
        assert!((98..=104).contains(&sums.users()), "{} of 101 users {when}", sums.users());
        assert_eq!(snapshot.totals(i64::MIN, i64::MAX).expect("totals").net(), 2_000, "{when}");
        drop((snapshot, store));
        store = open();
    }
    commit(&store, 101, 0..800);
    assert!(rows(&store) > 800 && store.open_runs() == 0, "{} rows, {} runs", rows(&store), store.open_runs());
    commit(&store, 102, 0..20);
    let snapshot = store.snapshot().expect("snapshot");
    assert_eq!(snapshot.ad("ad_3", i64::MIN, i64::MAX).expect("ad").net(), 102);
    assert_eq!(snapshot.totals(i64::MIN, i64::MAX).expect("totals").net(), 2_820);
}

/// A pane closes, its run goes; panes yet open stay in memory.
#[test]
fn runs_go_when_their_last_pane_closes() {
    let (folder, store) = new_store();
    let two_panes = vec![partial("a", 0, 0, 1, &[]), partial("a", 10_000, 0, 1, &[])];
    store.commit(&transaction("e", 1, 5_000, two_panes)).expect("commit");
    assert_eq!(store.open_runs(), 1);
    store.commit(&transaction("e", 2, 19_999, vec![])).expect("commit");
    assert_eq!(store.open_runs(), 1, "the second pane is open");
    store.commit(&transaction("e", 3, 20_000, vec![])).expect("commit");
    assert_eq!(store.open_runs(), 0);
    drop(store);
    let store = Store::open(&folder.path().join("store")).expect("the same store");
    assert_eq!(store.open_runs(), 0, "gone from the file too");
    assert_eq!(gross(&store), 2);
}

/// A reader sees whole transactions only: every snapshot's totals are a multiple of one, and the ads add up to them.
#[test]
fn a_snapshot_is_of_one_moment() {
    let (_folder, store) = new_store();
    let store = Arc::new(store);
    let done = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let (store, done) = (store.clone(), done.clone());
        move || {
            let mut snapshots = 0u64;
            while !done.load(Ordering::Acquire) {
                let snapshot = store.snapshot().expect("snapshot");
                let total = snapshot.totals(i64::MIN, i64::MAX).expect("totals").gross();
                let ads = ADS.map(|ad| snapshot.ad(ad, i64::MIN, i64::MAX).expect("ad").gross());
                assert_eq!(total % 8, 0, "part of a transaction is seen");
                assert_eq!(ads.iter().sum::<u64>(), total);
                snapshots += 1;
            }
            snapshots
        }
    });
    for seq in 1..=200 {
        let now_ms = seq as i64 * 4_000;
        let pane_ms = now_ms / PANE_MS * PANE_MS;
        let both = |ad: &&str| [partial(ad, pane_ms, 0, 1, &[]), partial(ad, pane_ms - 2 * PANE_MS, 0, 1, &[])];
        store.commit(&transaction("e", seq, now_ms - 5_000, ADS.iter().flat_map(both).collect())).expect("commit");
    }
    done.store(true, Ordering::Release);
    assert!(reader.join().expect("the reader's assertions hold") > 0);
    assert_eq!(gross(&store), 1_600);
}

/// What the `seq`th transaction of the killed child holds.
fn killed_partials(seq: u64) -> Vec<Partial> {
    let now_ms = START_MS + seq as i64 * 3_000;
    let pane_ms = now_ms / PANE_MS * PANE_MS;
    (0..20u64)
        .map(|row| {
            let late = if row % 7 == 0 { 6 * PANE_MS } else { 0 };
            partial(ADS[(row % 4) as usize], pane_ms - late, (row % 3) as u32, row + 1, &[row, seq % 30])
        })
        .collect()
}

fn killed_watermark(seq: u64) -> i64 {
    START_MS + seq as i64 * 3_000 - 5_000
}

/// Only in the child of the next test: commits until it is killed, and says after each.
#[test]
fn child_that_commits_until_killed() {
    let Some(path) = std::env::var_os("TOLLGATE_TEST_STORE") else { return };
    let store = Store::open(path.as_ref()).expect("open in the child");
    let first = store.checkpoint("e").expect("read").map_or(0, |checkpoint| checkpoint.txn_seq) + 1;
    for seq in first.. {
        store.commit(&transaction("e", seq, killed_watermark(seq), killed_partials(seq))).expect("commit in the child");
        println!("\ncommitted {seq}");
    }
}

/// After a kill anywhere: what a commit returned for is there, once; the one under way is wholly there or not at all.
#[test]
fn killed_while_committing_nothing_is_lost_or_doubled() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    for round in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "store_tests::child_that_commits_until_killed", "--nocapture"])
            .env("TOLLGATE_TEST_STORE", &path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("child");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut said = 0;
        let mut heard = 0;
        for line in lines.map_while(Result::ok) {
            let Some(seq) = line.strip_prefix("committed ") else { continue };
            said = seq.parse().expect("a number");
            heard += 1;
            if heard == 3 + round * 2 {
                child.kill().expect("kill");
            }
        }
        child.wait().expect("the child is gone");
        assert!(heard >= 3 + round * 2, "the child committed until it was killed");

        let store = Store::open(&path).expect("open after the kill");
        let seq = store.checkpoint("e").expect("read").expect("committed").txn_seq;
        assert!(seq == said || seq == said + 1, "the child said {said}, the store holds {seq}");
        let mut model = Model::default();
        for seq in 1..=seq {
            for (row, sent) in (0..20u64).zip(killed_partials(seq)) {
                model.add(&sent.ad_id, sent.pane_start_ms, sent.class, sent.clicks, &[row, seq % 30]);
            }
        }
        assert_equal(&store, &model, i64::MIN, i64::MAX);
        assert_equal(&store, &model, START_MS, START_MS + 6 * PANE_MS);
    }
}

/// What was counted ever is what was committed, also after the store was opened again; a replay adds nothing.
#[test]
fn clicks_by_class_are_counted_for_ever() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    let store = Store::open(&path).expect("a new store");
    let sent = transaction("e", 1, 20_000, vec![partial("a", 0, 0, 5, &[]), partial("b", 10_000, 2, 3, &[])]);
    store.commit(&sent).expect("commit");
    assert!(store.commit(&sent).is_err());
    store
        .commit(&transaction("e", 2, 90_000, vec![partial("a", 0, 0, 4, &[]), partial("a", 0, 7, 1, &[])]))
        .expect("late");
    let expected = BTreeMap::from([(0, 9), (2, 3), (7, 1)]);
    assert_eq!(store.snapshot().expect("snapshot").counted(), &expected);
    drop(store);
    let again = Store::open(&path).expect("the same store");
    assert_eq!(again.snapshot().expect("snapshot").counted(), &expected);
}
