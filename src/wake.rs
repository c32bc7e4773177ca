//! Drives. Rings a sleeping worker awake: an eventfd whose other end its ring reads.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{EventfdFlags, eventfd};

/// The ringing end; any thread may ring it.
#[derive(Debug)]
pub struct Wake {
    file: OwnedFd,
}

impl Wake {
    /// Both ends: ours, and the one for the worker's ring.
    pub fn pair() -> io::Result<(Wake, OwnedFd)> {
        let file = eventfd(0, EventfdFlags::CLOEXEC)?;
        let reader = file.try_clone()?;
        Ok((Wake { file }, reader))
    }

    /// Another handle on the same bell.
    pub fn try_clone(&self) -> io::Result<Wake> {
        Ok(Wake { file: self.file.try_clone()? })
    }

    /// Rings. The counter cannot overflow: the worker reads it to zero.
    pub fn ring(&self) {
        let rung = rustix::io::write(&self.file, &1_u64.to_ne_bytes());
        debug_assert!(rung.is_ok(), "an eventfd takes a write: {rung:?}");
    }
}
