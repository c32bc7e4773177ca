//! Pure. Settled requests whose replies wait for this core's log, the first to be durable in front.

use std::collections::VecDeque;

use crate::event::ConnectionId;

#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    pub lsn: u64,
    pub connection: ConnectionId,
    pub began_ns: u64,
    pub clicks: u32,
}

#[derive(Debug)]
pub struct WaitingReplies {
    queue: VecDeque<Waiting>,
}

impl WaitingReplies {
    pub fn with_capacity(replies: usize) -> WaitingReplies {
        WaitingReplies { queue: VecDeque::with_capacity(replies) }
    }

    /// Nearly always the last in order; one that waited for another home may come behind those of later records.
    #[inline(always)]
    pub fn push(&mut self, waiting: Waiting) {
        if self.queue.back().is_none_or(|last| last.lsn <= waiting.lsn) {
            self.queue.push_back(waiting);
        } else {
            let place = self.queue.partition_point(|other| other.lsn <= waiting.lsn);
            self.queue.insert(place, waiting);
        }
    }

    pub fn pop_due(&mut self, durable_lsn: u64) -> Option<Waiting> {
        self.queue.pop_front_if(|waiting| waiting.lsn <= durable_lsn)
    }

    pub fn is_due(&self, durable_lsn: u64) -> bool {
        self.queue.front().is_some_and(|waiting| waiting.lsn <= durable_lsn)
    }
}
