//! Drives. What a disk could hold. At every write of a world: what a power cut could leave of it, sector by sector; after it, a fault
//! of the disk in what was synced. Each of these is read by the product's own reading of the log, as a start would, and undone.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;

use tollgate::cut::Position;
use tollgate::event::LogWrite;
use tollgate::exit::Exit;
use tollgate::wal::frame::BLOCK_BYTES;
use tollgate::wal::recover::recover;
use tollgate::wal::segments::LogDir;

use crate::clones::copy_files;
use crate::damage::{Ends, Faults, Kind};
use crate::disk::{Disk, SECTOR_BYTES};
use crate::found::read;
use crate::rng::Rng;
use crate::world::World;

/// In percent of the writes: where power cuts are tried, of those that begin a log's part of a start and of the others; and where a fault
/// is. Many worlds show more than one that is tried through.
const POWER_CUTS_AT_START: u64 = 20;
const POWER_CUTS: u64 = 2;
const FAULTS: u64 = 20;
/// States of one write, where not all are tried: those that a disk is likeliest to make, and others.
const STATES_MAX: usize = 64;
const OTHERS: usize = 8;
/// In percent of the writes of one block: where every choice of its sectors is tried.
const ALL_CHOICES: u64 = 10;

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

    /// Which sectors of a write are there, no choice twice.
    fn states(&mut self, sectors: usize) -> BTreeSet<Vec<bool>> {
        if sectors * SECTOR_BYTES <= BLOCK_BYTES && self.rng.percent(ALL_CHOICES) {
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
        states.extend((0..OTHERS).map(|_| (0..sectors).map(|_| self.rng.percent(50)).collect::<Vec<bool>>()));
        states.into_iter().collect()
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
        let recovered = self.rng.index(states.len());
        for (nth, kept) in states.into_iter().enumerate() {
            let mut state = before.clone();
            for at in kept.iter().enumerate().filter(|(_, kept)| **kept).map(|(sector, _)| sector * SECTOR_BYTES) {
                state[at..at + SECTOR_BYTES].copy_from_slice(&bytes[at..at + SECTOR_BYTES]);
            }
            put(&state);
            let what = || format!("{write:?} of which these sectors are there: {kept:?}");
            let found =
                read(log, known).unwrap_or_else(|error| panic!("a power cut halts the log, {}: {error}", what())).0;
            // A sector that is missing may hold the same already.
            let expected = if state == bytes { &all } else { &base };
            assert!(found == *expected, "a power cut lost or made records, {}", what());
            if nth == recovered {
                is_recovered(disk, log, found.len());
            }
            self.power_cuts += 1;
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

/// Its table says of each kind what is asserted of it.
#[test]
fn trust_has_the_ends_of_each_kind_of_fault() {
    let trust = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/TRUST.md")).expect("a document");
    let (_, table) = trust.split_once("| fault | survived | halts | lost |").expect("the table of faults");
    let rows: Vec<Vec<&str>> =
        table.lines().skip(2).take_while(|line| !line.is_empty()).map(|row| row.split('|').collect()).collect();
    assert_eq!(rows.len(), Kind::ALL.len(), "a row for each kind");
    for (kind, row) in Kind::ALL.iter().zip(rows) {
        let exit = match row[3].trim() {
            "" => None,
            code if code.ends_with("(74)") => Some(Exit::Checkpoint),
            _ => Some(Exit::LogDamaged),
        };
        let ends = Ends { survives: !row[2].trim().is_empty(), exit, loses: !row[4].trim().is_empty() };
        assert_eq!(kind.ends(), ends, "{kind:?}: {row:?}");
    }
}
