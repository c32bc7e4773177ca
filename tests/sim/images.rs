//! Drives. What a disk could hold. At every write of a world: what a power cut could leave of it, sector by sector, and of all else that
//! is under way; after it, a fault
//! of the disk in what was synced. Each of these is read by the product's own reading of the log, recovered as a start does, and undone.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;

use tollgate::cut::Position;
use tollgate::event::LogWrite;
use tollgate::exit::Exit;
use tollgate::wal::frame::BLOCK_BYTES;
use tollgate::wal::segments::LogDir;

use crate::damage::{Ends, Faults, Kind};
use crate::damaged::{ends_so, recovered};
use crate::disk::{Disk, SECTOR_BYTES};
use crate::found::read;
use crate::rng::Rng;
use crate::world::World;

/// In percent of the writes: where power cuts are tried, of those that begin a log's part of a start, of those beside which a segment is made or
/// deleted, and of the others; and where a fault is. Many worlds show more than one that is tried through.
const POWER_CUTS_AT_START: u64 = 20;
const POWER_CUTS_BESIDE_A_SEGMENT: u64 = 20;
const POWER_CUTS: u64 = 2;
const FAULTS: u64 = 45;
/// States of one write, where not all are tried: those that a disk is likeliest to make, and others.
const STATES_MAX: usize = 64;
const OTHERS: usize = 8;
/// In percent of the writes of one block: where every choice of its sectors is tried.
const ALL_CHOICES: u64 = 10;

/// What is tried in a world, and how it ended.
pub struct Images {
    rng: Rng,
    pub power_cuts: u64,
    /// Of them, beside a write of another core that was under way, a segment, and the mirror.
    pub beside: [u64; 3],
    pub faults: Faults,
}

/// What they are called.
pub const BESIDE: [&str; 3] = ["writes", "segments", "mirrors"];

impl Images {
    pub fn new(seed: u64) -> Images {
        Images { rng: Rng::new(!seed), power_cuts: 0, beside: [0; 3], faults: Faults::new(seed) }
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

    /// All that a power cut during this write could leave; how many states.
    fn cut_power(&mut self, disk: &Disk, log: &LogDir, confirmed: &[Position], write: &LogWrite, bytes: &[u8]) -> u64 {
        let known = of(log, confirmed);
        let file = OpenOptions::new().read(true).write(true).open(log.segment_path(write.segment));
        let file = file.expect("a segment is prepared before it is written to");
        let put = |bytes: &[u8]| file.write_all_at(bytes, write.file_offset).expect("the simulated disk takes it");
        let mut before = vec![0; bytes.len()];
        file.read_exact_at(&mut before, write.file_offset).expect("a segment has its whole length");
        let base = read(log, known).unwrap_or_else(|error| panic!("before a write, the log halts: {error}")).0;
        put(bytes);
        let all = read(log, known).unwrap_or_else(|error| panic!("after a write, the log halts: {error}")).0;
        assert!(all.len() == base.len() + 1 && all.starts_with(&base), "a write is one frame more: {all:?}");
        let (tried, mut others) = (self.power_cuts, None);
        for kept in self.states(bytes.len() / SECTOR_BYTES) {
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
            let start = recovered(disk, log, confirmed);
            let start = start.unwrap_or_else(|error| panic!("after a power cut a start halts, {}: {error}", what()));
            assert_eq!(start.frames, found.len(), "a start goes on with another log than is read, {}", what());
            let others = others.get_or_insert_with(|| start.others(log));
            assert_eq!(start.others(log), *others, "what is there of one log changes another, {}", what());
            self.power_cuts += 1;
        }
        put(&before);
        self.power_cuts - tried
    }
}

impl World {
    /// Tries what could become of the log at this write, if this world is for that.
    pub fn try_power_cuts(&mut self, log: &LogDir, write: &LogWrite, bytes: &[u8]) {
        let Some(mut images) = self.images.take() else { return };
        let percent = match &self.server {
            None => POWER_CUTS_AT_START,
            Some(server) if server.keeper_works().is_some() => POWER_CUTS_BESIDE_A_SEGMENT,
            Some(_) => POWER_CUTS,
        };
        if images.rng.percent(percent) {
            let confirmed = self.remembered();
            let meanwhile = self.meanwhile(&confirmed, &mut images.rng);
            let states = images.cut_power(&self.disk, log, &confirmed, write, bytes);
            let kinds = [meanwhile.writes, meanwhile.segments, meanwhile.mirrors];
            images.beside.iter_mut().zip(kinds).for_each(|(beside, some)| *beside += states * some.min(1));
            meanwhile.undone();
        }
        self.images = Some(images);
    }

    /// Tries what faults of the disk could make of the log now, if this world is for that.
    pub fn try_faults(&mut self, log: &LogDir) {
        let Some(mut images) = self.images.take() else { return };
        if images.rng.percent(FAULTS) {
            let confirmed = self.remembered();
            images.faults.any(log, of(log, &confirmed), &mut |kind, fate| {
                ends_so(kind, fate, &recovered(&self.disk, log, &confirmed));
                false
            });
        }
        self.images = Some(images);
    }
}

/// Up to where a start knows this log to be exported.
pub fn of<'p>(log: &LogDir, confirmed: &'p [Position]) -> Option<&'p Position> {
    confirmed.iter().find(|position| position.log_id == log.log_id)
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
        let exit = |cases: &str| if cases.ends_with("(74)") { Exit::Checkpoint } else { Exit::LogDamaged };
        let exits: Vec<Exit> = row[3].trim().split("; ").filter(|cases| !cases.is_empty()).map(exit).collect();
        let told = (!row[2].trim().is_empty(), &exits[..], !row[4].trim().is_empty());
        let Ends { survives, exits, loses } = kind.ends();
        assert_eq!((survives, exits, loses), told, "{kind:?}: {row:?}");
    }
}
