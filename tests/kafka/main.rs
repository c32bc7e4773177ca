//! The edge against a real Kafka broker, through a proxy that loses, holds and doubles requests, read by a consumer that shares
//! nothing with it (`reader/`, Java). Every process here is a child of the test and ends with it; all is on the loopback.
//! `scripts/kafka-jars` brings what Java needs. A test takes what it uses from here:
//!
//!     shared::broker(), shared::proxy()    a broker and a way to it through faults, for tests that do not harm the broker
//!     Broker::start(dir, &Setup { .. })    one of its own, to kill, stop, freeze and start again
//!     Broker::start_three(dir)             a cluster, in which any one may be away
//!     Topics::create(direct, name)         topics, and `committed()`, `uncommitted()`, `counted()`: what stands on them
//!     proxy.add(Rule { .. })               a fault; what it returns tells how often it was applied: assert it
//!
//! What the gate runs in short can be run for as long as one likes:
//!
//!     KAFKA_COMMITS=1500 cargo test --test kafka faults           commits through faults of EndTxn and others, of six edges together
//!                                                                 (510 in the gate)
//!     KAFKA_ROUNDS=1000 cargo test --test kafka kills             kills of the edge (50), of the broker and of both (20)
//!     KAFKA_MOVES=60 cargo test --test kafka coordinator          moves of the transactions' coordinator and of the topics' leaders (6)
//!     MILLION_CLICKS=1000000 cargo test --test kafka million      clicks through two edges and the global tier, killed in turn (60,000)
//!     FRESHNESS_RATE=200000 cargo test --release --workspace --test kafka freshness -- --nocapture
//!                                                                 clicks/s beside which the age of a count is measured (2,000)
//!     THROUGHPUT_SECONDS=20 cargo test --release --workspace --test kafka throughput -- --nocapture
//!                                                                 of 500,000 partials/s, to be counted by `tollgate global` (50,000 in all)
//!     KAFKA_OUTAGE_SECONDS=180 cargo test --test kafka outage     an outage with the log full (3 s)

mod adopt;
mod away;
mod broker;
// The clients and the child process of the crash tests: each test uses some of what they can.
#[allow(dead_code)]
#[path = "../crash/client.rs"]
mod client;
mod coordinator;
mod damaged;
#[path = "../sim/document.rs"]
mod document;
mod edge;
mod end_txn;
mod exactly_once;
mod faults;
mod freshness;
mod global;
mod global_reading;
mod harness;
mod java;
mod lag;
mod million;
mod night;
mod outage;
mod ports;
mod proxy;
mod raw;
mod reader;
mod refusals;
mod rights;
mod rules;
mod secured;
mod secured_edge;
mod sending;
#[allow(dead_code)]
#[path = "../crash/server.rs"]
mod server;
mod shared;
mod sizes;
mod slow;
mod throughput;
mod topics;
mod wait;
