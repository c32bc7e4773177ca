//! The edge against a real Kafka broker, through a proxy that loses, holds and doubles requests, read by a consumer that shares
//! nothing with it (`reader/`, Java). Every process here is a child of the test and ends with it; all is on the loopback.

mod broker;
mod harness;
mod java;
mod ports;
mod proxy;
mod reader;
mod rules;
mod secured;
mod shared;
mod wait;
