//! Kills of the edge, of the broker and of both, under load: what was acknowledged stands on the topics exactly once, and records
//! of transactions that were aborted were really there.
//!
//! `KAFKA_ROUNDS=1000 cargo test --test kafka kills` runs as many as one likes.

use std::time::Duration;

use crate::broker::{Broker, Setup};
use crate::client::{Client, Random, Shape, sums, while_sending};
use crate::edge::{Edge, wait_for_export};
use crate::proxy::Proxy;
use crate::rules::{Action, Api, Rule, When};
use crate::server::{Server, tollgate};
use crate::shared;
use crate::wait::{let_pass, wait_until};

const KILLS_OF_THE_EDGE: u64 = 50;
const KILLS_OF_THE_BROKER: u64 = 20;
const SEED: u64 = 20_261_122;

fn rounds(default: u64) -> u64 {
    std::env::var("KAFKA_ROUNDS").map_or(default, |text| text.parse().expect("a number of rounds"))
}

fn clients(seed: u64) -> Vec<Client> {
    let shapes = [Shape::Single, Shape::Pipelined(8), Shape::Lines(20), Shape::Lines(40)];
    (1..).zip(shapes).map(|(number, shape)| Client::new(number, shape, seed)).collect()
}

/// Everything is settled and exported; what stands on the topics is what the clients know. Returns the clicks and how many
/// records were aborted.
#[track_caller]
pub fn judged(edge: &Edge, clients: &mut [Client]) -> (u64, u64) {
    let server = edge.start();
    clients.iter_mut().for_each(|client| client.settle(server.clicks));
    wait_for_export(&server);
    server.stop();
    let sum = edge.check(&sums(clients));
    let (code, text) = tollgate(&edge.data_dir, &["audit"]);
    let stands = format!("{} clicks of these logs should stand there, 0 are not known", sum.clicks());
    assert!(code == Some(0) && text.contains(&stands), "{code:?}: {text}");
    let uncommitted = edge.topics.uncommitted();
    let records = |sum: &crate::reader::Sum| sum.partials() + sum.ends();
    (sum.clicks(), records(&uncommitted) - records(&sum))
}

/// When the edge is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Any,
    /// Records of a transaction are on their way.
    Sending,
    /// The commit is asked for, and its answer has not come.
    Committing,
}

/// Returns at that moment; at the latest after a time, where it does not come.
fn wait_for(moment: Moment, proxy: &Proxy, random: &mut Random) {
    let next = |api| {
        let seen = proxy.requests(api);
        crate::wait::within(Duration::from_secs(10), || proxy.requests(api) > seen);
    };
    match moment {
        Moment::Any => let_pass(Duration::from_millis(20 + random.below(900))),
        Moment::Sending => next(Api::PRODUCE),
        Moment::Committing => next(Api::END_TXN),
    }
}

#[test]
fn kills_of_the_edge_lose_and_double_nothing() {
    let (broker, proxy) = (shared::broker(), shared::proxy());
    let edge = Edge::new("killed", &broker.direct(), &proxy.address().to_string());
    let (mut clients, mut random) = (clients(SEED), Random::new(SEED));
    clients.iter_mut().for_each(|client| client.pause = Duration::from_millis(4));
    for round in 0..rounds(KILLS_OF_THE_EDGE) {
        let moment = [Moment::Any, Moment::Sending, Moment::Committing][round as usize % 3];
        proxy.clear();
        // The broker sees every other commit before the kill, and the others perhaps after the next start.
        let delay = Duration::from_millis(random.below(60));
        let action = if round % 2 == 0 { Action::DelayRequest(delay) } else { Action::DelayResponse(delay) };
        proxy.add(Rule { api: Api::END_TXN, when: When::Each, action });
        let server = edge.start();
        let address = server.clicks;
        let meanwhile = || {
            wait_for(moment, &proxy, &mut random);
            server
        };
        while_sending(&mut clients, address, meanwhile, Server::kill);
    }
    proxy.clear();
    let (clicks, aborted) = judged(&edge, &mut clients);
    println!("{} kills, {clicks} clicks, {aborted} aborted records", rounds(KILLS_OF_THE_EDGE));
    assert!(clicks > 5_000, "{clicks} clicks: too little load to prove anything");
    assert!(aborted > 50, "{aborted} aborted records: no transaction was cut off");
}

/// Every third time the edge goes with it.
#[test]
fn kills_of_the_broker_and_of_both_lose_and_double_nothing() {
    let folder = shared::folder();
    let mut broker = Broker::start(folder.path(), &Setup { proxies: 1, secured: false });
    let address = broker.proxy(0).address().to_string();
    let edge = Edge::new("shaken", &broker.direct(), &address);
    let (mut clients, mut random) = (clients(SEED + 1), Random::new(SEED + 1));
    clients.iter_mut().for_each(|client| client.pause = Duration::from_millis(5));
    let mut server = Some(edge.start());
    for round in 0..rounds(KILLS_OF_THE_BROKER) {
        let running = server.take().unwrap_or_else(|| edge.start());
        let (clicks, both) = (running.clicks, round % 3 == 2);
        let moment = [Moment::Any, Moment::Sending, Moment::Committing][(round as usize / 3) % 3];
        let (kept, broker, random) = (&mut server, &mut broker, &mut random);
        let meanwhile = || {
            let exported = running.scrape().sum("tollgate_export_transactions_total");
            wait_until("it exports", || running.scrape().sum("tollgate_export_transactions_total") > exported);
            wait_for(moment, broker.proxy(0), random);
            broker.kill();
            running
        };
        while_sending(&mut clients, clicks, meanwhile, |running| {
            if both {
                running.kill();
            } else {
                *kept = Some(running);
            }
        });
        broker.restart();
    }
    if let Some(server) = server {
        wait_for_export(&server);
        server.stop();
    }
    let (clicks, aborted) = judged(&edge, &mut clients);
    println!("{} kills, {clicks} clicks, {aborted} aborted records", rounds(KILLS_OF_THE_BROKER));
    assert!(clicks > 2_000, "{clicks} clicks: too little load to prove anything");
}

/// Each transaction fences whoever came before, so it has to look whether somebody wrote.
#[test]
fn a_rival_that_wrote_between_two_transactions_is_noticed() {
    let broker = shared::broker();
    let edge = Edge::new("rival", &broker.direct(), &broker.direct());
    let server = edge.start();
    wait_until("it exports", || server.scrape().sum("tollgate_export_transactions_total") > 1);
    edge.topics.produce(&broker.direct(), &["--edge", &edge.id]).expect("written");
    let ended = server.ended_within(crate::wait::PATIENCE);
    assert_eq!(ended.code, Some(74), "{}", ended.errors);
    assert!(ended.errors.contains("stop one of them") || ended.errors.contains("rewound"), "{}", ended.errors);
}
