//! What each command does beside serving clicks. Each takes what was read from the command line and returns how to exit.

pub mod check;
pub mod wal;
pub mod wal_repair;

#[cfg(test)]
mod wal_tests;
