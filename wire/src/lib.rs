//! Pure. What crosses from the edges to the global tier. `wire/partials.proto` is the contract; the structs here are its
//! hand-written twins (no protoc is needed to build), and a test holds the two together.

mod check;
mod coupons;
pub mod merge;
mod messages;
pub mod users;
mod view;

pub use check::{
    DecodeError, PartialsSum, TransactionError, crc_of, decode_checkpoint, decode_end_record, decode_partial,
    view_partial,
};
pub use messages::{Checkpoint, Click, EndRecord, LogPosition, LogRange, Partial};
pub use view::PartialView;

/// Format version of [`Partial`], [`EndRecord`] and [`Checkpoint`]; a reader refuses a newer one.
pub const FORMAT_VERSION: u32 = 1;

/// What one export makes final, all or nothing: partials, the end record that closes them, the checkpoint after them.
#[derive(Clone, Debug, PartialEq)]
pub struct Transaction {
    pub partials: Vec<Partial>,
    pub end: EndRecord,
    pub checkpoint: Checkpoint,
}
