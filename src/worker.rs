//! Drives. One thread a core, pinned with `--cpus`: wait, events, `Core::apply`, actions. It joins the core to the ring, to the other
//! workers and to the threads beside them (exporter, keeper, admin); it decides nothing. The only place that reads the clocks for a core.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::admin::{Readiness, ScrapeAnswer};
use crate::chunk::CoreIndex;
use crate::core::Core;
use crate::cut::Cut;
use crate::event::{Action, Actions, Event, Now};
use crate::exit::Exit;
use crate::export::pacing::Pacing;
use crate::export::thread::Meter;
use crate::inbox::{Inbound, Job};
use crate::mesh::{Mesh, Parcel};
use crate::metrics::{Shed, Snapshot};
use crate::net::ring::{Ring, Wait};
use crate::spread::Spread;

/// A worker's ways to the other threads.
pub struct Links {
    pub core: CoreIndex,
    pub mesh: Mesh,
    pub spread: Spread,
    pub inbox: Receiver<Inbound>,
    pub scrapes: Receiver<ScrapeAnswer>,
    pub keeper: Sender<Job>,
    /// Holds as many cuts as a core has export credits, so that a push never finds it full.
    pub cuts: rtrb::Producer<Box<Cut>>,
    pub exporter: std::thread::Thread,
    pub meter: Arc<Meter>,
    pub readiness: Arc<Readiness>,
    /// Turns so far, for the watchdog.
    pub heartbeat: Arc<AtomicU64>,
}

/// While a log write is under way no reply can go, so requests are taken in by the batch: a wake-up of a sleeping worker
/// costs more than a request.
const GATHER_US: u32 = 50;

/// A ring that holds fewer completions than this when it is looked into is as good as idle: the commit does not wait for it
/// to be empty. At half load it hardly ever is, and clicks would wait for `--commit-delay-max`.
const IDLE_COMPLETIONS: usize = 8;

pub struct Worker {
    core: Core,
    ring: Ring,
    links: Links,
    actions: Actions,
    scrapes: Vec<ScrapeAnswer>,
    started: Instant,
    ended: Option<Exit>,
    /// What the readiness was last told.
    told: (Option<Shed>, u64, u64),
    pacing: Pacing,
    /// Connections that the spread knows to be over.
    closed: u64,
}

impl Worker {
    pub fn new(core: Core, ring: Ring, links: Links, pacing: Pacing, started: Instant) -> Worker {
        let (actions, scrapes) = (Vec::with_capacity(1024), Vec::new());
        Worker { core, ring, links, actions, scrapes, started, ended: None, told: (None, 0, 0), pacing, closed: 0 }
    }

    /// Runs until the core has drained or must halt.
    pub fn run(mut self) -> Exit {
        let mut storage: Vec<Event<'static>> = Vec::with_capacity(1024);
        loop {
            // A core that could commit is asked to only when nothing else is there for it to do.
            let could_commit = self.core.could_commit(self.now());
            let busy = could_commit || self.core.has_more() || !self.links.mesh.lie_down();
            let wait = if busy { Wait::No } else { self.patiently() };
            let entered = self.ring.wait(wait);
            self.links.mesh.get_up();
            let idle = match entered {
                Ok(completed) => {
                    let more = self.core.has_more() || self.links.mesh.has_mail();
                    could_commit && completed < IDLE_COMPLETIONS && !more
                }
                // It worked at the start: nothing that an operator could set makes it fail now.
                Err(error) => {
                    tracing::error!("the io_uring of the worker failed while serving: {error}");
                    return Exit::Bug;
                }
            };
            storage = self.turn(storage, idle);
            if let Some(exit) = self.ended {
                return exit;
            }
        }
    }

    fn patiently(&self) -> Wait {
        let at_most = self.until_deadline();
        if self.core.awaits_disk() { Wait::Gather { at_most, patience_us: GATHER_US } } else { Wait::AtMost(at_most) }
    }

