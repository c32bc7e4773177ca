//! Rolling up in steps: each is bounded, and what comes between two of them, to whatever row, counts once at every grain.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tollgate_wire::users::Users;

use crate::fixture::partial;
use crate::key::PANE_MS;
use crate::rollup::Step;
use crate::store::{Options, Store};
use crate::tables::{STATE, TEXTS, VERSION, begin_write, commit_file};
use crate::window::{DAY_MS, Grain, HOUR_MS, MINUTE_MS, Retention, Window};
use crate::window_tests::{Drawn, Fixed, START_MS, check_all, drawn, sent};

/// Everything is closed by then.
const END_MS: i64 = START_MS + DAY_MS;

fn step(store: &Store, step: Step) -> bool {
    store.write(END_MS, |commit| commit.keep_up_by(step)).expect("kept")
}

fn opened_again(fixed: &mut Fixed) {
    let path = fixed.folder.path().join("store");
    // A file is open once at a time.
    let elsewhere = Store::open(&fixed.folder.path().join("elsewhere")).expect("a store");
    drop(std::mem::replace(&mut fixed.store, elsewhere));
    fixed.store = Store::open(&path).expect("the same");
    std::fs::remove_file(fixed.folder.path().join("elsewhere")).expect("removed");
}

/// The distinct users of net clicks: one for each number of clicks.
fn users(rows: &[Drawn]) -> u64 {
    rows.iter().filter(|row| row.class == 0).map(|row| row.clicks).collect::<BTreeSet<_>>().len() as u64
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    /// Steps of few rows, some with a restart behind them, and late clicks of any row between them: before it, behind it, and in
    /// the ad that is half rolled up.
    #[test]
    fn what_comes_between_steps_counts_once_at_every_grain(
        rows in prop::collection::vec(drawn(350..372), 20..100),
        late in prop::collection::vec((prop::collection::vec(drawn(350..372), 0..4), prop::bool::weighted(0.05)), 1..40),
        rows_a_step in 1usize..12,
        users_bytes in prop_oneof![Just(1usize), Just(40), Just(1 << 20)],
    ) {
        let mut fixed = Fixed::new(Options::default());
        fixed.sends("e", END_MS, rows.iter().map(sent).collect());
        let mut all = rows;
        for (late, restarts) in late {
            step(&fixed.store, Step { rows: rows_a_step, users_bytes });
            if restarts {
                opened_again(&mut fixed);
            }
            fixed.sends("e", END_MS, late.iter().map(sent).collect());
            all.extend(late);
        }
        check_all(&fixed.snapshot(), &all)?;
        while step(&fixed.store, Step { rows: rows_a_step, users_bytes }) {}
        check_all(&fixed.snapshot(), &all)?;
        let snapshot = fixed.snapshot();
        prop_assert!(snapshot.progress().rolled_before_ms > START_MS && snapshot.progress().rolling.is_none());
        let total = snapshot.totals(START_MS, END_MS).expect("sum");
        prop_assert_eq!(total.users(), users(&all).min(total.net()));
    }
}

/// However many rows one ad has, and all ads together: no step rolls up more than it may.
#[test]
fn a_step_is_bounded_in_rows_whatever_ads_there_are() {
    let mut fixed = Fixed::new(Options::default());
    for minute in 0..60 {
        let at = START_MS + minute * MINUTE_MS;
        let region = |n: i64| {
            let mut one = partial("a", at + n % 6 * PANE_MS, 0, 1, &[]);
            one.region = format!("{:02}", n / 6);
            one
        };
        fixed.sends("e", END_MS, (0..120).map(region).collect());
    }
    let (rows, most) = (fixed.snapshot().rows(Grain::Pane).expect("rows"), Step::default().rows as u64);
    assert_eq!(rows, 2 * 7_200, "of the ad, and of all ads");
    let minutes = |fixed: &Fixed| fixed.snapshot().rows(Grain::Minute).expect("rows");
    let (mut steps, mut before) = (0, 0);
    while fixed.store.keep_up(END_MS).expect("kept") {
        let after = minutes(&fixed);
        // Six panes are a minute; where a step begins and ends they may be fewer.
        assert!(after - before <= most / 6 + 40, "step {steps} made {} rows of minutes", after - before);
        (steps, before) = (steps + 1, after);
    }
    assert_eq!((minutes(&fixed), steps), (2 * 1_200, rows.div_ceil(most)));
    assert_eq!(fixed.snapshot().totals(START_MS, START_MS + HOUR_MS).expect("sum").net(), 7_200);
}

