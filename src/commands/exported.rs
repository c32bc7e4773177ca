//! What the store of a data directory says was exported, for the commands that read one. The caller holds the directory's
//! lock: opening the store may write to it (it recovers by itself after a kill).

use std::path::Path;

use tollgate_global::Store;
use tollgate_wire::{Checkpoint, EndRecord};

use super::wal::CommandError;
use crate::wal::segments::read_identity;

/// Everything is `None` where nothing was ever exported.
#[derive(Default)]
pub struct Exported {
    pub store: Option<Store>,
    pub checkpoint: Option<Checkpoint>,
    pub end: Option<EndRecord>,
}

impl Exported {
    pub fn read(dir: &Path) -> Result<Exported, CommandError> {
        let path = dir.join("store.redb");
        let Some(identity) = read_identity(dir)?.filter(|_| path.is_file()) else { return Ok(Exported::default()) };
        let store = Store::open(&path)?;
        let checkpoint = store.checkpoint(&identity.edge_id)?;
        let end = store.last_end(&identity.edge_id)?;
        Ok(Exported { store: Some(store), checkpoint, end })
    }
}
