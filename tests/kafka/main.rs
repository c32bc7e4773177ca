//! The edge against a real Kafka broker, through a proxy that loses, holds and doubles requests, read by a consumer that shares
//! nothing with it (`reader/`, Java). Every process here is a child of the test and ends with it; all is on the loopback.
//! `scripts/kafka-jars` brings what Java needs. A test takes what it uses from here:
//!
//!     shared::broker(), shared::proxy()    a broker and a way to it through faults, for tests that do not harm the broker
//!     Broker::start(dir, &Setup { .. })    one of its own, to kill, stop, freeze and start again
//!     Topics::create(direct, name)         topics, and `committed()`, `uncommitted()`, `counted()`: what stands on them
//!     proxy.add(Rule { .. })               a fault; what it returns tells how often it was applied: assert it

mod adopt;
mod away;
mod broker;
// The clients and the child process of the crash tests: each test uses some of what they can.
#[allow(dead_code)]
#[path = "../crash/client.rs"]
mod client;
mod edge;
mod exactly_once;
mod faults;
mod harness;
mod java;
mod lag;
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
mod topics;
mod wait;
