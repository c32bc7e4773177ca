//! Drives. The keeper: a thread beside the workers that prepares their segments ahead of need, deletes those no longer needed, and
//! watches the disk budget, which is one for all logs.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::exit::Exit;
use crate::inbox::{Inbound, Inbox, Job};
use crate::metrics::LogMetrics;
use crate::wal::prepare::{free_bytes, is_no_room, prepare_segment};
use crate::wal::segments;

/// How often the disk budget is summed, and a delete that failed is tried again.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The default segment is prepared in this time, if the disk can, a smaller one in its share of it: a worker at its top rate
/// fills one in little more.
const PREPARE_MAX: Duration = Duration::from_millis(200);
const PREPARE_MAX_OF_BYTES: u64 = 128 << 20;

/// A segment for which the disk had no room is tried again so often: a try may fill what is left of it for a while.
const NO_ROOM_RETRY: Duration = Duration::from_secs(5);

/// What log and store take of the disk, for the metrics.
#[derive(Debug, Default)]
pub struct DiskMeter {
    pub log_bytes: AtomicU64,
    pub store_bytes: AtomicU64,
    /// What the log may grow by before clicks are shed, and what is free of its disk.
    pub room_bytes: AtomicU64,
    pub free_bytes: AtomicU64,
}

impl DiskMeter {
    /// Adds to what the cores show of their logs.
    pub fn show(&self, log: &mut LogMetrics) {
        log.log_disk_bytes = self.log_bytes.load(Ordering::Relaxed);
        log.store_disk_bytes = self.store_bytes.load(Ordering::Relaxed);
        log.room_bytes = self.room_bytes.load(Ordering::Relaxed);
        log.disk_free_bytes = self.free_bytes.load(Ordering::Relaxed);
    }
}

/// The log's room, as the core is told it.
///
/// ```text
/// 0 ────── logs + next segment ──────▶ eased ──────────────▶ mark
///                                        │ oldest go early     │ clicks are shed until eased
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DiskRoom {
    open: bool,
    segments_over: u32,
}

impl DiskRoom {
    /// The mark bounds the logs and a segment of reserve for each core, `reserve_bytes`. The store is not in it: it is never pruned, so
    /// clicks would be shed for ever. Both must leave twice the reserve of the disk free.
    fn judge(
        was_open: bool,
        log_bytes: u64,
        free_bytes: u64,
        bytes_max: u64,
        reserve_bytes: u64,
        segment_bytes: u64,
    ) -> DiskRoom {
        let used = log_bytes + reserve_bytes;
        let eased = bytes_max.saturating_sub(reserve_bytes);
        let mark = if was_open { bytes_max } else { eased };
        let over = used.saturating_sub(eased).max((3 * reserve_bytes).saturating_sub(free_bytes));
        DiskRoom {
            open: used <= mark && free_bytes >= 2 * reserve_bytes,
            segments_over: u32::try_from(over.div_ceil(segment_bytes)).unwrap_or(u32::MAX),
        }
    }
}

/// What the logs may grow by before clicks are shed: up to the mark, and up to the last of the disk.
fn room_bytes(log_bytes: u64, free_bytes: u64, bytes_max: u64, reserve_bytes: u64) -> u64 {
    bytes_max.saturating_sub(log_bytes + reserve_bytes).min(free_bytes.saturating_sub(2 * reserve_bytes))
}

/// One log: of a core, or idle.
struct KeptLog {
    dir: PathBuf,
    /// Segments to delete, oldest first. None goes before an older one is gone for good: a gap would be damage to the next
    /// start.
    freed: VecDeque<u64>,
    /// The one whose delete has failed, and was told of.
    stuck: Option<u64>,
    /// Segments to make, oldest first: the log takes them in order.
    wanted: VecDeque<u64>,
    /// When one was last tried.
    tried_at: Option<Instant>,
    /// The disk had none for the oldest of them.
    no_room: Option<NoRoom>,
}

/// When that was, and how many segments all cores had freed by then.
struct NoRoom {
    at: Instant,
    frees_seen: u64,
}

impl KeptLog {
    fn new(dir: PathBuf) -> KeptLog {
        KeptLog { dir, freed: VecDeque::new(), stuck: None, wanted: VecDeque::new(), tried_at: None, no_room: None }
    }

