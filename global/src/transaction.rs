//! Pure. Whether a transaction is whole and one that the store can keep: checked before anything of it is written.

use prost::Message;
use tollgate_wire::{FORMAT_VERSION, Partial, Transaction};

use crate::key::{PANE_MS, TEXT_BYTES_MAX};

/// More clicks than 100 M a second for a pane: keeps all sums far from 2^64.
const CLICKS_MAX: u64 = 1_000_000_000;

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
    #[error("partial {index}: {found} clicks, at most {CLICKS_MAX} are believed of one pane and transaction")]
    Clicks { index: u32, found: u64 },
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
    if partial.clicks > CLICKS_MAX {
        return Err(Refusal::Clicks { index, found: partial.clicks });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{partial, transaction};

    fn whole() -> Transaction {
        transaction("edge", 3, 0, vec![partial("a", 0, 0, 1, &[1]), partial("b", 10_000, 1, 2, &[])])
    }

    /// Changes a whole transaction, then makes the CRC right again, so that only the change can be what is refused.
    fn refusal(change: impl FnOnce(&mut Transaction)) -> Refusal {
        let mut changed = whole();
        change(&mut changed);
        changed.end.crc = crc_of(&changed.partials);
        check(&changed).expect_err("the change must be refused")
    }

    #[test]
    fn a_whole_transaction_passes() {
        assert_eq!(check(&whole()), Ok(()));
        assert_eq!(check(&transaction("edge", 1, 0, vec![])), Ok(()));
    }

    /// Pins what the CRC covers: the encoded partials one after another, CRC32C.
    #[test]
    fn the_crc_is_crc32c_over_the_encodings_in_order() {
        let partials = whole().partials;
        let bytes: Vec<u8> = partials.iter().flat_map(Message::encode_to_vec).collect();
        assert_eq!(u64::from(crc_of(&partials)), crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes));
        assert_eq!(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, b"123456789"), 0xe306_9283);
    }

    #[test]
    fn each_fault_is_refused_by_its_name() {
        let version = |what| Refusal::Version { what, found: 2 };
        assert_eq!(refusal(|t| t.end.format_version = 2), version("end record"));
        assert_eq!(refusal(|t| t.checkpoint.format_version = 2), version("checkpoint"));
        assert_eq!(refusal(|t| t.partials[1].format_version = 2), version("partial"));
        assert_eq!(refusal(|t| t.checkpoint.edge_id = "x".into()), other_edge("checkpoint", "edge", "x"));
        assert_eq!(refusal(|t| t.partials[1].edge_id = "x".into()), other_edge("partial", "edge", "x"));
        let seq = |what| Refusal::Seq { what, end: 3, other: 4 };
        assert_eq!(refusal(|t| t.checkpoint.txn_seq = 4), seq("checkpoint"));
        assert_eq!(refusal(|t| t.partials[0].txn_seq = 4), seq("partial"));
        assert_eq!(refusal(|t| t.partials.truncate(1)), Refusal::Count { expected: 2, found: 1 });
        assert_eq!(refusal(|t| t.partials.swap(0, 1)), Refusal::Index { position: 0, found: 1 });
        assert_eq!(refusal(|t| t.partials[1].pane_start_ms = -5), Refusal::Pane { index: 1, found: -5 });
        assert_eq!(refusal(|t| t.partials[1].clicks = u64::MAX), Refusal::Clicks { index: 1, found: u64::MAX });
        let long = "a".repeat(TEXT_BYTES_MAX + 1);
        let text = |field| Refusal::Text { index: 0, field, found: TEXT_BYTES_MAX + 1 };
        assert_eq!(refusal(|t| t.partials[0].ad_id = long.clone()), text("ad_id"));
        assert_eq!(refusal(|t| t.partials[0].campaign_id = long.clone()), text("campaign_id"));
        assert_eq!(refusal(|t| t.partials[0].advertiser_id = long.clone()), text("advertiser_id"));
        assert_eq!(refusal(|t| t.partials[0].region = long.clone()), text("region"));
    }

    #[test]
    fn a_changed_partial_fails_the_crc() {
        let mut changed = whole();
        changed.partials[0].clicks += 1;
        assert!(matches!(check(&changed), Err(Refusal::Crc { .. })));
    }
}
