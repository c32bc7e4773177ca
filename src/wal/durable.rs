//! What makes a name outlive a power cut: a file's bytes are synced, and then the folder that names it.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat, syncfs};
use rustix::io::Errno;

use super::segments::{LogError, io_error};

/// Writes a small file aside, syncs it, renames it into place, syncs the directory.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), LogError> {
    let aside = path.with_extension("new");
    let write = || {
        let mut file = File::create(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&aside, path)
    };
    write().map_err(|source| io_error("write", path, source))?;
    sync_dir(path.parent().expect("a file of a data directory has a parent"))
}

/// The names in a folder.
pub fn sync_dir(path: &Path) -> Result<(), LogError> {
    let folder = File::open(path).map_err(|source| io_error("open", path, source))?;
    folder.sync_all().map_err(|source| not_synced(path, source))
}

/// The folders above, as far as the file system goes: a directory that was made is gone after a power cut, and all that is in it, unless the
/// one that names it is synced. They are walked by "..", which needs no right to look into those further up. One that this user may make
/// folders in and may not read is synced with the whole file system.
pub(super) fn sync_above(path: &Path) -> Result<(), LogError> {
    let failed = |source| io_error("open a folder above", path, source);
    let mut folder = File::open(path).map_err(failed)?;
    loop {
        let above = match openat(&folder, "..", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(above) => File::from(above),
            Err(Errno::ACCESS | Errno::PERM) => return syncfs(&folder).map_err(|error| not_synced(path, error.into())),
            Err(error) => return Err(failed(error.into())),
        };
        let (here, there) = (folder.metadata().map_err(failed)?, above.metadata().map_err(failed)?);
        if there.dev() != here.dev() || there.ino() == here.ino() {
            return Ok(());
        }
        above.sync_all().map_err(|source| not_synced(path, source))?;
        folder = above;
    }
}

fn not_synced(path: &Path, source: std::io::Error) -> LogError {
    LogError::NotSynced { path: path.to_owned(), source }
}
