//! The global tier: adds the edges' partials up to panes and windows, keeps them in one embedded store, answers queries.

mod admin;
mod ads;
mod aside;
mod assembly;
mod backup;
mod batch;
mod catalogue;
#[cfg(test)]
mod catalogue_tests;
mod commit;
mod consumer;
mod dashboard;
mod directory;
mod durable;
mod edges;
mod entries;
#[cfg(test)]
mod fixture;
mod fold;
mod guard;
#[cfg(test)]
mod guard_tests;
mod hearing;
mod history;
mod http;
mod kafka;
mod keeper;
mod key;
mod load;
mod metrics;
mod panes;
mod partitions;
mod private_file;
mod progress;
mod query_side;
mod question;
mod question_error;
mod reading;
mod records;
mod rollup;
#[cfg(test)]
mod rollup_tests;
mod room;
mod service;
mod session;
mod signature;
mod snapshot;
mod source;
mod store;
#[cfg(test)]
mod store_tests;
mod sums;
mod tables;
mod tally;
mod tokens;
mod topic;
mod tops;
mod transaction;
mod whose;
mod window;
#[cfg(test)]
mod window_tests;

pub use admin::edge_json;
pub use assembly::{Kind, TooNew};
pub use backup::{BackupError, RestoreError, restore};
pub use batch::{Applied, Batch, Delivered, Delivery, TornTransaction};
pub use catalogue::{CATALOGUE_BYTES_MAX, Catalogue, CatalogueError, CatalogueFile, Owner};
pub use consumer::{Consumer, Stopped};
pub use dashboard::Page;
pub use directory::{STORE_FILE, is_known, of_the_global_tier};
pub use durable::{NotSynced, sync_names};
pub use edges::{EdgeState, Presence, TroubleKind};
pub use entries::Entries;
pub use hearing::{Heard, Hearing};
pub use http::{AGENTS, Access, CLASSES, DEVICES, Port, PortLimits, QUESTIONS_BYTES_MAX, serve};
pub use kafka::KafkaSettings;
pub use keeper::{Kept, RoomSeen, keep};
pub use key::PANE_MS;
pub use metrics::Meter;
pub use query_side::{QuerySide, QuerySideConfig, QuerySideError, Refused};
pub use question::{
    AsOf, Correction, CorrectionReason, CountRow, Counts, Filter, Group, GroupBy, Question, RankBy, Scope, Subject,
    Top, TopAd, TopQuestion, TopWindow, UserAgent,
};
pub use question_error::QuestionError;
pub use reading::{Reading, begin_at};
pub use records::{Place, Trouble};
pub use room::{Room, RoomWatch};
pub use service::{Addresses, ServiceConfig, ServiceError, run};
pub use snapshot::{Count, Snapshot};
pub use store::{MEMORY_BYTES_MAX, Options, Store};
pub use sums::{CLASS_VALID, Sums, USERS_ERROR};
pub use tables::StoreError;
pub use tally::ROWS_MAX;
pub use tokens::{Draft, RATE_DEFAULT, RATE_MAX, TOKENS_BYTES_MAX, TOKENS_FILE, Token, TokenError, TokenFile, Tokens};
pub use transaction::Refusal;
pub use window::{DAY_MS, Grain, Granularity, HOUR_MS, MINUTE_MS, Marks, Retention, Window, WindowState};
