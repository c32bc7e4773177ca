//! The way out: the export protocol as a state machine, and the sinks that it drives.

pub mod build;
mod compare;
mod contact;
pub mod embedded;
pub mod exporter;
mod halt;
pub mod kafka;
pub mod mirror;
pub mod pacing;
mod ranges;
pub mod rebuild;
pub mod sink;
mod steps;
pub mod thread;

#[cfg(test)]
mod rebuild_tests;
#[cfg(test)]
mod tests;

pub use compare::positions;
pub use exporter::Exporter;
pub use halt::Halt;
pub use ranges::{Adopted, Behind, LogStart, Mirror, Start};
pub use steps::{Found, Outcome, Rebuilt, SinkError, Step, Told};
