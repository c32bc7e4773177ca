//! The log's files on the disk: the data directory and its lock, segment files made, opened, read and
//! deleted. Runs at start, on the helper thread that prepares segments, on the exporter's thread, and in `tollgate wal`.
//!
//! ```text
//! DIR/LOCK                             flock: one process
//! DIR/identity.toml                    written once: uuid, edge id, rule that makes keys, format version
//! DIR/logs/<core>-<log id>/0000000001.seg  …
//! DIR/logs/<core>-<log id>/<lsn>.repair    a loss that an operator accepted (see `repairs.rs`)
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use serde::{Deserialize, Serialize};

use super::durable::{sync_dir, sync_with_those_above, write_synced};
use super::frame::BLOCK_BYTES;
use super::repairs::Repair;
use super::replay::{Damage, Fault, hex};
use crate::cut::{LogId, parse_log_id};
use crate::exit::Exit;

/// How long recovery waits for a dead process's write in flight to land and so unlock its segment.
const UNLOCK_WAIT: Duration = Duration::from_secs(10);
/// Scans read this much at a time.
const CHUNK_BYTES: usize = 1 << 20;
const IDENTITY_VERSION: u32 = 1;

/// What can go wrong with the files of a log; each kind has its exit code.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot {doing} {path}: {source}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot sync {path}, or what names it: {source}: look at the disk (dmesg, SMART) before a restart")]
    NotSynced { path: PathBuf, source: io::Error },
    #[error("{path} is in use by another process: stop it, or name another --data-dir")]
    InUse { path: PathBuf },
    #[error("{path} is not what tollgate wrote: {why}")]
    Unreadable { path: PathBuf, why: String },
    #[error("{0}")]
    Damaged(#[from] Box<Damage>),
}

impl LogError {
    pub fn exit(&self) -> Exit {
        match self {
            LogError::Io { .. } => Exit::Unavailable,
            LogError::NotSynced { .. } => Exit::LogWriteFailed,
            LogError::InUse { .. } | LogError::Unreadable { .. } => Exit::DataDir,
            LogError::Damaged(damage) if matches!(damage.fault, Fault::Checkpoint { .. }) => Exit::Checkpoint,
            LogError::Damaged(_) => Exit::LogDamaged,
        }
    }
}

/// What a data directory is, for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub format_version: u32,
    /// 32 hexadecimal digits.
    pub uuid: String,
    pub edge_id: String,
    /// Code of the rule that makes click keys.
    pub dedup_key: u32,
}

impl Identity {
    pub fn new(uuid: [u8; 16], edge_id: &str, dedup_key: u32) -> Identity {
        Identity { format_version: IDENTITY_VERSION, uuid: hex(&uuid), edge_id: edge_id.to_owned(), dedup_key }
    }
}

/// A data directory, locked by this process while this lives.
#[derive(Debug)]
pub struct DataDir {
    pub path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory where it is missing, and locks it.
    pub fn open(path: &Path) -> Result<DataDir, LogError> {
        let logs = path.join("logs");
        std::fs::create_dir_all(&logs).map_err(|source| io_error("make", &logs, source))?;
        let lock_path = path.join("LOCK");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(|source| io_error("open", &lock_path, source))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LogError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(io_error("lock", &lock_path, source)),
        }
        // Whoever made them may have been killed before their names were synced.
        sync_dir(&logs)?;
        sync_with_those_above(path)?;
        Ok(DataDir { path: path.to_owned(), _lock: lock })
    }

    /// What the directory is; `None` where it is new.
    pub fn identity(&self) -> Result<Option<Identity>, LogError> {
        read_identity(&self.path)
    }

    /// Writes the identity of a new directory: to a file aside, synced, renamed.
    pub fn write_identity(&self, identity: &Identity) -> Result<(), LogError> {
        let path = self.path.join("identity.toml");
        let text = toml::to_string(identity).expect("strings and numbers are TOML");
        write_synced(&path, text.as_bytes())
    }

    /// Makes the directory of a new log.
    pub fn create_log(&self, core: u32, log_id: LogId) -> Result<LogDir, LogError> {
        let logs = self.path.join("logs");
        let path = logs.join(format!("{core}-{}", hex(&log_id)));
        std::fs::create_dir(&path).map_err(|source| io_error("make", &path, source))?;
        sync_dir(&logs)?;
        Ok(LogDir { core, log_id, path })
    }
}

