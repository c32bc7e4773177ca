//! Placeholder of ways_out.
