//! Drives. The disk under the log: files in memory, so that recovery and the exporter read them with the product's own code,
//! and writes that are nowhere until they end. A kill decides sector by sector what of an unfinished write is there.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tollgate::event::LogWrite;
use tollgate::export::mirror::{self, MirrorFile, Place};
use tollgate::wal::segments::LogDir;
use tollgate_wire::Checkpoint;

use crate::late::Late;
use crate::rng::Rng;

pub const SECTOR_BYTES: usize = 512;

pub struct Disk {
    pub dir: TempDir,
    pub late: Vec<Late>,
    /// Where a write of the process failed; what it writes there again is said to be on the disk.
    failed: BTreeSet<(PathBuf, u64)>,
    /// That, with its length.
    unkept: Vec<(PathBuf, u64, usize)>,
}

/// What a power cut left of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    Nothing,
    Part,
    All,
}

/// A directory in memory, where there is such a thing.
pub fn in_memory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a directory for the simulated disk")
}

impl Disk {
    pub fn new() -> Disk {
        Disk { dir: in_memory(), late: Vec::new(), failed: BTreeSet::new(), unkept: Vec::new() }
    }

    /// A write ended, synced.
    pub fn write(&mut self, log: &LogDir, write: &LogWrite, bytes: &[u8]) {
        put(&self.open(log, write), write.file_offset, bytes);
        let (path, offset) = (log.segment_path(write.segment), write.file_offset);
        if self.failed.contains(&(path.clone(), offset)) {
            self.unkept.push((path, offset, bytes.len()));
        }
    }

    /// A write, or its sync, fails: any of its sectors may be there.
    pub fn fail(&mut self, log: &LogDir, write: &LogWrite, bytes: &[u8], rng: &mut Rng) {
        self.failed.insert((log.segment_path(write.segment), write.file_offset));
        self.tear(log, write, bytes, rng);
    }

    /// The process is gone, and with it what was in memory only.
    pub fn forget(&mut self) {
        self.failed.clear();
        for (path, offset, length) in std::mem::take(&mut self.unkept) {
            // Of a segment that is freed nothing is missed.
            if let Ok(file) = OpenOptions::new().write(true).open(path) {
                put(&file, offset, &vec![0; length]);
            }
        }
    }

    /// The segment that is written to.
    pub fn open(&self, log: &LogDir, write: &LogWrite) -> File {
        let file = OpenOptions::new().write(true).open(log.segment_path(write.segment));
        file.expect("a segment is prepared before it is written to")
    }

    /// A write never ended: any of its sectors may be there.
    pub fn tear(&self, log: &LogDir, write: &LogWrite, bytes: &[u8], rng: &mut Rng) -> Left {
        tear_in(&self.open(log, write), write, bytes, rng)
    }

    /// These sectors of a write are there.
    pub fn write_some(&self, log: &LogDir, write: &LogWrite, bytes: &[u8], kept: &[bool]) {
        put_some(&self.open(log, write), write, bytes, kept);
    }

    /// A segment's preparation never ended: the file is missing, too short, or there.
    pub fn prepare_in_part(&self, log: &LogDir, segment: u64, segment_bytes: u64, rng: &mut Rng) {
        if rng.percent(30) {
            return;
        }
        let blocks = segment_bytes / 4096;
        let bytes = if rng.percent(40) { blocks } else { rng.below(blocks + 1) } * 4096;
        self.prepare_to(log, segment, bytes);
    }

    /// So much of a segment was made when its preparation ended.
    pub fn prepare_to(&self, log: &LogDir, segment: u64, bytes: u64) {
        std::fs::write(log.segment_path(segment), vec![0; bytes as usize]).expect("the simulated disk takes it");
    }

    pub fn remove(&self, log: &LogDir, segment: u64) {
        std::fs::remove_file(log.segment_path(segment)).expect("a segment that is freed is there");
    }

    /// The last transaction that the data directory remembers.
    pub fn mirrored(&self) -> Option<Checkpoint> {
        self.mirror_file().checkpoint()
    }

    /// Puts a transaction where a start looks for it: aside, then in its place.
    pub fn remember(&self, checkpoint: &Checkpoint) {
        let mut file = self.mirror_file();
        file.remember(checkpoint);
        file.write(self.dir.path()).expect("the simulated disk takes it");
    }

    /// The process ended before what it wrote aside had its place; so much of it was there, in parts of 1,024.
    pub fn remember_aside(&self, checkpoint: &Checkpoint, part: usize) {
        let place = mirror::path(self.dir.path());
        let before = std::fs::read(&place).ok();
        self.remember(checkpoint);
        let bytes = std::fs::read(&place).expect("it was written");
        let aside = place.with_extension("new");
        std::fs::write(aside, &bytes[..bytes.len() * part / 1024]).expect("the simulated disk takes it");
        match before {
            Some(before) => std::fs::write(place, before),
            None => std::fs::remove_file(place),
        }
        .expect("the simulated disk takes it");
    }

    fn mirror_file(&self) -> MirrorFile {
        let place = || Place {
            cluster: "simulated".to_owned(),
            topic_partials: "clicks.partials".to_owned(),
            topic_checkpoints: "clicks.checkpoints".to_owned(),
            partition_partials: 0,
            partition_checkpoints: 0,
        };
        let read = MirrorFile::read(self.dir.path()).expect("what is remembered can be read");
        read.unwrap_or_else(|| MirrorFile::new(place()))
    }
}

/// As [`Disk::tear`], of a file that may be deleted.
pub fn tear_in(file: &File, write: &LogWrite, bytes: &[u8], rng: &mut Rng) -> Left {
    let sectors = bytes.len() / SECTOR_BYTES;
    let kept: Vec<bool> = match rng.below(6) {
        0 => vec![false; sectors],
        1 => vec![true; sectors],
        2 => {
            let cut = rng.index(sectors + 1);
            (0..sectors).map(|sector| sector < cut).collect()
        }
        3 => {
            let cut = rng.index(sectors + 1);
            (0..sectors).map(|sector| sector >= cut).collect()
        }
        4 => {
            let lost = rng.index(sectors);
            (0..sectors).map(|sector| sector != lost).collect()
        }
        _ => (0..sectors).map(|_| rng.percent(50)).collect(),
    };
    put_some(file, write, bytes, &kept);
    match kept.iter().filter(|kept| **kept).count() {
        0 => Left::Nothing,
        all if all == sectors => Left::All,
        _ => Left::Part,
    }
}

fn put_some(file: &File, write: &LogWrite, bytes: &[u8], kept: &[bool]) {
    for (sector, _) in kept.iter().enumerate().filter(|(_, kept)| **kept) {
        let at = sector * SECTOR_BYTES;
        put(file, write.file_offset + at as u64, &bytes[at..at + SECTOR_BYTES]);
    }
}

fn put(file: &File, offset: u64, bytes: &[u8]) {
    file.write_all_at(bytes, offset).expect("the simulated disk takes it");
}
