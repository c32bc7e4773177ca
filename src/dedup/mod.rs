//! Pure. dedup
