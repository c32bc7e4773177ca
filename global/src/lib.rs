//! The global tier: adds the edges' partials up to panes, keeps them in one embedded store, answers queries.

#[cfg(test)]
mod fixture;
mod fold;
mod http;
#[cfg(test)]
mod http_tests;
mod key;
mod panes;
mod query;
mod records;
mod snapshot;
mod store;
#[cfg(test)]
mod store_tests;
mod sums;
mod tables;
mod transaction;

pub use http::serve;
pub use snapshot::{Count, Snapshot};
pub use store::{MEMORY_BYTES_MAX, Store};
pub use sums::{CLASS_VALID, Sums};
pub use tables::StoreError;
pub use transaction::Refusal;
