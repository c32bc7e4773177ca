//! Drives. From a data directory to a core that may serve: lock, identity, memory, recovery, the first frame of this
//! incarnation. Runs once, on the main thread; nothing is acknowledged before it has succeeded.

mod demo;
mod first_segments;
mod listed;
mod memory;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate_global::{Store, StoreError};
use tollgate_wire::Checkpoint;

use crate::admin::{Phase, Readiness};
use crate::commands::{halt_text, store_text};
use crate::config::{Config, SinkKind, TABLE_ROWS_MAX, TABLE_USERS_MAX};
use crate::core::home::{Home, Seat};
use crate::core::idle::IdleLog;
use crate::core::incarnation::{self, Incarnation, LogEnd};
use crate::cut::{LogId, Position};
use crate::dedup;
use crate::event::Now;
use crate::exit::Exit;
use crate::export::embedded::{self, Embedded};
use crate::export::kafka::{Client, Kafka};
use crate::export::mirror::MirrorFile;
use crate::export::rebuild::Rebuilder;
use crate::export::sink::Sink;
use crate::export::thread::{ExportThread, ReadFrames};
use crate::export::{self, Behind, Exporter, Mirror, Names};
use crate::preagg;
pub use crate::start::demo::{kept_apart, of_an_edge_alone, of_nobody_else};
use crate::start::first_segments::{make_first_segments, unprepared};
pub use crate::start::listed::a_log_is_there;
use crate::start::listed::all_listed_are_here;
use crate::start::memory::{dedup_tables, frame_buffers, random};
use crate::units::utc;
use crate::wal::reader::LogReader;
use crate::wal::recover::{RecoveredLog, recover};
use crate::wal::segments::{DataDir, Identity, LogDir, LogError, open_segment_for_writing};
use crate::worker::now;

/// A shorter recovery is nobody's concern.
const RECOVERY_WORTH_SAYING_SECONDS: f64 = 1.0;

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
    /// One for each core, in order.
    pub cores: Vec<StartedCore>,
    /// Logs that no core writes to.
    pub idle: Vec<(LogDir, IdleLog)>,
    /// Where the sink is the embedded one.
    pub store: Option<Arc<Store>>,
    pub exporter: ExportThread,
}

/// What one core begins with.
pub struct StartedCore {
    pub home: Home,
    /// The segment in use: its first frame is on disk.
    pub segment: (u64, File),
    pub log: LogDir,
}

/// The embedded store.
pub fn store_path(config: &Config) -> PathBuf {
    config.data_dir.join("store.redb")
}

