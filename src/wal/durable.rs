//! What makes a name outlive a power cut: a file's bytes are synced, and then the folder that names it.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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

pub(super) fn sync_dir(path: &Path) -> Result<(), LogError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|source| io_error("sync", path, source))
}

/// The folders above, as far as the file system goes: a directory that was made is gone after a power cut, and all that is in it, unless the
/// one that names it is synced. One that this user may not open was made by somebody else, before.
pub(super) fn sync_above(path: &Path) -> Result<(), LogError> {
    let failed = |source| io_error("look at", path, source);
    let (path, device) = (path.canonicalize().map_err(failed)?, std::fs::metadata(path).map_err(failed)?.dev());
    for above in path.ancestors().skip(1) {
        match File::open(above) {
            Ok(folder) if folder.metadata().map_err(failed)?.dev() == device => {
                folder.sync_all().map_err(|source| io_error("sync", above, source))?;
            }
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(()),
            Err(source) => return Err(io_error("open", above, source)),
        }
    }
    Ok(())
}
