//! The way out: the export protocol as a state machine, and the sinks that it drives.

pub mod build;
mod compare;
pub mod exporter;
mod halt;
mod ranges;
mod steps;
#[cfg(test)]
mod tests;

pub use exporter::Exporter;
pub use halt::Halt;
pub use ranges::{LogStart, Start};
pub use steps::{Found, Outcome, Rebuilt, SinkError, Step, Told};
