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
    /// Ask for coarser windows: what is left of the span's beginning is not that fine.
    #[error("minutes before {kept_from_ms} ms are pruned, and their clicks are in hours")]
    TooFine { kept_from_ms: i64 },
    /// Ask for a later beginning: of the span's nothing is left, and a sum without it would be too small.
    #[error("hours before {kept_from_ms} ms are pruned")]
    Pruned { kept_from_ms: i64 },
    /// Ask again in a moment.
    #[error("the ranking of ads is still being read from the store; ask again in a moment")]
    NotYet,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl QuestionError {
    /// What can go wrong with a sum of what is kept, which has no rows.
    pub fn of_a_sum(self) -> StoreError {
        match self {
            QuestionError::Store(error) => error,
            QuestionError::TooWide
            | QuestionError::TooFine { .. }
            | QuestionError::Pruned { .. }
            | QuestionError::NotYet => unreachable!("a sum alone has no rows, and is of what is kept"),
        }
    }
}
