//! Placeholder of damage.
