//! Pure. A request under way: what is remembered of it, its twin, its turn among those that wait.

use std::cell::Cell;
use std::rc::Rc;

/// A request: everything needed to build it again, byte for byte.
#[derive(Debug)]
pub struct Request {
    pub first: u64,
    pub clicks: u32,
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

/// A request that goes out at its time, ordered by it.
pub struct Due {
    pub at_ns: u64,
    pub serial: u64,
    pub request: Request,
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
