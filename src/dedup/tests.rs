//! What the table promises, against a model that remembers keys in a map.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const NOW: i64 = 1_760_000_000_000;

fn memory(lines: usize) -> MmapMut {
    MmapMut::map_anon(lines * size_of::<Line>()).expect("memory for a test")
}

fn config(window_ms: i64, window_min_ms: i64) -> DedupConfig {
    DedupConfig { window_ms, window_min_ms, memory_bytes: MEMORY_BYTES_MIN }
}

fn table(window_ms: i64, window_min_ms: i64) -> Table {
    Table::new(memory(LINES_MIN), [7; 16], &config(window_ms, window_min_ms), i64::MIN, NOW)
}

fn uuid(number: u128) -> ClickKey {
    ClickKey { bytes: number.to_be_bytes(), hashed: false }
}

/// The key that permutes to these bits.
fn key_at(table: &Table, permuted: u128, hashed: bool) -> ClickKey {
    ClickKey { bytes: table.permutation.invert(permuted), hashed }
}

const SAME: Verdict = Verdict::Duplicate { same_payload: true };

#[test]
fn a_key_is_fresh_once_and_its_payload_compared() {
    let mut table = table(600_000, 60_000);
    let hashed = table.hash(&uuid(1));
    assert_eq!(table.remember(&hashed, 5, NOW, NOW), Verdict::Fresh);
    assert_eq!(table.remember(&hashed, 5, NOW + 1, NOW + 1), SAME);
    assert_eq!(table.remember(&hashed, 6, NOW, NOW), Verdict::Duplicate { same_payload: false });
    assert_eq!(table.keys(), 1);
}

#[test]
fn keys_that_differ_in_one_bit_or_only_in_kind_are_different() {
    // A power of two, another number of blocks, and some lines over.
    for lines in [LINES_MIN, LINES_MIN + BLOCK_LINES as usize, 150_001] {
        let mut table = Table::new(memory(lines), [7; 16], &config(600_000, 60_000), i64::MIN, NOW);
        let mut now = NOW;
        for seed in [0u128, u128::MAX, 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210] {
            let bits = std::iter::once(0).chain((0..128).map(|bit| 1u128 << bit));
            // The same remainder under other top bits.
            let tops = (1..1u128 << 16).step_by(997).map(|top| top << 112);
            for flip in bits.chain(tops) {
                let bits_and_kinds = [(seed, false), (seed, true), (seed ^ flip, false), (seed ^ flip, true)];
                let keys = bits_and_kinds.map(|(bits, kind)| table.hash(&key_at(&table, bits, kind)));
                for key in &keys[if flip == 0 { 2 } else { 0 }..] {
                    assert_eq!(table.remember(key, 0, now, now), Verdict::Fresh, "{seed:x} ^ {flip:x}");
                    assert_eq!(table.remember(key, 0, now, now), SAME);
                }
                now += 1_200_000;
                table.raise_horizon(now);
                assert_eq!(table.keys(), 0);
            }
        }
    }
}

#[test]
fn a_line_and_a_remainder_name_one_key() {
    // The proof at the head of the module, tried on the smallest table: equal remainder, any two of the 2^17 keys.
    let table = table(600_000, 60_000);
    for low in [0u128, (1 << 112) - 1, 0x0123_4567_89ab_cdef_fedc_ba98_7654] {
        let mut seen = vec![false; LINES_MIN];
        for top in 0..1u128 << 16 {
            for hashed in [false, true] {
                let at = table.locate(top << 112 | low, hashed);
                assert!(!std::mem::replace(&mut seen[at.first as usize], true), "{top:x} {hashed}");
                assert_eq!(path::other_line(at.remainder.low, at.second), at.first);
            }
        }
    }
}

/// Drives a table and a map of everything it must know through the same steps.
struct Model {
    table: Table,
    /// Whether keys are made to share four lines, so that few of them move others and make generations go early.
    crowded: bool,
    /// Key number → (event time, processing time, check) when it was last found fresh.
    counted: BTreeMap<u64, (i64, i64, u8)>,
    /// (Key number, event time) of everything that was ever counted.
    counted_ever: std::collections::BTreeSet<(u64, i64)>,
    now_ms: i64,
    latest_ms: i64,
}

const WINDOW: i64 = 16_000;
const WINDOW_MIN: i64 = 4_000;

#[derive(Clone, Debug)]
enum Step {
    /// A click: key, event time before or after now, check.
    Click(u64, i64, u8),
    /// The click of that key again, as it was.
    Again(u64),
    /// Many fresh keys: makes the table evict.
    Flood(u32),
    /// The clock, forward or back.
    Clock(i64),
    Raise(i64),
}

