//! Pure. net
