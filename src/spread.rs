//! Drives. Spreads connections evenly over the workers. The kernel spreads them over the listening sockets by a hash, which few
//! connections make uneven (of 64 over two cores, 38 and 26 are likely); so a worker hands one that it accepted to the worker that has the
//! fewest, if that has fewer than itself. Where connections are to stay with the CPU that their packets arrive on, only what would
//! leave others idle is handed on.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::chunk::CoreIndex;
use crate::inbox::{Inbound, Inbox};

/// Kept where they arrived, connections are handed on from a worker with this many more than twice the fewest: a NIC whose hash
/// spreads few flows unevenly is let be, one with a single queue is not.
const KEPT_BEYOND: u32 = 8;

/// One worker's part of it.
pub struct Spread {
    own: CoreIndex,
    /// Connections of each worker: open, and on their way to it.
    open: Arc<[AtomicU32]>,
    inboxes: Arc<[Inbox]>,
    /// Each stays where it arrived, unless others would be idle.
    keeps: bool,
}

impl Spread {
    /// The parts of all workers, in order.
    pub fn over(inboxes: Arc<[Inbox]>, keeps: bool) -> Vec<Spread> {
        let open: Arc<[AtomicU32]> = inboxes.iter().map(|_| AtomicU32::new(0)).collect();
        let part = |own| Spread { own, open: Arc::clone(&open), inboxes: Arc::clone(&inboxes), keeps };
        (0..inboxes.len() as CoreIndex).map(part).collect()
    }

    /// Comes back if it is this worker's.
    pub fn place(&self, stream: TcpStream) -> Option<TcpStream> {
        let counts = || self.open.iter().map(|open| open.load(Ordering::Relaxed));
        let (fewest, count) = (0..).zip(counts()).min_by_key(|(_, count)| *count).unwrap_or((self.own, 0));
        let own = self.open[usize::from(self.own)].load(Ordering::Relaxed);
        let enough = if self.keeps { 2 * count + KEPT_BEYOND } else { count };
        let to = if own > enough { fewest } else { self.own };
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::wake::Wake;

    /// The first of two workers, and what the second is told.
    fn two(keeps: bool) -> (Spread, Receiver<Inbound>) {
        let inbox = || {
            let (sender, messages) = channel();
            let (wake, _) = Wake::pair().unwrap();
            (Inbox::new(sender, Arc::new(wake)), messages)
        };
        let ((first, _), (second, told)) = (inbox(), inbox());
        (Spread::over(Arc::from([first, second]), keeps).remove(0), told)
    }

    /// Of so many connections that all arrive at the first of two workers, how many it keeps.
    fn kept(keeps: bool, connections: usize) -> usize {
        let (spread, told) = two(keeps);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = || TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let kept = (0..connections).filter(|_| spread.place(stream()).is_some()).count();
        assert_eq!(kept + told.try_iter().count(), connections, "none is lost");
        kept
    }

    #[test]
    fn connections_are_halved_between_two() {
        assert_eq!((kept(false, 1), kept(false, 2), kept(false, 40)), (1, 1, 20));
    }

    #[test]
    fn kept_where_they_arrive_until_the_others_would_be_idle() {
        assert_eq!(kept(true, 9), 9);
        assert_eq!(kept(true, 10), 9, "one queue must not leave a worker idle");
        let most = kept(true, 90);
        assert!((58..=63).contains(&most), "about two thirds: {most}");
    }
}
