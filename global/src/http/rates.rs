//! Pure. Clicks a second, from what was counted at one time and another: the time is that of commits that counted something, for when anybody
//! looks between two says nothing of how fast clicks come. Edges cut every second or every ten.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use super::names;
use crate::sums::CLASS_VALID;

/// Rates are over about so long, or over the last two gaps where those are longer: several edges cut every ten seconds, each at its own
/// time, and what each sends is of all the time since its last.
const OVER_MS: i64 = 10_000;
/// What comes after longer, and after more than twice the gaps before, is not of all that time.
const SILENCE_MS: i64 = 20_000;
/// No edge cuts less often than every minute.
const GAP_MS_MAX: i64 = 70_000;

/// What was counted, ever, and when the last of it came.
#[derive(Clone, Debug)]
struct Sample {
    at_ms: i64,
    clicks_by_class: BTreeMap<u32, u64>,
}

/// Those in which something was counted, as long ago as rates go back.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    all: VecDeque<Sample>,
    /// The last two.
    gaps_ms: [i64; 2],
    looked_first_ms: Option<i64>,
}

/// Of everything: what was counted over the last seconds. Of campaigns: their clicks of the last closed minute.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// Over so long; 0: not known yet.
    over_ms: i64,
    net: f64,
    /// By class; those that occurred.
    invalid: BTreeMap<String, f64>,
}

impl Samples {
    /// Takes what is counted now, of which the last came at `committed_ms`.
    pub fn rates(&mut self, clicks_by_class: &BTreeMap<u32, u64>, committed_ms: i64, now_ms: i64) -> Rates {
        let since_ms = *self.looked_first_ms.get_or_insert(now_ms);
        if self.all.back().is_none_or(|last| last.clicks_by_class != *clicks_by_class) {
            self.take(Sample { at_ms: committed_ms.min(now_ms), clicks_by_class: clicks_by_class.clone() });
        }
        let newest = self.all.back().expect("one was there, or was taken");
        if now_ms - newest.at_ms.max(since_ms) > OVER_MS.max(2 * self.longest_gap_ms()) {
            return Rates::of(OVER_MS, clicks_by_class.keys().map(|class| (*class, 0.0)).collect());
        }
        let over_ms = OVER_MS.max(self.gaps_ms.iter().sum());
        let before = self.all.iter().take((self.all.len() - 1).max(1));
        let nearest = before.min_by_key(|sample| (newest.at_ms - sample.at_ms - over_ms).abs());
        nearest.expect("there is one at least").until(newest)
    }

    fn longest_gap_ms(&self) -> i64 {
        self.gaps_ms[0].max(self.gaps_ms[1])
    }

    fn take(&mut self, next: Sample) {
        let gap_ms = self.all.back().map_or(0, |last| next.at_ms - last.at_ms);
        // The clock may have been put back: what was before is of no time that can be compared.
        if gap_ms < 0 || gap_ms > SILENCE_MS.max(2 * self.longest_gap_ms()) {
            self.looked_first_ms = self.looked_first_ms.filter(|_| gap_ms >= 0);
            self.all.clear();
        }
        self.gaps_ms = [self.gaps_ms[1], gap_ms.clamp(0, GAP_MS_MAX)];
        self.all.push_back(next);
        let kept_ms = 2 * OVER_MS.max(self.gaps_ms.iter().sum());
        while self.all.len() > 2 && self.all[self.all.len() - 1].at_ms - self.all[1].at_ms >= kept_ms {
            self.all.pop_front();
        }
    }
}

impl Sample {
    fn until(&self, newest: &Sample) -> Rates {
        let over_ms = (newest.at_ms - self.at_ms).max(0);
        let grown = |class: &u32, clicks: &u64| {
            let more = clicks - self.clicks_by_class.get(class).copied().unwrap_or(0).min(*clicks);
            if over_ms > 0 { more as f64 * 1e3 / over_ms as f64 } else { 0.0 }
        };
        let rates = newest.clicks_by_class.iter().map(|(class, clicks)| (*class, grown(class, clicks)));
        Rates::of(over_ms, rates.collect())
    }
}

