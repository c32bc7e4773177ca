//! What a data directory says was exported, its store or its mirror of Kafka, for the commands that read one. The caller holds the directory's
//! lock: opening the store may write to it (it recovers by itself after a kill).

use std::path::{Path, PathBuf};

use tollgate_global::Store;
use tollgate_wire::{Checkpoint, EndRecord};

use super::wal::{CommandError, logs_of};
use crate::cut::Position;
use crate::export::mirror::{MirrorFile, Place};
use crate::export::positions;
use crate::say;
use crate::wal::segments::{DataDir, read_identity};

/// Everything is `None` where nothing was ever exported.
#[derive(Default)]
pub struct Exported {
    /// With its path, for messages.
    pub store: Option<(PathBuf, Store)>,
    /// Where there is no store: of the Kafka that the counts are in.
    pub kafka: Option<Place>,
    pub checkpoint: Option<Checkpoint>,
    pub end: Option<EndRecord>,
}

impl Exported {
    pub fn read(dir: &Path) -> Result<Exported, CommandError> {
        let path = dir.join("store.redb");
        if let Some(mirror) = MirrorFile::read(dir)?.filter(|_| !path.is_file()) {
            let (kafka, checkpoint) = (Some(mirror.place.clone()), mirror.checkpoint());
            return Ok(Exported { kafka, checkpoint, ..Exported::default() });
        }
        let Some(identity) = read_identity(dir)?.filter(|_| path.is_file()) else { return Ok(Exported::default()) };
        let failed = |error| CommandError::Store(path.clone(), error);
        let store = Store::open(&path).map_err(failed)?;
        let checkpoint = store.checkpoint(&identity.edge_id).map_err(failed)?;
        let end = store.last_end(&identity.edge_id).map_err(failed)?;
        Ok(Exported { store: Some((path, store)), kafka: None, checkpoint, end })
    }
}

/// Up to where the counts are in the store, or in Kafka as far as this directory remembers.
pub fn exported_positions_or_why(dir: &Path) -> Result<Vec<Position>, CommandError> {
    let _lock = DataDir::open(dir)?;
    Ok(Exported::read(dir)?.checkpoint.as_ref().map_or(Vec::new(), positions))
}

/// The same; what cannot be known is said, and nothing is taken for exported.
pub fn exported_positions(dir: &Path) -> Result<Vec<Position>, CommandError> {
    logs_of(dir)?;
    exported_positions_or_why(dir).or_else(|error| {
        say::error(format_args!("what was exported is not known: {error}"));
        Ok(Vec::new())
    })
}
