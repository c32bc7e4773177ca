//! The bodies of answers that their clients have not taken yet. They outlive the turn in which they were made, in a process that may
//! take clicks: small ones are bounded by the port's connections, of which each sends one at a time, large ones take their bytes from
//! a room that they share.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::answers::ROW_TEXT_BYTES_MAX;
use super::parameters::LIMIT_MAX;
use super::port::PortLimits;
use super::problem::Problem;

/// A body up to here needs no room of its own.
const SMALL_BYTES_MAX: usize = 32 << 10;
/// All others together: six of the largest.
const LARGE_BYTES_MAX: usize = 32 << 20;
const _: () = assert!(6 * LIMIT_MAX * ROW_TEXT_BYTES_MAX <= LARGE_BYTES_MAX);
/// The room is counted in these, for a semaphore's permits are.
const UNIT_BYTES: usize = 1 << 10;
/// What all bodies together may take of memory.
pub const BODIES_BYTES_MAX: usize = LARGE_BYTES_MAX + PortLimits::QUERY.connections_max * SMALL_BYTES_MAX;

/// Their room.
#[derive(Clone)]
pub struct Bodies {
    large: Arc<Semaphore>,
    units_max: usize,
}

impl Default for Bodies {
    fn default() -> Bodies {
        Bodies::with_bytes_max(LARGE_BYTES_MAX)
    }
}

impl Bodies {
    pub fn with_bytes_max(bytes_max: usize) -> Bodies {
        let units_max = bytes_max / UNIT_BYTES;
        Bodies { large: Arc::new(Semaphore::new(units_max)), units_max }
    }

    /// Room for a body, given back when that is dropped; None: it needs none. One that is larger than all of the room, of ids longer than an
    /// edge takes, has it to itself.
    pub fn place(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, Problem> {
        if bytes <= SMALL_BYTES_MAX {
            return Ok(None);
        }
        let units = bytes.div_ceil(UNIT_BYTES).min(self.units_max);
        match self.large.clone().try_acquire_many_owned(u32::try_from(units).expect("a few thousand")) {
            Ok(place) => Ok(Some(place)),
            Err(TryAcquireError::NoPermits) => Err(Problem::busy(
                "the answer is there, but clients are still taking so many large ones that there is no room for it; ask again, or for \
                 fewer rows",
            )),
            Err(TryAcquireError::Closed) => unreachable!("the semaphore is never closed"),
        }
    }

    #[cfg(test)]
    pub fn free_bytes(&self) -> usize {
        self.large.available_permits() * UNIT_BYTES
    }
}
