//! The way out: the export protocol as a state machine, and the sinks that it drives.

pub mod adoption;
pub mod bounds;
pub mod build;
mod compare;
mod contact;
pub mod embedded;
pub mod exporter;
mod halt;
pub mod kafka;
pub mod mirror;
pub mod names;
pub mod pacing;
mod ranges;
pub mod rebuild;
mod retry;
pub mod sink;
mod steps;
pub mod thread;

#[cfg(test)]
mod adoption_tests;
#[cfg(test)]
mod rebuild_tests;
#[cfg(test)]
mod tests;

pub use bounds::Room;
pub use compare::{listed_positions, positions};
pub use exporter::Exporter;
pub use halt::Halt;
pub use names::Names;
pub use ranges::{Adopted, Behind, LogStart, Mirror, Start};
pub use steps::{Found, Look, Outcome, Rebuilt, SinkError, Step, Told};
