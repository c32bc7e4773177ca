//! Drives. The keeper: a thread beside the worker that prepares segments ahead of need, deletes those no longer needed, and
//! watches the disk budget.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::config::Config;
use crate::exit::Exit;
use crate::inbox::{Inbound, Inbox, Job};
use crate::wal::segments;

/// How often the disk budget is summed.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Shedding ends when this much less than the mark is used: one more segment fits before it begins again.
fn reopen_below(bytes_max: u64, segment_bytes: u64) -> u64 {
    bytes_max.saturating_sub(segment_bytes)
}

pub struct Keeper {
    pub log_dir: PathBuf,
    pub data_dir: PathBuf,
    pub segment_bytes: u64,
    pub bytes_max: u64,
    pub jobs: Receiver<Job>,
    pub inbox: Inbox,
}

impl Keeper {
    pub fn new(config: &Config, log_dir: PathBuf, jobs: Receiver<Job>, inbox: Inbox) -> Keeper {
        Keeper {
            log_dir,
            data_dir: config.data_dir.clone(),
            segment_bytes: config.log.segment_bytes,
            bytes_max: config.log.wal_bytes_max,
            jobs,
            inbox,
        }
    }

    /// Runs until the worker's end of the channel is gone.
    pub fn run(self) {
        let mut open = true;
        loop {
            match self.jobs.recv_timeout(LOOK_EVERY) {
                Ok(Job::Prepare { segment }) => {
                    if !self.prepare(segment) {
                        return;
                    }
                }
                Ok(Job::Free { segment }) => {
                    if let Err(error) = segments::delete_segment(&self.log_dir, segment) {
                        tracing::warn!(segment, "a segment that is no longer needed could not be deleted: {error}");
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let room = self.room(open);
            if room != open {
                open = room;
                if open {
                    tracing::info!("the disk budget has room again: clicks are taken");
                } else {
                    tracing::warn!(limit = self.bytes_max, "the disk budget is used up: clicks are shed with 503");
                }
                self.inbox.send(Inbound::Room { open });
            }
        }
    }

    fn prepare(&self, segment: u64) -> bool {
        let prepared = segments::prepare_segment(&self.log_dir, segment, self.segment_bytes)
            .and_then(|()| segments::open_segment_for_writing(&self.log_dir, segment));
        match prepared {
            Ok(file) => self.inbox.send(Inbound::SegmentReady { segment, file }),
            Err(error) => {
                tracing::error!(segment, directory = %self.log_dir.display(), "a log segment could not be prepared: {error}");
                self.inbox
                    .send(Inbound::Halt { exit: Exit::LogWriteFailed, why: "a log segment could not be prepared" });
                false
            }
        }
    }

    /// The sum of everything below the data directory, the next segment included, against the mark and against the disk.
    fn room(&self, open: bool) -> bool {
        let used = disk_usage(&self.data_dir).unwrap_or(0) + self.segment_bytes;
        let free = disk_free(&self.data_dir).unwrap_or(u64::MAX);
        let mark = if open { self.bytes_max } else { reopen_below(self.bytes_max, self.segment_bytes) };
        used <= mark && free >= 2 * self.segment_bytes
    }
}

/// Bytes that the files below a directory take up on disk.
fn disk_usage(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        // A segment may be deleted between the listing and the look.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() { disk_usage(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

fn disk_free(dir: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(dir)?;
    Ok(disk.f_bavail * disk.f_frsize)
}
