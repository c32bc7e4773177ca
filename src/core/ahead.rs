//! Pure. What is known of records before they are judged: the key of a click, hashed, and where it goes.

use std::collections::VecDeque;

use crate::chunk::CoreIndex;
use crate::dedup::Hashed;

/// A record that will be judged, and the key of a click as it will be looked up.
#[derive(Clone, Copy, Debug)]
pub struct Ahead {
    pub hashed: Option<Hashed>,
    pub length: u32,
    /// Where its partial probably is.
    pub sighted: u32,
    /// Its home.
    pub to: CoreIndex,
}

/// Records of one source that have been looked ahead at and not been judged, in order.
#[derive(Debug, Default)]
pub struct Lookahead {
    pub queue: VecDeque<Ahead>,
    /// Those at the front whose lines are on their way.
    pub fetched: usize,
}

impl Lookahead {
    pub fn with_capacity(records: usize) -> Lookahead {
        Lookahead { queue: VecDeque::with_capacity(records), fetched: 0 }
    }

    /// The next record's home, and its bytes.
    pub fn next(&self) -> Option<(CoreIndex, usize)> {
        self.queue.front().map(|ahead| (ahead.to, ahead.length as usize))
    }

    /// The next record is judged, or on its way to another home.
    #[inline]
    pub fn pass(&mut self) {
        self.queue.pop_front();
        self.fetched = self.fetched.saturating_sub(1);
    }
}

/// What is kept of a record that waits to be judged, beside itself.
pub const AHEAD_BYTES: usize = size_of::<Ahead>();