/// Reads the identity without taking the lock.
pub fn read_identity(dir: &Path) -> Result<Option<Identity>, LogError> {
    let path = dir.join("identity.toml");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_error("read", &path, source)),
    };
    let unreadable = |why: String| LogError::Unreadable { path: path.clone(), why };
    let identity: Identity = toml::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    if identity.format_version != IDENTITY_VERSION {
        let found = identity.format_version;
        return Err(unreadable(format!("format version {found}; this tollgate reads version {IDENTITY_VERSION}")));
    }
    Ok(Some(identity))
}

/// One log's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDir {
    pub core: u32,
    pub log_id: LogId,
    pub path: PathBuf,
}

/// A segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    pub segment: u64,
    pub bytes: u64,
}

/// Every log in a data directory, by core and id. Takes no lock.
pub fn list_logs(dir: &Path) -> Result<Vec<LogDir>, LogError> {
    let logs = dir.join("logs");
    let mut found = Vec::new();
    for name in entries(&logs)? {
        let path = logs.join(&name);
        let parsed = name.split_once('-').and_then(|(core, id)| Some((core.parse().ok()?, parse_log_id(id)?)));
        let Some((core, log_id)) = parsed else {
            let why = "a log's directory is named <core>-<32 hexadecimal digits>; move it away".to_owned();
            return Err(LogError::Unreadable { path, why });
        };
        found.push(LogDir { core, log_id, path });
    }
    found.sort_by_key(|log| (log.log_id, log.core));
    if let Some([log, copy]) = found.array_windows().find(|[log, copy]| log.log_id == copy.log_id) {
        // Two cores would write to one log, and its numbers name two clicks each.
        let other = log.path.display();
        let why = format!(
            "it is {other} once more; move the older out of logs/: alone in another DIR/logs, `wal export` reads it"
        );
        return Err(LogError::Unreadable { path: copy.path.clone(), why });
    }
    found.sort_by_key(|log| (log.core, log.log_id));
    Ok(found)
}

impl LogDir {
    pub fn segment_path(&self, segment: u64) -> PathBuf {
        segment_path(&self.path, segment)
    }

    /// The log's segment files, oldest first.
    pub fn segments(&self) -> Result<Vec<SegmentFile>, LogError> {
        let mut found = Vec::new();
        for name in entries(&self.path)? {
            let path = self.path.join(&name);
            if name.ends_with(".repair") || name.ends_with(".new") {
                continue;
            }
            let Some(segment) = name.strip_suffix(".seg").and_then(|number| number.parse().ok()) else {
                let why = "a log's directory holds <number>.seg and <lsn>.repair; move it away".to_owned();
                return Err(LogError::Unreadable { path, why });
            };
            let bytes = std::fs::metadata(&path).map_err(|source| io_error("look at", &path, source))?.len();
            found.push(SegmentFile { segment, bytes });
        }
        found.sort_by_key(|file| file.segment);
        Ok(found)
    }

    /// The losses that an operator accepted.
    pub fn repairs(&self) -> Result<Vec<Repair>, LogError> {
        let mut repairs = Vec::new();
        for name in entries(&self.path)?.into_iter().filter(|name| name.ends_with(".repair")) {
            let path = self.path.join(name);
            let text = std::fs::read_to_string(&path).map_err(|source| io_error("read", &path, source))?;
            let repair = serde_json::from_str(&text);
            repairs.push(repair.map_err(|error| LogError::Unreadable { path, why: error.to_string() })?);
        }
        Ok(repairs)
    }

    /// Waits until no process can write to any segment any more: the lock of a dead process's descriptor lives as long as
    /// its last write in flight. The locks hold as long as what is returned lives.
    pub fn lock_segments(&self) -> Result<Vec<File>, LogError> {
        let deadline = Instant::now() + UNLOCK_WAIT;
        let mut locks = Vec::new();
        for SegmentFile { segment, .. } in self.segments()? {
            let path = self.segment_path(segment);
            let file = File::open(&path).map_err(|source| io_error("open", &path, source))?;
            loop {
                match file.try_lock() {
                    Ok(()) => break,
                    Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    Err(TryLockError::WouldBlock) => return Err(LogError::InUse { path }),
                    Err(TryLockError::Error(source)) => return Err(io_error("lock", &path, source)),
                }
            }
            locks.push(file);
        }
        Ok(locks)
    }
}

