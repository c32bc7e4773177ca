//! Drives. What makes a name outlive a power cut: a file's bytes are synced by who writes them, and what was made in a folder is there
//! afterwards once the folder is synced, and each of those above that was made for it.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
#[error(
    "the folder {} cannot be synced: {error}; what was made in it, or below, may be gone after a power cut. Look at the disk (dmesg, \
     SMART) before a restart",
    folder.display()
)]
pub struct NotSynced {
    pub folder: PathBuf,
    pub error: io::Error,
}

/// Syncs a folder and those above it, as far as its file system goes: whoever made them may have been killed before. One above that this
/// user may not open cannot be synced, and is passed over: somebody else made it, and answers for the names in it.
pub fn sync_names(folder: &Path) -> Result<(), NotSynced> {
    for (path, opened) in folders(folder)? {
        opened.sync_all().map_err(not_synced(&path))?;
    }
    Ok(())
}

/// Opened: a folder, and those above it in its file system that may be.
fn folders(folder: &Path) -> Result<Vec<(PathBuf, File)>, NotSynced> {
    let path = folder.canonicalize().map_err(not_synced(folder))?;
    let first = File::open(&path).map_err(not_synced(&path))?;
    let device = first.metadata().map_err(not_synced(&path))?.dev();
    let mut opened = vec![(path.clone(), first)];
    for above in path.ancestors().skip(1) {
        // A folder's device is known also to who may not open it.
        if above.metadata().map_err(not_synced(above))?.dev() != device {
            break;
        }
        match File::open(above) {
            Ok(file) => opened.push((above.to_owned(), file)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            Err(error) => return Err(not_synced(above)(error)),
        }
    }
    Ok(opened)
}

fn not_synced(folder: &Path) -> impl Fn(io::Error) -> NotSynced + '_ {
    |error| NotSynced { folder: folder.to_owned(), error }
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
        let synced = |folder: &Path| -> Vec<PathBuf> {
            folders(folder).expect("opened").into_iter().map(|(path, _)| path).collect()
        };
        let (found, root) = (synced(&below), made.path().canonicalize().expect("there"));
        assert_eq!(found[..3], [root.join("a/b"), root.join("a"), root.clone()]);
        let device = |path: &Path| path.metadata().expect("there").dev();
        let end = found.last().expect("one at least");
        assert!(found.iter().all(|path| device(path) == device(&below)));
        assert!(end.parent().is_none_or(|above| device(above) != device(&below)), "{end:?} is where it begins");
        assert_eq!(synced(&made.path().join("link")), found, "where it is, and not where it is named");
        sync_names(&below).expect("synced");
    }

    #[test]
    fn what_cannot_be_synced_is_named_with_what_to_do() {
        let made = tempfile::tempdir().expect("folder");
        let text = sync_names(&made.path().join("gone")).expect_err("it is not there").to_string();
        assert!(text.contains("gone cannot be synced: ") && text.contains("Look at the disk"), "{text}");
    }
}
