//! Pure. All that a core and the world say to each other. A driver (io_uring, the simulator) turns what happened into
//! [`Event`]s, hands a turn's worth to `Core::apply`, and carries out the [`Action`]s it gets back.
//!
//! An action is never refused: whatever an action uses up is a credit that the core took before it changed state;
//! drivers queue, they do not fail.

use crate::chunk::{Chunk, CoreIndex};
use crate::cut::Cut;
use crate::exit::Exit;
use crate::metrics::Snapshot;

/// The two clocks, read once a turn by the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since 1970, for event times, horizon and watermark.
    pub wall_ms: i64,
    /// Nanoseconds since an arbitrary start, for every deadline and delay.
    pub mono_ns: u64,
}

/// A connection: a slot of the driver's table and the generation of its tenant. A stale one is dropped wherever it turns up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    pub slot: u32,
    pub generation: u32,
}

/// A buffer of replies. It is the core's until `Action::Send`, the kernel's until `Event::Sent`.
#[derive(Debug, Default)]
pub struct SendBuffer {
    pub bytes: Vec<u8>,
}

/// A 4 KiB-aligned buffer in which one frame (and the segment header before it) is built. It is the core's until
/// `Action::WriteLog`, the kernel's until `Event::LogWritten`.
pub struct FrameBuffer {
    pub memory: memmap2::MmapMut,
    /// Which of the core's buffers this is; the core checks what comes back by it.
    pub id: u32,
}

impl std::fmt::Debug for FrameBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameBuffer").field("id", &self.id).field("bytes", &self.memory.len()).finish()
    }
}

/// Where and what to write: `length` bytes of the buffer from `buffer_offset` to `file_offset` of segment `segment`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogWrite {
    pub segment: u64,
    pub file_offset: u64,
    pub buffer_offset: u32,
    pub length: u32,
}

/// How a log write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteEnd {
    /// All of it is on disk.
    Synced,
    Short {
        written: u32,
        length: u32,
    },
    Failed {
        errno: i32,
    },
}

impl std::fmt::Display for WriteEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            WriteEnd::Synced => f.write_str("it is on disk"),
            WriteEnd::Short { written, length } => write!(f, "only {written} of its {length} bytes were written"),
            WriteEnd::Failed { errno } => write!(f, "{}", std::io::Error::from_raw_os_error(*errno)),
        }
    }
}

/// Why a connection's receive side ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveEnd {
    /// The peer sent FIN: what it asked is still answered.
    Finished,
    /// Reset or another error: nothing can be answered any more.
    Broken,
}

/// How long a stop waits for the sink to take the last cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// As long as a service manager does; what is not exported then stays in the log.
    Deadline,
    /// As long as it takes.
    UntilExported,
}

/// What happened since the last turn.
#[derive(Debug)]
pub enum Event<'a> {
    /// A connection was accepted; the driver holds its slot until `Closed`.
    Accepted {
        connection: ConnectionId,
    },
    /// Bytes arrived. Borrowed for this call: the driver takes the buffer back after it, always.
    Received {
        connection: ConnectionId,
        bytes: &'a [u8],
    },
    ReceiveEnded {
        connection: ConnectionId,
        end: ReceiveEnd,
    },
    /// A send ended: `sent` bytes of the buffer went out; fewer than its length means that the connection is broken.
    Sent {
        connection: ConnectionId,
        buffer: Box<SendBuffer>,
        sent: u32,
    },
    /// Every operation on the connection has ended and its slot is free again.
    Closed {
        connection: ConnectionId,
    },
    /// A log write ended. A failed one is never retried.
    LogWritten {
        buffer: Box<FrameBuffer>,
        end: WriteEnd,
    },
    /// A segment that reads as zeros, is synced, and whose directory is synced, awaits its first frame.
    SegmentReady {
        segment: u64,
    },
    /// The log's files and the reserve against their mark and the disk. Not `open`: clicks must be shed. Before that,
    /// `segments_over` of the oldest segments should go early, if they are exported; what came of the first `frees_seen` that were
    /// freed is in it.
    Room {
        open: bool,
        segments_over: u32,
        frees_seen: u64,
    },
    /// From now on cuts are this far apart: what they cost the exporter has changed.
    CutInterval {
        ms: u64,
    },
    /// The exporter committed everything up to these positions.
    Exported(Box<Exported>),
    /// The same of a log that no core writes to, by its place among those; see `core/idle.rs`.
    IdleExported {
        log: u32,
        lsn: u64,
    },
    /// Another core received clicks whose home is here.
    Forwarded {
        from: CoreIndex,
        chunk: Box<Chunk>,
    },
    /// A chunk is back from its home, with verdicts whose ground is on that home's disk.
    Judged {
        by: CoreIndex,
        chunk: Box<Chunk>,
    },
    /// That core will forward nothing more: it stops.
    PeerDone {
        core: CoreIndex,
    },
    /// The admin side asks for the counters as they are between two turns.
    Scrape,
    /// Nothing else happened and nothing is queued: the worker will sleep after this turn.
    Idle,
    /// Stop taking connections and requests; finish what was wholly received; then the last cut.
    Stop {
        patience: Patience,
    },
}

