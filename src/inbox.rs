//! Drives. What the threads of the process say to each other: messages to a worker, jobs for the keeper of its segments.
//! Rare by design (once a second or less each), so plain channels do; a worker sleeps in its ring and is woken by an eventfd.

use std::fs::File;
use std::net::TcpStream;
use std::sync::mpsc::Sender;

use crate::chunk::CoreIndex;
use crate::event::{Exported, Patience};
use crate::exit::Exit;
use crate::wake::Wake;

/// What the other threads tell a worker; each message is followed by a ring of its wake-up.
pub enum Inbound {
    SegmentReady {
        segment: u64,
        file: File,
    },
    Exported(Box<Exported>),
    /// Of a log that no core writes to.
    IdleExported {
        log: u32,
        lsn: u64,
    },
    /// A connection that another worker accepted.
    Connection(TcpStream),
    Room {
        open: bool,
        segments_over: u32,
        frees_seen: u64,
    },
    Stop {
        patience: Patience,
    },
    /// Another thread cannot go on; nothing more may be acknowledged.
    Halt {
        exit: Exit,
        why: String,
    },
}

/// What the keeper does for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    Prepare {
        core: CoreIndex,
        segment: u64,
    },
    /// `idle`: not of the core's own log, but of one that it clears away.
    Free {
        core: CoreIndex,
        idle: Option<u32>,
        segment: u64,
    },
}

/// The sending end of a worker's inbox.
#[derive(Clone)]
pub struct Inbox {
    sender: Sender<Inbound>,
    wake: std::sync::Arc<Wake>,
}

impl Inbox {
    pub fn new(sender: Sender<Inbound>, wake: std::sync::Arc<Wake>) -> Inbox {
        Inbox { sender, wake }
    }

    /// `false`: the worker has ended.
    pub fn send(&self, message: Inbound) -> bool {
        let sent = self.sender.send(message).is_ok();
        self.wake.ring();
        sent
    }
}
