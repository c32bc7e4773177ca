//! Pure. Counters, one for each way a click can end. The core owns them, the admin side gets a [`Snapshot`] taken between
//! two turns, so the ledger balances at every scrape:
//! `received = accepted + duplicate + rejected + shed + in flight`.

use crate::chunk::Tally;
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
    /// Requests that are not yet whole use up the assembly memory, or that of their records.
    Memory = 4,
    /// The horizon is ahead of the clock: so much was forgotten at the start that even a click of now could be a repeat.
    HorizonAhead = 5,
}

impl Shed {
    pub const ALL: [Shed; 6] =
        [Shed::LogBehind, Shed::DiskFull, Shed::DedupFull, Shed::Clock, Shed::Memory, Shed::HorizonAhead];

    pub fn name(self) -> &'static str {
        match self {
            Shed::LogBehind => "log_behind",
            Shed::DiskFull => "disk_full",
            Shed::DedupFull => "dedup_full",
            Shed::Clock => "clock",
            Shed::Memory => "memory",
            Shed::HorizonAhead => "horizon_ahead",
        }
    }

    /// What an operator is told of a core that sheds, and what helps.
    pub fn advice(self) -> &'static str {
        match self {
            Shed::DiskFull => {
                "shedding: the log is at --wal-bytes-max, or the disk is full (tollgate_log_disk_bytes, \
                 tollgate_store_disk_bytes); look at the export, raise the limit or free space"
            }
            Shed::DedupFull => {
                "shedding: the memory of ids holds less than --dedup-window-min; raise --dedup-memory-bytes"
            }
            Shed::Clock => {
                "shedding: the wall clock leapt by more than --clock-skew; set it right, or restart if it is: a clock that \
                 stays ahead is believed after --dedup-window, one set back when it has caught up"
            }
            Shed::HorizonAhead => {
                "shedding for some minutes: what could be a repeat is not known (after a repair of the log, another --dedup-key, or a \
                 memory of ids that was full at the end of the last run); it ends when the clock reaches \
                 tollgate_dedup_horizon_timestamp_seconds"
            }
            // Single requests, while others are taken.
            Shed::LogBehind | Shed::Memory => "shedding some requests",
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
    /// Clicks have their verdicts.
    pub fn settle(&mut self, tally: &Tally) {
        self.in_flight -= u64::from(tally.clicks());
        self.accepted += u64::from(tally.accepted);
        self.duplicate += u64::from(tally.duplicates);
        if tally.too_old + tally.other_payload + tally.shed_clicks > 0 {
            self.settle_rare(tally);
        }
    }

    #[cold]
    fn settle_rare(&mut self, tally: &Tally) {
        self.duplicate_other_payload += u64::from(tally.other_payload);
        self.rejected[Reason::TooOld as usize - 1] += u64::from(tally.too_old);
        if let Some(shed) = tally.shed {
            self.shed[shed as usize] += u64::from(tally.shed_clicks);
        }
    }

    /// Another core's counts are added.
    pub fn add(&mut self, other: &Ledger) {
        let Ledger {
            received,
            accepted,
            duplicate,
            rejected,
            shed,
            in_flight,
            duplicate_other_payload,
            dead_letters_kept,
            dead_letters_unkept,
        } = other;
        self.received += received;
        self.accepted += accepted;
        self.duplicate += duplicate;
        add_all(&mut self.rejected, rejected);
        add_all(&mut self.shed, shed);
        self.in_flight += in_flight;
        self.duplicate_other_payload += duplicate_other_payload;
        self.dead_letters_kept += dead_letters_kept;
        self.dead_letters_unkept += dead_letters_unkept;
    }
}

fn add_all(to: &mut [u64], more: &[u64]) {
    to.iter_mut().zip(more).for_each(|(to, more)| *to += more);
}

/// Octaves of a histogram: 2^13 ns (8 µs) to 2^34 ns (17 s).
const OCTAVES: usize = 21;
const FIRST_EXPONENT: u32 = 13;

/// Buckets of a [`Histogram`]: one up to the smallest bound, two an octave, one beyond the largest bound.
pub const BUCKETS: usize = 2 * OCTAVES + 2;

/// Durations by size, in buckets whose upper bounds are 8.2 µs × 1, 1.5, 2, 3, 4, 6 … 17 s. One add a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    pub buckets: [u64; BUCKETS],
    pub sum_ns: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: [0; BUCKETS], sum_ns: 0 }
    }
}

impl Histogram {
    pub fn record(&mut self, ns: u64) {
        self.record_many(ns, 1);
    }