/// Rows of many users take longer than others: a step is fewer of them.
#[test]
fn a_step_is_bounded_in_users() {
    let mut fixed = Fixed::new(Options::default());
    let many = Users::bytes_of((0..5_000u64).map(|user| user.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    let rows = (0..360).map(|pane| {
        let mut one = partial("a", START_MS + pane * PANE_MS, 0, 6_000, &[]);
        one.users.clone_from(&many);
        one
    });
    fixed.sends("e", END_MS, rows.collect());
    let (mut steps, mut longest) = (0, Duration::ZERO);
    let mut more = true;
    while more {
        let began = Instant::now();
        more = fixed.store.keep_up(END_MS).expect("kept");
        (steps, longest) = (steps + 1, longest.max(began.elapsed()));
    }
    println!("{steps} steps, the longest {longest:?}");
    let at_least = 2 * 360 * many.len() / Step::default().users_bytes;
    assert!(steps > at_least, "{steps} steps");
    let users = fixed.snapshot().totals(START_MS, START_MS + HOUR_MS).expect("sum").users();
    assert!((4_700..5_300).contains(&users), "{users}");
}

/// A store of version 2 rolled up whole ads. Opened amid an hour it begins that one anew: its rows of minutes and hours are not counted again.
#[test]
fn a_store_of_the_version_before_goes_on_amid_an_hour() {
    let mut fixed = Fixed::new(Options::default());
    let ads = (0..40).flat_map(|pane| {
        ["a", "b", "c"].map(|ad| partial(ad, START_MS + HOUR_MS + pane * PANE_MS, 0, 1, &[pane as u64]))
    });
    fixed.sends("e", END_MS, ads.chain([partial("a", START_MS, 0, 7, &[])]).collect());
    // The first hour, and of the second all ads together and "a".
    step(&fixed.store, Step { rows: 2, ..Step::default() });
    step(&fixed.store, Step { rows: 80, ..Step::default() });
    {
        let file = begin_write(&fixed.store.database).expect("begun");
        file.open_table(STATE).expect("there").insert(VERSION, 2).expect("put");
        let mut texts = file.open_table(TEXTS).expect("there");
        texts.remove("rolling_row_key").expect("removed").expect("it was under way");
        texts.insert("rolling_ad", "a").expect("put");
        drop(texts);
        commit_file(file).expect("written");
    }
    opened_again(&mut fixed);
    assert_eq!(fixed.snapshot().progress().rolling, None);
    fixed.sends("e", END_MS, vec![partial("a", START_MS + HOUR_MS, 0, 100, &[])]);
    fixed.keep_up(END_MS);
    let snapshot = fixed.snapshot();
    let hour = |ad, hour: i64| {
        let from_ms = START_MS + hour * HOUR_MS;
        snapshot.ad(ad, from_ms, from_ms + HOUR_MS).expect("sum").net()
    };
    assert_eq!((hour("a", 0), hour("a", 1), hour("b", 1), hour("c", 1)), (7, 140, 40, 40));
    assert_eq!(snapshot.totals(START_MS, END_MS).expect("sum").net(), 227);
    let minute = snapshot.ad("a", START_MS + HOUR_MS, START_MS + HOUR_MS + MINUTE_MS).expect("sum");
    assert_eq!((minute.net(), minute.users()), (106, 6));
    assert_eq!(snapshot.rows(Grain::Hour).expect("rows"), 2 + 4);
}

/// A step's budget may end between a minute's rows and its corrections: those that are left go as well.
#[test]
fn corrections_are_pruned_with_their_minutes_whatever_a_step_may_do() {
    const ADS: usize = 3_000;
    let retention = Retention { panes_ms: 2 * HOUR_MS, minutes_ms: DAY_MS, hours_ms: 400 * DAY_MS };
    let mut fixed = Fixed::new(Options { retention, ..Options::default() });
    fixed.sends("e", START_MS + HOUR_MS, Vec::new());
    let late = (0..ADS).map(|ad| partial(&format!("ad_{ad:04}"), START_MS, 0, 1, &[])).collect();
    fixed.sends("e", START_MS + HOUR_MS, late);
    let corrections = |fixed: &Fixed| {
        let all = Window { start_ms: START_MS, end_ms: END_MS };
        let of = |ad_id: Option<&str>| fixed.snapshot().history(ad_id, all, 10).expect("read").corrections.len();
        [of(None), of(Some("ad_0000")), of(Some("ad_2999"))]
    };
    assert_eq!(corrections(&fixed), [1, 1, 1]);
    fixed.sends("e", START_MS + 3 * DAY_MS, vec![partial("later", START_MS + 3 * DAY_MS - PANE_MS, 0, 1, &[])]);
    fixed.sends("e", START_MS + 40 * DAY_MS, Vec::new());
    fixed.keep_up(START_MS + 40 * DAY_MS + 5_000);
    assert_eq!(corrections(&fixed), [0, 0, 0]);
    assert_eq!(fixed.snapshot().rows(Grain::Minute).expect("read"), 2, "those of the later day");
    assert_eq!(fixed.snapshot().totals(START_MS, END_MS).expect("sum").net(), ADS as u64, "hours are kept");
}
