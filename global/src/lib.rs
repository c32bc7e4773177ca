//! The global tier: adds the edges' partials up to panes, keeps them in one embedded store, answers queries.

#[cfg(test)]
mod fixture;
mod http;
#[cfg(test)]
mod http_tests;
mod key;
mod panes;
mod query;
mod records;
mod store;
#[cfg(test)]
mod store_tests;
mod sums;
mod transaction;

pub use http::serve;
pub use store::{Snapshot, Store, StoreError};
pub use sums::{CLASS_VALID, Sums};
pub use transaction::Refusal;
