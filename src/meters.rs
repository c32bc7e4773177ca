//! Drives. What the threads beside the workers count, once for all cores: added to what the cores show of themselves.

use std::sync::Arc;
use std::time::Instant;

use tollgate_global::QuerySide;

use crate::export::thread::Meter;
use crate::metrics::Snapshot;
use crate::wal::keeper::DiskMeter;
use crate::worker::now;

pub struct Meters {
    pub export: Arc<Meter>,
    pub disk: Arc<DiskMeter>,
    /// Where this process answers queries.
    pub queries: Option<Arc<QuerySide>>,
    /// The start of the process's monotonic clock.
    pub started: Instant,
}

impl Meters {
    /// What is shown beside the cores' own.
    pub fn text(&self) -> String {
        self.queries.as_ref().map(|queries| queries.text()).unwrap_or_default()
    }

    pub fn show(&self, snapshot: &mut Snapshot) {
        self.export.show(now(self.started), &mut snapshot.export);
        self.disk.show(&mut snapshot.log);
    }
}