/// What the exporter made final, and the cut's memory for reuse.
#[derive(Debug)]
pub struct Exported {
    /// Every record up to and including this LSN has left the host exactly once.
    pub lsn: u64,
    /// An emptied table, where the transaction used one up.
    pub table: Option<crate::cut::CutTable>,
    /// How many cuts the transaction took: that many export credits return.
    pub cuts: u32,
}

/// What a core wants done. Order matters only per connection and per log.
#[derive(Debug)]
pub enum Action {
    /// Send the whole buffer, in order, on this connection.
    Send {
        connection: ConnectionId,
        buffer: Box<SendBuffer>,
    },
    /// Stop receiving on this connection (its half-sent request is over budget, or it is closing).
    PauseReceive {
        connection: ConnectionId,
    },
    ResumeReceive {
        connection: ConnectionId,
    },
    /// Send FIN after what is queued, keep reading and discarding until the peer's FIN or `Close`.
    ShutdownSend {
        connection: ConnectionId,
    },
    /// Cancel everything on it, close it, then say `Closed`.
    Close {
        connection: ConnectionId,
    },
    WriteLog {
        buffer: Box<FrameBuffer>,
        write: LogWrite,
    },
    /// Have the segment after the last one known prepared.
    PrepareSegment {
        segment: u64,
    },
    /// Every frame of this segment is exported, forgotten by dedup and past retention: it may be deleted.
    FreeSegment {
        segment: u64,
    },
    /// The same of a log that no core writes to.
    FreeIdleSegment {
        log: u32,
        segment: u64,
    },
    Export(Box<Cut>),
    /// Hands clicks to their home. The chunk was a credit: there is always room for it.
    Forward {
        to: CoreIndex,
        chunk: Box<Chunk>,
    },
    /// Hands a chunk back with its verdicts.
    Return {
        to: CoreIndex,
        chunk: Box<Chunk>,
    },
    /// Tells all other cores that nothing more will be forwarded.
    Done,
    Snapshot(Box<Snapshot>),
    /// Stop accepting connections.
    StopAccepting,
    /// Everything is drained; the worker may end.
    Stopped,
    /// End the process at once with this code; nothing more is acknowledged.
    Halt {
        exit: Exit,
        why: String,
    },
}

pub type Actions = Vec<Action>;

#[cfg(test)]
mod tests {
    use super::WriteEnd;

    #[test]
    fn a_failed_write_says_why() {
        for (end, says) in [
            (WriteEnd::Failed { errno: 5 }, "Input/output error"),
            (WriteEnd::Failed { errno: 28 }, "No space left on device"),
            (WriteEnd::Short { written: 512, length: 4096 }, "only 512 of its 4096 bytes"),
        ] {
            assert!(end.to_string().contains(says), "{end}");
        }
    }
}
