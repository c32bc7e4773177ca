//! Commits through a proxy that loses, delays, doubles and cuts requests, EndTxn above all: whatever it does, what was acknowledged
//! stands on the topics exactly once, and the edge goes on by itself.
//!
//! `KAFKA_COMMITS=10000 cargo test --test kafka faults` runs as many as one likes.

use std::time::Duration;

use crate::client::{Client, Shape, sums, while_sending};
use crate::edge::{Edge, wait_for_export};
use crate::rules::{Action, Api, Applied, Rule, When};
use crate::server::Server;
use crate::shared;
use crate::wait::wait_until;

/// Each of three edges, side by side: more than 500 in all.
const COMMITS: u64 = 170;

fn commits() -> u64 {
    std::env::var("KAFKA_COMMITS").map_or(COMMITS, |text| text.parse::<u64>().expect("a number of commits") / 3)
}

const MS: fn(u64) -> Duration = Duration::from_millis;

/// What happens to EndTxn, in percent of them; and, more rarely, to everything else.
fn at_the_end() -> Vec<(Api, u64, Action)> {
    vec![
        (Api::END_TXN, 4, Action::DropRequest),
        (Api::END_TXN, 4, Action::DropResponse),
        (Api::END_TXN, 3, Action::CutAtOnce),
        (Api::END_TXN, 4, Action::Duplicate),
        (Api::END_TXN, 3, Action::DeliverLate(MS(300))),
        (Api::END_TXN, 3, Action::DeliverLate(MS(3_000))),
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

/// Runs an edge under load through the faults until it has committed so often; all is exported when they end.
fn survives(name: &str, faults: &[(Api, u64, Action)]) {
    let (broker, proxy) = (shared::broker(), shared::proxy());
    let edge = Edge::new(name, &broker.direct(), &proxy.address().to_string());
    let mut clients = [Client::new(1, Shape::Lines(20), 5), Client::new(2, Shape::Single, 5)];
    clients.iter_mut().for_each(|client| client.pause = MS(5));
    let server = edge.start();
    wait_until("the first commit, without a fault", || committed(&server) > 0);
    let applied: Vec<Applied> = (1..)
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
    let server = edge.start();
    clients.iter_mut().for_each(|client| client.settle(server.clicks));
    wait_for_export(&server);
    server.stop();
    let sum = edge.check(&sums(&clients));
    let records = |sum: &crate::reader::Sum| sum.partials() + sum.ends();
    let aborted = records(&edge.topics.uncommitted()) - records(&sum);
    let times: Vec<u64> = applied.iter().map(Applied::times).collect();
    println!("{name}: {} commits, {} clicks, {aborted} aborted records, faults {times:?}", sum.ends(), sum.clicks());
    let none: Vec<_> = faults.iter().zip(&times).filter(|(_, times)| **times == 0).map(|(fault, _)| fault).collect();
    assert!(
        times.iter().sum::<u64>() > wanted / 10 && none.len() <= 2,
        "too few faults to prove anything: none of {none:?}"
    );
}

fn committed(server: &Server) -> u64 {
    server.scrape().sum("tollgate_export_transactions_total")
}

#[test]
fn faults_of_the_commit_lose_and_double_nothing() {
    survives("faults-end", &at_the_end());
}

#[test]
fn faults_of_what_is_sent_lose_and_double_nothing() {
    survives("faults-sent", &before_the_end());
}

#[test]
fn faults_of_each_contact_lose_and_double_nothing() {
    survives("faults-contact", &at_each_contact());
}