    /// `times` durations of the same length: the clicks of one reply.
    pub fn record_many(&mut self, ns: u64, times: u64) {
        self.buckets[Histogram::bucket(ns)] += times;
        self.sum_ns = self.sum_ns.saturating_add(ns.saturating_mul(times));
    }

    /// The largest duration that bucket `index` holds; `None` for the last one, which has no bound.
    pub fn bound_ns(index: usize) -> Option<u64> {
        let octave = 1u64 << (FIRST_EXPONENT + (index / 2) as u32);
        (index + 1 < BUCKETS).then_some(if index.is_multiple_of(2) { octave } else { octave + octave / 2 })
    }

    /// Bounds are inclusive, so the bits of `ns - 1` decide: the highest one the octave, the next one its half.
    fn bucket(ns: u64) -> usize {
        let below = ns.saturating_sub(1);
        let exponent = below.checked_ilog2().unwrap_or(0);
        if exponent < FIRST_EXPONENT {
            return 0;
        }
        let half = (below >> (exponent - 1)) & 1;
        let index = 2 * (exponent - FIRST_EXPONENT) as usize + half as usize + 1;
        index.min(BUCKETS - 1)
    }
}

/// The log, since the process started unless it says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogMetrics {
    /// End of the gap-free prefix on disk.
    pub durable_lsn: u64,
    /// The last record that was given an LSN.
    pub end_lsn: u64,
    /// Frames written and synced: one commit each. Seal frames are among them.
    pub commits: u64,
    pub seal_frames: u64,
    pub bytes_written: u64,
    /// Segments on disk now.
    pub segments: u64,
    /// Segments that went before retention or window was over, for want of room.
    pub freed_early: u64,
    /// What log and store take of the disk now.
    pub log_disk_bytes: u64,
    pub store_disk_bytes: u64,
    /// `--wal-bytes-max`.
    pub disk_limit_bytes: u64,
    /// What the log may grow by before clicks are shed, and what is free of its disk.
    pub room_bytes: u64,
    pub disk_free_bytes: u64,
    /// From the write's start to its completion, synced.
    pub commit: Histogram,
}

/// What left the host, since the process started unless it says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportMetrics {
    /// Every record up to it has left the host exactly once.
    pub exported_lsn: u64,
    pub transactions: u64,
    /// Partials in them.
    pub partials: u64,
    /// Ranges of the log that are cut and not yet exported, now.
    pub pending_ranges: u64,
    /// CPU time of the exporter's thread.
    pub cpu_ns: u64,
    /// Between two cuts, now.
    pub interval_ms: u64,
    /// The kind of sink, whether it answers, and since when it does not.
    pub sink: &'static str,
    pub sink_answers: bool,
    pub sink_away_ns: u64,
    /// Since the last commit; since the start before the first.
    pub commit_age_ns: u64,
    /// Commits whose outcome had to be read.
    pub doubts: u64,
    /// Click records of the log since its creation, and those of them that are not known to be exported.
    pub clicks_in_log: u64,
    pub clicks_behind: u64,
    /// When the oldest of those was taken, by the clock that is `now_ms`.
    pub oldest_ms: Option<i64>,
    pub now_ms: i64,
}

impl ExportMetrics {
    /// How long the oldest click that is not exported has waited.
    pub fn lag_ms(&self) -> i64 {
        self.oldest_ms.map_or(0, |oldest_ms| (self.now_ms - oldest_ms).max(0))
    }
}

/// Remembered ids, now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DedupMetrics {
    pub keys: u64,
    pub slots: u64,
    /// Oldest event time from which every key is still remembered.
    pub horizon_ms: i64,
    /// From the horizon to the clock.
    pub window_held_ms: i64,
    /// Generations that went before their time because memory was short, since the process started.
    pub generations_dropped_early: u64,
    pub watermark_ms: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionMetrics {
    pub open: u64,
    pub accepted: u64,
    /// Closed on arrival because `--connections-max` were open.
    pub refused: u64,
    /// Cut off for breaking a deadline.
    pub timed_out: u64,
    /// Times that a receive found no free buffer.
    pub receive_buffers_starved: u64,
}

/// The statuses that tollgate answers with.
pub const STATUSES: [u16; 15] = [202, 400, 404, 405, 408, 411, 413, 414, 415, 417, 422, 431, 501, 503, 505];

/// Replies sent, by status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replies {
    /// Indexed as [`STATUSES`].
    pub by_status: [u64; STATUSES.len()],
}

impl Replies {
    /// Counts a reply; `status` is one of [`STATUSES`].
    pub fn add(&mut self, status: u16) {
        let at = STATUSES.iter().position(|one| *one == status);
        debug_assert!(at.is_some(), "status {status} has no counter");
        if let Some(at) = at {
            self.by_status[at] += 1;
        }
    }
}

