//! Pure. Clicks that nobody made, in the mix that a real edge sees: ads whose popularity moves, regions, devices, bots, prefetches,
//! clicks that are sent twice, clicks that come late. Told by their ids, which all begin with `demo_`.

use std::collections::VecDeque;
use std::f64::consts::TAU;
use std::fmt::Write as _;

const ADS: usize = 36;
const ADS_A_CAMPAIGN: usize = 4;
const CAMPAIGNS_AN_ADVERTISER: usize = 3;
const USERS: u64 = 20_000;
/// Clicks that may be sent a second time: some seconds of them.
const SENT_MAX: usize = 2_000;

/// Of a thousand clicks, so many are of before and sent again, come late, name no region.
const AGAIN: u64 = 30;
const LATE: u64 = 12;
const NOWHERE: u64 = 20;
/// Late by so much, less than the ids of a default `up` are remembered.
const LATE_MS: std::ops::Range<u64> = 20_000..300_000;

/// Each with its weight.
const REGIONS: [(&str, u64); 14] = [
    ("US", 30),
    ("DE", 14),
    ("GB", 12),
    ("FR", 10),
    ("IN", 9),
    ("BR", 7),
    ("JP", 6),
    ("CA", 5),
    ("NL", 4),
    ("AU", 4),
    ("ES", 4),
    ("PL", 3),
    ("KE", 2),
    ("NZ", 1),
];

/// Browsers of people, and one crawler.
const AGENTS: [(&str, u64); 8] = [
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Mobile/15E148 \
         Safari/604.1",
        30,
    ),
    (
        "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Mobile Safari/537.36",
        28,
    ),
    (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
        20,
    ),
    (
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15",
        8,
    ),
    ("Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0", 5),
    (
        "Mozilla/5.0 (iPad; CPU OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Mobile/15E148 \
         Safari/604.1",
        4,
    ),
    ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", 4),
    (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36 \
         Edg/131.0.0.0",
        3,
    ),
];

/// A sequence that a seed gives; SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// 0 to 1.
    fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn weighted<T: Copy>(&mut self, choices: &[(T, u64)]) -> T {
        let mut at = self.below(choices.iter().map(|(_, weight)| weight).sum());
        for &(choice, weight) in choices {
            if at < weight {
                return choice;
            }
            at -= weight;
        }
        choices[0].0
    }
}

pub struct Clicks {
    random: Random,
    /// Lines as they were sent, the oldest first.
    sent: VecDeque<String>,
}

impl Clicks {
    pub fn new(seed: u64) -> Clicks {
        Clicks { random: Random(seed), sent: VecDeque::with_capacity(SENT_MAX) }
    }

    /// How many clicks are due for so long a time: a rate that swells and ebbs.
    pub fn due(&mut self, now_ms: i64, a_second: f64, over_ms: u64) -> usize {
        let swell = 1.0 + 0.25 * wave(now_ms, 90_000.0, 0.0) + 0.15 * (self.random.part() - 0.5);
        (a_second * swell * over_ms as f64 / 1e3 + self.random.part()) as usize
    }

    /// So many clicks as lines.
    pub fn lines(&mut self, now_ms: i64, count: usize) -> String {
        let weights: Vec<(usize, u64)> = (0..ADS).map(|ad| (ad, weight(ad, now_ms))).collect();
        let mut lines = String::new();
        for _ in 0..count {
            if self.random.below(1_000) < AGAIN && !self.sent.is_empty() {
                let which = self.random.below(self.sent.len() as u64) as usize;
                lines.push_str(&self.sent[which]);
                continue;
            }
            let line = self.click(now_ms, &weights);
            lines.push_str(&line);
            if self.sent.len() == SENT_MAX {
                self.sent.pop_front();
            }
            self.sent.push_back(line);
        }
        lines
    }