/// The caller holds `data_dir`, and so its lock, until nothing is written any more.
pub fn start(
    config: &Config,
    data_dir: &DataDir,
    started_at: Instant,
    readiness: &Readiness,
) -> Result<Started, Failure> {
    let uuid = identify(config, data_dir)?;
    let (end, checkpoint) = open_sink(config)?;
    let confirmed = match &end.mirror {
        // Where an operator said that export goes on: what is remembered may be of another log than this one.
        Mirror::Kept { adopted: Some(adopted), .. } => export::listed_positions(&adopted.logs),
        Mirror::Kept { adopted: None, .. } | Mirror::Unkept => {
            checkpoint.as_ref().map_or(Vec::new(), export::positions)
        }
    };
    let mut tables = dedup_tables(config, now(started_at), readiness)?;
    let began = Instant::now();
    let (mut clicks, mut behind) = (0_u64, BTreeMap::<LogId, Behind>::new());
    let mut recovered = recover(
        &config.data_dir,
        &confirmed,
        &mut |progress| {
            let (bytes_done, bytes_total) = (progress.bytes_done, progress.bytes_total);
            readiness.set(Phase::Recovering { bytes_done, bytes_total });
        },
        &mut |_, frame| {
            clicks += incarnation::restore(&mut tables, frame);
            let (header, exported) = (&frame.header, exported_clicks(checkpoint.as_ref(), &frame.header.log_id));
            behind.entry(header.log_id).or_default().frame(header.built_ms, header.totals.clicks, exported);
        },
    )
    .map_err(|error| Failure { exit: error.exit(), text: halt_text(&error, &config.data_dir) })?;
    let seconds = began.elapsed().as_secs_f64();
    if clicks > 0 && seconds >= RECOVERY_WORTH_SAYING_SECONDS {
        tracing::info!(clicks, seconds, clicks_per_second = (clicks as f64 / seconds) as u64, "recovered");
    }
    if let Some(checkpoint) = checkpoint.as_ref().filter(|checkpoint| checkpoint.data_dir_uuid == uuid) {
        all_listed_are_here(checkpoint, &end.mirror, &recovered)?;
    }
    recovered.iter_mut().for_each(|log| keep_exported(log, checkpoint.as_ref()));
    let built_ms = recovered.iter().map(|log| log.built_ms).max().unwrap_or(i64::MIN);
    wait_for_the_clock(config, built_ms, started_at);
    for table in &mut tables {
        incarnation::keep_horizon(table, config, &recovered, now(started_at));
    }
    if incarnation::key_rule_changed(config, &recovered) {
        let horizon_ms = tables.iter().map(dedup::Table::horizon_ms).max().unwrap_or(i64::MIN);
        tracing::warn!(
            "--dedup-key has changed, or is not known of all of the log: the ids of its clicks are of no use, so clicks of before {} are refused \
             as too_old, whether they were counted or not; while that time is ahead of the clock, all are shed",
            utc(horizon_ms)
        );
    }
    let nonces = recovered.iter().flat_map(|log| log.nonces.iter().copied()).collect();
    let (logs, idle) = share_logs(config, data_dir, recovered)?;
    if !idle.is_empty() {
        tracing::info!(logs = idle.len(), "logs of a run with more cores are read, exported and cleared away");
    }
    begin(config, started_at, Recovered { data_dir: uuid, nonces, end, confirmed, tables, logs, idle, behind })
}

/// The protocol's other end, and what this directory knows of it.
struct End {
    sink: Box<dyn Sink>,
    store: Option<Arc<Store>>,
    mirror: Mirror,
    names: Names,
}

/// With the last checkpoint that is known without asking anybody. A directory belongs to the sink that it exported to.
fn open_sink(config: &Config) -> Result<(End, Option<Checkpoint>), Failure> {
    let (path, export) = (store_path(config), &config.export);
    let mirror = MirrorFile::read(&config.data_dir)?;
    let failed = |error| Failure { exit: Exit::Store, text: store_text(&error, &path) };
    let refused = |text| Failure { exit: Exit::DataDir, text };
    let dir = config.data_dir.display();
    match export.sink {
        SinkKind::Embedded => {
            if let Some(mirror) = mirror {
                let cluster = mirror.place.cluster;
                return Err(refused(format!(
                    "{dir} exported to the Kafka cluster {cluster}, and would export all again: say --sink kafka; or, to change the \
                     sink, stop this edge with `tollgate serve --until-exported`, and start with an empty --data-dir"
                )));
            }
            let store = Arc::new(embedded::open(&path, &config.keep).map_err(failed)?);
            let checkpoint = store.checkpoint(&export.edge_id).map_err(failed)?;
            let sink = Box::new(Embedded::new(Arc::clone(&store), path, export.edge_id.clone()));
            Ok((End { sink, store: Some(store), mirror: Mirror::Unkept, names: Names::default() }, checkpoint))
        }
        SinkKind::Kafka => {
            if path.is_file() && counted(&path, &export.edge_id).map_err(failed)? {
                return Err(refused(format!(
                    "{dir} exported to its own store ({}), and would export all again: say --sink embedded; or, to change the sink, \
                     stop this edge with SIGTERM, and start with an empty --data-dir",
                    path.display()
                )));
            }
            let (kafka, place) = (&export.kafka, mirror.as_ref().map(|mirror| &mirror.place));
            if let Some(place) = place.filter(|place| {
                (&place.topic_partials, &place.topic_checkpoints) != (&kafka.topic_partials, &kafka.topic_checkpoints)
            }) {
                return Err(refused(format!(
                    "{dir} exported to the topics {} and {}: name them with --kafka-topic-partials and --kafka-topic-checkpoints; or \
                     `tollgate adopt` shows what going on with others would mean",
                    place.topic_partials, place.topic_checkpoints
                )));
            }
            let client = Client::new(kafka).map_err(|error| Failure { exit: Exit::Usage, text: error.to_string() })?;
            let (kept, checkpoint) =
                (MirrorFile::for_the_protocol(mirror.as_ref()), mirror.as_ref().and_then(MirrorFile::checkpoint));
            let names = mirror.as_ref().map(MirrorFile::names).unwrap_or_default();
            let sink = Box::new(Kafka::new(client, export, config.data_dir.clone(), mirror));
            Ok((End { sink, store: None, mirror: kept, names }, checkpoint))
        }
    }
}

