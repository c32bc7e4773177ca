//! The global tier: adds the edges' partials up to panes, keeps them in one embedded store, answers queries.

mod key;
mod panes;
mod records;
mod store;
mod sums;
mod transaction;
mod users;

pub use store::{Snapshot, Store, StoreError};
pub use sums::Sums;
pub use transaction::{Refusal, crc_of};
