//! Drives. The protocol's end in this process: the store of the global tier, which takes a transaction in one atomic commit.
//! Runs on the exporter's thread.

use crate::config::KeepConfig;
use crate::export::sink::Sink;
use crate::export::thread::ReadFrames;
use crate::export::{Look, Outcome, SinkError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tollgate_global::{Options, Retention, Store, StoreError};
use tollgate_wire::{Checkpoint, Transaction};

/// The store as a sink.
pub struct Embedded {
    store: Arc<Store>,
    /// For messages.
    path: PathBuf,
    edge_id: String,
    /// Why the store takes nothing more. Queries hold it open, so only a new process can open it again and see whether
    /// the last commit is in.
    broken: Option<String>,
}

/// Opens the store, which keeps counts for so long.
pub fn open(path: &Path, keep: &KeepConfig) -> Result<Store, StoreError> {
    let KeepConfig { panes_ms, minutes_ms, hours_ms } = *keep;
    let retention = Retention { panes_ms, minutes_ms, hours_ms };
    Store::open_with(path, Options { retention, ..Options::default() })
}

impl Embedded {
    pub fn new(store: Arc<Store>, path: PathBuf, edge_id: String) -> Embedded {
        Embedded { store, path, edge_id, broken: None }
    }

    fn named(&self, error: &StoreError) -> String {
        format!("{}: {error}", self.path.display())
    }
}

impl Sink for Embedded {
    /// Nothing has to be fenced: the data directory's lock keeps other writers out, and a commit is over when it returns.
    fn checkpoint(&mut self, _look: Look) -> Result<Option<Checkpoint>, SinkError> {
        if let Some(why) = &self.broken {
            return Err(SinkError::Broken(why.clone()));
        }
        // The store counts one edge; what another exported into it would be counted with ours.
        let found = match self.store.checkpoint_of_another(&self.edge_id) {
            Ok(None) => self.store.checkpoint(&self.edge_id),
            foreign => foreign,
        };
        found.map_err(|error| SinkError::Broken(self.named(&error)))
    }

    /// Commits. Whatever the error, the exporter settles it by reading the checkpoint.
    fn commit(&mut self, transaction: &Transaction, _log: &mut ReadFrames, _heard: &dyn Fn()) -> Outcome {
        let Err(error) = self.store.commit(transaction) else { return Outcome::Committed };
        tracing::warn!(txn_seq = transaction.end.txn_seq, "the outcome of an export is in doubt: {error}");
        match &error {
            StoreError::AlreadyCommitted { .. } | StoreError::Sequence { .. } => {}
            StoreError::Refused(_)
            | StoreError::Version { .. }
            | StoreError::Uncounted { .. }
            | StoreError::Damaged(_)
            | StoreError::Failed
            | StoreError::Database(_) => self.broken = Some(self.named(&error)),
        }
        Outcome::Unknown
    }

    fn remember(&mut self, _checkpoint: &Checkpoint) -> Result<(), String> {
        Ok(())
    }
}
