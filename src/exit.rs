//! Pure. The ways the process ends, each with its exit code and its row in `docs/OPERATING.md`.

/// Why the process ends. The code is part of the interface: service managers and runbooks decide by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Drained and stopped as asked.
    Clean = 0,
    /// `audit` or `wal verify` found a difference, `status` something that needs a person, `doctor` a problem of the host.
    Difference = 1,
    /// The command line, the configuration file or the environment is wrong.
    Usage = 64,
    /// The kernel, io_uring, O_DIRECT or a memory limit lacks what tollgate needs. At the start only.
    Unavailable = 69,
    /// A bug: an assertion failed, or the kernel refused what it had granted. Recovery runs at the next start.
    Bug = 70,
    /// The log is damaged where it had been durable. `tollgate wal verify` says what is lost, `wal repair` goes on.
    LogDamaged = 71,
    /// A write or sync of the log, or a sync of a folder, failed. Nothing of it was acknowledged; the disk needs a look before a restart.
    LogWriteFailed = 72,
    /// The data directory is in use, is of another edge, exported to another sink, or cannot be what it must.
    DataDir = 73,
    /// The checkpoint and the log contradict each other.
    Checkpoint = 74,
    /// A worker, or its disk, made no progress for 30 s with work waiting.
    Stuck = 75,
    /// The store of the embedded global tier failed, or did not take the last cut in time; or a start was stopped before it was known
    /// what is exported.
    Store = 76,
    /// The brokers or topics that are named cannot be exported to: not those of before, or not kept as the protocol needs.
    Kafka = 77,
}

impl Exit {
    pub fn code(self) -> i32 {
        self as i32
    }
}