    fn until_deadline(&self) -> Duration {
        let deadline = self.core.next_deadline_ns();
        Duration::from_nanos(deadline.saturating_sub(self.now().mono_ns).clamp(1_000, 1_000_000_000))
    }

    fn now(&self) -> Now {
        now(self.started)
    }

    fn turn(&mut self, storage: Vec<Event<'static>>, idle: bool) -> Vec<Event<'static>> {
        let now = self.now();
        let woken = self.ring.take_woken();
        let mut events = reused(storage);
        if woken {
            self.take_inbox(&mut events);
        }
        self.place_accepted();
        self.links.mesh.take(&mut events);
        self.ring.events(&mut events);
        if idle {
            events.push(Event::Idle);
        }
        self.core.apply(&mut events, now, &mut self.actions);
        let storage = reused(events);
        self.perform();
        self.tell_readiness(now);
        self.links.heartbeat.fetch_add(1, Ordering::Relaxed);
        storage
    }

    /// Connections that were accepted here go where there are fewest.
    fn place_accepted(&mut self) {
        let spread = &self.links.spread;
        let own: Vec<TcpStream> = self.ring.take_accepted().filter_map(|stream| spread.place(stream)).collect();
        own.into_iter().for_each(|stream| self.ring.adopt(stream));
        let closed = self.ring.counters().closed;
        spread.closed((closed - std::mem::replace(&mut self.closed, closed)) as u32);
    }

    /// Only what has changed: the lock is another thread's too.
    fn tell_readiness(&mut self, now: Now) {
        let news = (self.core.shedding(now), self.core.forgot_early(), self.core.freed_early());
        if news.0 != self.told.0 {
            self.links.readiness.shed(self.links.core, news.0.map(Shed::advice));
        }
        if (news.1, news.2) != (self.told.1, self.told.2) {
            let memory = "memory for ids ran short: some were forgotten before --dedup-window was over; raise --dedup-memory-bytes";
            let room = "the log's room ran short: segments went before --retention or --dedup-window was over; raise --wal-bytes-max";
            let notes: Vec<&str> = [(news.1, memory), (news.2, room)]
                .iter()
                .filter(|(times, _)| *times > 0)
                .map(|(_, note)| *note)
                .collect();
            let note = notes.join("; ");
            tracing::warn!(generations = news.1, segments = news.2, "{note}");
            self.links.readiness.set_note(self.links.core, Some(note));
        }
        self.told = news;
    }

    fn take_inbox(&mut self, events: &mut Vec<Event<'_>>) {
        while let Ok(message) = self.links.inbox.try_recv() {
            let event = match message {
                Inbound::SegmentReady { segment, file } => {
                    self.ring.add_segment(segment, file);
                    Event::SegmentReady { segment }
                }
                Inbound::Exported(exported) => {
                    if let Some(ms) = self.pace() {
                        events.push(Event::CutInterval { ms });
                    }
                    Event::Exported(exported)
                }
                Inbound::IdleExported { log, lsn } => Event::IdleExported { log, lsn },
                Inbound::Connection(stream) => {
                    self.ring.adopt(stream);
                    continue;
                }
                Inbound::Room { open, segments_over, frees_seen } => Event::Room { open, segments_over, frees_seen },
                Inbound::Stop { patience } => Event::Stop { patience },
                Inbound::Halt { exit, why } => {
                    self.actions.push(Action::Halt { exit, why });
                    continue;
                }
            };
            events.push(event);
        }
        while let Ok(answer) = self.links.scrapes.try_recv() {
            self.scrapes.push(answer);
            events.push(Event::Scrape);
        }
    }

    /// After each transaction: what it cost against what this worker did meanwhile.
    fn pace(&mut self) -> Option<u64> {
        let export_cpu_ns = self.links.meter.cpu_ns.load(Ordering::Relaxed);
        // The cores take clicks evenly.
        let workers_cpu_ns = thread_cpu_ns() * u64::from(self.links.mesh.cores());
        self.pacing.measured(export_cpu_ns, workers_cpu_ns, self.now().mono_ns)
    }

    fn perform(&mut self) {
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            match action {
                Action::Send { connection, buffer } => self.ring.send(connection, buffer),
                Action::PauseReceive { connection } => self.ring.pause_receive(connection),
                Action::ResumeReceive { connection } => self.ring.resume_receive(connection),
                Action::ShutdownSend { connection } => self.ring.shutdown_send(connection),
                Action::Close { connection } => self.ring.close(connection),
                Action::WriteLog { buffer, write } => self.ring.write_log(buffer, write),
                Action::PrepareSegment { segment } => {
                    self.tell_keeper(Job::Prepare { core: self.links.core, segment });
                }
                Action::FreeSegment { segment } => {
                    self.ring.remove_segment(segment);
                    self.tell_keeper(Job::Free { core: self.links.core, idle: None, segment });
                }
                Action::FreeIdleSegment { log, segment } => {
                    self.tell_keeper(Job::Free { core: self.links.core, idle: Some(log), segment });
                }
                Action::Forward { to, chunk } => self.links.mesh.push(to, Parcel::Forwarded(chunk)),
                Action::Return { to, chunk } => self.links.mesh.push(to, Parcel::Judged(chunk)),
                Action::Done => self.links.mesh.done(),
                Action::Export(cut) => {
                    self.links.cuts.push(cut).expect("a cut takes an export credit, and the queue holds them all");
                    self.links.exporter.unpark();
                }
                Action::Snapshot(snapshot) => self.answer_scrape(snapshot),
                Action::StopAccepting => self.ring.stop_accepting(),
                Action::Stopped => self.ended = Some(Exit::Clean),
                Action::Halt { exit, why } => {
                    tracing::error!(code = exit.code(), "halt: {why}");
                    self.ended = Some(exit);
                    break;
                }
            }
        }
        actions.clear();
        self.actions = actions;
        self.wake_others();
    }

