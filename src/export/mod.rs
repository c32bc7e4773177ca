//! The way out: the export protocol as a state machine, and the sinks that it drives.

pub mod build;
mod compare;
pub mod embedded;
pub mod exporter;
mod halt;
pub mod pacing;
mod ranges;
pub mod rebuild;
mod steps;
pub mod thread;

#[cfg(test)]
mod rebuild_tests;
#[cfg(test)]
mod tests;

pub use compare::positions;
pub use exporter::Exporter;
pub use halt::Halt;
pub use ranges::{LogStart, Start};
pub use steps::{Found, Outcome, Rebuilt, SinkError, Step, Told};
