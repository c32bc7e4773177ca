//! The real binary against kills, damage, signals and full disks: what was acknowledged is counted once. Every process here is
//! a child of the test, ended by its own id; ports are 0, directories temporary.

mod campaign;
mod client;
mod contended;
mod damage;
mod fresh;
mod halts;
mod key_rule;
mod limits;
mod metrics;
mod night;
mod server;
mod settings;
mod stopping;
mod traced;
mod ways_out;
