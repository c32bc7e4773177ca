//! Pure. The clicks of a run. Each is a function of the run's seed and the click's number, so that a request can be sent
//! again, byte for byte, from a few words of memory, and nobody has to remember ids.

use crate::ads::Ads;
use crate::plan::{Plan, SEED_MAX};
use crate::text::{digits8, hex16, mix, timestamp13};

/// Bytes of a click. Every click of every run has this length, broken ones too: Content-Length is a constant of the run.
pub const CLICK_BYTES: usize = 178;

const TEMPLATE: &[u8; CLICK_BYTES] = br#"{"request_id":"00000000-0000-4000-8000-000000000000","ad_id":"ad_000000","campaign_id":"c_00000","user_id":"u_00000000","timestamp":0000000000000,"region":"US","device":"mobile"}"#;

const ID: usize = after(br#""request_id":""#);
const AD: usize = after(br#""ad_id":"ad_"#);
const CAMPAIGN: usize = after(br#""campaign_id":"c_"#);
const USER: usize = after(br#""user_id":"u_"#);
const TIMESTAMP: usize = after(br#""timestamp":"#);
const REGION: usize = after(br#""region":"#);

/// How far back the event time of a late click lies at most: inside every dedup window (60 s at least).
pub const LATE_MS_MAX: i64 = 30_000;

const MASK_60: u64 = SEED_MAX;

/// Clicks of one core: the upper 12 of the number's 60 bits are the core.
pub const NUMBERS_OF_A_CORE: u64 = 1 << 48;

/// Whether and when a request is sent a second time, on another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    Never,
    /// At once, while the first is under way.
    Racing,
    /// When the first was acknowledged.
    Afterwards,
}

pub struct Clicks {
    seed: u64,
    hosts: u64,
    ads: Ads,
    users: u32,
    /// Fractions of 2^32.
    duplicates: u64,
    late: u64,
    invalid: u64,
}

/// What is drawn for one click. `flaw` is `None` for a good one.
struct Drawn {
    id: [u64; 2],
    random: u64,
    ad: u32,
    flaw: Option<u64>,
}

impl Clicks {
    pub fn new(plan: &Plan) -> Clicks {
        let fraction = |of_one: f64| (of_one * 4_294_967_296.0) as u64;
        Clicks {
            seed: plan.seed & MASK_60,
            hosts: plan.targets.len() as u64,
            ads: Ads::zipf(plan.ads, plan.zipf),
            users: plan.users,
            duplicates: fraction(plan.duplicates),
            late: fraction(plan.late),
            invalid: fraction(plan.invalid),
        }
    }

    /// Appends click `number` of a request built at `stamp_ms`. Returns its ad, or `None` for a broken click.
    #[inline]
    pub fn append(&self, number: u64, stamp_ms: i64, stamp: &[u8; 13], out: &mut Vec<u8>) -> Option<u32> {
        let drawn = self.draw(number);
        out.extend_from_slice(TEMPLATE);
        let line = out.last_chunk_mut::<CLICK_BYTES>().expect("a template was just appended");
        patch_id(line, drawn.id);
        let ad = digits8(drawn.ad);
        put::<6>(line, AD, &ad[2..]);
        put::<5>(line, CAMPAIGN, &ad[2..7]);
        let user = ((drawn.random >> 32) * u64::from(self.users)) >> 32;
        put::<8>(line, USER, &digits8(user as u32));
        put::<13>(line, TIMESTAMP, stamp);
        if self.late > 0 && mix(drawn.random ^ 1) & 0xffff_ffff < self.late {
            let back = 1 + (mix(drawn.random ^ 2) % LATE_MS_MAX as u64) as i64;
            put::<13>(line, TIMESTAMP, &timestamp13(stamp_ms - back));
        }
        if let Some(flaw) = drawn.flaw {
            spoil(line, flaw);
            return None;
        }
        Some(drawn.ad)
    }

    /// The numbers of a request: the first so many, from `first` on, of the clicks whose home is this host.
    #[inline]
    pub fn numbers(&self, first: u64, clicks: u32, host: usize) -> impl Iterator<Item = u64> + '_ {
        (first..).filter(move |number| self.hosts == 1 || self.home(*number) == host).take(clicks as usize)
    }

    /// The number from which on the request after that one may take its clicks.
    pub fn after(&self, first: u64, clicks: u32, host: usize) -> u64 {
        if self.hosts == 1 {
            return first + u64::from(clicks);
        }
        self.numbers(first, clicks, host).last().map_or(first, |last| last + 1)
    }

    /// The host that a click goes to, whenever and however often it is sent: by a hash of its id.
    pub fn home(&self, number: u64) -> usize {
        let id = id_words(self.seed, number);
        (mix(id[0] ^ mix(id[1])) % self.hosts) as usize
    }

    /// The ad of click `number`, or `None` if it is a broken one.
    pub fn ad(&self, number: u64) -> Option<u32> {
        let drawn = self.draw(number);
        drawn.flaw.is_none().then_some(drawn.ad)
    }

    pub fn ads(&self) -> usize {
        self.ads.count()
    }

    /// Whether the request that begins with click `number` is sent twice.
    pub fn again(&self, number: u64) -> Again {
        if self.duplicates == 0 {
            return Again::Never;
        }
        let random = mix(number ^ mix(self.seed ^ 3));
        match random & 0xffff_ffff < self.duplicates {
            false => Again::Never,
            true if random >> 63 == 0 => Again::Racing,
            true => Again::Afterwards,
        }
    }

    #[inline]
    fn draw(&self, number: u64) -> Drawn {
        let id = id_words(self.seed, number);
        let random = mix(id[0] ^ id[1].rotate_left(32));
        let flaw = (self.invalid > 0).then(|| mix(random ^ 4)).filter(|flaw| flaw & 0xffff_ffff < self.invalid);
        // The multiplication takes the ad's bits apart from the user's, which are the upper half of `random`.
        Drawn { id, random, ad: self.ads.pick(random.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)), flaw }
    }
}

/// The 120 free bits of a click's UUID, 60 in each word. Injective in (seed, number), both below 2^60: given the second
/// word and the first, the seed is `second ^ hash(first)`; given the seed, the first is a bijection of the number. So no two clicks
/// of a run, and no two runs with different seeds, share an id.
fn id_words(seed: u64, number: u64) -> [u64; 2] {
    debug_assert!(seed <= MASK_60 && number <= MASK_60);
    let x = number.wrapping_add(seed.wrapping_mul(0xd6e8_feb8_6659_fd93)) & MASK_60;
    let x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9) & MASK_60;
    let x = (x ^ (x >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb) & MASK_60;
    let first = x ^ (x >> 29);
    [first, seed ^ (mix(first) & MASK_60)]
}

/// `xxxxxxxx-xxxx-4xxx-8xxx-xxxxxxxxxxxx`: 15 digits of each word around the version and the variant.
fn patch_id(line: &mut [u8; CLICK_BYTES], id: [u64; 2]) {
    let (first, second) = (hex16(id[0]), hex16(id[1]));
    put::<8>(line, ID, &first[1..9]);
    put::<4>(line, ID + 9, &first[9..13]);
    put::<3>(line, ID + 15, &first[13..16]);
    put::<3>(line, ID + 20, &second[1..4]);
    put::<12>(line, ID + 24, &second[4..16]);
}

/// Breaks a click without changing its length: no ad, a time that is none, or no JSON at all.
fn spoil(line: &mut [u8; CLICK_BYTES], flaw: u64) {
    match (flaw >> 32) % 3 {
        0 => put::<5>(line, AD - 11, b"xx_xx"),
        1 => put::<13>(line, TIMESTAMP, br#""broken time""#),
        _ => put::<4>(line, REGION, b"?US?"),
    }
}

fn put<const N: usize>(line: &mut [u8; CLICK_BYTES], at: usize, text: &[u8]) {
    line[at..at + N].copy_from_slice(&text[..N]);
}

/// Where the value begins that follows `name` in the template.
const fn after(name: &[u8]) -> usize {
    let mut at = 0;
    while at + name.len() <= CLICK_BYTES {
        let mut same = 0;
        while same < name.len() && TEMPLATE[at + same] == name[same] {
            same += 1;
        }
        if same == name.len() {
            return at + name.len();
        }
        at += 1;
    }
    panic!("the template lacks this name")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;

    fn plan() -> Plan {
        Plan { seed: 7, ads: 1_000, users: 1_000_000, ..Plan::default() }
    }

    fn text(clicks: &Clicks, number: u64, stamp_ms: i64) -> (Option<u32>, String) {
        let mut out = Vec::new();
        let ad = clicks.append(number, stamp_ms, &timestamp13(stamp_ms), &mut out);
        (ad, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_click_is_the_documented_json() {
        let clicks = Clicks::new(&plan());
        let (ad, text) = text(&clicks, 42, 1_763_791_000_123);
        assert_eq!(text.len(), CLICK_BYTES);
        let json: Value = serde_json::from_str(&text).unwrap();
        let ad = ad.unwrap();
        assert_eq!(json["ad_id"], format!("ad_{ad:06}"));
        assert_eq!(json["campaign_id"], format!("c_{:05}", ad / 10));
        assert_eq!(json["timestamp"], 1_763_791_000_123i64);
        assert_eq!(clicks.ad(42), Some(ad));
        let id = json["request_id"].as_str().unwrap();
        let dashes: Vec<usize> = id.match_indices('-').map(|(at, _)| at).collect();
        assert_eq!((id.len(), dashes, &id[14..15], &id[19..20]), (36, vec![8, 13, 18, 23], "4", "8"));
    }

    #[test]
    fn ids_of_numbers_and_seeds_never_meet() {
        let mut seen = BTreeSet::new();
        for seed in [0, 1, 2, MASK_60] {
            for number in (0..5_000).chain(NUMBERS_OF_A_CORE..NUMBERS_OF_A_CORE + 5_000) {
                assert!(seen.insert(id_words(seed, number)), "seed {seed}, number {number}");
            }
        }
    }

    #[test]
    fn broken_clicks_are_broken_in_every_way_and_as_many_as_asked() {
        let clicks = Clicks::new(&Plan { invalid: 0.25, ..plan() });
        let (mut broken, mut not_json, mut no_ad, mut no_time) = (0, 0, 0, 0);
        for number in 0..4_000 {
            let (ad, text) = text(&clicks, number, 1_763_791_000_000);
            assert_eq!(text.len(), CLICK_BYTES);
            let json: Option<Value> = serde_json::from_str(&text).ok();
            let good = json.as_ref().is_some_and(|json| json["ad_id"].is_string() && json["timestamp"].is_i64());
            assert_eq!(good, ad.is_some(), "{text}");
            broken += u32::from(ad.is_none());
            match json {
                None => not_json += 1,
                Some(json) if json["ad_id"].is_null() => no_ad += 1,
                Some(json) => no_time += u32::from(!json["timestamp"].is_i64()),
            }
        }
        assert!((850..1_150).contains(&broken), "{broken}");
        assert!(not_json > 250 && no_ad > 250 && no_time > 250, "{not_json} {no_ad} {no_time}");
    }

    #[test]
    fn late_clicks_lie_back_within_the_bound_and_are_as_many_as_asked() {
        let clicks = Clicks::new(&Plan { late: 0.5, ..plan() });
        let now = 1_763_791_000_000;
        let mut late = 0;
        for number in 0..2_000 {
            let json: Value = serde_json::from_str(&text(&clicks, number, now).1).unwrap();
            let back = now - json["timestamp"].as_i64().unwrap();
            assert!((0..=LATE_MS_MAX).contains(&back));
            late += u32::from(back > 0);
        }
        assert!((900..1_100).contains(&late), "{late}");
    }

    #[test]
    fn every_click_has_one_home_and_requests_of_all_hosts_together_have_every_click_once() {
        let address = plan().targets[0];
        let clicks = Clicks::new(&Plan { targets: vec![address; 3], ..plan() });
        let mut seen = BTreeSet::new();
        for host in 0..3 {
            let mut first = 0;
            while first < 3_000 {
                let numbers: Vec<u64> = clicks.numbers(first, 10, host).collect();
                assert!(numbers.iter().all(|number| clicks.home(*number) == host && seen.insert(*number)));
                first = clicks.after(first, 10, host);
            }
        }
        assert!((0..3_000).all(|number| seen.contains(&number)));
        let own = (0..3_000).filter(|number| clicks.home(*number) == 1).count();
        assert!((900..1_100).contains(&own), "{own} of 3000 clicks are at home on one of three hosts");
    }

    #[test]
    fn users_and_ads_are_independent() {
        let clicks = Clicks::new(&Plan { ads: 2, zipf: 0.0, users: 2, ..plan() });
        let mut seen = [[0u32; 2]; 2];
        for number in 0..4_000 {
            let json: Value =
                serde_json::from_str(&text(&clicks, number, 0).1.replace(":0000000000000", ":0")).unwrap();
            seen[usize::from(json["ad_id"] == "ad_000001")][usize::from(json["user_id"] == "u_00000001")] += 1;
        }
        assert!(seen.as_flattened().iter().all(|n| (900..1_100).contains(n)), "{seen:?}");
    }
}
