//! A segment made ahead of need. Runs at start and on the keeper's thread: it blocks.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use memmap2::MmapMut;

use super::segments::{delete_segment, segment_path};

/// Zeros that are written at once: what a write of the log may have to wait for.
const ZEROS_BYTES: usize = 512 << 10;

/// Makes a segment that reads as zeros, is synced, and whose directory is synced. Where the disk has no room for it, nothing of it is left:
/// others may need what there is, and it can be tried again.
///
/// Spread over `within`, as far as the disk lets it: at full speed the writes of the log, and with them every acknowledgement, would wait
/// behind it for a tenth of a second.
pub fn prepare_segment(log_dir: &Path, segment: u64, bytes: u64, within: Duration) -> io::Result<()> {
    // Others on this disk, the store among them, fail where there is none, if only for a moment.
    // A disk that does not tell is asked by writing to it.
    if let Ok(free_bytes) = free_bytes(log_dir)
        && free_bytes < bytes
    {
        return Err(io::Error::new(
            ErrorKind::StorageFull,
            format!("it takes {bytes} bytes, and {free_bytes} are free"),
        ));
    }
    write_zeros(log_dir, segment, bytes, within).inspect_err(|error| {
        if is_no_room(error) {
            // What stays all the same is in the way of the next try, which says so.
            let _ = delete_segment(log_dir, segment);
        }
    })
}

/// Of the disk that holds a directory, for whoever asks.
pub fn free_bytes(dir: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(dir)?;
    Ok(disk.f_bavail * disk.f_frsize)
}

/// Of the disk, or of what one user may have of it.
pub fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

fn write_zeros(log_dir: &Path, segment: u64, bytes: u64, within: Duration) -> io::Result<()> {
    let path = segment_path(log_dir, segment);
    let file = match OpenOptions::new().write(true).create_new(true).custom_flags(libc::O_DIRECT).open(&path) {
        // No direct I/O here; the refused open may have left the file.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            OpenOptions::new().write(true).create(true).truncate(false).open(&path)?
        }
        opened => opened?,
    };
    let zeros = MmapMut::map_anon(ZEROS_BYTES)?;
    let began = Instant::now();
    let mut at = 0;
    while at < bytes {
        let length = ZEROS_BYTES.min((bytes - at) as usize);
        file.write_all_at(&zeros[..length], at)?;
        at += length as u64;
        let due = within.mul_f64(at as f64 / bytes as f64);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
    }
    file.sync_all()?;
    File::open(log_dir)?.sync_all()
}