/// Opens a prepared segment for direct writes; the descriptor holds the segment's lock.
pub fn open_segment_for_writing(log_dir: &Path, segment: u64) -> io::Result<File> {
    let file = open_direct(OpenOptions::new().write(true), &segment_path(log_dir, segment))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(ErrorKind::ResourceBusy, "another process writes to it")),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Deletes a segment and syncs its directory. Segments go oldest first. One that is gone already was deleted by a try whose
/// sync failed.
pub fn delete_segment(log_dir: &Path, segment: u64) -> io::Result<()> {
    match std::fs::remove_file(segment_path(log_dir, segment)) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        removed => removed?,
    }
    File::open(log_dir)?.sync_all()
}

/// Reads a segment in windows, past the page cache where the file system allows.
#[derive(Debug)]
pub struct SegmentReader {
    file: File,
    path: PathBuf,
    memory: MmapMut,
    window_at: u64,
    window_bytes: usize,
    pub segment: u64,
    pub file_bytes: u64,
}

impl SegmentReader {
    pub fn open(log: &LogDir, segment: u64, window_bytes: usize) -> Result<SegmentReader, LogError> {
        let path = log.segment_path(segment);
        let failed = |source| io_error("open", &path, source);
        let file = open_direct(OpenOptions::new().read(true), &path).map_err(failed)?;
        let file_bytes = file.metadata().map_err(failed)?.len();
        let window_bytes = window_bytes.min(file_bytes as usize).max(1).next_multiple_of(BLOCK_BYTES);
        let memory = MmapMut::map_anon(window_bytes).map_err(failed)?;
        Ok(SegmentReader { file, path, memory, window_at: 0, window_bytes: 0, segment, file_bytes })
    }

    /// Bytes from `offset` (a multiple of 4 KiB) on: at least `needed`, or what is left of the file.
    pub fn at(&mut self, offset: u64, needed: usize) -> Result<&[u8], LogError> {
        let needed = needed.min(self.file_bytes.saturating_sub(offset) as usize);
        let held = self.window_at..self.window_at + self.window_bytes as u64;
        if offset < held.start || offset + needed as u64 > held.end {
            self.read(offset, needed)?;
        }
        let from = ((offset - self.window_at) as usize).min(self.window_bytes);
        Ok(&self.memory[from..self.window_bytes])
    }

    /// Drops what is held, so that what was written since is seen.
    pub fn forget(&mut self) {
        self.window_bytes = 0;
    }

    fn read(&mut self, offset: u64, needed: usize) -> Result<(), LogError> {
        let failed = |source| io_error("read", &self.path, source);
        if needed > self.memory.len() {
            self.memory = MmapMut::map_anon(needed.next_multiple_of(BLOCK_BYTES)).map_err(failed)?;
        }
        (self.window_at, self.window_bytes) = (offset, 0);
        let whole = self.memory.len().min(self.file_bytes.saturating_sub(offset) as usize);
        while self.window_bytes < whole {
            // Direct reads start on blocks, so an odd end (a file cut short) is read with its whole block.
            let from = self.window_bytes / BLOCK_BYTES * BLOCK_BYTES;
            let read = match self.file.read_at(&mut self.memory[from..], offset + from as u64) {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(source) => return Err(failed(source)),
            };
            if from + read <= self.window_bytes {
                break;
            }
            self.window_bytes = from + read;
        }
        Ok(())
    }
}

/// Whether a whole file reads as zeros.
pub fn reads_as_zeros(log: &LogDir, segment: u64) -> Result<bool, LogError> {
    let mut reader = SegmentReader::open(log, segment, CHUNK_BYTES)?;
    let mut at = 0;
    while at < reader.file_bytes {
        let bytes = reader.at(at, CHUNK_BYTES)?;
        if !super::frame::is_zero(bytes) || bytes.is_empty() {
            return Ok(false);
        }
        at += bytes.len() as u64;
    }
    Ok(true)
}

pub fn io_error(doing: &'static str, path: &Path, source: io::Error) -> LogError {
    LogError::Io { doing, path: path.to_owned(), source }
}

pub(super) fn segment_path(log_dir: &Path, segment: u64) -> PathBuf {
    log_dir.join(format!("{segment:010}.seg"))
}

/// Opens with O_DIRECT; where the file system has none (tmpfs of old), without.
fn open_direct(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    match options.custom_flags(libc::O_DIRECT).open(path) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => options.custom_flags(0).open(path),
        opened => opened,
    }
}