    /// In order; one that cannot be deleted now is tried again, and those behind it wait.
    fn delete_freed(&mut self) {
        while let Some(segment) = self.freed.front().copied() {
            if let Err(error) = segments::delete_segment(&self.dir, segment) {
                if self.stuck.replace(segment) != Some(segment) {
                    let directory = self.dir.display();
                    tracing::warn!(segment, %directory, "a segment that is no longer needed cannot be deleted, tried again: {error}");
                }
                return;
            }
            self.freed.pop_front();
        }
    }
}

pub struct Keeper {
    /// Of the cores, in order, then the idle ones.
    logs: Vec<KeptLog>,
    data_dir: PathBuf,
    /// For the metric.
    store: PathBuf,
    segment_bytes: u64,
    /// A segment for each core.
    reserve_bytes: u64,
    bytes_max: u64,
    jobs: Receiver<Job>,
    /// Of the cores, in order; and how many segments each has freed so far, deleted or not.
    inboxes: Vec<Inbox>,
    frees_seen: Vec<u64>,
    disk: Arc<DiskMeter>,
    /// By the last look at the disk; and as the cores were told last, who are told of segments that have no room, too.
    judged: DiskRoom,
    room: DiskRoom,
    /// The last look at the room failed, and was told of.
    blind: bool,
}

impl Keeper {
    /// `dirs`: of the logs, those of the cores first.
    pub fn new(
        config: &Config,
        dirs: Vec<PathBuf>,
        store: PathBuf,
        jobs: Receiver<Job>,
        inboxes: Vec<Inbox>,
        disk: Arc<DiskMeter>,
    ) -> Keeper {
        let keeper = Keeper {
            logs: dirs.into_iter().map(KeptLog::new).collect(),
            data_dir: config.data_dir.clone(),
            store,
            segment_bytes: config.log.segment_bytes,
            reserve_bytes: config.log.segment_bytes * inboxes.len() as u64,
            bytes_max: config.log.wal_bytes_max,
            jobs,
            frees_seen: vec![0; inboxes.len()],
            inboxes,
            disk,
            judged: DiskRoom { open: true, segments_over: 0 },
            room: DiskRoom { open: true, segments_over: 0 },
            blind: false,
        };
        // The metrics show it from the start; what goes wrong is told at the first look.
        if let Ok(sizes) = keeper.sizes() {
            keeper.note_sizes(sizes);
        }
        keeper
    }

