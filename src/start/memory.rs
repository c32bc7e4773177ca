//! Drives. What a start takes from the machine before anything is served: memory, and randomness.

use std::io;

use memmap2::{Advice, MmapMut};

use super::Failure;
use crate::config::{Config, FRAME_BUFFERS};
use crate::dedup;
use crate::event::{FrameBuffer, Now};
use crate::wal::writer::buffer_bytes;

/// Takes the tables' memory, in huge pages where the kernel has them, touched now rather than click by click. One secret: a key's
/// home follows from it.
pub(super) fn dedup_tables(config: &Config, now: Now) -> Result<Vec<dedup::Table>, Failure> {
    let (bytes, secret) = (config.dedup_bytes_a_core() as usize, random()?);
    let mut given = true;
    let mut table = || {
        let memory = MmapMut::map_anon(bytes).map_err(Failure::unavailable("the memory for remembered ids"))?;
        // Both are wishes: without them the table is slower, not wrong.
        given &= memory.advise(Advice::HugePage).is_ok() && memory.advise(Advice::PopulateWrite).is_ok();
        Ok(dedup::Table::new(memory, secret, &config.dedup, i64::MIN, now.wall_ms))
    };
    let tables = (0..config.cores()).map(|_| table()).collect::<Result<_, Failure>>()?;
    if !given {
        tracing::warn!("the kernel gives no huge pages: looking ids up costs up to three times as much");
    }
    Ok(tables)
}

pub(super) fn frame_buffers(config: &Config) -> Result<Vec<Box<FrameBuffer>>, Failure> {
    let buffer = |id| {
        let memory = MmapMut::map_anon(buffer_bytes(config.log.frame_bytes))?;
        Ok(Box::new(FrameBuffer { memory, id: id as u32 }))
    };
    (0..FRAME_BUFFERS).map(buffer).collect::<io::Result<_>>().map_err(Failure::unavailable("memory for frames"))
}

/// Bytes that nobody outside can guess.
pub(super) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Failure::unavailable("randomness")(error.into()))?;
    Ok(bytes)
}
