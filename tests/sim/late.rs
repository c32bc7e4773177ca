//! Drives. A dead process's write that lands late, when the next one has read the log and begun its own segment. In production a lock
//! on the segment makes a start wait for it; what is tried here is the wall behind that one: what lies beyond a log's cut is not read
//! any more, and nothing that is owed stands there. A log that nobody goes on with has the lock alone: its write lands before it is read.

use std::fs::File;

use tollgate::event::LogWrite;
use tollgate::wal::segments::LogDir;

use crate::rng::Rng;
use crate::world::{Happening, MS, World};

/// In percent: writes cut off of which some of the rest lands late.
const LATE_PERCENT: u64 = 30;

/// What was cut off. The file may be deleted meanwhile.
pub struct Late {
    log: LogDir,
    file: File,
    write: LogWrite,
    bytes: Vec<u8>,
    /// A start has read the log without it, and gone on.
    passed: bool,
}

impl World {
    /// The process is gone; more of what it was writing may come.
    pub fn may_land_late(&mut self, log: &LogDir, write: &LogWrite, bytes: &[u8]) {
        if self.rng.percent(LATE_PERCENT) {
            let (log, file, bytes) = (log.clone(), self.disk.open(log, write), bytes.to_vec());
            let late = Late { log, file, write: *write, bytes, passed: false };
            self.disk.late.push(late);
        }
    }

    /// A start reads the logs; so many cores go on with theirs. What an earlier one went on without does not land in a log that is idle now:
    /// it may have been cut off before its cut was on the disk.
    pub fn late_writes_of_idle_logs(&mut self, cores: u16) {
        let (idle, owned): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.disk.late).into_iter().partition(|late| late.log.core >= u32::from(cores));
        self.disk.late = owned;
        self.disk.late.iter_mut().for_each(|late| late.passed = true);
        idle.iter().filter(|late| !late.passed).for_each(|late| late.lands(&mut self.rng));
    }

    /// The process serves: all of its logs are gone on with.
    pub fn late_writes_are_due(&mut self) {
        if !self.disk.late.is_empty() {
            let delay_ns = self.rng.skewed(400 * MS);
            self.after(delay_ns, Happening::LateWrites);
        }
    }

    pub fn late_writes_land(&mut self) {
        // Of a start on its way the cut may not be on the disk.
        if self.server.is_none() {
            return;
        }
        for late in std::mem::take(&mut self.disk.late) {
            self.note("a late write lands", &[late.log.core.into(), late.write.segment, late.write.file_offset]);
            self.trace.cover("a late write lands");
            late.lands(&mut self.rng);
        }
    }
}

impl Late {
    fn lands(&self, rng: &mut Rng) {
        crate::disk::tear_in(&self.file, &self.write, &self.bytes, rng);
    }
}
