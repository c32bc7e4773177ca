//! Drives. What makes a name outlive a power cut: a file's bytes are synced by who writes them, and what was made in a folder is there
//! afterwards once the folder is synced, and each of those above that was made for it.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, openat, statat, syncfs};
use rustix::io::Errno;

#[derive(Debug, thiserror::Error)]
#[error(
    "{}, or a folder above it, cannot be opened and synced: {source}; what was made in it may be gone after a power cut: look at the disk \
     (dmesg, SMART) before a restart",
    folder.display()
)]
pub struct NotSynced {
    pub folder: PathBuf,
    pub source: io::Error,
}

/// Syncs a folder and those above it, as far as its file system goes: whoever made them may have been killed before.
pub fn sync_names(folder: &Path) -> Result<(), NotSynced> {
    let failed = |source| NotSynced { folder: folder.to_owned(), source };
    synced(folder).map(drop).map_err(failed)
}

/// The folder that names a file.
pub fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Syncs it.
pub fn sync_name_of(file: &Path) -> io::Result<()> {
    File::open(folder_of(file))?.sync_all()
}

/// Those that were synced. They are walked by "..", which needs no right to look into those further up. Below one that this user may not
/// read, all of the file system is synced: a name in it may be ours.
fn synced(folder: &Path) -> io::Result<Vec<Metadata>> {
    let mut folder = File::open(folder)?;
    let mut here = folder.metadata()?;
    let mut synced = Vec::new();
    loop {
        folder.sync_all()?;
        synced.push(here.clone());
        let there = statat(&folder, "..", AtFlags::empty())?;
        if there.st_dev != here.dev() || there.st_ino == here.ino() {
            return Ok(synced);
        }
        let above = match openat(&folder, "..", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(above) => File::from(above),
            Err(Errno::ACCESS | Errno::PERM) => return syncfs(&folder).map(|()| synced).map_err(io::Error::from),
            Err(error) => return Err(error.into()),
        };
        (here, folder) = (above.metadata()?, above);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is synced cannot be seen without a power cut; which folders are can.
    #[test]
    fn a_folder_and_those_above_it_are_synced_up_to_where_its_file_system_begins() {
        let made = tempfile::tempdir().expect("folder");
        let below = made.path().join("a/b");
        std::fs::create_dir_all(&below).expect("made");
        std::os::unix::fs::symlink(&below, made.path().join("link")).expect("made");
        let place = |found: &Metadata| (found.dev(), found.ino());
        let of = |folder: &Path| place(&folder.metadata().expect("there"));
        let synced = |folder: &Path| synced(folder).expect("synced").iter().map(place).collect::<Vec<_>>();
        let expected: Vec<_> = below.canonicalize().expect("there").ancestors().map(of).collect();
        let same_device = expected.iter().take_while(|(device, _)| *device == expected[0].0).count();
        assert_eq!(synced(&below), expected[..same_device]);
        assert!(same_device >= 3);
        assert_eq!(
            synced(&made.path().join("link")),
            expected[..same_device],
            "where it is, and not where it is named"
        );
    }

    #[test]
    fn one_that_is_not_there_is_named() {
        let error = sync_names(Path::new("/not/there")).expect_err("it is not");
        assert!(
            error
                .to_string()
                .starts_with("/not/there, or a folder above it, cannot be opened and synced: No such file"),
            "{error}"
        );
    }
}
