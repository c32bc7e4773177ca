//! Drives. The keeper of the segments, one for all logs of an incarnation: makes them, deletes them, oldest first. It stands where
//! `wal/keeper.rs` stands in production.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tollgate::cut::LogId;
use tollgate::event::Event;
use tollgate::wal::prepare::prepare_segment;
use tollgate::wal::segments::{LogDir, delete_segment};

use crate::faults::{Ambush, Refused};
use crate::server::{In, Server};
use crate::world::{Happening, MS, SECOND, World};

/// What could not be deleted is tried again so much later.
const LOOK_NS: u64 = 500 * MS;
/// And so what had no room.
const NO_ROOM_RETRY_NS: u64 = 5 * SECOND;

pub enum Job {
    Prepare { core: usize, segment: u64 },
    Free { core: usize, segment: u64 },
    FreeIdle { log: u32, segment: u64 },
}

#[derive(Default)]
pub struct Keeper {
    pub jobs: VecDeque<Job>,
    last_job_ns: u64,
    /// Segments to delete, of each log: none goes before an older one.
    freed: BTreeMap<LogId, (LogDir, VecDeque<u64>)>,
    /// By core, segments to make, oldest first, of which the disk had no room for the first.
    no_room: BTreeMap<usize, VecDeque<u64>>,
}

/// What the keeper does now.
pub enum Work<'s> {
    Makes(&'s LogDir, u64),
    Deletes(&'s LogDir, u64),
}

impl Server {
    /// The next job, if nothing else has to be done before it.
    pub fn keeper_works(&self) -> Option<Work<'_>> {
        let (log, segment) = match *self.keeper.jobs.front()? {
            Job::Prepare { core, segment } => {
                let waits = self.keeper.no_room.contains_key(&core);
                return (!waits).then(|| Work::Makes(&self.cores[core].log, segment));
            }
            Job::Free { core, segment } => (&self.cores[core].log, segment),
            Job::FreeIdle { log, segment } => (&self.idle[log as usize], segment),
        };
        let waits = self.keeper.freed.get(&log.log_id).is_some_and(|(_, freed)| !freed.is_empty());
        (!waits).then_some(Work::Deletes(log, segment))
    }
}

impl Keeper {
    pub fn lacks_room(&self) -> bool {
        !self.no_room.is_empty()
    }
}

impl World {
    pub fn give_job(&mut self, job: Job) {
        let delay_ns = self.rng.skewed(20 * MS);
        let (life, now_ns) = (self.lives, self.now_ns);
        let keeper = &mut self.server.as_mut().expect("it asked").keeper;
        keeper.jobs.push_back(job);
        keeper.last_job_ns = keeper.last_job_ns.max(now_ns) + delay_ns;
        let at_ns = keeper.last_job_ns;
        self.at(at_ns, Happening::Kept { life });
        self.spring(Ambush::Job, delay_ns);
    }

    pub fn keeper_done(&mut self) {
        let Some(server) = &mut self.server else { return };
        let (log, segment) = match server.keeper.jobs.pop_front() {
            Some(Job::Prepare { core, segment }) => return self.prepare(core, segment),
            Some(Job::Free { core, segment }) => (server.cores[core].log.clone(), segment),
            Some(Job::FreeIdle { log, segment }) => (server.idle[log as usize].clone(), segment),
            None => return,
        };
        let freed = server.keeper.freed.entry(log.log_id).or_insert_with(|| (log.clone(), VecDeque::new()));
        freed.1.push_back(segment);
        self.delete_freed(&log);
    }

    fn prepare(&mut self, core: usize, segment: u64) {
        let server = self.server.as_mut().expect("it asked");
        if let Some(wanted) = server.keeper.no_room.get_mut(&core) {
            self.trace.cover("a segment that is wanted while an older one has no room");
            return wanted.push_back(segment);
        }
        let (log, bytes) = (server.cores[core].log.clone(), server.segment_bytes);
        if self.refuses(Refused::Segment) {
            self.disk.prepare_in_part(&log, segment, bytes, &mut self.rng);
            if self.rng.percent(50) {
                return self.wait_for_room(core, &log, segment);
            }
            self.trace.cover("halted by a segment that cannot be made");
            return self.kill();
        }
        if self.stopped_in_preparation(&log, segment, bytes) {
            return self.kill();
        }
        prepare_segment(&log.path, segment, bytes, Duration::ZERO).expect("the simulated disk takes it");
        self.tell(core, In::Event(Event::SegmentReady { segment }));
    }

    /// Clicks are shed until there is some.
    fn wait_for_room(&mut self, core: usize, log: &LogDir, segment: u64) {
        delete_segment(&log.path, segment).expect("the simulated disk takes it");
        self.trace.cover("a next segment that has no room");
        self.note("a next segment that has no room", &[core as u64, segment]);
        self.server.as_mut().expect("it asked").keeper.no_room.insert(core, VecDeque::from([segment]));
        self.tell_room(false, u32::from(self.options.short_log));
        let life = self.lives;
        self.after(NO_ROOM_RETRY_NS, Happening::KeeperTriesAgain { life, core });
    }

    pub fn keeper_tries_again(&mut self, core: usize) {
        let keeper = &mut self.server.as_mut().expect("it lives on").keeper;
        for segment in keeper.no_room.remove(&core).unwrap_or_default() {
            if self.server.is_some() {
                self.prepare(core, segment);
            }
        }
        self.tell_room(self.room, 0);
    }

    /// Oldest first; those behind one that cannot be deleted now wait.
    fn delete_freed(&mut self, log: &LogDir) {
        while let Some(server) = &mut self.server
            && let Some((_, freed)) = server.keeper.freed.get_mut(&log.log_id)
            && let Some(segment) = freed.front().copied()
        {
            if self.refused == Some(Refused::Deletion) {
                self.trace.cover("a segment that cannot be deleted");
                self.refused = None;
                self.note("a segment that cannot be deleted", &[segment]);
                let life = self.lives;
                return self.after(LOOK_NS, Happening::KeeperLooks { life });
            }
            freed.pop_front();
            self.remove(log, segment);
        }
    }

    pub fn keeper_looks(&mut self) {
        let logs: Vec<LogDir> =
            self.server.iter().flat_map(|server| server.keeper.freed.values()).map(|(log, _)| log.clone()).collect();
        logs.iter().for_each(|log| self.delete_freed(log));
    }

    fn remove(&mut self, log: &LogDir, segment: u64) {
        if self.stops_at("before a segment is deleted") {
            return self.kill();
        }
        self.disk.remove(log, segment);
        if self.stops_at("after a segment is deleted") {
            self.kill();
        }
    }

    /// The process ends while it makes a segment.
    pub fn keeper_dies(&mut self, server: &Server) {
        if let Some(Job::Prepare { core, segment }) = server.keeper.jobs.front() {
            self.trace.cover("preparation cut off");
            self.disk.prepare_in_part(&server.cores[*core].log, *segment, server.segment_bytes, &mut self.rng);
        }
    }
}