impl Rates {
    pub fn of(over_ms: i64, mut by_class: BTreeMap<u32, f64>) -> Rates {
        let rounded = |rate: f64| (rate * 10.0).round() / 10.0;
        let net = by_class.remove(&CLASS_VALID).map_or(0.0, rounded);
        let invalid = by_class.into_iter().map(|(class, rate)| (names::class(class), rounded(rate)));
        Rates { over_ms, net, invalid: invalid.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks each second at an edge that sends 100 clicks a second, cut every `cut_s`, with a commit every three that counts nothing.
    fn looked_at(cut_s: i64, until_s: i64, sends_until_s: i64) -> Vec<f64> {
        let mut samples = Samples::default();
        let looks = (0..until_s).map(|second| {
            let cut_at_s = second.min(sends_until_s) / cut_s * cut_s;
            let clicks = BTreeMap::from([(CLASS_VALID, cut_at_s as u64 * 100), (3, 7)]);
            let committed_ms = 1_000 * if cut_at_s == second { second } else { cut_at_s.max(second / 3 * 3) };
            samples.rates(&clicks, committed_ms, second * 1_000 + 300)
        });
        looks.map(|rates| rates.net).collect()
    }

    #[test]
    fn the_rate_is_that_of_clicks_however_rare_cuts_are() {
        for cut_s in [1, 2, 10, 60] {
            let seen = looked_at(cut_s, 300, 300);
            assert!(seen[2 * cut_s as usize..].iter().all(|rate| *rate == 100.0), "cut every {cut_s} s: {seen:?}");
        }
    }

    #[test]
    fn where_nothing_comes_any_more_the_rate_is_0_and_what_comes_then_is_of_then() {
        for (cut_s, zero_at) in [(1, 31), (10, 41)] {
            let seen = looked_at(cut_s, 60, 20);
            assert!(seen[zero_at..].iter().all(|rate| *rate == 0.0), "cut every {cut_s} s: {seen:?}");
            assert_eq!(seen[20], 100.0, "cut every {cut_s} s");
        }
        let mut samples = Samples::default();
        let mut rate = |clicks: u64, committed_ms, now_ms| {
            let rates = samples.rates(&BTreeMap::from([(CLASS_VALID, clicks)]), committed_ms, now_ms);
            (rates.over_ms, rates.net)
        };
        assert_eq!(rate(5, 1_000, 21_500), (0, 0.0), "not known yet");
        assert_eq!(rate(5, 1_000, 60_000), (10_000, 0.0));
        assert_eq!(rate(5, 1_000, 61_000), (10_000, 0.0));
        assert_eq!(rate(405, 62_000, 62_300), (0, 0.0), "of what time they are is not known");
        assert_eq!(rate(805, 63_000, 63_300), (1_000, 400.0));
    }

    #[test]
    fn where_the_clock_is_put_back_the_rate_is_soon_that_of_clicks_again() {
        let mut samples = Samples::default();
        for second in 0..120 {
            let now_ms = 1_000 * if second < 60 { 7_200 + second } else { 3_600 + second };
            let rates = samples.rates(&BTreeMap::from([(CLASS_VALID, second as u64 * 100)]), now_ms, now_ms + 300);
            assert!(rates.net == 100.0 || [0, 60].contains(&second), "{second}: {rates:?}");
            assert!(rates.over_ms <= 11_000 && samples.all.len() < 24, "{second}: {rates:?}, {}", samples.all.len());
        }
    }

    /// 100 a second of one edge and 10 of another, each cut as rarely, or a little less so: within a tenth.
    #[test]
    fn edges_that_cut_at_different_times_are_told_together() {
        for (cut_ms, phase_ms, jitter_ms) in [
            (10_000, 1_000, 0),
            (10_000, 5_000, 0),
            (10_000, 9_000, 50),
            (10_000, 9_700, 0),
            (10_000, 3_000, 50),
            (10_000, 300, 50),
            (20_000, 4_000, 0),
            (60_000, 5_000, 100),
        ] {
            let mut samples = Samples::default();
            for now_ms in (0..20 * cut_ms).step_by(800) {
                let cut_at_ms = [0, phase_ms].map(|begin_ms| {
                    let cuts = (0..20).map(|nth| begin_ms + cut_ms * nth - jitter_ms * (nth % 2));
                    cuts.rev().find(|at| *at <= now_ms).unwrap_or(0)
                });
                let clicks = (cut_at_ms[0] / 10 + cut_at_ms[1] / 100) as u64;
                let committed_ms = cut_at_ms[0].max(cut_at_ms[1]);
                let rates = samples.rates(&BTreeMap::from([(CLASS_VALID, clicks)]), committed_ms, now_ms);
                let error = (rates.net - 110.0).abs() / 110.0;
                assert!(now_ms < 5 * cut_ms || error < 0.1, "{cut_ms}, {phase_ms} ms apart, {now_ms}: {rates:?}");
            }
        }
    }

    #[test]
    fn invalid_clicks_are_told_by_class() {
        let mut samples = Samples::default();
        samples.rates(&BTreeMap::from([(CLASS_VALID, 10), (1, 10)]), 1_000, 1_000);
        let rates = samples.rates(&BTreeMap::from([(CLASS_VALID, 20), (1, 15), (2, 1)]), 3_000, 3_100);
        let invalid = BTreeMap::from([(names::class(1), 2.5), (names::class(2), 0.5)]);
        assert_eq!(rates, Rates { over_ms: 2_000, net: 5.0, invalid });
    }
}
