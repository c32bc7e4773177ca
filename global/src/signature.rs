//! What tells one content of a path from another, without reading it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

/// Changes with every write and every rename over the path; the time is that of the inode, which no copy sets back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Signature {
    pub fn of(file: &Metadata) -> Signature {
        Signature { inode: file.ino(), bytes: file.len(), changed: (file.ctime(), file.ctime_nsec()) }
    }

    /// When it was last written, or put there.
    pub fn changed_ms(&self) -> i64 {
        self.changed.0.saturating_mul(1_000).saturating_add(self.changed.1 / 1_000_000)
    }
}
