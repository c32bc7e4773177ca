//! Commits through a proxy that loses, delays, doubles and cuts requests, EndTxn above all: whatever it does, what was acknowledged
//! stands on the topics exactly once, and the edge goes on by itself.
//!
//! `KAFKA_COMMITS=10000 cargo test --test kafka faults` runs as many as one likes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Client, Connection, Shape, sums, while_sending};
use crate::document::timed_document;
use crate::edge::{Edge, Off, wait_for_export};
use crate::end_txn::{FENCED, Outcomes};
use crate::rules::{Action, Api, Applied, Rule, When};
use crate::server::Server;
use crate::shared;
use crate::wait::wait_until;

/// Of all edges together.
const COMMITS: u64 = 510;
/// Requests of a client after the faults, one click in ten of them acknowledged before.
const SENT_AGAIN: usize = 200;
/// Of each kind of faults, side by side with those of the others: after a fault an edge does little but wait.
const EDGES: u64 = 2;
const KINDS: u64 = 3;

/// Of each edge.
fn commits() -> u64 {
    let all = std::env::var("KAFKA_COMMITS").map_or(COMMITS, |text| text.parse().expect("a number of commits"));
    all.div_ceil(EDGES * KINDS)
}

const MS: fn(u64) -> Duration = Duration::from_millis;

const LATE_END: Action = Action::DeliverLate(Duration::from_millis(3_000));

/// What happens to EndTxn, in percent of them; and, more rarely, to everything else.
fn at_the_end() -> Vec<(Api, u64, Action)> {
    vec![
        (Api::END_TXN, 4, Action::DropRequest),
        (Api::END_TXN, 4, Action::DropResponse),
        (Api::END_TXN, 3, Action::CutAtOnce),
        (Api::END_TXN, 4, Action::Duplicate),
        (Api::END_TXN, 3, Action::DeliverLate(MS(300))),
        // Later than its producer is fenced: what is tried above all.
        (Api::END_TXN, 5, LATE_END),
        (Api::END_TXN, 5, Action::DelayRequest(MS(150))),
        (Api::END_TXN, 5, Action::DelayResponse(MS(150))),
    ]
}

fn before_the_end() -> Vec<(Api, u64, Action)> {
    vec![
        (Api::PRODUCE, 3, Action::DropRequest),
        (Api::PRODUCE, 3, Action::DropResponse),
        (Api::PRODUCE, 2, Action::CutAtOnce),
        (Api::PRODUCE, 3, Action::Duplicate),
        (Api::PRODUCE, 2, Action::DeliverLate(MS(400))),
        (Api::ADD_PARTITIONS_TO_TXN, 3, Action::DropResponse),
        (Api::ADD_PARTITIONS_TO_TXN, 3, Action::Duplicate),
        (Api::ADD_PARTITIONS_TO_TXN, 2, Action::DeliverLate(MS(400))),
        (Api::END_TXN, 3, Action::DropResponse),
    ]
}

fn at_each_contact() -> Vec<(Api, u64, Action)> {
    vec![
        (Api::END_TXN, 12, Action::DropRequest),
        (Api::END_TXN, 8, Action::CutAtOnce),
        (Api::INIT_PRODUCER_ID, 15, Action::DropResponse),
        (Api::INIT_PRODUCER_ID, 10, Action::Duplicate),
        (Api::INIT_PRODUCER_ID, 10, Action::DeliverLate(MS(1_000))),
        (Api::FETCH, 10, Action::DropResponse),
        (Api::METADATA, 5, Action::DropRequest),
        (Api::FIND_COORDINATOR, 10, Action::DropResponse),
        (Api::LIST_OFFSETS, 10, Action::DropResponse),
    ]
}

/// What edges went through.
#[derive(Default)]
struct Survived {
    commits: u64,
    clicks: u64,
    aborted: u64,
    off: Off,
    /// How often each fault was applied.
    times: Vec<u64>,
    /// What the broker said to those of [`LATE_END`].
    late_ends: Outcomes,
}

