//! What a proxy does to requests: rules, when they fire, and how often they did.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::end_txn::Outcomes;

/// A kind of request, by its key in Kafka's protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Api(pub i16);

impl Api {
    pub const PRODUCE: Api = Api(0);
    pub const FETCH: Api = Api(1);
    pub const LIST_OFFSETS: Api = Api(2);
    pub const METADATA: Api = Api(3);
    pub const FIND_COORDINATOR: Api = Api(10);
    pub const API_VERSIONS: Api = Api(18);
    pub const INIT_PRODUCER_ID: Api = Api(22);
    pub const ADD_PARTITIONS_TO_TXN: Api = Api(24);
    pub const END_TXN: Api = Api(26);

    /// Of a request with its length before it.
    pub fn of(frame: &[u8]) -> Api {
        Api(i16::from_be_bytes([frame[4], frame[5]]))
    }

    const NAMES: [(Api, &str); 9] = [
        (Api::PRODUCE, "Produce"),
        (Api::FETCH, "Fetch"),
        (Api::LIST_OFFSETS, "ListOffsets"),
        (Api::METADATA, "Metadata"),
        (Api::FIND_COORDINATOR, "FindCoordinator"),
        (Api::API_VERSIONS, "ApiVersions"),
        (Api::INIT_PRODUCER_ID, "InitProducerId"),
        (Api::ADD_PARTITIONS_TO_TXN, "AddPartitionsToTxn"),
        (Api::END_TXN, "EndTxn"),
    ];
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Api::NAMES.iter().find(|(api, _)| api == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "Api({})", self.0),
        }
    }
}

/// Which of the requests that a rule looks at.
#[derive(Clone, Copy, Debug)]
pub enum When {
    Each,
    /// From 1, counted since the rule was added.
    Nth(u64),
    /// So many in a hundred, at random; one seed, one sequence.
    Percent {
        share: u64,
        seed: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Later requests of the connection wait behind it.
    DelayRequest(Duration),
    /// As over a line of so many bytes a second: later requests of the connection wait behind it.
    Throttle { bytes_per_second: u64 },
    /// Later responses of the connection wait behind it.
    DelayResponse(Duration),
    /// The broker never sees it; the connection is cut.
    DropRequest,
    /// The broker does it; its answer is dropped and the connection cut.
    DropResponse,
    /// The broker is given it, and the connection is cut without waiting for its answer.
    CutAtOnce,
    /// The broker sees it twice; its second answer is swallowed.
    Duplicate,
    /// The connection is cut; the broker sees the request this much later, on a connection of its own.
    DeliverLate(Duration),
    /// The connection is cut; the broker sees the request when [`crate::proxy::Proxy::release`] is called.
    Hold,
}

#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub api: Api,
    pub when: When,
    pub action: Action,
}

/// How often a rule was applied, to the end: an answer that is to be dropped counts when it came and was dropped.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    times: Arc<AtomicU64>,
    ends: Arc<Mutex<Outcomes>>,
}

impl Applied {
    pub fn times(&self) -> u64 {
        self.times.load(Ordering::SeqCst)
    }

    /// What the broker said to each EndTxn that it was given late.
    pub fn ends(&self) -> Outcomes {
        self.ends.lock().expect("nobody panics while it is held").clone()
    }

    pub(crate) fn count(&self) {
        self.times.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn ended(&self, outcome: &'static str) {
        *self.ends.lock().expect("nobody panics while it is held").entry(outcome).or_default() += 1;
    }
}

struct Watched {
    rule: Rule,
    seen: u64,
    random: u64,
    applied: Applied,
}

/// The rules of a proxy, the oldest first.
#[derive(Default)]
pub(crate) struct Rules(Vec<Watched>);

impl Rules {
    pub(crate) fn add(&mut self, rule: Rule) -> Applied {
        let seed = match rule.when {
            When::Percent { seed, .. } => seed,
            When::Each | When::Nth(_) => 0,
        };
        let applied = Applied::default();
        self.0.push(Watched { rule, seen: 0, random: seed, applied: applied.clone() });
        applied
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// What is to be done to a request. Every rule of its kind counts it; the first that fires decides.
    pub(crate) fn decide(&mut self, api: Api) -> Option<(Action, Applied)> {
        let mut decided = None;
        for watched in self.0.iter_mut().filter(|watched| watched.rule.api == api) {
            watched.seen += 1;
            let fires = match watched.rule.when {
                When::Each => true,
                When::Nth(nth) => nth == watched.seen,
                When::Percent { share, .. } => split_mix(&mut watched.random) % 100 < share,
            };
            if fires && decided.is_none() {
                decided = Some((watched.rule.action, watched.applied.clone()));
            }
        }
        decided
    }
}

/// SplitMix64: any seed is a good one.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// How often each of `count` requests of one kind is decided upon.
#[cfg(test)]
fn fired(when: When, count: u64) -> Vec<u64> {
    let mut rules = Rules::default();
    rules.add(Rule { api: Api::PRODUCE, when, action: Action::DropRequest });
    (1..=count).filter(|_| rules.decide(Api::PRODUCE).is_some()).collect()
}

#[test]
fn rules_fire_when_they_say() {
    assert_eq!(fired(When::Each, 3), [1, 2, 3]);
    assert_eq!(fired(When::Nth(2), 4), [2]);
    let share = fired(When::Percent { share: 20, seed: 7 }, 10_000);
    assert!((1_800..2_200).contains(&share.len()), "{} of 10,000", share.len());
    assert_eq!(share, fired(When::Percent { share: 20, seed: 7 }, 10_000));
    assert_ne!(share, fired(When::Percent { share: 20, seed: 8 }, 10_000));
}

#[test]
fn the_first_rule_that_fires_decides_and_others_are_left_alone() {
    let mut rules = Rules::default();
    rules.add(Rule { api: Api::END_TXN, when: When::Nth(2), action: Action::Hold });
    rules.add(Rule { api: Api::END_TXN, when: When::Each, action: Action::Duplicate });
    let mut decide = |api| rules.decide(api).map(|(action, _)| format!("{action:?}"));
    assert_eq!(decide(Api::END_TXN).as_deref(), Some("Duplicate"));
    assert_eq!(decide(Api::FETCH), None);
    assert_eq!(decide(Api::END_TXN).as_deref(), Some("Hold"));
    rules.clear();
    assert!(rules.decide(Api::END_TXN).is_none());
}
