//! Pure. wal