/// Runs an edge, every second one with two cores, under load through the faults until it has committed so often; all is exported when they end.
fn survives(name: &str, nth: u64, faults: &[(Api, u64, Action)]) -> Survived {
    let (broker, proxy) = (shared::broker(), shared::proxy());
    let name = format!("{name}-{nth}");
    let mut edge = Edge::new(&name, &broker.direct(), &proxy.address().to_string());
    edge.two_cores = nth % 2 == 1;
    let mut clients = [Client::new(1, Shape::Lines(20), 5 + nth), Client::new(2, Shape::Single, 5 + nth)];
    clients.iter_mut().for_each(|client| client.pause = MS(5));
    let server = edge.start();
    wait_until("the first commit, without a fault", || committed(&server) > 0);
    let applied: Vec<Applied> = (1 + 100 * nth..)
        .zip(faults)
        .map(|(seed, &(api, share, action))| proxy.add(Rule { api, when: When::Percent { share, seed }, action }))
        .collect();
    let address = server.clicks;
    let (wanted, mut seen) = (commits(), 0);
    let meanwhile = || {
        // A transaction in doubt takes seconds, so patience is for each.
        while seen < wanted {
            wait_until("another commit", || committed(&server) > seen);
            seen = committed(&server);
        }
        server
    };
    while_sending(&mut clients, address, meanwhile, |server| {
        proxy.clear();
        wait_for_export(&server);
        server.stop();
    });
    // Ids find another home, and what is sent again is known there.
    edge.two_cores = !edge.two_cores;
    let server = edge.start();
    for client in &mut clients {
        let (duplicates, mut connection) = (client.duplicates, Connection::open(server.clicks).expect("it listens"));
        (0..SENT_AGAIN).for_each(|_| client.once(&mut connection).expect("it answers"));
        assert!(client.duplicates > duplicates, "nothing was sent again");
    }
    clients.iter_mut().for_each(|client| client.settle(server.clicks));
    wait_for_export(&server);
    server.stop();
    let (sum, off) = edge.compared(&sums(&clients));
    let records = |sum: &crate::reader::Sum| sum.partials() + sum.ends();
    let aborted = records(&edge.topics.uncommitted()) - records(&sum);
    let times: Vec<u64> = applied.iter().map(Applied::times).collect();
    let late = faults.iter().position(|fault| fault.2 == LATE_END);
    let late_ends = late.map(|at| applied[at].ends()).unwrap_or_default();
    println!("{name}: faults {times:?}, late ends {late_ends:?}, {off:?}");
    Survived { commits: sum.ends(), clicks: sum.clicks(), aborted, off, times, late_ends }
}

/// Two edges with these faults, that must have come.
fn both_survive(name: &'static str, faults: &[(Api, u64, Action)]) -> Survived {
    let all: Vec<Survived> = std::thread::scope(|scope| {
        let edges: Vec<_> = (0..EDGES).map(|nth| scope.spawn(move || survives(name, nth, faults))).collect();
        edges.into_iter().map(|edge| edge.join().unwrap_or_else(|_| panic!("{name} did not survive"))).collect()
    });
    let times: Vec<u64> = (0..faults.len()).map(|at| all.iter().map(|edge| edge.times[at]).sum()).collect();
    let none: Vec<_> = faults.iter().zip(&times).filter(|(_, times)| **times == 0).map(|(fault, _)| fault).collect();
    assert!(
        times.iter().sum::<u64>() > commits() * EDGES / 10
            && none.len() <= 2
            && none.iter().all(|fault| fault.2 != LATE_END),
        "{name}: too few faults to prove anything: none of {none:?}"
    );
    let mut late_ends = Outcomes::new();
    for (outcome, times) in all.iter().flat_map(|edge| &edge.late_ends) {
        *late_ends.entry(outcome).or_default() += times;
    }
    let sum = |of: fn(&Survived) -> u64| all.iter().map(of).sum();
    let off = Off { lost: sum(|one| one.off.lost), doubled: sum(|one| one.off.doubled) };
    let (commits, clicks) = (sum(|one| one.commits), sum(|one| one.clicks));
    Survived { commits, clicks, aborted: sum(|one| one.aborted), off, times, late_ends }
}

fn committed(server: &Server) -> u64 {
    server.scrape().sum("tollgate_export_transactions_total")
}

#[test]
fn faults_of_commits_of_what_is_sent_and_of_each_contact_lose_and_double_nothing() {
    let began = Instant::now();
    let kinds =
        [("faults-end", at_the_end()), ("faults-sent", before_the_end()), ("faults-contact", at_each_contact())];
    let all: Vec<Survived> = std::thread::scope(|scope| {
        let all: Vec<_> = kinds.iter().map(|(name, faults)| scope.spawn(move || both_survive(name, faults))).collect();
        all.into_iter().map(|one| one.join().expect("it survives")).collect()
    });
    let sum = |of: fn(&Survived) -> u64| all.iter().map(of).sum::<u64>();
    let (commits, clicks) = (sum(|one| one.commits), sum(|one| one.clicks));
    let (aborted, faults) = (sum(|one| one.aborted), sum(|one| one.times.iter().sum()));
    let (lost, doubled) = (sum(|one| one.off.lost), sum(|one| one.off.doubled));
    assert_eq!((lost, doubled), (0, 0), "what was sent and counted of each ad that is off stands above");
    let (at_the_end, late_ends) = (&all[0], &all[0].late_ends);
    let fenced = FENCED.iter().filter_map(|name| late_ends.get(name)).sum::<u64>();
    // Four in a hundred are drawn for it.
    let at_least = at_the_end.commits.div_ceil(100);
    assert!(fenced >= at_least, "{late_ends:?}: of {} commits no {at_least} came too late", at_the_end.commits);
    let each = kinds.iter().zip(&all).map(|((name, faults), survived)| {
        let of_rule = |((api, _, action), times): (&(Api, u64, Action), &u64)| (format!("{api:?} {action:?}"), *times);
        (*name, faults.iter().zip(&survived.times).map(of_rule).collect::<BTreeMap<_, _>>())
    });
    let (times, late_ends) = (json!(each.collect::<BTreeMap<_, _>>()), json!(late_ends));
    let counts = format!(
        "\"commits\":{commits},\"clicks\":{clicks},\"faults\":{faults},\"times\":{times},\"late_ends\":{late_ends},\"aborted_records\":{aborted},\"lost\":{lost},\"doubled\":{doubled}"
    );
    println!("{}", timed_document("kafka faults", &counts, began));
}