/// Whether a store holds counts. One that was made and never counted a click stands in nobody's way.
fn counted(path: &Path, edge_id: &str) -> Result<bool, StoreError> {
    let store = Store::open(path)?;
    let checkpoints = [store.checkpoint(edge_id)?, store.checkpoint_of_another(edge_id)?];
    Ok(checkpoints.iter().flatten().flat_map(|checkpoint| &checkpoint.logs).any(|log| log.clicks_total > 0))
}

/// A loss at a log's end takes the frames with it that said how many clicks there were, and which incarnation exported
/// them: the checkpoint knows both still.
fn keep_exported(log: &mut RecoveredLog, checkpoint: Option<&Checkpoint>) {
    let Some(checkpoint) = checkpoint.filter(|_| log.repaired) else { return };
    for listed in checkpoint.logs.iter().filter(|listed| *listed.log_uuid == log.start.log_id) {
        log.start.totals.clicks = log.start.totals.clicks.max(listed.clicks_total);
        log.nonces.extend(<[u8; 16]>::try_from(checkpoint.nonce.as_slice()));
    }
}

/// Clicks of a log up to the checkpoint.
fn exported_clicks(checkpoint: Option<&Checkpoint>, log_id: &LogId) -> u64 {
    let listed = checkpoint.iter().flat_map(|checkpoint| &checkpoint.logs).find(|listed| *listed.log_uuid == *log_id);
    listed.map_or(0, |listed| listed.clicks_total)
}

/// A log that a core writes to, and where it goes on.
struct Log {
    end: LogEnd,
    dir: LogDir,
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
        let uuid = crate::cut::parse_log_id(&identity.uuid);
        let text = format!("{}: the uuid in identity.toml is not 32 hexadecimal digits", config.data_dir.display());
        return uuid.ok_or(Failure { exit: Exit::DataDir, text });
    }
    let uuid = random()?;
    data_dir.write_identity(&Identity::new(uuid, &config.export.edge_id, config.click.dedup_key as u32))?;
    Ok(uuid)
}

