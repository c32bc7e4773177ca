//! The way out: the export protocol as a state machine, and the sinks that it drives.
