//! Three brokers, of which one after the other goes away, killed or in order, and comes back: the coordinator of the edge's
//! transactions and the leaders of its topics move under load. What was acknowledged stands on the topics exactly once, and one
//! and the same process goes on through all of it.
//!
//! `KAFKA_MOVES=60 cargo test --test kafka coordinator` moves them as often as one likes.

use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::client::{Client, Shape, while_sending};
use crate::document::timed_document;
use crate::edge::{Edge, wait_for_export};
use crate::exactly_once::judged;
use crate::reader::{coordinator_of, describe_topic};
use crate::server::Server;
use crate::shared;
use crate::wait::wait_until;

const MOVES: u64 = 6;
const SEED: u64 = 20_261_129;

/// Who leads what a commit needs, by a broker's id.
type Leaders = [u64; 3];
const NOBODY: u64 = 0;
const LED: [&str; 3] = ["coordinator", "partials", "checkpoints"];

fn moves() -> u64 {
    std::env::var("KAFKA_MOVES").map_or(MOVES, |text| text.parse().expect("a number of moves"))
}

/// The edge of three brokers, with two cores.
struct Exporting {
    edge: Edge,
    transactional_id: String,
    /// Of the topic of partials: where its records lie.
    partition: usize,
}

impl Exporting {
    fn new(brokers: &[Broker; 3]) -> Exporting {
        let all = brokers.each_ref().map(Broker::direct).join(",");
        let mut edge = Edge::new("moved", &all, &all);
        edge.two_cores = true;
        let transactional_id = format!("tollgate-{}@{}", edge.id, edge.topics.checkpoints);
        Exporting { edge, transactional_id, partition: 0 }
    }

    fn find_partition(&mut self) {
        let sum = self.edge.topics.committed();
        self.partition = sum.edge(&self.edge.id)["partitions"][0].as_u64().expect("it has committed") as usize;
    }

    fn leaders(&self) -> Leaders {
        let leader = |topic: &str, partition: usize| {
            describe_topic(&self.edge.brokers, topic)["leaders"][partition].as_u64().unwrap_or(NOBODY)
        };
        [
            coordinator_of(&self.edge.brokers, &self.transactional_id),
            leader(&self.edge.topics.partials, self.partition),
            leader(&self.edge.topics.checkpoints, 0),
        ]
    }

    /// Every replica has all of it, so that any broker may go.
    fn in_sync(&self) -> bool {
        ["__transaction_state", &self.edge.topics.partials, &self.edge.topics.checkpoints].iter().all(|topic| {
            let found = describe_topic(&self.edge.brokers, topic);
            let replicas = found["in_sync"].as_array().unwrap_or_else(|| panic!("in_sync in {found}"));
            !replicas.is_empty() && replicas.iter().all(|count| count == 3)
        })
    }
}

fn committed(server: &Server) -> u64 {
    server.scrape().sum("tollgate_export_transactions_total")
}

/// Ends the leader whose turn it is, waits until the edge commits without it, and brings it back. Returns what moved, and how long
/// the edge took.
fn round(nth: u64, brokers: &mut [Broker; 3], of: &Exporting, server: &Server) -> ([bool; 3], Duration) {
    let before = of.leaders();
    let gone = before[nth as usize % 3];
    let broker = brokers.iter_mut().find(|broker| u64::from(broker.id) == gone).expect("it leads, so it runs");
    let ended = if nth.is_multiple_of(2) {
        broker.kill();
        "killed"
    } else {
        broker.stop();
        "stopped"
    };
    let (seen, began) = (committed(server), Instant::now());
    // One may have been all but done.
    wait_until(&format!("round {nth}: a commit with broker {gone} {ended}"), || committed(server) > seen + 1);
    let took = began.elapsed();
    let mut after = before;
    wait_until(&format!("round {nth}: what broker {gone} led is led by another"), || {
        after = of.leaders();
        after.iter().all(|leader| ![NOBODY, gone].contains(leader))
    });
    broker.restart();
    wait_until(&format!("round {nth}: broker {gone} is in sync again"), || of.in_sync());
    (std::array::from_fn(|at| before[at] != after[at]), took)
}

#[test]
fn moves_of_the_coordinator_and_of_leaders_lose_and_double_nothing() {
    let (folder, began) = (shared::folder(), Instant::now());
    let mut brokers = Broker::start_three(folder.path());
    let mut of = Exporting::new(&brokers);
    let config = describe_topic(&of.edge.brokers, &of.edge.topics.partials)["config"].clone();
    assert_eq!(config["min.insync.replicas"], "2", "{config}");
    let mut clients = [Client::new(1, Shape::Lines(20), SEED), Client::new(2, Shape::Single, SEED)];
    clients.iter_mut().for_each(|client| client.pause = Duration::from_millis(10));
    let server = of.edge.start();
    wait_until("the first commits", || committed(&server) > 1);
    of.find_partition();
    wait_until("all brokers have all", || of.in_sync());

    let (mut moved, mut longest, mut told) = ([0; 3], Duration::ZERO, (0, 0));
    let address = server.clicks;
    let meanwhile = || {
        for nth in 0..moves() {
            let (moves, took) = round(nth, &mut brokers, &of, &server);
            moved.iter_mut().zip(moves).for_each(|(count, is)| *count += u64::from(is));
            longest = longest.max(took);
        }
        server
    };
    while_sending(&mut clients, address, meanwhile, |server| {
        wait_for_export(&server);
        told = (committed(&server), server.scrape().sum("tollgate_export_doubts_total"));
        // It is the process of the first commit, and ends well.
        server.stop();
    });
    let (clicks, aborted) = judged(&of.edge, &mut clients);
    let (commits, doubts) = told;
    println!("moves of {LED:?}: {moved:?}; a commit without the broker after {:.1} s at most", longest.as_secs_f64());
    let counts = format!(
        "\"brokers_ended\":{},\"moves\":{moved:?},\"commits\":{commits},\"clicks\":{clicks},\"in_doubt\":{doubts},\"aborted_records\":{aborted},\"lost\":0,\"doubled\":0",
        moves()
    );
    assert!(moved.iter().all(|count| *count >= moves() / 3), "{moved:?} moves of {LED:?}: too few");
    assert!(clicks > 1_000, "{clicks} clicks: too little load to prove anything");
    println!("{}", timed_document("kafka moves", &counts, began));
}
