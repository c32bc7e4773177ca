//! What the store of a data directory says was exported, for the commands that read one. The caller holds the directory's
//! lock: opening the store may write to it (it recovers by itself after a kill).

use std::path::{Path, PathBuf};

use tollgate_global::Store;
use tollgate_wire::{Checkpoint, EndRecord};

use super::wal::{CommandError, logs_of};
use crate::cut::Position;
use crate::export::mirror::MirrorFile;
use crate::export::positions;
use crate::wal::segments::{DataDir, read_identity};

/// Everything is `None` where nothing was ever exported.
#[derive(Default)]
pub struct Exported {
    /// With its path, for messages.
    pub store: Option<(PathBuf, Store)>,
    pub checkpoint: Option<Checkpoint>,
    pub end: Option<EndRecord>,
}

impl Exported {
    pub fn read(dir: &Path) -> Result<Exported, CommandError> {
        let path = dir.join("store.redb");
        let Some(identity) = read_identity(dir)?.filter(|_| path.is_file()) else { return Ok(Exported::default()) };
        let failed = |error| CommandError::Store(path.clone(), error);
        let store = Store::open(&path).map_err(failed)?;
        let checkpoint = store.checkpoint(&identity.edge_id).map_err(failed)?;
        let end = store.last_end(&identity.edge_id).map_err(failed)?;
        Ok(Exported { store: Some((path, store)), checkpoint, end })
    }
}

/// Up to where the counts are in the store, or in Kafka as far as this directory remembers. What cannot be known is said, and
/// nothing is taken for exported.
pub fn exported_positions(dir: &Path) -> Result<Vec<Position>, CommandError> {
    logs_of(dir)?;
    let read = || -> Result<Vec<Position>, CommandError> {
        let _lock = DataDir::open(dir)?;
        let exported = Exported::read(dir)?;
        let checkpoint = match (exported.store, MirrorFile::read(dir)?) {
            (None, Some(mirror)) => mirror.checkpoint(),
            (Some(_), _) | (None, None) => exported.checkpoint,
        };
        Ok(checkpoint.as_ref().map_or(Vec::new(), positions))
    };
    read().or_else(|error| {
        eprintln!("tollgate: what was exported is not known: {error}");
        Ok(Vec::new())
    })
}