impl Model {
    fn new(crowded: bool) -> Model {
        let mut table = table(WINDOW, WINDOW_MIN);
        if crowded {
            // Room for four keys.
            table.stash = Stash::new(table.lines, 4 * 1024);
        }
        Model {
            table,
            crowded,
            counted: BTreeMap::new(),
            counted_ever: Default::default(),
            now_ms: NOW,
            latest_ms: NOW,
        }
    }

    fn hash(&self, key: u64) -> Hashed {
        let hashed = key % 2 == 1;
        if !self.crowded {
            return self.table.hash(&ClickKey { bytes: u128::from(key).to_be_bytes(), hashed });
        }
        // 2^17 lines: line 1 is the top 17 bits, and how the lines differ the top of the low 64.
        let first = u128::from(key >> 1 & 3);
        let differ = 1 + (key >> 3) % 3;
        let low = (u128::from(differ - 1) << 64).div_ceil(u128::from(BLOCK_LINES) - 1);
        let permuted = first << 111 | u128::from(key) << 64 | low;
        self.table.hash(&key_at(&self.table, permuted, hashed))
    }

    /// Everything the table promises of one click.
    fn click(&mut self, key: u64, event_ms: i64, received_ms: i64, check: u8) {
        let hashed = self.hash(key);
        let (horizon_before, keys_before) = (self.table.horizon_ms(), self.table.keys());
        let verdict = self.table.remember(&hashed, check, event_ms, received_ms);
        let horizon = self.table.horizon_ms();
        assert!(horizon >= horizon_before, "the horizon never falls");
        let first = self.counted.get(&key).copied();
        let remembered = first.filter(|(event, received, _)| {
            event.max(received).div_euclid(self.table.generation_ms)
                >= horizon_before.div_euclid(self.table.generation_ms)
        });
        match verdict {
            Verdict::Fresh => {
                assert!(event_ms >= horizon, "what is counted is not too old");
                assert_eq!(remembered, None, "found while it is remembered");
                assert!(self.counted_ever.insert((key, event_ms)), "the same click is never counted twice");
                self.counted.insert(key, (event_ms, received_ms, check));
            }
            Verdict::Duplicate { same_payload } => {
                let (_, _, first_check) = remembered.expect("a duplicate was counted before, and is remembered");
                assert_eq!(same_payload, (first_check ^ check) & 0x7f == 0);
                assert_eq!((self.table.keys(), horizon), (keys_before, horizon_before));
            }
            Verdict::TooOld => {
                assert!(event_ms < horizon);
            }
            Verdict::Full => {
                assert_eq!(remembered, None, "what is remembered needs no room");
                assert!(self.table.keys() <= keys_before, "it was not taken");
                let (oldest, _) = self.table.epochs.oldest().expect("full of something");
                let next_ms = (oldest + 1) * self.table.generation_ms;
                assert!(next_ms > self.latest_ms - WINDOW_MIN, "full only at the least window");
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Click(key, offset_ms, check) => self.click(key, self.now_ms + offset_ms, self.now_ms, check),
            Step::Again(key) => {
                if let Some((event_ms, _, check)) = self.counted.get(&key).copied() {
                    self.click(key, event_ms, self.now_ms, check);
                }
            }
            Step::Flood(keys) => {
                for _ in 0..keys {
                    let key = 1_000_000 + self.counted_ever.len() as u64;
                    self.click(key, self.now_ms, self.now_ms, 1);
                }
            }
            Step::Clock(by_ms) => {
                self.now_ms += by_ms;
                self.latest_ms = self.latest_ms.max(self.now_ms);
                self.table.advance(self.now_ms);
                assert!(self.table.horizon_ms() > self.latest_ms - WINDOW - WINDOW / GENERATIONS);
            }
            Step::Raise(offset_ms) => self.table.raise_horizon(self.now_ms + offset_ms),
        }
    }

    fn check_count(&self) {
        let oldest = self.table.horizon_ms().div_euclid(self.table.generation_ms);
        let remembered =
            |(event, received, _): &&(i64, i64, u8)| event.max(received).div_euclid(self.table.generation_ms) >= oldest;
        assert_eq!(self.table.keys(), self.counted.values().filter(remembered).count() as u64);
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..40u64, -20_000..3_000i64, any::<u8>()).prop_map(|(key, at, check)| Step::Click(key, at, check)),
        8 => (0..40u64).prop_map(Step::Again),
        4 => (-3_000..3_000i64).prop_map(Step::Clock),
        1 => prop_oneof![Just(300_000i64), Just(10_000_000), Just(-50_000), Just(127_000), Just(1)].prop_map(Step::Clock),
        1 => (-18_000..100i64).prop_map(Step::Raise),
        1 => (1..24u32).prop_map(Step::Flood),
    ];
    prop::collection::vec(step, 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_click_is_counted_twice_and_none_is_a_duplicate_of_nothing(steps in steps(), crowded: bool) {
        let mut model = Model::new(crowded);
        for step in &steps {
            model.step(step);
            model.check_count();
        }
    }
}

#[test]
fn under_a_flood_the_oldest_goes_down_to_the_least_window_then_nothing_is_taken() {
    let mut model = Model::new(false);
    let slots = model.table.slots();
    let per_step = (slots / 40) as u32;
    // Four tables full in one window, then one within the least window.
    for _ in 0..160 {
        model.step(&Step::Flood(per_step));
        model.step(&Step::Clock(WINDOW / 160));
    }
    assert!(model.table.generations_dropped_early() > 0);
    assert!(model.now_ms - model.table.horizon_ms() >= WINDOW_MIN);
    for key in 0..slots {
        model.click(1 << 40 | key << 1, model.now_ms, model.now_ms, 0);
    }
    let hashed = model.table.hash(&uuid(1 << 60));
    let before = (model.table.keys(), model.table.horizon_ms());
    assert_eq!(model.table.remember(&hashed, 0, model.now_ms, model.now_ms), Verdict::Full);
    assert_eq!((model.table.keys(), model.table.horizon_ms()), before);
    assert!(model.now_ms - model.table.horizon_ms() >= WINDOW_MIN);
    // Restoring what the log says was accepted is never refused.
    let horizon_ms = model.table.horizon_ms();
    assert!(model.table.restore(&hashed, 0, model.now_ms, model.now_ms));
    assert!(model.table.horizon_ms() > horizon_ms);
    assert_eq!(model.table.remember(&hashed, 0, model.now_ms, model.now_ms), SAME);
}

/// Over this load making room costs more than all the rest, so the oldest ids go; but never those of the least window.
#[test]
fn a_table_over_nine_tenths_forgets_its_oldest_generation_when_time_passes() {
    let mut table = table(WINDOW, WINDOW_MIN);
    let (generations, keys) = (WINDOW / table.generation_ms, table.slots() * 93 / 100);
    let received = |number| NOW + WINDOW * number as i64 / keys as i64;
    let fill = |table: &mut Table, to: u64| {
        for number in 0..to {
            let hashed = table.hash(&uuid(u128::from(number)));
            table.remember(&hashed, 0, received(number), received(number));
        }
    };
    let nine_tenths = table.slots() / 100 * LOAD_PERCENT_MAX;
    fill(&mut table, nine_tenths);
    table.advance(NOW + WINDOW - 1);
    assert_eq!(table.generations_dropped_early(), 0, "nine tenths are kept");
    fill(&mut table, keys);
    table.advance(NOW + WINDOW);
    assert_eq!(table.generations_dropped_early(), 1);
    assert!(table.keys() > keys - 2 * keys / generations as u64, "and no more than has to go");

    let mut young = self::table(WINDOW, WINDOW);
    fill(&mut young, keys);
    young.advance(NOW + WINDOW);
    assert_eq!((young.generations_dropped_early(), young.keys()), (0, keys));
}

#[test]
fn every_key_is_found_after_any_number_of_moves() {
    let mut table = table(600_000, 600_000);
    let mut taken = Vec::new();
    for number in 0.. {
        let hashed = table.hash(&uuid(number));
        match table.remember(&hashed, number as u8, NOW, NOW) {
            Verdict::Fresh => taken.push(hashed),
            Verdict::Full => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(taken.len() as u64 * 100 > table.slots() * 95, "first refusal at {} of {}", taken.len(), table.slots());
    assert_eq!(table.keys(), taken.len() as u64);
    for (number, hashed) in taken.iter().enumerate() {
        assert_eq!(table.remember(hashed, number as u8, NOW, NOW), SAME, "{number}");
    }
    assert!(table.stashed() > 0, "some blocks were full");
    // No key is there twice: as many live slots and stashed keys as keys.
    let live = table.epochs.live();
    let slots: u32 = lines(&table.memory).iter().map(|line| SLOTS as u32 - line.free(live).count_ones()).sum();
    assert_eq!(u64::from(slots) + table.stashed() as u64, table.keys());
}

#[test]
fn replay_finds_what_was_remembered_and_nothing_behind_the_horizon() {
    let mut before = table(WINDOW, WINDOW_MIN);
    let mut log = Vec::new();
    for number in 0..60_000u128 {
        let (event_ms, received_ms) = (NOW + number as i64 - (number as i64 * 7919) % 9_000, NOW + number as i64);
        before.advance(received_ms);
        let hashed = before.hash(&uuid(number));
        if before.remember(&hashed, 3, event_ms, received_ms) == Verdict::Fresh {
            log.push((uuid(number), event_ms, received_ms));
        }
    }
    let end_ms = NOW + 60_000;
    // A longer window does not bring back what was forgotten: the horizon handed in is the least.
    let mut after =
        Table::new(memory(LINES_MIN), [9; 16], &config(10 * WINDOW, WINDOW_MIN), before.horizon_ms(), end_ms);
    assert_eq!(after.horizon_ms(), before.horizon_ms());
    for (key, event_ms, received_ms) in &log {
        let hashed = after.hash(key);
        let remembered = after.restore(&hashed, 3, *event_ms, *received_ms);
        assert!(remembered || *event_ms < after.horizon_ms());
    }
    for (key, event_ms, _) in &log {
        let hashed = after.hash(key);
        let expected = if *event_ms < before.horizon_ms() { Verdict::TooOld } else { SAME };
        assert_eq!(after.remember(&hashed, 3, *event_ms, end_ms), expected);
    }
}

#[test]
fn a_shorter_window_at_restart_forgets_rather_than_confuses_generations() {
    // Generations of 1 ms: an event time 60 s ahead is thousands of them.
    let mut table = table(16, 4);
    let hashed = table.hash(&uuid(1));
    assert_eq!(table.remember(&hashed, 0, NOW + 60_000, NOW), Verdict::Full, "further ahead than can be told apart");
    assert!(table.restore(&hashed, 0, NOW + 60_000, NOW));
    assert_eq!(table.remember(&hashed, 0, NOW + 60_000, NOW), SAME);
    assert_eq!(table.remember(&hashed, 0, NOW, NOW), Verdict::TooOld);
}

#[test]
fn a_key_restored_twice_counts_from_the_later_time() {
    let model = Model::new(true);
    let keys: Vec<_> = (0..40).map(|key| model.hash(key)).collect();
    let mut table = model.table;
    let restore = |table: &mut Table, hashed, at_ms| assert!(table.restore(hashed, 0, at_ms, at_ms));
    // The first of them lies in a line; the one that finds the lines full is stashed.
    let stashed = keys.iter().position(|hashed| {
        restore(&mut table, hashed, NOW);
        table.stashed() == 1
    });
    let both = [keys[0], keys[stashed.expect("four lines do not hold forty keys")]];
    for hashed in &both {
        assert_eq!(table.find(hashed).is_none(), *hashed == both[1]);
        restore(&mut table, hashed, NOW + 5_000);
        restore(&mut table, hashed, NOW + 1_000);
    }
    assert_eq!((table.keys(), table.stashed()), (stashed.map_or(0, |at| at as u64 + 1), 1));
    table.raise_horizon(NOW + 5_000);
    assert_eq!(table.keys(), 2);
    for hashed in &both {
        assert_eq!(table.remember(hashed, 0, NOW + 5_000, NOW + 5_000), SAME);
    }
    table.raise_horizon(NOW + 6_000);
    assert_eq!(table.keys(), 0);
}

#[test]
fn sweeping_is_bounded_and_keeps_up() {
    let mut table = table(WINDOW, WINDOW_MIN);
    let hashed = table.hash(&uuid(1));
    assert_eq!(table.remember(&hashed, 0, NOW, NOW), Verdict::Fresh);
    let entry = Entry { remainder: hashed.remainder, epoch: epoch::byte(table.epochs.horizon()), check: 0 };
    assert!(table.stash.put(&hashed, entry, table.epochs.live()));
    let mut swept_whole = false;
    for turn in 0..200_000 {
        let hand = table.hand;
        table.advance(NOW + turn);
        swept_whole |= table.hand < hand;
        assert!(table.hand < hand || table.hand - hand <= SWEEP_LINES_MAX);
    }
    assert!(swept_whole && table.stashed() == 0);
    let empty = lines(&table.memory).iter().all(|line| *line == cleared(line));
    assert!(empty, "no dead slot outlives a round of the hand");
}

/// What the random walk must have met to mean anything.
#[test]
fn a_crowd_moves_keys_and_makes_generations_go_early() {
    let mut model = Model::new(true);
    for turn in 0..200 {
        model.step(&Step::Flood(1));
        model.step(&Step::Again(turn));
        model.step(&Step::Clock(200));
        model.check_count();
    }
    assert!(model.table.generations_dropped_early() > 10);
    assert!(model.table.stashed() > 0);
    assert!(model.now_ms - model.table.horizon_ms() < WINDOW);
}

fn cleared(line: &Line) -> Line {
    let mut cleared = *line;
    cleared.clear();
    cleared
}
