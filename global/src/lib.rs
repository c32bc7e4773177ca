//! The global tier: adds the edges' partials up to panes and windows, keeps them in one embedded store, answers queries.

mod admin;
mod ads;
mod assembly;
mod backup;
mod batch;
mod commit;
mod consumer;
mod edges;
#[cfg(test)]
mod fixture;
mod fold;
mod history;
mod http;
mod kafka;
mod keeper;
mod key;
mod metrics;
mod panes;
mod progress;
mod question;
mod records;
mod rollup;
mod room;
mod service;
mod snapshot;
mod store;
#[cfg(test)]
mod store_tests;
mod sums;
mod tables;
mod tally;
mod tops;
mod transaction;
mod window;
#[cfg(test)]
mod window_tests;

pub use admin::edge_json;
pub use backup::{BackupError, restore};
pub use batch::{Applied, Batch, Delivered, Delivery, TornTransaction};
pub use consumer::{Consumer, Stopped};
pub use edges::{EdgeState, Presence, TroubleKind};
pub use http::{AGENTS, Access, CLASSES, DEVICES, serve};
pub use kafka::KafkaSettings;
pub use keeper::{RoomSeen, keep};
pub use key::PANE_MS;
pub use metrics::Meter;
pub use question::{
    AsOf, Correction, CorrectionReason, CountRow, Counts, Filter, Group, GroupBy, Question, RankBy, Scope, Subject,
    Top, TopAd, TopQuestion, TopWindow, UserAgent,
};
pub use records::{Place, Trouble};
pub use room::{Room, RoomWatch};
pub use service::{Addresses, STORE_FILE, ServiceConfig, ServiceError, run};
pub use snapshot::{Count, QuestionError, ROWS_MAX, Snapshot};
pub use store::{MEMORY_BYTES_MAX, Options, Store};
pub use sums::{CLASS_VALID, Sums, USERS_ERROR};
pub use tables::StoreError;
pub use transaction::Refusal;
pub use window::{DAY_MS, Grain, Granularity, HOUR_MS, MINUTE_MS, Marks, Retention, Window, WindowState};
