//! Drives. From a data directory to a core that may serve: lock, identity, memory, recovery, the first frame of this
//! incarnation. Runs once, on the main thread; nothing is acknowledged before it has succeeded.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use memmap2::{Advice, MmapMut};
use tollgate_global::Store;
use tollgate_wire::Checkpoint;

use crate::admin::{Phase, Readiness};
use crate::commands::halt_text;
use crate::config::{Config, FRAME_BUFFERS, TABLE_ROWS_MAX, TABLE_USERS_MAX};
use crate::core::cuts::Cuts;
use crate::core::home::{Home, Watermark};
use crate::cut::Position;
use crate::dedup;
use crate::event::{FrameBuffer, Now};
use crate::exit::Exit;
use crate::export::embedded::Embedded;
use crate::export::rebuild::Rebuilder;
use crate::export::thread::{ExportThread, ReadFrames};
use crate::export::{self, Exporter};
use crate::preagg;
use crate::wal::reader::LogReader;
use crate::wal::record::{self, Record, Start};
use crate::wal::recover::{RecoveredLog, recover};
use crate::wal::replay::ReplayedFrame;
use crate::wal::segments::{DataDir, Identity, LogDir, LogError, open_segment_for_writing, prepare_segment};
use crate::wal::writer::{FrameMeta, LogStart, Writer, WriterConfig, buffer_bytes};
use crate::worker::now;

/// Clicks of a frame restored at a time: their cache misses overlap.
const RESTORE_BATCH: usize = 64;

/// Why tollgate does not start, in one line, and the code it ends with.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub text: String,
}

