//! Pure. What a consumer hands to the store, and what became of it.

use std::collections::BTreeMap;

use tollgate_wire::{EndRecord, Transaction};

use crate::entries::Entries;
use crate::records::{Place, Trouble};
use crate::transaction::{self, Refusal};

/// A transaction that came whole: its end record's count and CRC hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    pub entries: Entries,
    pub end: EndRecord,
    /// Where its end record stands.
    pub place: Place,
}

impl Delivery {
    /// As it comes from an edge that has it in memory, checked.
    pub fn of(sent: Transaction, place: Place) -> Result<Delivery, Refusal> {
        Ok(Delivery { entries: transaction::check(&sent)?, end: sent.end, place })
    }

    /// It is whole, and can never be kept.
    pub fn torn(&self, why: String) -> TornTransaction {
        TornTransaction::new(self.end.edge_id.clone(), self.end.txn_seq, self.place, why)
    }
}

/// What is said of a torn transaction is cut here: it may quote what somebody else wrote.
const WHY_BYTES_MAX: usize = 200;

/// Records that no end record closes as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTransaction {
    pub edge_id: String,
    pub txn_seq: u64,
    /// Where that was seen.
    pub place: Place,
    pub why: String,
}

impl TornTransaction {
    pub fn new(edge_id: String, txn_seq: u64, place: Place, mut why: String) -> TornTransaction {
        if why.len() > WHY_BYTES_MAX {
            why.truncate(why.floor_char_boundary(WHY_BYTES_MAX));
            why.push('…');
        }
        TornTransaction { edge_id, txn_seq, place, why }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Delivered {
    Whole(Delivery),
    Torn(TornTransaction),
}

/// What was consumed since the last commit.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    pub deliveries: &'a [Delivered],
    /// Where to read on, of each partition: at the first record of what is not in the batch.
    pub offsets: &'a BTreeMap<i32, i64>,
    pub now_ms: i64,
    /// Windows do not close beyond this: edges whose partition is behind have not been heard. None: no partition is, everything that the
    /// topic had was counted.
    pub closing_cap_ms: Option<i64>,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    pub transactions: u64,
    pub partials: u64,
    pub clicks: u64,
    /// By edge, in the order in which they came.
    pub troubles: Vec<(String, Trouble)>,
}

impl Applied {
    pub fn add(&mut self, other: Applied) {
        self.transactions += other.transactions;
        self.partials += other.partials;
        self.clicks += other.clicks;
        self.troubles.extend(other.troubles);
    }
}
