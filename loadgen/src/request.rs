//! Pure. A request under way: what is remembered of it, its twin, its turn among those that wait.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

/// A request: everything needed to build it again, byte for byte.
#[derive(Debug)]
pub struct Request {
    /// Its clicks are the first so many, from this number on, whose home is its host.
    pub first: u64,
    pub clicks: u32,
    pub host: usize,
    pub broken: u32,
    pub stamp_ms: i64,
    pub planned_ns: u64,
    pub sent_ns: u64,
    pub attempts: u32,
    /// The connection that it must not go out on, because its twin did.
    pub avoid: Option<usize>,
    pub kind: Kind,
}

#[derive(Debug)]
pub enum Kind {
    /// The first sending of its clicks.
    Single,
    /// One of two sendings under way at once.
    Racing(Rc<Cell<Twins>>),
    /// Sent again after its clicks were acknowledged: all of them are duplicates.
    Repeat,
}

/// What came of two racing requests so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Twins {
    pub accepted: u32,
    pub answered: u32,
    pub gave_up: u32,
    pub retried: bool,
}

/// Requests that go out again at their times, of each host.
pub struct Later {
    queues: Vec<BinaryHeap<Reverse<Due>>>,
    serial: u64,
}

impl Later {
    pub fn new(hosts: usize) -> Later {
        Later { queues: (0..hosts).map(|_| BinaryHeap::new()).collect(), serial: 0 }
    }

    pub fn push(&mut self, at_ns: u64, request: Request) {
        self.serial += 1;
        self.queues[request.host].push(Reverse(Due { at_ns, serial: self.serial, request }));
    }

    /// What may go out now on this connection to its host.
    pub fn take(&mut self, host: usize, lane: usize, now_ns: u64) -> Option<Request> {
        let Reverse(due) = self.queues[host].peek()?;
        let goes = due.at_ns <= now_ns && due.request.avoid != Some(lane);
        if goes { self.queues[host].pop().map(|Reverse(due)| due.request) } else { None }
    }

    /// When the first of them all goes out.
    pub fn first_ns(&self) -> Option<u64> {
        self.queues.iter().filter_map(BinaryHeap::peek).map(|Reverse(due)| due.at_ns).min()
    }

    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(BinaryHeap::is_empty)
    }

    pub fn take_all(&mut self) -> Vec<Request> {
        self.queues.iter_mut().flat_map(std::mem::take).map(|Reverse(due)| due.request).collect()
    }
}

/// Ordered by its time.
struct Due {
    at_ns: u64,
    serial: u64,
    request: Request,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.serial == other.serial
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at_ns, self.serial).cmp(&(other.at_ns, other.serial))
    }
}
