//! Drives. A data directory that was copied while its process ran, and what is made of the copy: it takes the place of the directory (a
//! snapshot was restored), or it runs beside it (a host was cloned), as the same edge, to the same Kafka. Two processes take turns: the one
//! that does not run is a host that is paused, and what concerns it waits.
//!
//! - One history is counted. Once a transaction reaches beyond the copy, none of the other's may land.
//! - Of two, one halts, and says that another one exported; who it is, the brokers decide. What it answered is not owed any more.
//! - Nobody halts where the other exported nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tollgate::exit::Exit;
use tollgate::export::Halt;
use tollgate::wal::recover::recover;
use tollgate_wire::Checkpoint;

use crate::disk::Disk;
use crate::network::Conn;
use crate::oracle::Side;
use crate::server::Server;
use crate::world::{Happening, MS, SECOND, World};

/// Time between two looks whether what is waited for is there.
const LOOK_NS: u64 = 7 * MS;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Whose directory was copied.
    First,
    /// Who began with the copy.
    Second,
}

impl Which {
    fn other(self) -> Which {
        match self {
            Which::First => Which::Second,
            Which::Second => Which::First,
        }
    }
}

/// What one host has for itself.
struct Host {
    disk: Disk,
    server: Option<Box<Server>>,
    life: u32,
    cores: u16,
    /// What concerns it, and waits until it runs.
    waits: Vec<Happening>,
}

pub struct Clones {
    /// Who runs now.
    running: Which,
    paused: Option<Host>,
    /// Until it is used.
    copy: Option<Disk>,
    /// There is a copy, or was one; and it was used.
    copied: bool,
    pub used: bool,
    /// Up to where the copy holds each log.
    ends: BTreeMap<Vec<u8>, u64>,
    /// Of the incarnations that it knows.
    nonces: BTreeSet<Vec<u8>>,
    /// Used once so many transactions followed it.
    after_exports: u64,
    /// Beside the directory, not in its place.
    beside: bool,
    /// The second cannot reach Kafka yet.
    cut_off: bool,
    /// Lives of all hosts; no number is of two.
    lives: u32,
    lives_of_second: BTreeSet<u32>,
    /// Whose producer it was.
    producers_of_second: BTreeSet<u32>,
    /// Transactions since the copy was made, of each.
    landed: [u64; 2],
    /// Whose history is counted.
    counted: Option<Which>,
}

impl Default for Clones {
    fn default() -> Clones {
        Clones {
            running: Which::First,
            paused: None,
            copy: None,
            copied: false,
            used: false,
            ends: BTreeMap::new(),
            nonces: BTreeSet::new(),
            cut_off: false,
            after_exports: 0,
            beside: false,
            lives: 0,
            lives_of_second: BTreeSet::new(),
            producers_of_second: BTreeSet::new(),
            landed: [0; 2],
            counted: None,
        }
    }
}

impl Clones {
    /// Two live.
    pub fn are_two(&self) -> bool {
        self.paused.is_some()
    }

    pub fn are_cut_off(&self) -> bool {
        self.cut_off && self.running == Which::Second
    }

    /// The number of a life that begins.
    pub fn next_life(&mut self) -> u32 {
        self.lives += 1;
        if self.running == Which::Second {
            self.lives_of_second.insert(self.lives);
        }
        self.lives
    }

    /// Who made this producer.
    pub fn fenced(&mut self, epoch: u32) {
        if self.running == Which::Second {
            self.producers_of_second.insert(epoch);
        }
    }

    /// What a process says that lived then.
    pub fn side(&self, life: u32) -> Side {
        match () {
            () if self.lives_of_second.contains(&life) => Side::Second,
            () if self.copied => Side::First,
            () => Side::Before,
        }
    }

    fn is_beyond(&self, checkpoint: &Checkpoint) -> bool {
        checkpoint.logs.iter().any(|log| log.lsn > self.ends.get(&log.log_uuid).copied().unwrap_or(0))
    }

    /// A transaction landed.
    fn lands(&mut self, epoch: u32, checkpoint: &Checkpoint) -> Result<(), String> {
        if !self.copied {
            return Ok(());
        }
        let who = if self.producers_of_second.contains(&epoch) { Which::Second } else { Which::First };
        self.landed[who as usize] += 1;
        if self.counted == Some(who.other()) {
            return Err(format!(
                "the {who:?} exports after the other did what it does not hold: two histories are mixed"
            ));
        }
        // By a nonce that it does not hold, each knows the other also where positions say nothing.
        if self.is_beyond(checkpoint) || !self.nonces.contains(&checkpoint.nonce) {
            self.counted = Some(who);
        }
        Ok(())
    }
}

