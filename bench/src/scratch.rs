//! A directory for the time of a measurement.

use std::path::{Path, PathBuf};

/// Made when it is taken, gone with everything in it when dropped.
pub struct Scratch {
    pub path: PathBuf,
}

impl Scratch {
    pub fn new(parent: &Path, name: &str) -> std::io::Result<Scratch> {
        let path = parent.join(format!("bench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Scratch { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is named after this process and may be deleted by hand.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
