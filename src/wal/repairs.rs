//! Pure. A loss that an operator accepted: where in the log the reader jumps over what is damaged. It is written by
//! `tollgate wal repair` as a file beside the segments, is the audit of the repair, and is never changed.
//!
//! A repair is bound to one exact place (segment, offset, LSN and chain), so it can hide nothing but the damage that it was
//! made for. LSNs are never reused: what comes after the jump goes on beyond the lost range.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::replay::LogReplay;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repair {
    /// The damage: the last sound record and the chain at it, and the place of the frame after it.
    pub lsn: u64,
    pub chain: u64,
    pub segment: u64,
    pub offset: u64,
    /// Where the log goes on: the last lost record, the chain from there, and the place of the next sound frame;
    /// segment 0: in a new segment.
    pub to_lsn: u64,
    pub to_chain: u64,
    pub to_segment: u64,
    pub to_offset: u64,
    /// The horizon is at least this from here on: ids of the lost records are not remembered.
    pub horizon_ms: i64,
    /// For people: what was done, when, and what is known of what was lost.
    pub audit: Audit,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    pub log_id: String,
    pub repaired_ms: i64,
    /// `raise-horizon` or `accept-loss`.
    pub kind: String,
    pub damage: String,
    pub lost_records: u64,
    /// Whether that is the number, or the most that it can be.
    pub lost_records_exact: bool,
    pub lost_clicks: Option<u64>,
}

impl Repair {
    /// Whether this is the repair of the damage at this place.
    pub fn applies(&self, replay: &LogReplay, segment: u64, offset: u64) -> bool {
        (self.lsn, self.chain, self.segment, self.offset) == (replay.lsn, replay.chain, segment, offset)
    }

    /// The chain with which a log goes on after a loss at its end: no frame has it by itself.
    pub fn chain_after(chain: u64, to_lsn: u64) -> u64 {
        xxh3_64_with_seed(b"tollgate repair", chain ^ to_lsn.rotate_left(32))
    }
}
