//! The log: records, frames, the writer's state, replay (all pure), and the files that they live in.

pub mod durable;
pub mod extent;
mod extras;
pub mod frame;
pub mod keeper;
pub mod prepare;
pub mod reader;
pub mod record;
pub mod recover;
pub mod repairs;
pub mod replay;
pub mod segments;
pub mod writer;

#[cfg(test)]
mod recover_tests;
#[cfg(test)]
pub(crate) mod testing;
