//! Pure. What the feed knows of one connection.

use crate::reply::Replies;
use crate::request::Request;
use std::collections::VecDeque;
use std::task::Waker;

#[derive(Default)]
pub struct Lane {
    /// Bytes to send; the connection takes the whole buffer.
    pub out: Vec<u8>,
    pub waker: Option<Waker>,
    /// Its oldest request timed out: the connection must be closed.
    pub kill: bool,
    pub open: bool,
    /// Closed loop: nothing goes out before, because the server said so; 0 where it did not.
    pub resume_ns: u64,
    pub in_flight: VecDeque<Request>,
    pub replies: Replies,
}

impl Lane {
    /// Whether another request may go out on it now.
    pub fn has_room(&self, pipeline: usize, now_ns: u64) -> bool {
        self.open && !self.kill && self.resume_ns <= now_ns && self.in_flight.len() < pipeline
    }

    /// Lets its task look at what there is to do.
    pub fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}
