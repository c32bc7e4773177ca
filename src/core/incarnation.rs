//! Pure. The beginning of an incarnation: from what recovery found to the home and the exporter that go on from there. The
//! driver only fetches frames, writes the first frame, and brings memory and randomness.

use crate::chunk::CoreIndex;
use crate::config::Config;
use crate::core::cuts::Cuts;
use crate::core::home::{Home, Seat, Watermark};
use crate::cut::LogId;
use crate::dedup;
use crate::event::{FrameBuffer, LogWrite, Now};
use crate::export::{self, Behind};
use crate::preagg;
use crate::wal::record::{self, Record, Start};
use crate::wal::recover::RecoveredLog;
use crate::wal::replay::ReplayedFrame;
use crate::wal::writer::{FrameMeta, LogStart, Writer, WriterConfig};

/// Clicks of a frame restored at a time: their cache misses overlap.
const RESTORE_BATCH: usize = 64;

/// Remembers a recovered frame's clicks, each at its home of now, whichever log it is in; returns how many there were. The tables
/// have one secret and one size.
pub fn restore(tables: &mut [dedup::Table], frame: &ReplayedFrame<'_>) -> u64 {
    let mut clicks = 0;
    for batch in frame.records.chunks(RESTORE_BATCH) {
        let mut hashed = [None; RESTORE_BATCH];
        for (place, record) in hashed.iter_mut().zip(batch) {
            if let Record::Click(click) = record {
                let key = tables[0].hash(&click.key());
                let home = key.home(tables.len() as CoreIndex);
                tables[usize::from(home)].prefetch(&key);
                *place = Some((home, key, *click));
            }
        }
        for (home, key, click) in hashed.iter().flatten() {
            let table = &mut tables[usize::from(*home)];
            table.restore(key, click.check(), click.event_ms(), click.received_ms());
            clicks += 1;
        }
    }
    clicks
}

/// Whether keys that are still remembered were, or may have been, made by another rule than the one in force. A log whose newest click is
/// behind a horizon that is on disk has none: an idle log keeps the header of its last run for ever.
pub fn key_rule_changed(config: &Config, recovered: &[RecoveredLog]) -> bool {
    let rule = config.click.dedup_key as u32;
    let horizon_ms = recovered.iter().map(|log| log.horizon_ms).max().unwrap_or(i64::MIN);
    let remembered = |log: &RecoveredLog| log.start.segments.iter().any(|segment| segment.newest_ms >= horizon_ms);
    let other = |log: &RecoveredLog| log.rule_unknown || log.dedup_key.is_some_and(|found| found != rule);
    recovered.iter().any(|log| other(log) && remembered(log))
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

/// Which logs so many cores go on with: each with the one that has its number, or with none yet. What is left no core writes to.
pub fn share_logs(
    cores: CoreIndex,
    mut recovered: Vec<RecoveredLog>,
) -> (Vec<Option<RecoveredLog>>, Vec<RecoveredLog>) {
    let mut of_core = |core| recovered.iter().position(|log| log.dir.core == core).map(|at| recovered.remove(at));
    let of_cores = (0..u32::from(cores)).map(&mut of_core).collect();
    (of_cores, recovered)
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

/// What the exporter is told of a log that no core writes to.
pub fn idle_log(log: &RecoveredLog, behind: Behind) -> export::LogStart {
    export::LogStart {
        end: log.position,
        totals: log.start.totals,
        horizon_ms: log.horizon_ms,
        watermark_ms: log.watermark_ms,
        base_lsn: log.base_lsn,
        open: false,
        behind,
    }
}

/// A core of an incarnation, whose first frame is on its way to the disk.
pub struct Incarnation {
    seat: Seat,
    table: dedup::Table,
    writer: Writer,
    base_lsn: u64,
    watermark_ms: i64,
    behind: Behind,
}

impl Incarnation {
    /// Builds the first frame, for a segment that is prepared. It puts the nonce, 128 random bits of this incarnation, on disk
    /// before anything is exported under it.
    pub fn begin(
        config: &Config,
        seat: Seat,
        nonce: [u8; 16],
        table: dedup::Table,
        log: LogEnd,
        buffers: Vec<Box<FrameBuffer>>,
        now: Now,
    ) -> (Incarnation, Box<FrameBuffer>, LogWrite) {
        let (segment, incarnation, watermark_ms) = (log.start.segment, log.start.incarnation, log.watermark_ms);
        let mut writer = Writer::new(writer_config(config, seat, nonce), log.start, buffers);
        let asked = writer.wants_segment();
        assert_eq!(asked, Some(segment), "a log goes on in the segment that was prepared for it");
        writer.segment_ready(segment);
        let mut bytes = Vec::new();
        record::encode_start(&Start { incarnation, nonce, started_ms: now.wall_ms }, &mut bytes);
        writer.append(&bytes);
        writer.seal(FrameMeta { built_ms: now.wall_ms, horizon_ms: table.horizon_ms(), watermark_ms, flags: 0 });
        let Some((buffer, write)) = writer.next_write(0) else { unreachable!("a sealed frame and a ready segment") };
        let (base_lsn, behind) = (log.base_lsn, log.behind);
        (Incarnation { seat, table, writer, base_lsn, watermark_ms, behind }, buffer, write)
    }

    /// The first frame is on disk: from here on the core owns what there is, and the exporter is told of its log.
    pub fn begun(
        mut self,
        config: &Config,
        buffer: Box<FrameBuffer>,
        partials: preagg::Table,
    ) -> (Home, export::LogStart) {
        let written = self.writer.written(buffer, true);
        assert!(written.is_ok(), "the write succeeded");
        let (end, watermark_ms) = (self.writer.position(), self.watermark_ms);
        let log = export::LogStart {
            end,
            totals: self.writer.totals(),
            horizon_ms: self.table.horizon_ms(),
            watermark_ms,
            base_lsn: self.base_lsn,
            open: true,
            behind: self.behind,
        };
        let cuts = Cuts::new(end, self.writer.totals().clicks, self.base_lsn, || partials.spare());
        let watermark = Watermark { start_ms: watermark_ms, delay_ms: config.export.watermark_delay_ms };
        let dead_letters = config.log.dead_letter_bytes_max / u64::from(self.seat.cores);
        let home = Home::new(self.table, self.writer, partials, cuts, watermark, dead_letters, self.seat);
        (home, log)
    }
}

fn writer_config(config: &Config, seat: Seat, nonce: [u8; 16]) -> WriterConfig {
    WriterConfig {
        frame_bytes: config.log.frame_bytes,
        segment_bytes: config.log.segment_bytes,
        commit_delay_ns: config.log.commit_delay_max_us * 1_000,
        commit_spacing_ns: config.log.commit_spacing_us * 1_000,
        core: seat.own.into(),
        dedup_key: config.click.dedup_key as u32,
        nonce,
    }
}
