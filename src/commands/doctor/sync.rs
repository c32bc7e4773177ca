//! Drives. How long the disk takes to sync, measured as the log writes: past the page cache, RWF_DSYNC, over zeros that are there
//! already, one write at a time. A second in all, in a file that is gone afterwards.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use rustix::io::{ReadWriteFlags, pwritev2};
use serde::Serialize;

/// The least frame, and a full one.
const SIZES: [usize; 2] = [4 << 10, 256 << 10];
const EACH: Duration = Duration::from_millis(400);
const WRITES_MAX: usize = 2_000;
const FILE_BYTES: usize = 4 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sync {
    pub bytes: usize,
    pub writes: usize,
    pub median_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

/// Removed whatever happens.
struct Scratch {
    path: PathBuf,
    file: File,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is seen by its name.
        let _ = fs::remove_file(&self.path);
    }
}

pub fn measure(dir: &Path) -> io::Result<Vec<Sync>> {
    let path = dir.join(format!(".tollgate-doctor-{}", std::process::id()));
    let file = OpenOptions::new().write(true).create_new(true).custom_flags(libc::O_DIRECT).open(&path)?;
    let scratch = Scratch { path, file };
    let memory = MmapMut::map_anon(FILE_BYTES)?;
    scratch.file.write_all_at(&memory, 0)?;
    scratch.file.sync_all()?;
    SIZES.iter().map(|bytes| measure_one(&scratch.file, &memory[..*bytes])).collect()
}

fn measure_one(file: &File, bytes: &[u8]) -> io::Result<Sync> {
    let began = Instant::now();
    let mut took_us = Vec::with_capacity(WRITES_MAX);
    while took_us.len() < WRITES_MAX && (began.elapsed() < EACH || took_us.is_empty()) {
        let offset = (took_us.len() * bytes.len() % FILE_BYTES) as u64;
        let start = Instant::now();
        let written = pwritev2(file, &[IoSlice::new(bytes)], offset, ReadWriteFlags::DSYNC)?;
        took_us.push(start.elapsed().as_micros() as u64);
        if written != bytes.len() {
            return Err(io::Error::other(format!("a write of {} bytes ended after {written}", bytes.len())));
        }
    }
    Ok(summary(bytes.len(), took_us))
}

fn summary(bytes: usize, mut took_us: Vec<u64>) -> Sync {
    took_us.sort_unstable();
    let writes = took_us.len();
    let at = |percent: usize| took_us[(writes * percent / 100).min(writes - 1)];
    Sync { bytes, writes, median_us: at(50), p99_us: at(99), max_us: at(100) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_the_sorted_times() {
        let sync = summary(4096, (1..=200).rev().collect());
        assert_eq!((sync.median_us, sync.p99_us, sync.max_us, sync.writes), (101, 199, 200, 200));
        assert_eq!(summary(4096, vec![7]).p99_us, 7);
    }

    #[test]
    fn a_disk_is_measured_and_nothing_stays() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let syncs = measure(dir.path()).unwrap();
        assert_eq!(syncs.iter().map(|sync| sync.bytes).collect::<Vec<_>>(), SIZES);
        for sync in syncs {
            assert!(sync.writes > 0 && sync.median_us <= sync.p99_us && sync.p99_us <= sync.max_us, "{sync:?}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(measure(Path::new("/proc/no-such-place")).is_err());
    }
}
