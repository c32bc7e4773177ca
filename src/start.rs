//! Drives. From a data directory to a core that may serve: lock, identity, memory, recovery, the first frame of this
//! incarnation. Runs once, on the main thread; nothing is acknowledged before it has succeeded.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use memmap2::{Advice, MmapMut};
use tollgate_global::{Store, StoreError};
use tollgate_wire::Checkpoint;

use crate::admin::{Phase, Readiness};
use crate::commands::{halt_text, store_text};
use crate::config::{Config, FRAME_BUFFERS, SinkKind, TABLE_ROWS_MAX, TABLE_USERS_MAX};
use crate::core::home::Home;
use crate::core::incarnation::{self, Edge, Incarnation, LogEnd};
use crate::cut::{LogId, Position};
use crate::dedup;
use crate::event::{FrameBuffer, Now};
use crate::exit::Exit;
use crate::export::embedded::Embedded;
use crate::export::kafka::{Client, Kafka};
use crate::export::mirror::MirrorFile;
use crate::export::rebuild::Rebuilder;
use crate::export::sink::Sink;
use crate::export::thread::{ExportThread, ReadFrames};
use crate::export::{self, Behind, Mirror};
use crate::preagg;
use crate::wal::reader::LogReader;
use crate::wal::recover::{RecoveredLog, recover};
use crate::wal::segments::{DataDir, Identity, LogDir, LogError, open_segment_for_writing, prepare_segment};
use crate::wal::writer::buffer_bytes;
use crate::worker::now;

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
    /// Where the sink is the embedded one.
    pub store: Option<Arc<Store>>,
    /// The segment in use: its first frame is on disk.
    pub segment: (u64, File),
    pub log_dir: PathBuf,
    pub exporter: ExportThread,
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
    let mut table = dedup_table(config, now(started_at))?;
    let began = Instant::now();
    let (mut clicks, mut behind) = (0_u64, Behind::default());
    let mut recovered = recover(
        &config.data_dir,
        &confirmed,
        &mut |progress| {
            let (bytes_done, bytes_total) = (progress.bytes_done, progress.bytes_total);
            readiness.set(Phase::Recovering { bytes_done, bytes_total });
        },
        &mut |_, frame| {
            clicks += incarnation::restore(&mut table, frame);
            let (header, exported) = (&frame.header, exported_clicks(checkpoint.as_ref(), &frame.header.log_id));
            behind.frame(header.built_ms, header.totals.clicks, exported);
        },
    )
    .map_err(|error| Failure { exit: error.exit(), text: halt_text(&error, &config.data_dir) })?;
    if clicks > 0 {
        let rate = clicks as f64 / began.elapsed().as_secs_f64();
        tracing::info!(clicks, seconds = began.elapsed().as_secs_f64(), clicks_per_second = rate as u64, "recovered");
    }
    recovered.iter_mut().for_each(|log| keep_exported(log, checkpoint.as_ref()));
    let mut log = the_log(config, data_dir, &recovered)?;
    log.end.behind = behind;
    wait_for_the_clock(config, log.built_ms, started_at);
    if incarnation::key_rule_changed(config, &recovered) {
        tracing::warn!(
            "the rule that makes click keys has changed, or is not known of all: what is older than the newest click in the log is refused as too old"
        );
    }
    incarnation::keep_horizon(&mut table, config, &recovered, now(started_at));
    let nonces = recovered.iter().flat_map(|log| log.nonces.iter().copied()).collect();
    let edge = Edge { data_dir: uuid, nonce: random()?, nonces, mirror: end.mirror };
    begin(config, started_at, Recovered { edge, store: end.store, sink: end.sink, confirmed, table, log })
}

/// The protocol's other end, and what this directory knows of it.
struct End {
    sink: Box<dyn Sink>,
    store: Option<Arc<Store>>,
    mirror: Mirror,
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
            let store = Arc::new(Store::open(&path).map_err(failed)?);
            let checkpoint = store.checkpoint(&export.edge_id).map_err(failed)?;
            let sink = Box::new(Embedded::new(Arc::clone(&store), path, export.edge_id.clone()));
            Ok((End { sink, store: Some(store), mirror: Mirror::Unkept }, checkpoint))
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
            let sink = Box::new(Kafka::new(client, export, config.data_dir.clone(), mirror));
            Ok((End { sink, store: None, mirror: kept }, checkpoint))
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

/// The log, where it goes on, and when its newest frame was built.
struct Log {
    end: LogEnd,
    dir: LogDir,
    built_ms: i64,
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
            Ok(Log { end: LogEnd::new(dir.log_id), dir, built_ms: i64::MIN })
        }
        [log] => Ok(Log { end: LogEnd::of(log), dir: log.dir.clone(), built_ms: log.built_ms }),
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

/// What recovery and the memory have come to.
struct Recovered {
    edge: Edge,
    store: Option<Arc<Store>>,
    sink: Box<dyn Sink>,
    /// The positions of the stored checkpoint; recovery met each in its log.
    confirmed: Vec<Position>,
    table: dedup::Table,
    log: Log,
}

/// Writes this incarnation's first frame: it proves that the disk takes a direct, synced write.
fn begin(config: &Config, started_at: Instant, recovered: Recovered) -> Result<Started, Failure> {
    let Recovered { edge, store, sink, confirmed, table, log } = recovered;
    let (dir, segment) = (log.dir, log.end.start.segment);
    let unprepared = |source| Failure {
        exit: Exit::LogWriteFailed,
        text: format!(
            "segment {segment:010} in {} could not be prepared: {source}. Look at the disk and its room before a restart",
            dir.path.display()
        ),
    };
    prepare_segment(&dir.path, segment, config.log.segment_bytes, Duration::ZERO).map_err(unprepared)?;
    let file = open_segment_for_writing(&dir.path, segment).map_err(unprepared)?;
    let (incarnation, buffer, write) =
        Incarnation::begin(config, edge, table, log.end, frame_buffers(config)?, now(started_at));
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
    let (home, mut exporter) = incarnation.begun(config, buffer, partials);
    if config.export.sink == SinkKind::Kafka && !config.export.kafka.topic_raw.is_empty() {
        exporter.sends_clicks();
    }
    let exporter = ExportThread {
        exporter,
        sink,
        confirmed,
        rebuilder: Rebuilder::new(u64::from_le_bytes(random()?)),
        read_frames: read_frames(dir.clone()),
        meter: Arc::default(),
        started: started_at,
    };
    Ok(Started { home, store, segment: (segment, file), log_dir: dir.path, exporter })
}

/// Reads the log again for ranges that have lost their table.
fn read_frames(dir: LogDir) -> Box<ReadFrames> {
    let mut reader = LogReader::new(dir);
    Box::new(move |_, from_lsn, to_lsn, each| {
        reader.read_frames(from_lsn, to_lsn, each).map_err(|error| error.to_string())
    })
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
