//! Drives. What a disk could hold. At every write of a world: what a power cut could leave of it, sector by sector; after it, a fault
//! of the disk in what was synced. Each of these is read by the product's own reading of the log, as a start would, and undone.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;

use tollgate::cut::Position;
use tollgate::event::LogWrite;
use tollgate::wal::segments::LogDir;

use tollgate::wal::recover::recover;

use crate::clones::copy_files;
use crate::damage::Faults;
use crate::disk::{Disk, SECTOR_BYTES};
use crate::found::read;
use crate::rng::Rng;
use crate::world::World;

/// In percent of the writes: where power cuts are tried, of those that begin a log's part of a start and of the others; and where a fault
/// is. Many worlds show more than one that is tried through.
const POWER_CUTS_AT_START: u64 = 20;
const POWER_CUTS: u64 = 2;
const FAULTS: u64 = 20;
/// States of one write, where there are more.
const STATES_MAX: usize = 64;

/// What is tried in a world, and how it ended.
pub struct Images {
    rng: Rng,
    pub power_cuts: u64,
    pub faults: Faults,
}

impl Images {
    pub fn new(seed: u64) -> Images {
        Images { rng: Rng::new(!seed), power_cuts: 0, faults: Faults::new(seed) }
    }

    /// Which sectors of a write are there: every choice where they are few, else those that a disk is likeliest to make, and others.
    fn states(&mut self, sectors: usize) -> Vec<Vec<bool>> {
        if sectors <= STATES_MAX.ilog2() as usize {
            let of = |state: usize| (0..sectors).map(|sector| state >> sector & 1 == 1).collect();
            return (0..1 << sectors).map(of).collect();
        }
        let mut states = Vec::new();
        for cut in 0..=sectors {
            states.push((0..sectors).map(|sector| sector < cut).collect());
            states.push((0..sectors).map(|sector| sector >= cut).collect());
            states.push((0..sectors).map(|sector| sector != cut).collect());
            states.push((0..sectors).map(|sector| sector == cut).collect());
        }
        while states.len() > STATES_MAX {
            let at = self.rng.index(states.len());
            states.swap_remove(at);
        }
        states.extend((0..8).map(|_| (0..sectors).map(|_| self.rng.percent(50)).collect::<Vec<bool>>()));
        states
    }

    /// All that a power cut during this write could leave.
    fn cut_power(&mut self, disk: &Disk, log: &LogDir, known: Option<&Position>, write: &LogWrite, bytes: &[u8]) {
        let file = OpenOptions::new().read(true).write(true).open(log.segment_path(write.segment));
        let file = file.expect("a segment is prepared before it is written to");
        let put = |bytes: &[u8]| file.write_all_at(bytes, write.file_offset).expect("the simulated disk takes it");
        let mut before = vec![0; bytes.len()];
        file.read_exact_at(&mut before, write.file_offset).expect("a segment has its whole length");
        let base = read(log, known).unwrap_or_else(|error| panic!("before a write, the log halts: {error}")).0;
        put(bytes);
        let all = read(log, known).unwrap_or_else(|error| panic!("after a write, the log halts: {error}")).0;
        assert!(all.len() == base.len() + 1 && all.starts_with(&base), "a write is one frame more: {all:?}");
        let states = self.states(bytes.len() / SECTOR_BYTES);
        let (recovered, mut at) = (self.rng.index(states.len()), 0);
        for kept in states {
            let mut state = before.clone();
            for at in kept.iter().enumerate().filter(|(_, kept)| **kept).map(|(sector, _)| sector * SECTOR_BYTES) {
                state[at..at + SECTOR_BYTES].copy_from_slice(&bytes[at..at + SECTOR_BYTES]);
            }
            put(&state);
            let what = || format!("{write:?} of which these sectors are there: {kept:?}");
            let found =
                read(log, known).unwrap_or_else(|error| panic!("a power cut halts the log, {}: {error}", what())).0;
            let expected = if kept.iter().all(|kept| *kept) { &all } else { &base };
            let partly = kept.contains(&true);
            assert!(found == *expected || partly && found == all, "a power cut lost or made records, {}", what());
            if at == recovered {
                is_recovered(disk, log, found.len());
            }
            (self.power_cuts, at) = (self.power_cuts + 1, at + 1);
        }
        put(&before);
    }
}

/// A start goes on with every log, whatever it clears away, and with this one behind so many frames; and the next one finds the same.
fn is_recovered(disk: &Disk, log: &LogDir, frames: usize) {
    let copy = Disk::new();
    copy_files(disk.dir.path(), copy.dir.path());
    let ends = || {
        let mut of_log = 0;
        let logs =
            recover(copy.dir.path(), &[], &mut |_| {}, &mut |of, _| of_log += usize::from(of.log_id == log.log_id));
        let logs = logs.unwrap_or_else(|error| panic!("after a power cut, a start halts: {error}"));
        (of_log, logs.iter().map(|log| (log.position, log.start.segment)).collect::<Vec<_>>())
    };
    let (first, second) = (ends(), ends());
    assert!(
        first.0 == frames && first == second,
        "{frames} frames are read, a start goes on with {first:?}, the next with {second:?}"
    );
}

impl World {
    /// Tries what could become of the log at this write, if this world is for that.
    pub fn try_power_cuts(&mut self, log: &LogDir, write: &LogWrite, bytes: &[u8]) {
        let Some(mut images) = self.images.take() else { return };
        // A start's first frame, before it serves.
        let percent = if self.server.is_none() { POWER_CUTS_AT_START } else { POWER_CUTS };
        if images.rng.percent(percent) {
            let known = self.known(log);
            images.cut_power(&self.disk, log, known.as_ref(), write, bytes);
        }
        self.images = Some(images);
    }

    /// Tries what faults of the disk could make of the log now, if this world is for that.
    pub fn try_faults(&mut self, log: &LogDir) {
        let Some(mut images) = self.images.take() else { return };
        if images.rng.percent(FAULTS) {
            let known = self.known(log);
            images.faults.any(log, known.as_ref());
        }
        self.images = Some(images);
    }

    /// Up to where a start would know the log to be exported.
    fn known(&self, log: &LogDir) -> Option<Position> {
        self.remembered().into_iter().find(|position| position.log_id == log.log_id)
    }
}
