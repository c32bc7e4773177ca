//! Pure. Counters, one for each way a click can end. The core owns them, the admin side gets a [`Snapshot`] taken between
//! two turns, so the ledger balances at every scrape:
//! `received = accepted + duplicate + rejected + shed + in flight`.

use crate::click::Reason;

/// Why a click was shed: nothing of it was taken, 503 says to send it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Shed {
    /// No room in the frame buffers: the disk is slower than the clicks.
    LogBehind = 0,
    /// The disk budget is used up.
    DiskFull = 1,
    /// The dedup table holds `--dedup-window-min` and cannot take another key.
    DedupFull = 2,
    /// Wall clock and monotonic clock disagree by more than the skew.
    Clock = 3,
    /// The process is stopping.
    Draining = 4,
    /// Requests that are not yet whole use up the assembly memory.
    Memory = 5,
}

impl Shed {
    pub const ALL: [Shed; 6] =
        [Shed::LogBehind, Shed::DiskFull, Shed::DedupFull, Shed::Clock, Shed::Draining, Shed::Memory];

    pub fn name(self) -> &'static str {
        match self {
            Shed::LogBehind => "log_behind",
            Shed::DiskFull => "disk_full",
            Shed::DedupFull => "dedup_full",
            Shed::Clock => "clock",
            Shed::Draining => "draining",
            Shed::Memory => "memory",
        }
    }
}

/// The ways a click can end, since the process started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub received: u64,
    pub accepted: u64,
    pub duplicate: u64,
    /// Indexed by `Reason as usize - 1`.
    pub rejected: [u64; Reason::ALL.len()],
    /// Indexed by `Shed as usize`.
    pub shed: [u64; Shed::ALL.len()],
    /// Clicks whose request is not yet answered.
    pub in_flight: u64,
    /// Of the duplicates: those whose payload differed from the first one's.
    pub duplicate_other_payload: u64,
    /// Dead letters kept, and those over the hourly budget that were only counted.
    pub dead_letters_kept: u64,
    pub dead_letters_unkept: u64,
}

impl Ledger {
    pub fn rejected_all(&self) -> u64 {
        self.rejected.iter().sum()
    }

    pub fn shed_all(&self) -> u64 {
        self.shed.iter().sum()
    }

    /// Whether every click received is accounted for.
    pub fn balances(&self) -> bool {
        self.received == self.accepted + self.duplicate + self.rejected_all() + self.shed_all() + self.in_flight
    }
}

/// Everything that one core shows of itself, as of between two turns.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub ledger: Ledger,
}
