//! Pure. Whether a transaction is whole and one that the store can keep: checked before anything of it is written.

use prost::Message;
use tollgate_wire::{FORMAT_VERSION, Partial, Transaction};

use crate::key::{PANE_MS, TEXT_BYTES_MAX};

/// Why a transaction is refused: it was torn on its way or built wrongly; sending it again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("format version {found} of the {what}; this tollgate reads up to {FORMAT_VERSION}: update it")]
    Version { what: &'static str, found: u32 },
    #[error("the end record is of edge {end:?}, the {what} of {other:?}")]
    Edge { what: &'static str, end: String, other: String },
    #[error("the end record closes transaction {end}, the {what} is of {other}")]
    Seq { what: &'static str, end: u64, other: u64 },
    #[error("{found} partials, the end record counts {expected}")]
    Count { expected: u32, found: usize },
    #[error("partial {position} has index {found}")]
    Index { position: usize, found: u32 },
    #[error("CRC32C over the partials is {found:#010x}, the end record says {expected:#010x}")]
    Crc { expected: u32, found: u32 },
    #[error("partial {index}: pane start {found} ms is no multiple of {PANE_MS}")]
    Pane { index: u32, found: i64 },
    #[error("partial {index}: {field} has {found} bytes, at most {TEXT_BYTES_MAX} are kept")]
    Text { index: u32, field: &'static str, found: usize },
    #[error("{0}")]
    Run(String),
}

/// CRC32C over the encoded partials, in order: what the end record carries.
pub fn crc_of(partials: &[Partial]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    let mut scratch = Vec::new();
    for partial in partials {
        scratch.clear();
        partial.encode_raw(&mut scratch);
        digest.update(&scratch);
    }
    digest.finalize() as u32
}

/// The transaction is all that its end record closes, and each partial can be a row.
pub fn check(transaction: &Transaction) -> Result<(), Refusal> {
    let (end, checkpoint) = (&transaction.end, &transaction.checkpoint);
    check_version("end record", end.format_version)?;
    check_version("checkpoint", checkpoint.format_version)?;
    if checkpoint.edge_id != end.edge_id {
        return Err(other_edge("checkpoint", &end.edge_id, &checkpoint.edge_id));
    }
    if checkpoint.txn_seq != end.txn_seq {
        return Err(Refusal::Seq { what: "checkpoint", end: end.txn_seq, other: checkpoint.txn_seq });
    }
    if transaction.partials.len() != end.partials as usize {
        return Err(Refusal::Count { expected: end.partials, found: transaction.partials.len() });
    }
    for (position, partial) in transaction.partials.iter().enumerate() {
        check_partial(transaction, position, partial)?;
    }
    let crc = crc_of(&transaction.partials);
    if crc != end.crc {
        return Err(Refusal::Crc { expected: end.crc, found: crc });
    }
    Ok(())
}

fn check_partial(transaction: &Transaction, position: usize, partial: &Partial) -> Result<(), Refusal> {
    let end = &transaction.end;
    check_version("partial", partial.format_version)?;
    if partial.edge_id != end.edge_id {
        return Err(other_edge("partial", &end.edge_id, &partial.edge_id));
    }
    if partial.txn_seq != end.txn_seq {
        return Err(Refusal::Seq { what: "partial", end: end.txn_seq, other: partial.txn_seq });
    }
    let index = partial.index;
    if index as usize != position {
        return Err(Refusal::Index { position, found: index });
    }
    if partial.pane_start_ms.rem_euclid(PANE_MS) != 0 {
        return Err(Refusal::Pane { index, found: partial.pane_start_ms });
    }
    let texts = [
        ("ad_id", &partial.ad_id),
        ("campaign_id", &partial.campaign_id),
        ("advertiser_id", &partial.advertiser_id),
        ("region", &partial.region),
    ];
    for (field, text) in texts {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Refusal::Text { index, field, found: text.len() });
        }
    }
    Ok(())
}

fn check_version(what: &'static str, found: u32) -> Result<(), Refusal> {
    if found > FORMAT_VERSION { Err(Refusal::Version { what, found }) } else { Ok(()) }
}

fn other_edge(what: &'static str, end: &str, other: &str) -> Refusal {
    Refusal::Edge { what, end: end.into(), other: other.into() }
}
