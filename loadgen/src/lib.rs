//! The load generator as a library: [`plan::Plan`] says what to send, [`run::run`] sends it and checks every reply,
//! [`verify`] compares what was acknowledged with what the query API counts. The `prove` campaigns reuse all three.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod ads;
pub mod clicks;
pub mod client;
pub mod cpu;
pub mod feed;
pub mod lane;
pub mod ledger;
pub mod link;
pub mod plan;
pub mod prove;
pub mod reply;
pub mod report;
pub mod request;
pub mod run;
pub mod shapes;
pub mod text;
pub mod token;
pub mod verify;