impl World {
    /// What else goes on there would be in the way of who halts over what.
    pub fn has_clones(&self) -> bool {
        self.options.remote && self.options.clones
    }

    pub fn plan_clones(&mut self) {
        let at_ns = self.rng.below(self.options.load_ns * 2 / 3);
        self.after(at_ns, Happening::Copy);
    }

    /// The directory as it is at a moment: what is being written is not in the copy.
    pub fn copy_directory(&mut self) {
        if self.draining {
            return;
        }
        let copy = Disk::new();
        copy_files(self.disk.dir.path(), copy.dir.path());
        // Reading clears away what was prepared and not used: of a second copy.
        let read = Disk::new();
        copy_files(copy.dir.path(), read.dir.path());
        let logs = recover(read.dir.path(), &[], &mut |_| {}, &mut |_, _| {});
        let logs = logs.unwrap_or_else(|error| panic!("a copy cannot be read: {error}"));
        let clones = &mut self.clones;
        clones.ends = logs.iter().map(|log| (log.dir.log_id.to_vec(), log.position.lsn)).collect();
        clones.nonces = logs.iter().flat_map(|log| log.nonces.iter().map(|nonce| nonce.to_vec())).collect();
        (clones.copy, clones.copied) = (Some(copy), true);
        clones.after_exports = self.rng.pick(&[0, 0, 0, 0, 0, 1, 2, 6]);
        clones.beside = self.rng.percent(50);
        self.note("copied", &[logs.len() as u64]);
        if self.rng.percent(50) {
            // What it then exports first, the copy holds; its nonce, not.
            self.clones.after_exports = 1;
            self.kill();
        }
        // A snapshot may be hours old when it is put back, and Kafka away all the time.
        let delay_ns = match self.options.hours {
            0 => self.rng.skewed(400 * MS),
            hours => self.rng.below(hours * 3_600 * SECOND),
        };
        self.after(delay_ns, Happening::UseCopy);
    }

    pub fn use_copy(&mut self) {
        if self.draining {
            return;
        }
        let beside = self.clones.beside;
        // Paused it is in the middle of something, not on its way up.
        if self.clones.landed[0] < self.clones.after_exports || (beside && self.server.is_none()) {
            return self.after(LOOK_NS, Happening::UseCopy);
        }
        let copy = self.clones.copy.take().expect("it was not used yet");
        (self.clones.running, self.clones.used) = (Which::Second, true);
        if self.rng.percent(50) {
            self.clones.cut_off = true;
            let lasts_ns = self.rng.between(300, 3_000) * MS;
            self.after(lasts_ns, Happening::CopyReaches);
        }
        if beside {
            self.note("a clone begins", &[]);
            let disk = std::mem::replace(&mut self.disk, copy);
            let (server, life, cores, waits) = (self.server.take(), self.lives, self.cores, Vec::new());
            self.clones.paused = Some(Host { disk, server, life, cores, waits });
            self.after_a_slice();
            return self.start();
        }
        self.note("set back", &[]);
        self.trace.cover("a directory is set back");
        self.clones.running = Which::First;
        self.kill();
        self.clones.running = Which::Second;
        // What was lost with it may be sent again.
        self.oracle.lose(Side::First);
        self.disk = copy;
    }

    /// The second has a history of its own by now, and begins once more.
    pub fn copy_reaches(&mut self) {
        if self.clones.running == Which::First || self.server.is_none() {
            return self.after(LOOK_NS, Happening::CopyReaches);
        }
        self.clones.cut_off = false;
        self.kill();
    }

    fn after_a_slice(&mut self) {
        let most_ms = self.rng.pick(&[40, 400, 3_000]);
        let slice_ns = self.rng.between(10, most_ms) * MS;
        self.after(slice_ns, Happening::ChangePlaces);
    }

    pub fn places_change(&mut self) {
        if !self.clones.are_two() {
            return;
        }
        if self.server.is_none() {
            return self.after(LOOK_NS, Happening::ChangePlaces);
        }
        self.change_places();
        self.after_a_slice();
    }

    fn change_places(&mut self) {
        let Some(paused) = &mut self.clones.paused else { return };
        std::mem::swap(&mut self.disk, &mut paused.disk);
        std::mem::swap(&mut self.server, &mut paused.server);
        std::mem::swap(&mut self.lives, &mut paused.life);
        std::mem::swap(&mut self.cores, &mut paused.cores);
        let waited = std::mem::take(&mut paused.waits);
        self.clones.running = self.clones.running.other();
        self.note("places change", &[u64::from(self.lives), waited.len() as u64]);
        waited.into_iter().for_each(|happening| self.after(0, happening));
        self.tell_room(self.room, 0);
    }