    /// Runs until every worker's end of the channel is gone.
    pub fn run(mut self) {
        loop {
            let first = match self.jobs.recv_timeout(LOOK_EVERY) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // All that waits, so that what is freed already is not asked for again, and makes room for what is wanted.
            let mut next = first;
            while let Some(job) = next {
                self.take(job);
                next = self.jobs.try_recv().ok();
            }
            self.logs.iter_mut().for_each(KeptLog::delete_freed);
            if !(0..self.inboxes.len()).all(|core| self.make_wanted(core)) {
                // The process is ending, and why was told: those who still ask shall not find that nobody is here.
                while self.jobs.recv().is_ok() {}
                return;
            }
            self.look_at_room();
            self.tell_room(first.is_none());
        }
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Prepare { core, segment } => self.logs[usize::from(core)].wanted.push_back(segment),
            Job::Free { core, idle, segment } => {
                let core = usize::from(core);
                let log = idle.map_or(core, |idle| self.inboxes.len() + idle as usize);
                self.logs[log].freed.push_back(segment);
                self.frees_seen[core] += 1;
            }
        }
    }

    /// Oldest first. Where the disk has no room for one, it is tried again later, those behind it wait, and clicks are shed meanwhile. False:
    /// one cannot be made, and the process ends.
    fn make_wanted(&mut self, core: usize) -> bool {
        if self.logs[core].no_room.as_ref().is_some_and(|no_room| no_room.at.elapsed() < NO_ROOM_RETRY) {
            return true;
        }
        while let Some(segment) = self.logs[core].wanted.front().copied() {
            let made = self.prepare(core, segment);
            let log = &mut self.logs[core];
            let directory = log.dir.display();
            match made {
                Ok(file) => {
                    (log.no_room, _) = (None, log.wanted.pop_front());
                    // A worker that has ended needs it no more; the others go on.
                    let _ = self.inboxes[core].send(Inbound::SegmentReady { segment, file });
                }
                Err(error) if is_no_room(&error) => {
                    let no_room = NoRoom { at: Instant::now(), frees_seen: self.frees_seen.iter().sum() };
                    if log.no_room.replace(no_room).is_none() {
                        let every = NO_ROOM_RETRY.as_secs();
                        tracing::warn!(
                            segment,
                            %directory,
                            "the disk has no room for the next segment, and clicks are shed with 503 until it has: {error}. \
                             It is tried every {every} s; free space"
                        );
                    }
                    return true;
                }
                Err(error) => {
                    let why = format!(
                        "segment {segment:010} in {directory} could not be prepared: {error}. Look at the disk and its room \
                         before a restart"
                    );
                    // Nor does that end the others.
                    let ended = !self.inboxes[core].send(Inbound::Halt { exit: Exit::LogWriteFailed, why });
                    (log.no_room, _) = (None, log.wanted.clear());
                    return ended;
                }
            }
        }
        true
    }

    fn prepare(&mut self, core: usize, segment: u64) -> io::Result<File> {
        // In half of the time that the last one was filled in: the next is wanted when this one is full. The others want theirs too.
        let (now, cores) = (Instant::now(), self.inboxes.len() as u32);
        let log = &mut self.logs[core];
        let filled = log.tried_at.replace(now).map_or(Duration::ZERO, |tried_at| now - tried_at);
        let share = (self.segment_bytes as f64 / PREPARE_MAX_OF_BYTES as f64).min(1.0);
        let within = (filled / 2).min(PREPARE_MAX.mul_f64(share)) / cores;
        if log.no_room.is_some() {
            // What could not be deleted when the last try failed.
            segments::delete_segment(&log.dir, segment)?;
        }
        prepare_segment(&log.dir, segment, self.segment_bytes, within)?;
        segments::open_segment_for_writing(&log.dir, segment)
    }

    /// By what logs and disk hold. A look that fails changes nothing.
    fn look_at_room(&mut self) {
        let (log_bytes, free_bytes) = match self.sizes() {
            Ok(sizes) => sizes,
            Err(error) => {
                if !std::mem::replace(&mut self.blind, true) {
                    tracing::warn!(directory = %self.data_dir.display(), "the log's room cannot be looked at, tried again: {error}");
                }
                return;
            }
        };
        self.blind = false;
        let store_bytes = self.note_sizes((log_bytes, free_bytes));
        let (reserve_bytes, segment_bytes) = (self.reserve_bytes, self.segment_bytes);
        let was_open = self.judged.open;
        self.judged = DiskRoom::judge(was_open, log_bytes, free_bytes, self.bytes_max, reserve_bytes, segment_bytes);
        if was_open && !self.judged.open && self.room.open {
            let limit = self.bytes_max;
            tracing::warn!(
                log_bytes,
                limit,
                store_bytes,
                free_bytes,
                "the log's room is used up: clicks are shed with 503"
            );
        }
    }

    /// What has changed; and at each look as long as segments should go.
    fn tell_room(&mut self, look: bool) {
        // What is free says nothing of a quota: for each try that failed one more segment goes, of each core.
        let frees_seen: u64 = self.frees_seen.iter().sum();
        let mut room = self.judged;
        for no_room in self.logs.iter().filter_map(|log| log.no_room.as_ref()) {
            let over = u32::from(no_room.frees_seen == frees_seen);
            room = DiskRoom { open: false, segments_over: room.segments_over.max(over) };
        }
        // Those on their way are not asked for twice.
        let leaving: usize = self.logs.iter().map(|log| log.freed.len()).sum();
        room.segments_over = room.segments_over.saturating_sub(leaving as u32);
        let was = std::mem::replace(&mut self.room, room);
        if room.open && !was.open {
            tracing::info!("the log has room again: clicks are taken");
        }
        if room != was || look && room.segments_over > 0 {
            // Homes are spread evenly, so the logs are about equally long.
            let segments_over = room.segments_over.div_ceil(self.inboxes.len() as u32);
            for (inbox, frees_seen) in self.inboxes.iter().zip(&self.frees_seen) {
                inbox.send(Inbound::Room { open: room.open, segments_over, frees_seen: *frees_seen });
            }
        }
    }

    /// For the metrics; returns what the store takes.
    fn note_sizes(&self, (log_bytes, free_bytes): (u64, u64)) -> u64 {
        let store = std::fs::metadata(&self.store);
        let store_bytes = store.map_or(0, |metadata| metadata.blocks() * 512);
        let room_bytes = room_bytes(log_bytes, free_bytes, self.bytes_max, self.reserve_bytes);
        let disk = &self.disk;
        let meters = [&disk.log_bytes, &disk.store_bytes, &disk.room_bytes, &disk.free_bytes];
        for (meter, bytes) in meters.into_iter().zip([log_bytes, store_bytes, room_bytes, free_bytes]) {
            meter.store(bytes, Ordering::Relaxed);
        }
        store_bytes
    }

    /// Bytes of the logs, and free on their disk.
    fn sizes(&self) -> io::Result<(u64, u64)> {
        let logs = self.data_dir.join("logs");
        Ok((disk_usage(&logs)?, free_bytes(&logs)?))
    }
}