    fn click(&mut self, now_ms: i64, weights: &[(usize, u64)]) -> String {
        let ad = self.random.weighted(weights);
        let campaign = ad / ADS_A_CAMPAIGN;
        let advertiser = campaign / CAMPAIGNS_AN_ADVERTISER;
        let late = self.random.below(1_000) < LATE;
        let late_ms = if late { LATE_MS.start + self.random.below(LATE_MS.end - LATE_MS.start) } else { 0 };
        // On the way for a moment, as all are.
        let at_ms = now_ms - late_ms as i64 - self.random.below(400) as i64;
        let mut line = format!(
            "{{\"request_id\":\"demo_{:016x}{:016x}\",\"ad_id\":\"demo_ad_{:02}\",\"campaign_id\":\"demo_campaign_{}\",\
             \"advertiser_id\":\"demo_advertiser_{}\",\"timestamp\":{at_ms},\"user_id\":\"demo_{}\",\"user_agent\":\"{}\"",
            self.random.next(),
            self.random.next(),
            ad + 1,
            campaign + 1,
            advertiser + 1,
            self.random.below(USERS),
            self.random.weighted(&AGENTS),
        );
        if self.random.below(1_000) >= NOWHERE {
            let region = self.random.weighted(&REGIONS);
            write!(line, ",\"country\":\"{region}\"").expect("a string takes all");
        }
        line.push_str("}\n");
        line
    }
}

/// -1 to 1.
fn wave(now_ms: i64, period_ms: f64, phase: f64) -> f64 {
    (TAU * (now_ms as f64 / period_ms + phase)).sin()
}

/// How popular an ad is now: a few are by far, and each comes and goes at its own pace.
fn weight(ad: usize, now_ms: i64) -> u64 {
    let place = 1.0 / (ad as f64 + 2.0).powf(0.5);
    let period_ms = 60_000.0 + 17_000.0 * (ad * 7 % 11) as f64;
    let moving = 1.0 + 0.85 * wave(now_ms, period_ms, ad as f64 * 0.37);
    (10_000.0 * place * moving) as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    const NOW_MS: i64 = 1_795_351_885_000;

    fn read(lines: &str) -> Vec<serde_json::Value> {
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_seed_gives_the_same_clicks() {
        let lines = |seed| Clicks::new(seed).lines(NOW_MS, 100);
        assert_eq!(lines(7), lines(7));
        assert_ne!(lines(7), lines(8));
    }

    #[test]
    fn the_mix_has_everything_that_the_page_shows() {
        let clicks = read(&Clicks::new(1).lines(NOW_MS, 20_000));
        let of = |field: &str| clicks.iter().filter_map(|click| click[field].as_str()).collect::<Vec<_>>();
        let different = |field| of(field).into_iter().collect::<BTreeSet<_>>().len();
        assert_eq!((different("ad_id"), different("campaign_id"), different("advertiser_id")), (36, 9, 3));
        assert_eq!((different("country"), different("user_agent")), (REGIONS.len(), AGENTS.len()));
        for field in ["ad_id", "campaign_id", "advertiser_id", "request_id", "user_id"] {
            assert!(of(field).iter().all(|id| id.starts_with("demo_")), "{field}");
        }
        let again = clicks.len() - different("request_id");
        let late = clicks.iter().filter(|click| click["timestamp"].as_i64().unwrap() < NOW_MS - 10_000).count();
        let bots = of("user_agent").iter().filter(|agent| agent.contains("Googlebot")).count();
        for (what, found, wanted) in [("again", again, 600), ("late", late, 240), ("bots", bots, 780)] {
            assert!(found.abs_diff(wanted) < wanted / 4, "{what}: {found}, wanted {wanted}");
        }
    }

    #[test]
    fn popularity_moves() {
        let leader = |now_ms| {
            let mut counts = BTreeMap::new();
            for click in read(&Clicks::new(3).lines(now_ms, 5_000)) {
                *counts.entry(click["ad_id"].as_str().unwrap().to_owned()).or_insert(0) += 1;
            }
            counts.into_iter().max_by_key(|(_, clicks)| *clicks).unwrap().0
        };
        let leaders: BTreeSet<_> = (0..10).map(|look| leader(NOW_MS + look * 37_000)).collect();
        assert!(leaders.len() > 1, "{leaders:?}");
    }

    #[test]
    fn the_rate_is_about_what_was_asked() {
        let mut clicks = Clicks::new(2);
        let sum: usize = (0..3_000).map(|at| clicks.due(NOW_MS + at * 100, 300.0, 100)).sum();
        assert!(sum.abs_diff(90_000) < 5_000, "{sum}");
    }
}
