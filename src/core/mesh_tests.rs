//! Several cores by hand: parcels arrive when the test says so, and so do the ends of writes.

use std::collections::VecDeque;

use super::tests::{Bench, balances, request, seated};
use super::*;
use crate::click::ClickKey;
use crate::config::ERRORS_LISTED_MAX;
use crate::core::home::Seat;
use crate::event::{Patience, ReceiveEnd, WriteEnd};

struct Cores {
    benches: Vec<Bench>,
    /// On their way, in order: to which core, and what.
    parcels: VecDeque<(CoreIndex, Event<'static>)>,
    /// What else each asked for.
    rest: Vec<Vec<Action>>,
}

/// So many cores, set up so.
fn cores(cores: CoreIndex, set: impl Fn(&mut Config)) -> Cores {
    let mut config = Config { cpus: (0..usize::from(cores)).collect(), ..Config::default() };
    set(&mut config);
    let benches = (0..cores).map(|own| seated(config.clone(), Seat { own, cores })).collect();
    Cores { benches, parcels: VecDeque::new(), rest: (0..cores).map(|_| Vec::new()).collect() }
}

/// One chunk of a few clicks between two cores.
fn tiny(config: &mut Config) {
    config.mesh.chunk_bytes = 200;
    (config.mesh.chunks_a_way_min, config.mesh.chunks_a_way_max) = (1, 1);
}

fn id(number: usize) -> String {
    format!("{number:08x}-0000-4000-8000-00000000abcd")
}

impl Cores {
    fn told(&mut self, core: CoreIndex, events: Vec<Event<'_>>) {
        let actions = self.benches[usize::from(core)].told(events);
        self.take(core, actions);
    }

    fn take(&mut self, from: CoreIndex, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Forward { to, chunk } => self.parcels.push_back((to, Event::Forwarded { from, chunk })),
                Action::Return { to, chunk } => self.parcels.push_back((to, Event::Judged { by: from, chunk })),
                Action::Done => {
                    let others = (0..self.benches.len() as CoreIndex).filter(|to| *to != from);
                    self.parcels.extend(others.map(|to| (to, Event::PeerDone { core: from })));
                }
                other => self.rest[usize::from(from)].push(other),
            }
        }
    }

    /// What is on its way arrives; what that gives rise to does not yet.
    fn deliver(&mut self) {
        for (to, event) in std::mem::take(&mut self.parcels) {
            self.told(to, vec![event, Event::Idle]);
        }
    }

    /// A core's disk has written everything it was given.
    fn written(&mut self, core: CoreIndex) {
        let actions = self.benches[usize::from(core)].written();
        self.take(core, actions);
    }

    /// Until nothing is on its way any more.
    fn settle(&mut self) {
        while !self.parcels.is_empty() || self.benches.iter().any(|bench| !bench.writes.is_empty()) {
            self.deliver();
            (0..self.benches.len() as CoreIndex).for_each(|core| self.written(core));
        }
    }

    /// Sends a request on a connection that is opened for it.
    fn send(&mut self, core: CoreIndex, connection: ConnectionId, lines: &str) {
        let bytes = request("application/x-ndjson", lines.len(), lines);
        let received = Event::Received { connection, bytes: bytes.as_bytes() };
        self.told(core, vec![Event::Accepted { connection }, received, Event::Idle]);
    }

    fn lines(&self, numbers: impl Iterator<Item = usize>) -> String {
        let stamp = self.benches[0].now.wall_ms;
        numbers
            .map(|number| format!("{{\"ad_id\":\"a\",\"timestamp\":{stamp},\"request_id\":\"{}\"}}\n", id(number)))
            .collect()
    }

    fn home(&self, number: usize) -> CoreIndex {
        let bytes = u128::from_str_radix(&id(number).replace('-', ""), 16).unwrap().to_be_bytes();
        let key = ClickKey { bytes, hashed: false };
        self.benches[0].core.home.dedup.hash(&key).home(self.benches.len() as CoreIndex)
    }

    fn answers(&mut self, core: CoreIndex) -> String {
        String::from_utf8(std::mem::take(&mut self.benches[usize::from(core)].sent)).unwrap()
    }

    fn ledger(&self, core: CoreIndex) -> &Ledger {
        &self.benches[usize::from(core)].core.ledger
    }

    fn clicks_logged(&self) -> u64 {
        self.benches.iter().map(|bench| bench.core.home.writer.totals().clicks).sum()
    }

    fn chunks_on_their_way(&self) -> usize {
        self.parcels.iter().filter(|(_, event)| !matches!(event, Event::PeerDone { .. })).count()
    }
}