    fn wake_others(&mut self) {
        for sleeper in self.links.mesh.sleepers() {
            match sleeper.ring {
                Some(ring) => self.ring.ring_other(sleeper.core.into(), ring),
                None => self.ring.unreached(sleeper.core.into()),
            }
        }
        for core in self.ring.take_unrung() {
            self.links.mesh.wake(core as CoreIndex);
        }
    }

    fn tell_keeper(&mut self, job: Job) {
        if self.links.keeper.send(job).is_err() && self.ended.is_none() {
            tracing::error!("the thread that keeps the log's segments is gone");
            self.ended = Some(Exit::Bug);
        }
    }

    fn answer_scrape(&mut self, mut snapshot: Box<Snapshot>) {
        let counters = self.ring.counters();
        snapshot.connections.accepted = counters.accepted;
        snapshot.connections.refused += counters.refused;
        snapshot.connections.receive_buffers_starved = counters.starved;
        snapshot.connections.open = self.ring.open_connections() as u64;
        snapshot.ring_enters = counters.enters;
        for answer in self.scrapes.drain(..) {
            // A scraper that went away needs no answer.
            let _ = answer.send(snapshot.clone());
        }
    }
}

/// Both clocks, once a turn.
pub fn now(started: Instant) -> Now {
    Now { wall_ms: wall_ms(), mono_ns: started.elapsed().as_nanos() as u64 }
}

/// CPU time that the calling thread has used.
pub fn thread_cpu_ns() -> u64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    spent.tv_sec as u64 * 1_000_000_000 + spent.tv_nsec as u64
}

pub fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// The same memory for events of another lifetime: an emptied vector's allocation is kept by the in-place collect.
fn reused<'b>(mut events: Vec<Event<'_>>) -> Vec<Event<'b>> {
    events.clear();
    events.into_iter().map(|_| unreachable!("the vector was just emptied")).collect()
}
