//! Pure. Why a question about counts is not answered.

use crate::tables::StoreError;
use crate::tally::ROWS_MAX;

/// Why a question is not answered.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    /// Ask for less.
    #[error(
        "the answer has over {ROWS_MAX} rows before it is cut into pages; ask for a shorter span or a coarser granularity"
    )]
    TooWide,
    /// What is left of the span's beginning is not that fine.
    #[error("minutes before {kept_from_ms} ms are pruned, and their clicks are in hours")]
    Pruned { kept_from_ms: i64 },
    /// Ask again in a moment.
    #[error("the ranking of ads is still being read from the store; ask again in a moment")]
    NotYet,
    #[error(transparent)]
    Store(#[from] StoreError),
}
