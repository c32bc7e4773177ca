//! Drives. Spreads connections evenly over the workers. The kernel spreads them over the listening sockets by a hash, which few
//! connections make uneven (of 64 over two cores, 38 and 26 are likely); so a worker hands one that it accepted to the worker that has the
//! fewest, if that has fewer than itself.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::chunk::CoreIndex;
use crate::inbox::{Inbound, Inbox};

/// One worker's part of it.
pub struct Spread {
    own: CoreIndex,
    /// Connections of each worker: open, and on their way to it.
    open: Arc<[AtomicU32]>,
    inboxes: Arc<[Inbox]>,
}

impl Spread {
    /// The parts of all workers, in order.
    pub fn over(inboxes: Arc<[Inbox]>) -> Vec<Spread> {
        let open: Arc<[AtomicU32]> = inboxes.iter().map(|_| AtomicU32::new(0)).collect();
        let part = |own| Spread { own, open: Arc::clone(&open), inboxes: Arc::clone(&inboxes) };
        (0..inboxes.len() as CoreIndex).map(part).collect()
    }

    /// Comes back if it is this worker's.
    pub fn place(&self, stream: TcpStream) -> Option<TcpStream> {
        let counts = || self.open.iter().map(|open| open.load(Ordering::Relaxed));
        let (fewest, count) = (0..).zip(counts()).min_by_key(|(_, count)| *count).unwrap_or((self.own, 0));
        let to = if count < self.open[usize::from(self.own)].load(Ordering::Relaxed) { fewest } else { self.own };
        self.open[usize::from(to)].fetch_add(1, Ordering::Relaxed);
        if to == self.own {
            return Some(stream);
        }
        // One that has ended takes it down with it, as a restart would.
        self.inboxes[usize::from(to)].send(Inbound::Connection(stream));
        None
    }

    /// So many of this worker's connections have ended.
    pub fn closed(&self, connections: u32) {
        self.open[usize::from(self.own)].fetch_sub(connections, Ordering::Relaxed);
    }
}