fn on(slot: u32) -> ConnectionId {
    ConnectionId { slot, generation: 1 }
}

#[test]
fn a_request_larger_than_all_chunks_waits_for_them_and_goes_on() {
    let mut cores = cores(2, tiny);
    let far = (0..40).filter(|number| cores.home(*number) == 1).count();
    assert!((10..30).contains(&far), "{far} of 40 clicks have the other home");
    let lines = cores.lines(0..40);
    cores.send(0, on(0), &lines);
    let behind = cores.lines(100..103);
    cores.send(0, on(1), &behind);
    let mut journeys = 0;
    while !cores.parcels.is_empty() || cores.ledger(0).in_flight > 0 {
        assert!(cores.chunks_on_their_way() <= 1, "there is one chunk");
        assert!(journeys < 100, "it does not go on: {:?}", cores.ledger(0));
        journeys += 1;
        cores.deliver();
        (0..2).for_each(|core| cores.written(core));
    }
    // Three clicks fit into a chunk, and it goes there and back.
    assert!(3 * journeys >= 2 * far, "{journeys} journeys for {far} clicks");
    let answers = cores.answers(0);
    assert!(answers.contains("\"accepted\":40") && answers.contains("\"accepted\":3"), "{answers}");
    assert!(balances(cores.ledger(0)) && cores.clicks_logged() == 43);
}

#[test]
fn five_thousand_clicks_of_three_homes_are_answered_exactly_and_in_order() {
    let mut cores = cores(3, |_| ());
    let stamp = cores.benches[0].now.wall_ms;
    // A home that has forgotten more than the core that receives: it alone can tell that a click is too old.
    cores.benches[2].core.home.dedup.raise_horizon(stamp - 5_000);
    let old = |number: usize| number.is_multiple_of(7);
    let broken = |number: usize| number.is_multiple_of(50);
    let repeats = |number: usize| number % 10 == 9;
    let line = |number: usize| {
        let name = id(if repeats(number) { number - 1 } else { number });
        let stamp = if old(if repeats(number) { number - 1 } else { number }) { stamp - 10_000 } else { stamp };
        let ad = if broken(number) { "7" } else { "\"a\"" };
        format!("{{\"ad_id\":{ad},\"timestamp\":{stamp},\"request_id\":\"{name}\"}}\n")
    };
    let lines: String = (0..5_000).map(line).collect();
    let (mut accepted, mut duplicates, mut refused) = (0, 0, Vec::new());
    for number in 0..5_000 {
        let click = if repeats(number) { number - 1 } else { number };
        if broken(number) || old(click) && cores.home(click) == 2 {
            refused.push(number);
        } else if repeats(number) {
            duplicates += 1;
        } else {
            accepted += 1;
        }
    }
    cores.send(0, on(0), &lines);
    cores.settle();
    let answer = cores.answers(0);
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let counts = ["accepted", "duplicates", "rejected"].map(|name| body[name].as_u64().unwrap() as usize);
    assert_eq!(counts, [accepted, duplicates, refused.len()]);
    let listed: Vec<_> =
        body["errors"].as_array().unwrap().iter().map(|error| error["index"].as_u64().unwrap()).collect();
    let expected: Vec<_> = refused.iter().take(ERRORS_LISTED_MAX).map(|number| *number as u64).collect();
    assert_eq!(listed, expected, "the first hundred of {}", refused.len());
    assert!(balances(cores.ledger(0)) && cores.clicks_logged() == accepted as u64);
}

