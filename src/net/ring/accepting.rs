//! Drives. The listening socket while the ring accepts from it: one multishot accept at a time, armed again when it ended,
//! a while later where descriptors had run out.

use std::net::TcpListener;
use std::os::fd::AsRawFd;

use io_uring::squeue::Entry;
use io_uring::types::{Fd, Timespec};
use io_uring::{cqueue, opcode};

/// Without descriptors accepting is tried again after this time: others may hold them, so that no end of ours says when.
static RETRY_AFTER: Timespec = Timespec::new().nsec(100_000_000);

pub(super) struct Accepting {
    listener: Option<TcpListener>,
    armed: bool,
    /// For want of descriptors, until the timer in the ring has run out.
    blocked: bool,
    /// Descriptors have been wanting since the last connection was accepted.
    short: bool,
    /// The accept in flight was cancelled: the listener, which it names, is closed when it has ended.
    stopping: bool,
}

/// What came of an accept beside a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ended {
    /// Set the timer.
    pub retry: bool,
    /// Descriptors have begun to be wanting.
    pub began_short: bool,
}

impl Accepting {
    /// Without a listener nobody can connect.
    pub fn new(listener: Option<TcpListener>) -> Accepting {
        Accepting { listener, armed: false, blocked: false, short: false, stopping: false }
    }

    /// The accept to submit, if one is due.
    pub fn due(&mut self) -> Option<Entry> {
        let listener = self.listener.as_ref().filter(|_| !self.armed && !self.blocked && !self.stopping)?;
        self.armed = true;
        Some(opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).flags(libc::SOCK_CLOEXEC).build())
    }

    /// No more connections. `true`: the accept in flight is to be cancelled.
    pub fn stop(&mut self) -> bool {
        self.stopping = true;
        if !self.armed {
            self.listener = None;
        }
        self.armed
    }

    /// A completion of the accept.
    pub fn completed(&mut self, result: i32, flags: u32) -> Ended {
        if !cqueue::more(flags) {
            self.armed = false;
            if self.stopping {
                self.listener = None;
            }
        }
        if result >= 0 {
            self.short = false;
        }
        if !matches!(-result, libc::EMFILE | libc::ENFILE) || self.blocked || self.stopping {
            return Ended::default();
        }
        self.blocked = true;
        Ended { retry: true, began_short: !std::mem::replace(&mut self.short, true) }
    }

    pub fn timer() -> Entry {
        opcode::Timeout::new(&RETRY_AFTER).build()
    }

    /// The timer has run out.
    pub fn retry(&mut self) {
        self.blocked = false;
    }
}