/// Each core goes on with its log, or begins one; the other logs are idle.
fn share_logs(
    config: &Config,
    data_dir: &DataDir,
    recovered: Vec<RecoveredLog>,
) -> Result<(Vec<Log>, Vec<RecoveredLog>), Failure> {
    let (of_cores, idle) = incarnation::share_logs(config.cores(), recovered);
    let mut logs = Vec::new();
    for (core, found) in (0..).zip(of_cores) {
        logs.push(match found {
            Some(log) => Log { end: LogEnd::of(&log), dir: log.dir },
            None => {
                let dir = data_dir.create_log(core, random()?)?;
                Log { end: LogEnd::new(dir.log_id), dir }
            }
        });
    }
    Ok((logs, idle))
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

/// What recovery and the memory have come to.
struct Recovered {
    data_dir: [u8; 16],
    nonces: Vec<[u8; 16]>,
    end: End,
    /// The positions of the stored checkpoint; recovery met each in its log.
    confirmed: Vec<Position>,
    /// Of each core, in order.
    tables: Vec<dedup::Table>,
    logs: Vec<Log>,
    idle: Vec<RecoveredLog>,
    behind: BTreeMap<LogId, Behind>,
}

/// Writes this incarnation's first frames: they prove that the disk takes a direct, synced write, and hold the nonce.
fn begin(config: &Config, started_at: Instant, recovered: Recovered) -> Result<Started, Failure> {
    let Recovered { data_dir, mut nonces, end, confirmed, tables, logs, idle, mut behind } = recovered;
    let nonce = random()?;
    let firsts: Vec<_> = logs.iter().map(|log| (&*log.dir.path, log.end.start.segment)).collect();
    make_first_segments(&firsts, config.log.segment_bytes)?;
    let (mut cores, mut starts, mut dirs) = (Vec::new(), Vec::new(), Vec::new());
    for ((own, mut log), table) in (0..).zip(logs).zip(tables) {
        let seat = Seat { own, cores: config.cores() };
        log.end.behind = behind.remove(&log.dir.log_id).unwrap_or_default();
        dirs.push(log.dir.clone());
        let (core, start) = begin_core(config, seat, nonce, table, log, now(started_at))?;
        cores.push(core);
        starts.push(start);
    }
    for log in &idle {
        dirs.push(log.dir.clone());
        starts.push(incarnation::idle_log(log, behind.remove(&log.dir.log_id).unwrap_or_default()));
    }
    nonces.push(nonce);
    let edge_id = config.export.edge_id.clone();
    let start = export::Start { edge_id, data_dir, nonce, nonces, mirror: end.mirror, logs: starts };
    let mut exporter = Exporter::new(start);
    exporter.goes_by(end.names);
    if config.export.sink == SinkKind::Kafka && !config.export.kafka.topic_raw.is_empty() {
        exporter.sends_clicks();
    }
    let exporter = ExportThread {
        exporter,
        sink: end.sink,
        confirmed,
        rebuilder: Rebuilder::new(u64::from_le_bytes(random()?)),
        read_frames: read_frames(dirs),
        meter: Arc::default(),
        started: started_at,
    };
    let idle_log = |log: RecoveredLog| {
        let RecoveredLog { dir, start, base_lsn, .. } = log;
        (dir, IdleLog::new(start.segments, base_lsn, start.totals.clicks))
    };
    let idle = idle.into_iter().map(idle_log).collect();
    Ok(Started { cores, idle, store: end.store, exporter })
}

fn begin_core(
    config: &Config,
    seat: Seat,
    nonce: [u8; 16],
    table: dedup::Table,
    log: Log,
    now: Now,
) -> Result<(StartedCore, export::LogStart), Failure> {
    let Log { end, dir } = log;
    let segment = end.start.segment;
    let file = open_segment_for_writing(&dir.path, segment).map_err(|error| unprepared(&dir.path, segment, &error))?;
    let (incarnation, buffer, write) = Incarnation::begin(config, seat, nonce, table, end, frame_buffers(config)?, now);
    let from = write.buffer_offset as usize;
    let written = file
        .write_all_at(&buffer.memory[from..from + write.length as usize], write.file_offset)
        .and_then(|()| file.sync_all());
    written.map_err(|error| Failure {
        exit: Exit::LogWriteFailed,
        text: format!(
            "the first frame of segment {segment:010} in {} could not be written: {error}. Look at the disk (dmesg, SMART) \
             before a restart",
            dir.path.display()
        ),
    })?;
    let partials = preagg::Table::new(TABLE_ROWS_MAX, TABLE_USERS_MAX, u64::from_le_bytes(random()?));
    let (home, start) = incarnation.begun(config, buffer, partials);
    Ok((StartedCore { home, segment: (segment, file), log: dir }, start))
}

/// Reads a log again for ranges that have lost their table.
fn read_frames(dirs: Vec<LogDir>) -> Box<ReadFrames> {
    let mut readers: BTreeMap<LogId, LogReader> =
        dirs.into_iter().map(|dir| (dir.log_id, LogReader::new(dir))).collect();
    Box::new(move |log, from_lsn, to_lsn, each| {
        let reader = readers.get_mut(&log).ok_or_else(|| format!("log {log:02x?} is none of this directory's"))?;
        reader.read_frames(from_lsn, to_lsn, each).map_err(|error| error.to_string())
    })
}