    /// Whether it concerns the host that is paused: it waits with it.
    pub fn waits_for_its_host(&mut self, happening: Happening) -> bool {
        let Some(paused) = &mut self.clones.paused else { return false };
        let waits = life_of(happening, &self.conns) == Some(paused.life);
        if waits {
            paused.waits.push(happening);
        }
        waits
    }

    /// The answers and questions of this connection are those of its host.
    pub fn hear_side(&mut self, number: usize) {
        self.oracle.side = self.clones.side(self.conns[number].life);
    }

    /// What this producer sent is counted from now on.
    pub fn clone_exported(&mut self, epoch: u32) {
        let checkpoint = self.sink.checkpoint.as_ref().expect("it landed");
        let lands = self.clones.lands(epoch, checkpoint);
        self.held(lands);
        if !self.clones.beside && self.clones.landed[Which::Second as usize] == 1 {
            self.trace.cover("a directory that was set back goes on");
        }
    }

    /// Whether the exporter may halt, and over what: another one of its history exported. That host is gone, whoever is left goes on.
    pub fn clone_halts(&mut self, halt: &Halt) -> bool {
        let clones = &mut self.clones;
        let (us, set_back) = (clones.running, clones.used && clones.paused.is_none());
        if !clones.are_two() && (!set_back || us == Which::First) {
            return false;
        }
        let running = matches!(halt, Halt::Rival { .. });
        let proper = running
            || matches!(
                halt,
                Halt::UnknownNonce { .. }
                    | Halt::OtherChain { .. }
                    | Halt::BeyondEnd { .. }
                    | Halt::ForeignLog { .. }
                    | Halt::Overtaken { .. }
                    | Halt::Replaced { .. }
            );
        assert!(proper && halt.exit() == Exit::Checkpoint, "the {us:?} of two halts: {halt}");
        assert!(clones.landed[us.other() as usize] > 0, "the {us:?} halts, and the other exported nothing: {halt}");
        // Beyond what it remembers there may be two that it holds.
        let by_count = running || matches!(halt, Halt::Overtaken { .. });
        let counted = clones.counted;
        assert_ne!(counted, Some(us), "the {us:?}, whose history is counted, halts: {halt}");
        assert!(by_count || counted.is_some(), "the {us:?} halts, and what was exported is its own: {halt}");
        self.note("a clone halts", &[u64::from(self.lives)]);
        let Some(_) = &self.clones.paused else {
            self.trace.cover("a directory that was set back halts");
            (self.halted, self.finished) = (true, true);
            return true;
        };
        self.trace.cover(match (running, us) {
            (true, _) => "a running clone finds a rival and halts",
            (false, _) => "a clone finds at its start that another exported, and halts",
        });
        self.server = None;
        self.cut_off_all();
        self.oracle.lose(if us == Which::First { Side::First } else { Side::Second });
        self.change_places();
        self.clones.paused = None;
        true
    }
}

/// The incarnation that it concerns, whose host may be paused.
fn life_of(happening: Happening, conns: &[Conn]) -> Option<u32> {
    match happening {
        Happening::Turn { life, .. }
        | Happening::LogWrite { life, .. }
        | Happening::Parcel { life, .. }
        | Happening::Stop { life, .. }
        | Happening::BuffersBack { life, .. }
        | Happening::Kept { life }
        | Happening::KeeperLooks { life }
        | Happening::KeeperTriesAgain { life, .. }
        | Happening::Exporter { life }
        | Happening::ExporterWakes { life, .. }
        | Happening::CutArrives { life, .. }
        | Happening::ExportedArrives { life, .. }
        | Happening::Kill { life } => Some(life),
        Happening::ToServer(conn) | Happening::Sent(conn) | Happening::Closed(conn) => Some(conns[conn].life),
        _ => None,
    }
}

pub fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("the simulated disk can be listed") {
        let entry = entry.expect("the simulated disk can be listed");
        let (path, place) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            std::fs::create_dir(&place).expect("the simulated disk takes it");
            copy_files(&path, &place);
        } else {
            std::fs::copy(&path, &place).expect("the simulated disk takes it");
        }
    }
}

#[test]
fn a_world_of_clones_replays_to_the_same_trace() {
    for seed in (1..).filter(|seed| World::new(*seed, &[], false).has_clones()).take(3) {
        let [first, second] =
            [crate::run(seed), crate::run(seed)].map(|run| run.map(|verdict| (verdict.hash, verdict.steps)));
        assert!(first.is_ok() && first == second, "seed {seed}: {first:?}, {second:?}");
    }
}
