//! Drives. What the threads beside the workers count, once for all cores: added to what the cores show of themselves.

use std::sync::Arc;
use std::time::Instant;

use crate::export::thread::Meter;
use crate::metrics::Snapshot;
use crate::wal::keeper::DiskMeter;
use crate::worker::now;

pub struct Meters {
    pub export: Arc<Meter>,
    pub disk: Arc<DiskMeter>,
    /// The start of the process's monotonic clock.
    pub started: Instant,
}

impl Meters {
    pub fn show(&self, snapshot: &mut Snapshot) {
        self.export.show(now(self.started), &mut snapshot.export);
        self.disk.show(&mut snapshot.log);
    }
}