#[test]
fn clicks_of_a_dead_connection_go_on_to_their_end() {
    let mut cores = cores(2, tiny);
    let lines = cores.lines(0..40);
    cores.send(0, on(0), &lines);
    cores.told(0, vec![Event::ReceiveEnded { connection: on(0), end: ReceiveEnd::Broken }]);
    cores.told(0, vec![Event::Closed { connection: on(0) }]);
    // Its slot has another tenant when the verdicts come.
    let tenant = ConnectionId { slot: 0, generation: 2 };
    let again = cores.lines(0..40);
    cores.send(0, tenant, &again);
    cores.settle();
    let answers = cores.answers(0);
    assert!(answers.contains("\"accepted\":0,\"duplicates\":40"), "{answers}");
    assert_eq!(answers.matches("HTTP/1.1").count(), 1, "the dead one's answer goes to nobody: {answers}");
    let ledger = cores.ledger(0);
    assert_eq!((ledger.received, ledger.accepted, ledger.duplicate, ledger.in_flight), (80, 40, 40, 0));
    assert_eq!(cores.clicks_logged(), 40);
}

#[test]
fn a_chunk_that_finds_no_room_in_the_log_goes_on_before_the_home_s_own_clicks() {
    let mut cores = cores(2, |config| config.log.frame_bytes = 8 << 10);
    let of_core_1 = |cores: &Cores, from: usize, clicks: usize| {
        let numbers: Vec<_> = (from..).filter(|number| cores.home(*number) == 1).take(clicks).collect();
        cores.lines(numbers.into_iter())
    };
    let own = of_core_1(&cores, 10_000, 3_000);
    cores.send(1, on(0), &own);
    let taken = cores.clicks_logged();
    assert!(0 < taken && taken < 3_000 && !cores.benches[1].core.staging.is_empty(), "{taken} clicks fill the log");
    let lines = of_core_1(&cores, 0, 20);
    cores.send(0, on(0), &lines);
    cores.deliver();
    assert!(cores.clicks_logged() == taken && !cores.benches[1].core.inbound.is_empty());
    let mut writes = 0;
    while cores.parcels.is_empty() {
        assert!(writes < 20, "the chunk does not go on");
        writes += 1;
        cores.benches[1].after(1_000_000);
        let buffer = cores.benches[1].writes.pop_front().expect("a write is under way as long as something waits");
        cores.told(1, vec![Event::LogWritten { buffer, end: WriteEnd::Synced }, Event::Idle]);
    }
    assert!(!cores.benches[1].core.staging.is_empty() && cores.answers(1).is_empty(), "its own clicks wait");
    cores.settle();
    assert!(cores.answers(0).contains("\"accepted\":20") && cores.answers(1).contains("\"accepted\":3000"));
    assert_eq!(cores.clicks_logged(), 3_020);
}

#[test]
fn a_stop_waits_for_what_other_cores_have_on_its_way_here() {
    let mut cores = cores(2, tiny);
    let lines = cores.lines(0..40);
    cores.send(0, on(0), &lines);
    let last_cuts = |cores: &Cores| {
        cores.benches.iter().map(|bench| bench.cuts.iter().filter(|cut| cut.last).count()).sum::<usize>()
    };
    for core in [1, 0] {
        cores.told(core, vec![Event::Stop { patience: Patience::Deadline }, Event::Idle]);
    }
    // Core 1 has no connection and says so; core 0 has clicks for it.
    while cores.chunks_on_their_way() > 0 {
        assert_eq!(last_cuts(&cores), 0, "no log ends while clicks come to it");
        cores.deliver();
        (0..2).for_each(|core| cores.written(core));
    }
    assert!(cores.answers(0).contains("\"accepted\":40"));
    cores.settle();
    assert_eq!(last_cuts(&cores), 0, "core 0 has a connection still");
    cores.told(0, vec![Event::ReceiveEnded { connection: on(0), end: ReceiveEnd::Finished }]);
    cores.told(0, vec![Event::Closed { connection: on(0) }, Event::Idle]);
    cores.settle();
    assert_eq!(last_cuts(&cores), 2);
    let clicks: u64 = cores.benches.iter().map(|bench| bench.cuts.last().unwrap().totals.clicks).sum();
    assert_eq!(clicks, 40);
}
