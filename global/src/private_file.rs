//! Drives. Small files of a data directory that nobody else is to read, written all or nothing.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::durable::{folder_of, sync_name_of};

/// Writes a file aside, readable by its owner alone, syncs it, renames it into place and syncs the directory. Written by root, it
/// belongs to the owner of the directory, who serves.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = Path::new(&aside);
    // One that a crash left has whatever rights it has.
    match fs::remove_file(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(aside)?;
    let owner = fs::metadata(folder_of(path))?;
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(aside, path)?;
    sync_name_of(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_its_owners_alone_and_replaced_as_a_whole() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a.json");
        fs::write(folder.path().join("a.json.new"), "left by a crash").expect("written");
        for text in ["one", "another"] {
            write(&path, text.as_bytes()).expect("written");
            assert_eq!(fs::read_to_string(&path).expect("there"), text);
            assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 1);
    }
}
