//! What the subcommands do, apart from running the edge. Each takes parsed arguments and says how the process ends.

pub mod wal;
pub mod wal_repair;

#[cfg(test)]
mod wal_tests;
