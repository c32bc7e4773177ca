//! Pure. preagg
