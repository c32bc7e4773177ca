//! Placeholder of stopping.