fn entries(path: &Path) -> Result<Vec<String>, LogError> {
    let failed = |source| io_error("list", path, source);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name
            .into_string()
            .map_err(|name| LogError::Unreadable { path: path.join(name), why: "its name is not UTF-8".to_owned() })?;
        names.push(name);
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::prepare::prepare_segment;

    fn log_in(dir: &Path) -> LogDir {
        DataDir::open(dir).expect("free").create_log(3, [0xAB; 16]).expect("a log")
    }

    #[test]
    fn a_data_directory_is_one_process_s_and_keeps_its_identity() {
        let dir = tempfile::tempdir().expect("a directory");
        let held = DataDir::open(dir.path()).expect("free");
        assert!(matches!(DataDir::open(dir.path()), Err(LogError::InUse { .. })));
        assert_eq!(held.identity().expect("readable"), None);
        let identity = Identity::new([7; 16], "edge \"1\"", 2);
        held.write_identity(&identity).expect("written");
        drop(held);
        assert_eq!(DataDir::open(dir.path()).expect("free again").identity().expect("readable"), Some(identity));
        std::fs::write(dir.path().join("identity.toml"), "format_version = 2").expect("written");
        let error = read_identity(dir.path()).expect_err("unreadable");
        assert_eq!(error.exit(), Exit::DataDir);
    }

    #[test]
    fn a_prepared_segment_reads_as_zeros_and_is_never_made_twice() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = log_in(dir.path());
        let bytes = CHUNK_BYTES as u64 * 2 + BLOCK_BYTES as u64;
        prepare_segment(&log.path, 1, bytes, Duration::ZERO).expect("prepared");
        assert_eq!(log.segments().expect("listed"), [SegmentFile { segment: 1, bytes }]);
        assert!(reads_as_zeros(&log, 1).expect("readable"));
        assert!(prepare_segment(&log.path, 1, bytes, Duration::ZERO).is_err());
        let file = OpenOptions::new().write(true).open(log.segment_path(1)).expect("open");
        file.write_all_at(&[1], bytes - 1).expect("written");
        assert!(!reads_as_zeros(&log, 1).expect("readable"));
        delete_segment(&log.path, 1).expect("deleted");
        assert!(log.segments().expect("listed").is_empty());
    }

    #[test]
    fn a_segment_has_one_writer_and_its_lock_goes_with_the_descriptor() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = log_in(dir.path());
        prepare_segment(&log.path, 1, BLOCK_BYTES as u64, Duration::ZERO).expect("prepared");
        let writing = open_segment_for_writing(&log.path, 1).expect("free");
        assert!(open_segment_for_writing(&log.path, 1).is_err());
        let waiting = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| log.lock_segments().map(|locks| locks.len()));
            drop(writing);
            waiting.join().expect("no panic")
        });
        assert_eq!(waiting.expect("the lock came free"), 1);
    }

    #[test]
    fn logs_are_listed_by_core_and_id_and_strange_names_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = log_in(dir.path());
        assert_eq!(list_logs(dir.path()).expect("listed"), std::slice::from_ref(&log));
        std::fs::write(log.path.join("notes.txt"), "").expect("written");
        assert!(matches!(log.segments(), Err(LogError::Unreadable { .. })));
        std::fs::create_dir(dir.path().join("logs/3-abc")).expect("made");
        assert!(matches!(list_logs(dir.path()), Err(LogError::Unreadable { .. })));
    }

    #[test]
    fn a_log_that_has_two_directories_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = log_in(dir.path());
        let name = log.path.file_name().and_then(|name| name.to_str()).expect("a name");
        let (_, id) = name.split_once('-').expect("a core and an id");
        let other_id = format!("{:0>32}", 7);
        std::fs::create_dir(dir.path().join(format!("logs/1-{other_id}"))).expect("made");
        assert_eq!(list_logs(dir.path()).expect("two logs").len(), 2);
        let copy = dir.path().join(format!("logs/4-{id}"));
        std::fs::create_dir(&copy).expect("made");
        let error = list_logs(dir.path()).expect_err("twice");
        assert!(matches!(&error, LogError::Unreadable { path, .. } if *path == copy), "{error}");
        assert!(error.to_string().contains(&log.path.display().to_string()), "{error}");
    }
}
