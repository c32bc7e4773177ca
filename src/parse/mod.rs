//! Pure. parse
