//! Pure. The beginning of an incarnation: from what recovery found to the home and the exporter that go on from there. The
//! driver only fetches frames, writes the first frame, and brings memory and randomness.

use crate::config::Config;
use crate::core::cuts::Cuts;
use crate::core::home::{Home, Watermark};
use crate::cut::LogId;
use crate::dedup;
use crate::event::{FrameBuffer, LogWrite, Now};
use crate::export::{self, Behind, Exporter};
use crate::preagg;
use crate::wal::record::{self, Record, Start};
use crate::wal::recover::RecoveredLog;
use crate::wal::replay::ReplayedFrame;
use crate::wal::writer::{FrameMeta, LogStart, Writer, WriterConfig};

/// Clicks of a frame restored at a time: their cache misses overlap.
const RESTORE_BATCH: usize = 64;

/// Remembers a recovered frame's clicks; returns how many there were.
pub fn restore(table: &mut dedup::Table, frame: &ReplayedFrame<'_>) -> u64 {
    let mut clicks = 0;
    for batch in frame.records.chunks(RESTORE_BATCH) {
        let mut hashed = [None; RESTORE_BATCH];
        for (place, record) in hashed.iter_mut().zip(batch) {
            if let Record::Click(click) = record {
                let key = table.hash(&click.key());
                table.prefetch(&key);
                *place = Some((key, *click));
            }
        }
        for (key, click) in hashed.iter().flatten() {
            table.restore(key, click.check(), click.event_ms(), click.received_ms());
            clicks += 1;
        }
    }
    clicks
}

/// Whether some of the log's keys were, or may have been, made by another rule than the one in force.
pub fn key_rule_changed(config: &Config, recovered: &[RecoveredLog]) -> bool {
    let rule = config.click.dedup_key as u32;
    recovered.iter().any(|log| log.rule_unknown || log.dedup_key.is_some_and(|found| found != rule))
}

/// Raises the horizon to the highest of any frame: what was forgotten stays refused. Keys made by another rule are no use:
/// then all that was accepted so far is forgotten, and the horizon is beyond the newest of it, which may lie as far ahead of
/// the clock as any run allowed.
pub fn keep_horizon(table: &mut dedup::Table, config: &Config, recovered: &[RecoveredLog], now: Now) {
    for log in recovered {
        table.raise_horizon(log.horizon_ms);
    }
    if key_rule_changed(config, recovered) {
        let segments = recovered.iter().flat_map(|log| &log.start.segments);
        let newest_ms = segments.map(|segment| segment.newest_ms).max().unwrap_or(i64::MIN);
        table.raise_horizon(newest_ms.saturating_add(1));
    }
    table.advance(now.wall_ms);
}

/// Where the log goes on.
#[derive(Clone, Debug)]
pub struct LogEnd {
    pub start: LogStart,
    /// Records up to and including this one are freed.
    pub base_lsn: u64,
    pub watermark_ms: i64,
    pub behind: Behind,
}

impl LogEnd {
    /// Of a log that never had a record.
    pub fn new(log_id: LogId) -> LogEnd {
        LogEnd { start: LogStart::new(log_id, 1), base_lsn: 0, watermark_ms: i64::MIN, behind: Behind::default() }
    }

    pub fn of(log: &RecoveredLog) -> LogEnd {
        let (base_lsn, watermark_ms) = (log.base_lsn, log.watermark_ms);
        LogEnd { start: log.start.clone(), base_lsn, watermark_ms, behind: Behind::default() }
    }
}

/// Whose incarnation it is.
#[derive(Clone, Debug)]
pub struct Edge {
    pub data_dir: [u8; 16],
    /// 128 random bits of this incarnation, and those of the ones before it.
    pub nonce: [u8; 16],
    pub nonces: Vec<[u8; 16]>,
    pub mirror: export::Mirror,
}

/// An incarnation whose first frame is on its way to the disk.
pub struct Incarnation {
    edge: Edge,
    table: dedup::Table,
    writer: Writer,
    base_lsn: u64,
    watermark_ms: i64,
    behind: Behind,
}

impl Incarnation {
    /// Builds the first frame, for a segment that is prepared. It puts the nonce on disk before anything is exported under
    /// it.
    pub fn begin(
        config: &Config,
        edge: Edge,
        table: dedup::Table,
        log: LogEnd,
        buffers: Vec<Box<FrameBuffer>>,
        now: Now,
    ) -> (Incarnation, Box<FrameBuffer>, LogWrite) {
        let (segment, incarnation, watermark_ms) = (log.start.segment, log.start.incarnation, log.watermark_ms);
        let mut writer = Writer::new(writer_config(config, edge.nonce), log.start, buffers);
        let asked = writer.wants_segment();
        assert_eq!(asked, Some(segment), "a log goes on in the segment that was prepared for it");
        writer.segment_ready(segment);
        let mut bytes = Vec::new();
        record::encode_start(&Start { incarnation, nonce: edge.nonce, started_ms: now.wall_ms }, &mut bytes);
        writer.append(&bytes);
        writer.seal(FrameMeta { built_ms: now.wall_ms, horizon_ms: table.horizon_ms(), watermark_ms, flags: 0 });
        let Some((buffer, write)) = writer.next_write(0) else { unreachable!("a sealed frame and a ready segment") };
        let (base_lsn, behind) = (log.base_lsn, log.behind);
        (Incarnation { edge, table, writer, base_lsn, watermark_ms, behind }, buffer, write)
    }

    /// The first frame is on disk: from here on the core and the exporter own what there is.
    pub fn begun(mut self, config: &Config, buffer: Box<FrameBuffer>, partials: preagg::Table) -> (Home, Exporter) {
        let written = self.writer.written(buffer, true);
        assert!(written.is_ok(), "the write succeeded");
        let (end, watermark_ms) = (self.writer.position(), self.watermark_ms);
        let Edge { data_dir, nonce, mut nonces, mirror } = self.edge;
        nonces.push(nonce);
        let exporter = Exporter::new(export::Start {
            edge_id: config.export.edge_id.clone(),
            data_dir,
            nonce,
            nonces,
            mirror,
            logs: vec![export::LogStart {
                end,
                totals: self.writer.totals(),
                horizon_ms: self.table.horizon_ms(),
                watermark_ms,
                base_lsn: self.base_lsn,
                open: true,
                behind: self.behind,
            }],
        });
        let cuts = Cuts::new(end, self.writer.totals().clicks, self.base_lsn, || partials.spare());
        let watermark = Watermark { start_ms: watermark_ms, delay_ms: config.export.watermark_delay_ms };
        let home = Home::new(self.table, self.writer, partials, cuts, watermark, config.log.dead_letter_bytes_max);
        (home, exporter)
    }
}

fn writer_config(config: &Config, nonce: [u8; 16]) -> WriterConfig {
    WriterConfig {
        frame_bytes: config.log.frame_bytes,
        segment_bytes: config.log.segment_bytes,
        commit_delay_ns: config.log.commit_delay_max_us * 1_000,
        commit_spacing_ns: config.log.commit_spacing_us * 1_000,
        core: 0,
        dedup_key: config.click.dedup_key as u32,
        nonce,
    }
}
