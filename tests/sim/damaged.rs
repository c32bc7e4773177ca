//! Drives. What the recovery of a start makes of a disk: of every log, on a copy, twice, and it finds the same both times; of what a power cut
//! left, and of a disk that broke its word. In any world a start may meet such a disk: where it halts, the disk is put back as it was; where every
//! record is read all the same, the fault stays.

use std::path::Path;

use tollgate::cut::Position;
use tollgate::wal::recover::recover;
use tollgate::wal::segments::{DataDir, LogDir, LogError, list_logs};

use crate::damage::{Fate, Faults, Kind};
use crate::disk::Disk;
use crate::found;
use crate::world::World;

/// In percent: starts that meet a fault of the disk.
const FAULTS_AT_START: u64 = 10;

/// What a start goes on with: of one log its frames and the clicks in them, of all logs where they end and their next segments.
#[derive(Debug, PartialEq, Eq)]
pub struct Recovered {
    pub frames: usize,
    pub clicks: u64,
    ends: Vec<(Position, u64)>,
}

impl Recovered {
    /// Where the other logs end, and their next segments.
    pub fn others(&self, log: &LogDir) -> Vec<(Position, u64)> {
        self.ends.iter().filter(|(end, _)| end.log_id != log.log_id).cloned().collect()
    }
}

/// What a start recovers, or its halt; and so the next one, whatever the first has cleared away.
pub fn recovered(disk: &Disk, log: &LogDir, confirmed: &[Position]) -> Result<Recovered, LogError> {
    let copy = Disk::new();
    link_files(disk.dir.path(), copy.dir.path());
    let start = || {
        let data_dir = DataDir::open(copy.dir.path())?;
        let (mut frames, mut clicks) = (0, 0);
        let logs = recover(&data_dir.path, confirmed, &mut |_| {}, &mut |of, frame| {
            if of.log_id == log.log_id {
                (frames, clicks) = (frames + 1, clicks + found::clicks(frame));
            }
        })?;
        Ok(Recovered { frames, clicks, ends: logs.iter().map(|log| (log.position, log.start.segment)).collect() })
    };
    let (first, next): (Result<Recovered, LogError>, _) = (start(), start());
    match (&first, &next) {
        (Ok(first), Ok(next)) => assert_eq!(first, next, "a start goes on otherwise than the one before"),
        (Err(first), Err(next)) => assert_eq!(first.to_string(), next.to_string(), "a start halts over something else"),
        (first, next) => panic!("a start ends with {first:?}, and the next with {next:?}"),
    }
    first
}

/// A start deletes files, and writes over none; its lock is its own.
fn link_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("the simulated disk can be listed") {
        let entry = entry.expect("the simulated disk can be listed");
        let (path, place) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            std::fs::create_dir(&place).expect("the simulated disk takes it");
            link_files(&path, &place);
        } else if entry.file_name() != "LOCK" {
            std::fs::hard_link(&path, &place).expect("the simulated disk takes it");
        }
    }
}

/// The recovery ends as the log's own reading does.
pub fn ends_so(kind: Kind, fate: &Fate, found: &Result<Recovered, LogError>) {
    let same = match (fate, found) {
        (Fate::Halted(code), Err(error)) => error.exit().code() == *code,
        (Fate::Survived { frames }, Ok(found)) => found.frames == *frames,
        // What was freed since is there again.
        (Fate::Shorter { clicks }, Ok(found)) if kind == Kind::RolledBack => found.clicks >= *clicks,
        (Fate::Shorter { clicks }, Ok(found)) => found.clicks == *clicks,
        _ => false,
    };
    assert!(same, "{kind:?}: the log's reading ends with {fate:?}, a start with {found:?}");
}

impl World {
    /// While nobody ran, a disk may have broken its word.
    pub fn damage_before_start(&mut self) {
        let Some(mut faults) = self.damage.take() else { return };
        if !self.draining && self.options.fault_every_ns > 0 && faults.comes(FAULTS_AT_START) {
            self.damage_one_log(&mut faults);
        }
        self.damage = Some(faults);
    }

    fn damage_one_log(&mut self, faults: &mut Faults) {
        // There is none before the first start has made one.
        let Ok(logs) = list_logs(self.disk.dir.path()) else { return };
        let confirmed = self.remembered();
        let log = logs.iter().find(|_| faults.comes(40)).or(logs.first());
        let Some(log) = log else { return };
        let known = confirmed.iter().find(|position| position.log_id == log.log_id);
        let (disk, mut met) = (&self.disk, None);
        faults.any(log, known, &mut |kind, fate| {
            ends_so(kind, fate, &recovered(disk, log, &confirmed));
            met = Some(match fate {
                Fate::Halted(_) => "a start halts over a fault of the disk",
                Fate::Survived { .. } => "a start goes on with a fault of the disk",
                Fate::Shorter { .. } => "a fault of the disk that nobody can see is put right",
            });
            matches!(fate, Fate::Survived { .. })
        });
        if let Some(met) = met {
            self.note(met, &[]);
            self.trace.cover(met);
        }
    }
}
