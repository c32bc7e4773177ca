//! Pure. Whether a transaction is whole and one that the store can keep: checked before anything of it is written.

use tollgate_wire::{FORMAT_VERSION, PartialView, Transaction, TransactionError};

use crate::entries::Entries;
use crate::key::{PANE_MS, TEXT_BYTES_MAX};

/// More clicks than 100 M a second for a pane: keeps all sums far from 2^64.
const CLICKS_MAX: u64 = 1_000_000_000;

/// Why a transaction is refused: it was torn on its way or built wrongly; sending it again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("format version {found} of the {what}; this tollgate reads 1 to {FORMAT_VERSION}: update it")]
    Version { what: &'static str, found: u32 },
    #[error("the transaction is not whole: {0}")]
    Torn(#[from] TransactionError),
    #[error("partial {index}: pane start {found} ms is no multiple of {PANE_MS}")]
    Pane { index: u32, found: i64 },
    #[error("partial {index}: {found} clicks, at most {CLICKS_MAX} are believed of one pane and transaction")]
    Clicks { index: u32, found: u64 },
    #[error("partial {index} names no ad")]
    NoAd { index: u32 },
    #[error("partial {index}: {field} has {found} bytes, at most {TEXT_BYTES_MAX} are kept")]
    Text { index: u32, field: &'static str, found: usize },
    #[error("{0}")]
    Run(String),
}

/// What the transaction adds to rows: it is all that its end record closes, and each partial can be a row.
pub fn check(transaction: &Transaction) -> Result<Entries, Refusal> {
    check_version("end record", transaction.end.format_version)?;
    check_version("checkpoint", transaction.checkpoint.format_version)?;
    let entries = Entries::of(&transaction.partials)?;
    transaction.check()?;
    Ok(entries)
}

/// The partial can be a row.
pub fn check_partial(partial: &PartialView<'_>) -> Result<(), Refusal> {
    let index = partial.index;
    check_version("partial", partial.format_version)?;
    if partial.pane_start_ms.rem_euclid(PANE_MS) != 0 {
        return Err(Refusal::Pane { index, found: partial.pane_start_ms });
    }
    if partial.clicks > CLICKS_MAX {
        return Err(Refusal::Clicks { index, found: partial.clicks });
    }
    if partial.ad_id.is_empty() {
        return Err(Refusal::NoAd { index });
    }
    let texts = [
        ("ad_id", partial.ad_id),
        ("campaign_id", partial.campaign_id),
        ("advertiser_id", partial.advertiser_id),
        ("region", partial.region),
    ];
    for (field, text) in texts {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Refusal::Text { index, field, found: text.len() });
        }
    }
    Ok(())
}

fn check_version(what: &'static str, found: u32) -> Result<(), Refusal> {
    if (1..=FORMAT_VERSION).contains(&found) { Ok(()) } else { Err(Refusal::Version { what, found }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{partial, transaction};

    fn whole() -> Transaction {
        transaction("edge", 3, 0, vec![partial("a", 0, 0, 1, &[1]), partial("b", 10_000, 1, 2, &[])])
    }

    fn refusal(change: impl FnOnce(&mut Transaction)) -> Refusal {
        let mut changed = whole();
        change(&mut changed);
        check(&changed).expect_err("the change must be refused")
    }

    #[test]
    fn a_whole_transaction_passes() {
        let entries = check(&whole()).expect("it is");
        let found: Vec<_> = entries.iter().map(|entry| (entry.clicks, entry.users.is_empty())).collect();
        assert_eq!((found, entries.len()), (vec![(1, false), (2, true)], 2));
        assert!(check(&transaction("edge", 1, 0, vec![])).expect("it is").is_empty());
    }

    /// Pins what the CRC covers: the encoded partials one after another, CRC32C.
    #[test]
    fn each_fault_is_refused_by_its_name() {
        for found in [0, 2] {
            let version = |what| Refusal::Version { what, found };
            assert_eq!(refusal(|t| t.end.format_version = found), version("end record"));
            assert_eq!(refusal(|t| t.checkpoint.format_version = found), version("checkpoint"));
            assert_eq!(refusal(|t| t.partials[1].format_version = found), version("partial"));
        }
        assert_eq!(refusal(|t| t.partials[1].pane_start_ms = -5), Refusal::Pane { index: 1, found: -5 });
        assert_eq!(refusal(|t| t.partials[1].clicks = u64::MAX), Refusal::Clicks { index: 1, found: u64::MAX });
        assert_eq!(refusal(|t| t.partials[1].ad_id.clear()), Refusal::NoAd { index: 1 });
        let long = "a".repeat(TEXT_BYTES_MAX + 1);
        let text = |field| Refusal::Text { index: 0, field, found: TEXT_BYTES_MAX + 1 };
        assert_eq!(refusal(|t| t.partials[0].ad_id = long.clone()), text("ad_id"));
        assert_eq!(refusal(|t| t.partials[0].campaign_id = long.clone()), text("campaign_id"));
        assert_eq!(refusal(|t| t.partials[0].advertiser_id = long.clone()), text("advertiser_id"));
        assert_eq!(refusal(|t| t.partials[0].region = long.clone()), text("region"));
    }

    /// What the wire itself can tell is checked too.
    #[test]
    fn a_torn_transaction_is_refused() {
        assert!(matches!(refusal(|t| t.partials[0].region = "FR".into()), Refusal::Torn(TransactionError::Crc { .. })));
        assert!(matches!(refusal(|t| drop(t.partials.pop())), Refusal::Torn(TransactionError::Partials { .. })));
    }
}
