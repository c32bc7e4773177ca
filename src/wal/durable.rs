//! What makes a name outlive a power cut: a file's bytes are synced, and then the folder that names it.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use super::segments::{LogError, io_error};

/// Writes a small file aside, syncs it, renames it into place, syncs the directory.
pub fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), LogError> {
    let aside = path.with_extension("new");
    let write = || {
        let mut file = File::create(&aside)?;
        file.write_all(bytes)?;
        Ok(file)
    };
    let file: File = write().map_err(|source| io_error("write", path, source))?;
    file.sync_all().map_err(|source| not_synced(path, source))?;
    std::fs::rename(&aside, path).map_err(|source| io_error("write", path, source))?;
    sync_dir(path.parent().expect("a file of a data directory has a parent"))
}

/// The names in a folder.
pub(super) fn sync_dir(path: &Path) -> Result<(), LogError> {
    let folder = File::open(path).map_err(|source| io_error("open", path, source))?;
    folder.sync_all().map_err(|source| not_synced(path, source))
}

/// And those of the folders above: a directory that was made is gone after a power cut, and all that is in it, unless what names it is synced.
pub(super) fn sync_with_those_above(path: &Path) -> Result<(), LogError> {
    tollgate_global::sync_names(path).map_err(|error| not_synced(path, error.source))
}

fn not_synced(path: &Path, source: std::io::Error) -> LogError {
    LogError::NotSynced { path: path.to_owned(), source }
}