/// Bytes that the files below a directory take up on disk.
fn disk_usage(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        // A segment may be deleted between the listing and the look.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() { disk_usage(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wake::Wake;
    use std::sync::mpsc::{Sender, channel};

    /// Of a core for each log, with their inboxes, and the end of the channel that brings it jobs.
    fn keeper_of<const N: usize>(data_dir: &Path, logs: [PathBuf; N]) -> (Keeper, [Receiver<Inbound>; N], Sender<Job>) {
        let mut config = Config { data_dir: data_dir.to_owned(), ..Config::default() };
        config.log.segment_bytes = 1 << 20;
        let ends = [(); N].map(|()| channel());
        let inbox = |(sender, _): &(Sender<Inbound>, Receiver<Inbound>)| {
            let (wake, _) = Wake::pair().expect("an eventfd");
            Inbox::new(sender.clone(), Arc::new(wake))
        };
        let (inboxes, (jobs, receiver)) = (ends.iter().map(inbox).collect(), channel());
        let store = data_dir.join("store.redb");
        let keeper = Keeper::new(&config, logs.to_vec(), store, receiver, inboxes, Arc::default());
        (keeper, ends.map(|(_, inbox)| inbox), jobs)
    }

    fn keeper(dir: &Path) -> (Keeper, Receiver<Inbound>) {
        let (keeper, [inbox], _) = keeper_of(dir, [dir.to_owned()]);
        (keeper, inbox)
    }

    fn no_room(ago: Duration) -> Option<NoRoom> {
        Some(NoRoom { at: Instant::now() - ago, frees_seen: 0 })
    }

    /// The segments that it was told of, and nothing else.
    fn ready(inbox: &Receiver<Inbound>) -> Vec<u64> {
        let segment = |told| match told {
            Inbound::SegmentReady { segment, .. } => segment,
            _ => panic!("it is told of segments alone"),
        };
        inbox.try_iter().map(segment).collect()
    }

    /// Open or not, and how many segments should go; nothing else was told.
    fn rooms(inbox: &Receiver<Inbound>) -> Vec<(bool, u32)> {
        let room = |told| match told {
            Inbound::Room { open, segments_over, .. } => (open, segments_over),
            _ => panic!("it is told of room alone"),
        };
        inbox.try_iter().map(room).collect()
    }

    #[test]
    fn what_is_wanted_behind_a_segment_without_room_waits_for_it() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("logs")).expect("made");
        let (mut keeper, inbox) = keeper(dir.path());
        keeper.logs[0].no_room = no_room(Duration::ZERO);
        [7, 8].into_iter().for_each(|segment| keeper.take(Job::Prepare { core: 0, segment }));
        assert!(keeper.make_wanted(0) && ready(&inbox).is_empty());
        let told = |keeper: &mut Keeper| {
            keeper.look_at_room();
            keeper.tell_room(true);
            rooms(&inbox)
        };
        assert_eq!(told(&mut keeper), [(false, 1)], "the disk itself has room");
        keeper.frees_seen[0] = 1;
        assert_eq!(told(&mut keeper), [(false, 0)], "one for each try");
        // What the last try could not take away again is in nobody's way.
        std::fs::write(dir.path().join("0000000007.seg"), "a part").expect("written");
        keeper.logs[0].no_room = no_room(NO_ROOM_RETRY);
        assert!(keeper.make_wanted(0));
        assert_eq!(ready(&inbox), [7, 8]);
        assert!(keeper.logs[0].no_room.is_none() && keeper.logs[0].wanted.is_empty());
        assert_eq!(told(&mut keeper), [(true, 0)]);
    }

    #[test]
    fn a_core_without_room_sheds_for_all_also_where_the_disk_cannot_be_looked_at() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut keeper, inboxes, _) = keeper_of(dir.path(), [dir.path().join("0"), dir.path().join("1")]);
        keeper.logs[1].no_room = no_room(Duration::ZERO);
        keeper.look_at_room();
        keeper.tell_room(true);
        assert!(keeper.blind, "there are no logs to look at");
        assert_eq!(inboxes.each_ref().map(rooms), [[(false, 1)], [(false, 1)]]);
        // A log that is between its marks was open before, and is so after it.
        keeper.logs[1].no_room = None;
        keeper.judged.segments_over = 1;
        keeper.tell_room(true);
        assert_eq!(inboxes.each_ref().map(rooms), [[(true, 1)], [(true, 1)]]);
        assert!(keeper.judged.open);
    }

    #[test]
    fn one_that_cannot_be_made_ends_the_process_and_who_asks_meanwhile_is_heard() {
        let dir = tempfile::tempdir().expect("a directory");
        let (keeper, [inbox, _other], jobs) =
            keeper_of(dir.path(), [dir.path().join("not there"), dir.path().to_owned()]);
        let thread = std::thread::spawn(move || keeper.run());
        jobs.send(Job::Prepare { core: 0, segment: 1 }).expect("it takes jobs");
        let told = inbox.recv_timeout(Duration::from_secs(60)).expect("it is told");
        let Inbound::Halt { exit: Exit::LogWriteFailed, why } = told else { panic!("the segment cannot be made") };
        assert!(why.contains("segment 0000000001"), "{why}");
        jobs.send(Job::Prepare { core: 1, segment: 1 }).expect("it is still here");
        drop(jobs);
        thread.join().expect("it ends with the last who could ask");
    }

    #[test]
    fn a_segment_of_a_worker_that_has_ended_is_nobodys_concern() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut keeper, [gone, inbox], _) =
            keeper_of(dir.path(), [dir.path().join("not there"), dir.path().to_owned()]);
        drop(gone);
        [0, 1].into_iter().for_each(|core| keeper.take(Job::Prepare { core, segment: 1 }));
        assert!(keeper.make_wanted(0) && keeper.make_wanted(1));
        assert_eq!(ready(&inbox), [1]);
        assert!(keeper.logs[0].wanted.is_empty());
    }

    #[test]
    fn a_segment_that_cannot_be_deleted_keeps_those_behind_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |segment: u64| dir.path().join(format!("{segment:010}.seg"));
        let (mut keeper, _) = keeper(dir.path());
        for segment in [1, 3, 4] {
            std::fs::write(path(segment), "").expect("written");
        }
        // A directory is not deleted as a file is.
        std::fs::create_dir(path(2)).expect("made");
        keeper.logs[0].freed.extend([1, 2, 3]);
        keeper.logs[0].delete_freed();
        assert_eq!([1, 2, 3, 4].map(|segment| path(segment).exists()), [false, true, true, true]);
        keeper.logs[0].freed.push_back(4);
        keeper.logs[0].delete_freed();
        assert!(path(3).exists() && path(4).exists());
        std::fs::remove_dir(path(2)).expect("removed");
        keeper.logs[0].delete_freed();
        assert_eq!([2, 3, 4].map(|segment| path(segment).exists()), [false; 3]);
        assert!(keeper.logs[0].freed.is_empty());
    }

    #[test]
    fn room_ends_where_clicks_are_shed() {
        assert_eq!(
            [(8, 100), (9, 100), (12, 100), (8, 3), (3, 2), (3, 1)].map(|(log, free)| room_bytes(log, free, 10, 1)),
            [1, 0, 0, 1, 0, 0]
        );
    }

    #[test]
    fn the_oldest_segments_are_asked_for_before_clicks_are_shed() {
        let judge = |was_open, log, free| {
            let DiskRoom { open, segments_over } = DiskRoom::judge(was_open, log, free, 10, 1, 1);
            (open, segments_over)
        };
        assert_eq!(judge(true, 8, 100), (true, 0));
        assert_eq!(judge(true, 9, 100), (true, 1), "one segment more is the mark");
        assert_eq!(judge(true, 10, 100), (false, 2));
        assert_eq!(judge(false, 9, 100), (false, 1), "not open again before one more fits");
        assert_eq!(judge(false, 8, 100), (true, 0));
        assert_eq!(judge(true, 3, 2), (true, 1), "the disk is short before it is full");
        assert_eq!(judge(true, 3, 1), (false, 2));
    }
}
