//! Pure. What a core shows of itself, as of between two turns. What only a driver knows, the driver adds.

use crate::core::Core;
use crate::core::idle::IdleLog;
use crate::event::Now;
use crate::metrics::{ExportMetrics, Snapshot};

impl Core {
    pub(super) fn take_snapshot(&self, now: Now) -> Box<Snapshot> {
        let mut snapshot = self.snapshot.clone();
        let home = &self.home;
        snapshot.ledger = self.ledger.clone();
        snapshot.log.end_lsn = home.writer.end_lsn();
        snapshot.log.durable_lsn = home.writer.durable_lsn();
        snapshot.log.seal_frames = home.idle_frames();
        let idle_segments: usize = self.idle_logs.iter().map(IdleLog::segments).sum();
        snapshot.log.segments = (home.writer.segments().len() + idle_segments) as u64;
        snapshot.cores = 1;
        snapshot.forwarded = self.outbound.forwarded();
        snapshot.log.freed_early = self.room.freed_early();
        snapshot.export = self.export_metrics(now);
        snapshot.log.disk_limit_bytes = self.config.log.wal_bytes_max;
        snapshot.clock_leapt = self.clock.leapt();
        snapshot.dedup.keys = home.dedup.keys();
        snapshot.dedup.slots = home.dedup.slots();
        snapshot.dedup.horizon_ms = home.dedup.horizon_ms();
        snapshot.dedup.window_held_ms = now.wall_ms - home.dedup.horizon_ms();
        snapshot.dedup.generations_dropped_early = home.dedup.generations_dropped_early();
        snapshot.dedup.watermark_ms = home.watermark_ms();
        snapshot.connections.refused = self.lanes.refused;
        snapshot.connections.timed_out = self.lanes.timed_out;
        snapshot.replies = self.lanes.statuses.clone();
        snapshot.table_rows = home.partials.rows() as u64;
        snapshot
    }

    fn export_metrics(&self, now: Now) -> ExportMetrics {
        let cuts = &self.home.cuts;
        ExportMetrics {
            exported_lsn: cuts.exported_lsn(),
            interval_ms: self.cut_interval_ms,
            pending_ranges: cuts.pending() as u64,
            sink: self.config.export.sink.name(),
            clicks_in_log: self.home.writer.totals().clicks + self.idle_logs.iter().map(IdleLog::clicks).sum::<u64>(),
            oldest_ms: cuts.oldest_ms(),
            now_ms: now.wall_ms,
            ..ExportMetrics::default()
        }
    }
}
