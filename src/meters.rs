//! Drives. What the threads beside the workers count, once for all cores: added to what the cores show of themselves.

use std::sync::Arc;
use std::time::Instant;

use tollgate_global::{Kept, QuerySide};

use crate::export::thread::Meter;
use crate::metrics::Snapshot;
use crate::wal::keeper::DiskMeter;
use crate::worker::now;

pub struct Meters {
    pub export: Arc<Meter>,
    pub disk: Arc<DiskMeter>,
    /// Where this process answers queries.
    pub queries: Option<Arc<QuerySide>>,
    /// The store that this process fills itself, if it does.
    pub kept: Arc<Kept>,
    /// The start of the process's monotonic clock.
    pub started: Instant,
}

impl Meters {
    /// What is shown beside the cores' own.
    pub fn text(&self) -> String {
        let mut text = self.queries.as_ref().map(|queries| queries.text()).unwrap_or_default();
        match self.kept.text() {
            Ok(kept) => text.push_str(&kept),
            // The exporter meets it too, and decides.
            Err(error) => tracing::error!("the store cannot be looked at: {error}"),
        }
        text
    }

    /// What a person should know of it.
    pub fn note(&self) -> Option<String> {
        self.kept.note()
    }

    pub fn show(&self, snapshot: &mut Snapshot) {
        self.export.show(now(self.started), &mut snapshot.export);
        self.disk.show(&mut snapshot.log);
    }
}
