//! Drives. The threads beside the main one: the keeper, the exporter and a worker for each core, and what joins them.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::time::Instant;

use super::{Told, run_on, spawn};
use crate::admin::{Readiness, ScrapeAnswer};
use crate::chunk::CoreIndex;
use crate::config::{Config, EXPORT_CREDITS, Switch};
use crate::core::Core;
use crate::core::idle::IdleLog;
use crate::exit::Exit;
use crate::export::pacing::Pacing;
use crate::export::thread::Cores;
use crate::inbox::{Inbound, Inbox, Job};
use crate::mesh::Mesh;
use crate::net::listener::Bound;
use crate::net::ring::Ring;
use crate::spread::Spread;
use crate::start::{self, Failure, Started, StartedCore};
use crate::wake::Wake;
use crate::wal::keeper::{DiskMeter, Keeper};
use crate::wal::segments::LogDir;
use crate::worker::{Links, Worker};

/// Slots of a ring beyond the connections that may be open: for those that are told that they are too many, and for
/// those on their way out.
const SLOTS_BEYOND: u32 = 64;

/// How a worker is spoken to: its wake-up, what it is told and what it is asked.
pub(super) struct Bells {
    pub wake: Arc<Wake>,
    wake_reader: OwnedFd,
    pub inbox: Inbox,
    messages: Receiver<Inbound>,
    pub scrapes: (SyncSender<ScrapeAnswer>, Receiver<ScrapeAnswer>),
}

impl Bells {
    pub fn new() -> std::io::Result<Bells> {
        let (wake, wake_reader) = Wake::pair()?;
        let (wake, (sender, messages)) = (Arc::new(wake), mpsc::channel());
        let inbox = Inbox::new(sender, Arc::clone(&wake));
        Ok(Bells { wake, wake_reader, inbox, messages, scrapes: mpsc::sync_channel(16) })
    }
}

/// What joins the threads to each other and to the main thread.
pub(super) struct Threads {
    /// To the workers.
    pub inboxes: Arc<[Inbox]>,
    pub readiness: Arc<Readiness>,
    pub heartbeats: Vec<Arc<AtomicU64>>,
    /// To the main thread.
    pub told: Sender<Told>,
    pub disk: Arc<DiskMeter>,
    /// The start of the process's monotonic clock.
    pub started_at: Instant,
}

impl Threads {
    /// Starts the keeper, the exporter and the workers; returns when clicks can come. `bound`: a socket for each core, or none.
    pub fn start(self, config: &Config, started: Started, bells: Vec<Bells>, bound: Vec<Bound>) -> Result<(), Failure> {
        let Started { cores, idle, exporter, .. } = started;
        let jobs = self.keep(config, &cores, &idle)?;
        let (cuts, cuts_consumers): (Vec<_>, Vec<_>) =
            cores.iter().map(|_| rtrb::RingBuffer::new(EXPORT_CREDITS as usize)).unzip();
        let meter = Arc::clone(&exporter.meter);
        let told = self.told.clone();
        let logs = cores.iter().map(|core| core.log.log_id).zip(self.inboxes.iter().cloned()).collect();
        let owners = Cores { logs, idle: idle.iter().map(|(dir, _)| dir.log_id).collect() };
        let exporter = spawn("exporter", move || {
            let exit = exporter.run(cuts_consumers, &owners);
            // The main thread may have ended first.
            let _ = told.send(Told::ExporterEnded(exit));
        })?;

        let wakes = bells.iter().map(|bells| Arc::clone(&bells.wake)).collect();
        let meshes = Mesh::join(wakes, config.chunk_credits());
        let (mut spreads, mut bound) = (self.spread(config), bound.into_iter());
        let mut idle_logs: Vec<IdleLog> = idle.into_iter().map(|(_, log)| log).collect();
        let (ready_sender, ready) = mpsc::channel();
        let several = cores.len() > 1;
        for (index, (((core, bells), mesh), cuts)) in cores.into_iter().zip(bells).zip(meshes).zip(cuts).enumerate() {
            let links = Links {
                core: index as CoreIndex,
                mesh,
                spread: spreads.remove(0),
                inbox: bells.messages,
                scrapes: bells.scrapes.1,
                keeper: jobs.clone(),
                cuts,
                exporter: exporter.thread().clone(),
                meter: Arc::clone(&meter),
                readiness: Arc::clone(&self.readiness),
                heartbeat: Arc::clone(&self.heartbeats[index]),
            };
            let name = if several { format!("worker-{index}") } else { "worker".to_owned() };
            // The first core clears the idle logs away.
            let seat =
                WorkerSeat { core, idle: std::mem::take(&mut idle_logs), bound: bound.next(), wake: bells.wake_reader };
            self.start_worker(config, &name, seat, links, ready_sender.clone())?;
        }
        drop(ready_sender);
        for _ in 0..self.inboxes.len() {
            match ready.recv() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(Failure::unavailable("the io_uring of a worker")(error)),
                Err(_) => {
                    let text = "a worker ended before it began".to_owned();
                    return Err(Failure { exit: Exit::Bug, text });
                }
            }
        }
        Ok(())
    }

    fn spread(&self, config: &Config) -> Vec<Spread> {
        Spread::over(Arc::clone(&self.inboxes), config.tuning.incoming_cpu == Switch::On)
    }

    fn keep(&self, config: &Config, cores: &[StartedCore], idle: &[(LogDir, IdleLog)]) -> Result<Sender<Job>, Failure> {
        let (sender, jobs) = mpsc::channel();
        let dirs = cores.iter().map(|core| &core.log).chain(idle.iter().map(|(dir, _)| dir));
        let dirs = dirs.map(|dir| dir.path.clone()).collect();
        let (store, inboxes) = (start::store_path(config), self.inboxes.to_vec());
        let keeper = Keeper::new(config, dirs, store, jobs, inboxes, Arc::clone(&self.disk));
        spawn("keeper", move || keeper.run())?;
        Ok(sender)
    }

    fn start_worker(
        &self,
        config: &Config,
        name: &str,
        seat: WorkerSeat,
        links: Links,
        ready: Sender<std::io::Result<()>>,
    ) -> Result<(), Failure> {
        let WorkerSeat { core: StartedCore { home, segment, .. }, idle, bound, wake } = seat;
        let slots = config.connections_a_core() + SLOTS_BEYOND;
        let core = Core::new(config.clone(), home, idle, slots, crate::worker::now(self.started_at));
        let (ring_config, cpu) = (config.ring.clone(), config.cpus.get(usize::from(links.core)).copied());
        let own = links.core;
        let (told, pacing, started_at) = (self.told.clone(), Pacing::new(config.export.interval_ms), self.started_at);
        spawn(name, move || {
            // The ring belongs to the thread that made it.
            let ring = pin(cpu)
                .and_then(|()| bound.map(Bound::listen).transpose())
                .and_then(|listener| Ring::new(&ring_config, slots, listener, wake));
            match ring {
                Ok(mut ring) => {
                    ring.add_segment(segment.0, segment.1);
                    links.mesh.open(ring.descriptor());
                    let _ = ready.send(Ok(()));
                    let exit = Worker::new(core, ring, links, pacing, started_at).run();
                    let _ = told.send(Told::WorkerEnded(own, exit));
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        })?;
        Ok(())
    }
}

/// What one worker's thread begins with.
struct WorkerSeat {
    core: StartedCore,
    idle: Vec<IdleLog>,
    bound: Option<Bound>,
    wake: OwnedFd,
}

fn pin(cpu: Option<usize>) -> std::io::Result<()> {
    cpu.map_or(Ok(()), |cpu| run_on([cpu]))
}
