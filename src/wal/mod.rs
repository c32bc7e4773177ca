//! The log: records, frames, the writer's state, replay (all pure), and the files that they live in.

pub mod frame;
pub mod record;
pub mod writer;
