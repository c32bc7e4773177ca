//! Drives. A file beside the one that it is to be, until it is whole and has that one's name.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::durable;

/// Gone with this where it never gets its name.
pub struct Aside {
    pub path: PathBuf,
    is_named: bool,
}

impl Aside {
    pub fn create(to: &Path) -> io::Result<(Aside, File)> {
        let mut random = [0; 4];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{:08x}.partial", u32::from_le_bytes(random)));
        let path = to.with_file_name(name);
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        Ok((Aside { path, is_named: false }, file))
    }

    /// Synced, under its name; `AlreadyExists` where there is a file of that name, which stays.
    pub fn rename(mut self, to: &Path) -> io::Result<()> {
        File::open(&self.path)?.sync_all()?;
        match renameat_with(CWD, &self.path, CWD, to, RenameFlags::NOREPLACE) {
            // A file system that has no such flag, as NFS: a second name, which is refused where there is one, and then the first goes.
            Err(Errno::INVAL) => fs::hard_link(&self.path, to)?,
            renamed => {
                renamed?;
                self.is_named = true;
            }
        }
        durable::sync_name_of(to)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.is_named {
            // What cannot be removed says by its name what it is.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_has_the_name_meanwhile_keeps_it_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().expect("folder");
        let to = folder.path().join("file");
        let [(first, _), (second, _)] = [(); 2].map(|()| Aside::create(&to).expect("made"));
        fs::write(&first.path, "first").expect("written");
        first.rename(&to).expect("named");
        assert_eq!(second.rename(&to).expect_err("there is one").kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&to).expect("there"), b"first");
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 1);
    }
}