impl Failure {
    /// Something of the machine is not to be had.
    pub fn unavailable(what: &str) -> impl FnOnce(io::Error) -> Failure {
        move |error| Failure { exit: Exit::Unavailable, text: format!("{what} is not to be had: {error}") }
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Failure {
        Failure { exit: error.exit(), text: error.to_string() }
    }
}

/// Everything that the threads begin with.
pub struct Started {
    pub home: Home,
    pub store: Arc<Store>,
    /// The segment in use: its first frame is on disk.
    pub segment: (u64, File),
    pub log_dir: PathBuf,
    pub exporter: ExportThread,
}

/// The caller holds `data_dir`, and so its lock, until nothing is written any more.
pub fn start(
    config: &Config,
    data_dir: &DataDir,
    started_at: Instant,
    readiness: &Readiness,
) -> Result<Started, Failure> {
    let uuid = identify(config, data_dir)?;
    let store = Store::open(&config.data_dir.join("store.redb"))
        .map_err(|error| Failure { exit: Exit::Store, text: error.to_string() })?;
    let checkpoint = store
        .checkpoint(&config.export.edge_id)
        .map_err(|error| Failure { exit: Exit::Store, text: error.to_string() })?;
    let confirmed = checkpoint.as_ref().map_or(Vec::new(), export::positions);

    let mut table = dedup_table(config, now(started_at))?;
    let began = Instant::now();
    let mut clicks = 0_u64;
    let mut recovered = recover(
        &config.data_dir,
        &confirmed,
        &mut |progress| {
            let (bytes_done, bytes_total) = (progress.bytes_done, progress.bytes_total);
            readiness.set(Phase::Recovering { bytes_done, bytes_total });
        },
        &mut |_, frame| clicks += restore(&mut table, frame),
    )
    .map_err(|error| Failure { exit: error.exit(), text: halt_text(&error, &config.data_dir) })?;
    if clicks > 0 {
        let rate = clicks as f64 / began.elapsed().as_secs_f64();
        tracing::info!(clicks, seconds = began.elapsed().as_secs_f64(), clicks_per_second = rate as u64, "recovered");
    }
    recovered.iter_mut().for_each(|log| keep_exported_total(log, checkpoint.as_ref()));
    let log = the_log(config, data_dir, &recovered)?;
    wait_for_the_clock(config, log.built_ms, started_at);
    let at_start = now(started_at);
    table.raise_horizon(horizon_at_start(config, &recovered, at_start));
    table.advance(at_start.wall_ms);
    let nonces = recovered.iter().flat_map(|log| log.nonces.iter().copied()).collect();
    begin(config, started_at, Recovered { uuid, store: Arc::new(store), confirmed, table, log, nonces })
}

/// A loss at a log's end takes the frame with it that said how many clicks there were: those exported are known still.
fn keep_exported_total(log: &mut RecoveredLog, checkpoint: Option<&Checkpoint>) {
    let listed = checkpoint.iter().flat_map(|checkpoint| &checkpoint.logs);
    for listed in listed.filter(|listed| log.repaired && *listed.log_uuid == log.start.log_id) {
        log.start.totals.clicks = log.start.totals.clicks.max(listed.clicks_total);
    }
}

/// Where the log goes on.
struct Log {
    start: LogStart,
    dir: LogDir,
    base_lsn: u64,
    built_ms: i64,
    watermark_ms: i64,
}

fn identify(config: &Config, data_dir: &DataDir) -> Result<[u8; 16], Failure> {
    if let Some(identity) = data_dir.identity()? {
        if identity.edge_id != config.export.edge_id {
            let text = format!(
                "{} belongs to edge `{}`, not to `{}`: name that one with --edge-id, or another --data-dir",
                config.data_dir.display(),
                identity.edge_id,
                config.export.edge_id
            );
            return Err(Failure { exit: Exit::DataDir, text });
        }
        let uuid = crate::wal::segments::parse_log_id(&identity.uuid);
        let text = format!("{}: the uuid in identity.toml is not 32 hexadecimal digits", config.data_dir.display());
        return uuid.ok_or(Failure { exit: Exit::DataDir, text });
    }
    let uuid = random()?;
    data_dir.write_identity(&Identity::new(uuid, &config.export.edge_id, config.click.dedup_key as u32))?;
    Ok(uuid)
}

/// The one log of the one core; a new one in a new directory.
fn the_log(config: &Config, data_dir: &DataDir, recovered: &[RecoveredLog]) -> Result<Log, Failure> {
    match recovered {
        [] => {
            let dir = data_dir.create_log(0, random()?)?;
            let start = LogStart::new(dir.log_id, 1);
            Ok(Log { start, dir, base_lsn: 0, built_ms: i64::MIN, watermark_ms: i64::MIN })
        }
        [log] => Ok(Log {
            start: log.start.clone(),
            dir: log.dir.clone(),
            base_lsn: log.base_lsn,
            built_ms: log.built_ms,
            watermark_ms: log.watermark_ms,
        }),
        several => Err(Failure {
            exit: Exit::DataDir,
            text: format!(
                "{} holds {} logs; this version serves with one core and one log",
                config.data_dir.display(),
                several.len()
            ),
        }),
    }
}

/// The highest horizon of any frame: what was forgotten stays refused. Keys made by another rule are no use: then all that
/// was accepted so far is forgotten, and the horizon begins now.
fn horizon_at_start(config: &Config, recovered: &[RecoveredLog], now: Now) -> i64 {
    let rule = config.click.dedup_key as u32;
    if recovered.iter().any(|log| log.dedup_key.is_some_and(|found| found != rule)) {
        tracing::warn!("the rule that makes click keys has changed: clicks from before now are refused as too old");
        return now.wall_ms + config.click.clock_skew_ms;
    }
    recovered.iter().map(|log| log.horizon_ms).max().unwrap_or(i64::MIN)
}

/// A clock behind the newest frame is wrong, or was: serving would put new clicks before old ones.
fn wait_for_the_clock(config: &Config, built_ms: i64, started_at: Instant) {
    loop {
        let behind_ms = built_ms.saturating_sub(now(started_at).wall_ms);
        if behind_ms <= 0 {
            return;
        }
        tracing::warn!(
            behind_ms,
            data_dir = %config.data_dir.display(),
            "the clock is behind the newest frame of the log: waiting until it has caught up"
        );
        std::thread::sleep(Duration::from_millis((behind_ms as u64).min(1_000)));
    }
}

/// Takes the table's memory, in huge pages where the kernel has them, touched now rather than click by click.
fn dedup_table(config: &Config, now: Now) -> Result<dedup::Table, Failure> {
    let bytes = config.dedup.memory_bytes as usize;
    let memory = MmapMut::map_anon(bytes).map_err(Failure::unavailable("the memory for remembered ids"))?;
    // Both are wishes: without them the table is slower, not wrong.
    if memory.advise(Advice::HugePage).is_err() || memory.advise(Advice::PopulateWrite).is_err() {
        tracing::warn!("the kernel gives no huge pages: looking ids up costs up to three times as much");
    }
    Ok(dedup::Table::new(memory, random()?, &config.dedup, i64::MIN, now.wall_ms))
}

/// Remembers a frame's clicks; returns how many there were.
fn restore(table: &mut dedup::Table, frame: &ReplayedFrame<'_>) -> u64 {
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

/// What recovery and the memory have come to.
struct Recovered {
    uuid: [u8; 16],
    store: Arc<Store>,
    /// The positions of the stored checkpoint; recovery met each in its log.
    confirmed: Vec<Position>,
    table: dedup::Table,
    log: Log,
    nonces: Vec<[u8; 16]>,
}

/// Writes this incarnation's first frame; from then on the core and the exporter own what there is.
fn begin(config: &Config, started_at: Instant, recovered: Recovered) -> Result<Started, Failure> {
    let Recovered { uuid, store, confirmed, table, log, mut nonces } = recovered;
    let (now, nonce, segment) = (now(started_at), random()?, log.start.segment);
    let unprepared = |source| Failure {
        exit: Exit::LogWriteFailed,
        text: format!("segment {segment} in {} could not be prepared: {source}", log.dir.path.display()),
    };
    prepare_segment(&log.dir.path, segment, config.log.segment_bytes).map_err(unprepared)?;
    let file = open_segment_for_writing(&log.dir.path, segment).map_err(unprepared)?;
    let incarnation = log.start.incarnation;
    let mut writer = Writer::new(writer_config(config, nonce), log.start, frame_buffers(config)?);
    let (horizon_ms, watermark_ms) = (table.horizon_ms(), log.watermark_ms);
    let meta = FrameMeta { built_ms: now.wall_ms, horizon_ms, watermark_ms, flags: 0 };
    write_start(&mut writer, &file, segment, Start { incarnation, nonce, started_ms: now.wall_ms }, meta).map_err(
        |error| Failure { exit: Exit::LogWriteFailed, text: format!("the first frame of the log: {error}") },
    )?;

    nonces.push(nonce);
    let end = writer.position();
    let exporter = ExportThread {
        exporter: Exporter::new(export::Start {
            edge_id: config.export.edge_id.clone(),
            data_dir: uuid,
            nonce,
            nonces,
            logs: vec![export::LogStart {
                end,
                totals: writer.totals(),
                horizon_ms,
                watermark_ms,
                base_lsn: log.base_lsn,
                open: true,
            }],
        }),
        sink: Embedded::new(Arc::clone(&store), config.export.edge_id.clone()),
        confirmed,
        rebuilder: Rebuilder::new(u64::from_le_bytes(random()?)),
        read_frames: read_frames(log.dir.clone()),
        meter: Arc::default(),
        started: started_at,
    };
    let partials = preagg::Table::new(TABLE_ROWS_MAX, TABLE_USERS_MAX, u64::from_le_bytes(random()?));
    let cuts = Cuts::new(end, log.base_lsn, || partials.spare());
    let watermark = Watermark { start_ms: watermark_ms, delay_ms: config.export.watermark_delay_ms };
    let home = Home::new(table, writer, partials, cuts, watermark, config.log.dead_letter_bytes_max);
    Ok(Started { home, store, segment: (segment, file), log_dir: log.dir.path, exporter })
}

/// Reads the log again for ranges that have lost their table.
fn read_frames(dir: LogDir) -> Box<ReadFrames> {
    let mut reader = LogReader::new(dir);
    Box::new(move |_, from_lsn, to_lsn, each| {
        reader.read_frames(from_lsn, to_lsn, each).map_err(|error| error.to_string())
    })
}

/// The first frame of this incarnation: it proves that the disk takes a direct, synced write, and puts the nonce on disk before
/// anything is exported under it.
fn write_start(writer: &mut Writer, file: &File, segment: u64, start: Start, meta: FrameMeta) -> io::Result<()> {
    let mut bytes = Vec::new();
    record::encode_start(&start, &mut bytes);
    let asked = writer.wants_segment();
    assert_eq!(asked, Some(segment), "a log goes on in the segment that was prepared for it");
    writer.segment_ready(segment);
    writer.append(&bytes);
    writer.seal(meta);
    let Some((buffer, write)) = writer.next_write(0) else { unreachable!("a sealed frame and a ready segment") };
    let from = write.buffer_offset as usize;
    file.write_all_at(&buffer.memory[from..from + write.length as usize], write.file_offset)?;
    file.sync_all()?;
    let written = writer.written(buffer, true);
    assert!(written.is_ok(), "the write succeeded");
    Ok(())
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

fn frame_buffers(config: &Config) -> Result<Vec<Box<FrameBuffer>>, Failure> {
    let buffer = |id| {
        let memory = MmapMut::map_anon(buffer_bytes(config.log.frame_bytes))?;
        Ok(Box::new(FrameBuffer { memory, id: id as u32 }))
    };
    (0..FRAME_BUFFERS).map(buffer).collect::<io::Result<_>>().map_err(Failure::unavailable("memory for frames"))
}

/// Bytes that nobody outside can guess.
fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Failure::unavailable("randomness")(error.into()))?;
    Ok(bytes)
}
