//! What the store of a data directory says was exported, for the commands that read one. The caller holds the directory's
//! lock: opening the store may write to it (it recovers by itself after a kill).

use std::path::{Path, PathBuf};

use tollgate_global::Store;
use tollgate_wire::{Checkpoint, EndRecord};

use super::wal::CommandError;
use crate::wal::segments::read_identity;

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