/// Everything that a core shows of itself, as of between two turns; or several cores together.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub ledger: Ledger,
    pub log: LogMetrics,
    /// From the last byte of a request to its reply being handed to the kernel, a click at a time.
    pub acknowledgement: Histogram,
    pub export: ExportMetrics,
    pub dedup: DedupMetrics,
    pub connections: ConnectionMetrics,
    pub replies: Replies,
    /// Rows of the open table of partials, now.
    pub table_rows: u64,
    /// The wall clock is not believed.
    pub clock_leapt: bool,
    /// Times that the worker entered the kernel.
    pub ring_enters: u64,
    /// Clicks that went to another core's home.
    pub forwarded: u64,
    /// Of so many cores this is.
    pub cores: u64,
}

impl Snapshot {
    /// Another core's snapshot is added: what can be counted is summed, and of claims the weaker one holds. What is one for all cores
    /// (`ExportMetrics` beside its ranges and clicks, the disk) is left as it is.
    pub fn add(&mut self, other: &Snapshot) {
        self.ledger.add(&other.ledger);
        self.log.add(&other.log);
        self.acknowledgement.add(&other.acknowledgement);
        self.export.add(&other.export);
        self.dedup.add(&other.dedup);
        self.connections.add(&other.connections);
        add_all(&mut self.replies.by_status, &other.replies.by_status);
        self.table_rows += other.table_rows;
        self.clock_leapt |= other.clock_leapt;
        self.ring_enters += other.ring_enters;
        self.forwarded += other.forwarded;
        self.cores += other.cores;
    }
}

impl Histogram {
    pub fn add(&mut self, other: &Histogram) {
        add_all(&mut self.buckets, &other.buckets);
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }
}

impl LogMetrics {
    /// The sum of the logs' LSNs counts records as well as one does.
    fn add(&mut self, other: &LogMetrics) {
        self.durable_lsn += other.durable_lsn;
        self.end_lsn += other.end_lsn;
        self.commits += other.commits;
        self.seal_frames += other.seal_frames;
        self.bytes_written += other.bytes_written;
        self.segments += other.segments;
        self.freed_early += other.freed_early;
        self.commit.add(&other.commit);
    }
}

impl ExportMetrics {
    fn add(&mut self, other: &ExportMetrics) {
        self.exported_lsn += other.exported_lsn;
        self.pending_ranges += other.pending_ranges;
        self.interval_ms = self.interval_ms.max(other.interval_ms);
        self.clicks_in_log += other.clicks_in_log;
        self.oldest_ms = self.oldest_ms.into_iter().chain(other.oldest_ms).min();
        self.now_ms = self.now_ms.max(other.now_ms);
    }
}

impl DedupMetrics {
    fn add(&mut self, other: &DedupMetrics) {
        self.keys += other.keys;
        self.slots += other.slots;
        self.horizon_ms = self.horizon_ms.max(other.horizon_ms);
        self.window_held_ms = self.window_held_ms.min(other.window_held_ms);
        self.generations_dropped_early += other.generations_dropped_early;
        self.watermark_ms = self.watermark_ms.min(other.watermark_ms);
    }
}

impl ConnectionMetrics {
    fn add(&mut self, other: &ConnectionMetrics) {
        self.open += other.open;
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.timed_out += other.timed_out;
        self.receive_buffers_starved += other.receive_buffers_starved;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_duration_is_in_the_first_bucket_whose_bound_it_does_not_exceed(ns: u64, shift in 0u32..64) {
            let ns = ns >> shift;
            let bucket = Histogram::bucket(ns);
            prop_assert!(Histogram::bound_ns(bucket).is_none_or(|bound| ns <= bound));
            prop_assert!(bucket == 0 || Histogram::bound_ns(bucket - 1).is_some_and(|bound| ns > bound));
        }
    }

    #[test]
    fn bounds_ascend_and_end_at_seventeen_seconds() {
        let bounds: Vec<u64> = (0..BUCKETS).filter_map(Histogram::bound_ns).collect();
        assert_eq!(bounds.len(), BUCKETS - 1);
        assert!(bounds.is_sorted_by(|a, b| a < b), "{bounds:?}");
        assert_eq!((bounds[0], bounds[1], bounds[BUCKETS - 2]), (8192, 12288, 1 << 34));
    }

    #[test]
    fn bounds_are_inclusive() {
        for (ns, bucket) in [(0, 0), (8192, 0), (8193, 1), (12288, 1), (12289, 2), (16384, 2), (u64::MAX, BUCKETS - 1)]
        {
            assert_eq!(Histogram::bucket(ns), bucket, "{ns}");
        }
    }
}
