//! tollgate: the edge. Takes ad clicks in over HTTP, puts each on disk, and counts it exactly once.
//!
//! Read `docs/ARCHITECTURE.md` for the house and a click's way through it. In one line: drivers turn completions into
//! [`event::Event`]s, [`core::Core::apply`] turns a batch of them into [`event::Action`]s, drivers carry those out.

pub mod admin;
pub mod chunk;
pub mod cli;
pub mod click;
pub mod commands;
pub mod config;
pub mod core;
pub mod cut;
pub mod dedup;
pub mod end;
pub mod event;
pub mod exit;
pub mod export;
pub mod flags;
pub mod host;
pub mod inbox;
pub mod limits;
pub mod machine;
pub mod memory;
pub mod mesh;
pub mod meters;
pub mod metrics;
pub mod metrics_text;
pub mod net;
pub mod parse;
pub mod preagg;
pub mod probe;
pub mod run;
pub mod say;
pub mod settings;
pub mod spread;
pub mod start;
pub mod units;
pub mod wake;
pub mod wal;
pub mod worker;
