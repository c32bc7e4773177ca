//! Drives. `tollgate up` and `tollgate serve`: takes the data directory, recovers, starts the threads in their order, says
//! that it is ready, waits for a signal, stops them in the reverse order. Runs on the main thread.
//!
//!     main ─┬─ worker     core + ring: clicks; one for each of --cpus
//!           ├─ keeper     segments ahead of need, disk budget
//!           ├─ exporter   cuts → transactions → store
//!           ├─ rollup     hours of the store, what is older than its retention
//!           ├─ query      counts over HTTP, dashboard
//!           ├─ files      tokens and ad catalogue, when they change
//!           ├─ demo       clicks that nobody made, with `up --demo`
//!           └─ admin      /metrics, /healthz, /readyz

mod demo;
mod ports;
pub mod queries;
mod threads;
mod tuning;
mod watch;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tollgate_global::{Kept, Page, Store};

use crate::admin::{self, Phase, Readiness, ScrapeSender};
use crate::chunk::CoreIndex;
use crate::config::{Config, LogFormat};
use crate::event::Patience;
use crate::exit::Exit;
use crate::export::thread::Meter;
use crate::inbox::{Inbound, Inbox};
use crate::machine::Machine;
use crate::meters::Meters;
use crate::net::listener::Bound;
use crate::probe;
use crate::run::ports::listen;
use crate::run::threads::{Bells, Threads};
use crate::run::watch::{STUCK_AFTER, Watches};
use crate::say;
use crate::start::{self, Failure, Started};
use crate::wal::keeper::DiskMeter;
use crate::wal::segments::DataDir;
use crate::worker::now;

/// How often the main thread looks at the workers.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// While the process starts.
const LOOK_FOR_SIGNALS_EVERY: Duration = Duration::from_millis(50);

/// How far an export of everything is, is said so often.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

const CANNOT_GO_ON: &str = "the exporter cannot go on";

/// What a process is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Clicks, until a signal.
    Serve,
    /// The same, and it sends itself some.
    Demo,
    /// `--until-exported`: no clicks; what the log holds is exported, however long that takes, and then it ends.
    ExportAll,
}

impl Work {
    /// What the dashboard says of it.
    fn page(self) -> Page {
        Page { demo: self == Work::Demo }
    }
}

/// What the main thread waits for.
enum Told {
    Signal(i32),
    WorkerEnded(CoreIndex, Exit),
    ExporterEnded(Exit),
}

/// Until a signal, a halt or the end of its work; the exit says which.
pub fn run(config: &Config, work: Work) -> Exit {
    log_to_stderr(config.log_format);
    let (exit, text) = match serve(config, work) {
        Ok(exit) => return exit,
        Err(Failure { exit, text }) => (exit, text),
    };
    match config.log_format {
        LogFormat::Text => say::error(text),
        LogFormat::Json => tracing::error!(code = exit.code(), "{text}"),
    }
    exit
}

fn serve(config: &Config, work: Work) -> Result<Exit, Failure> {
    if work == Work::ExportAll {
        start::a_log_is_there(&config.data_dir)?;
    }
    the_host_has_all(config)?;
    let config = &tuning::in_force(config)?;
    leave_to_workers(config).map_err(Failure::unavailable("the CPUs beside those of --cpus"))?;
    let (told_sender, told) = mpsc::channel();
    catch_signals(told_sender.clone())?;
    start::of_an_edge_alone(&config.data_dir)?;
    if work == Work::Demo {
        start::of_nobody_else(&config.data_dir)?;
    }
    // Before the directory is touched: a start that is refused for what it was told leaves it as it was.
    let queries = queries::open(config)?;
    // Before the ports: beside a live edge it is the directory that is named. Locked until this function ends: the threads write to it.
    let data_dir = Arc::new(DataDir::open(&config.data_dir)?);
    start::kept_apart(config, &data_dir, work == Work::Demo)?;
    let (listeners, addresses) = listen(config, work)?;
    let readiness = Arc::new(Readiness::default());
    let started_at = Instant::now();
    let bells: std::io::Result<Vec<Bells>> = (0..config.cores()).map(|_| Bells::new()).collect();
    let bells = bells.map_err(Failure::unavailable("an eventfd"))?;
    let scrapes =
        bells.iter().map(|bells| ScrapeSender::new(bells.scrapes.0.clone(), Arc::clone(&bells.wake))).collect();
    let (meter, disk) = (Arc::<Meter>::default(), Arc::<DiskMeter>::default());
    let kept = Arc::<Kept>::default();
    let meters = Meters {
        export: Arc::clone(&meter),
        disk: Arc::clone(&disk),
        queries: queries.clone(),
        kept: Arc::clone(&kept),
        started: started_at,
    };
    admin::serve(listeners.admin, scrapes, meters, Arc::clone(&readiness))
        .map_err(Failure::unavailable("the admin port"))?;

    let mut started = start_unless_stopped(config, &data_dir, started_at, &readiness, &told)?;
    started.exporter.meter = Arc::clone(&meter);
    let inboxes: Arc<[Inbox]> = bells.iter().map(|bells| bells.inbox.clone()).collect();
    let querying = match (&started.store, queries, listeners.query) {
        (Some(store), Some(queries), Some(port)) => Some(queries::serve(store, &queries, work.page(), port)?),
        (None, ..) | (_, None, _) | (.., None) => None,
    };
    let _keeping =
        started.store.as_ref().map(|store| keep_store(store, start::store_path(config), kept)).transpose()?;
    let heartbeats: Vec<Arc<AtomicU64>> = bells.iter().map(|_| Arc::default()).collect();

    let threads = Threads {
        inboxes: Arc::clone(&inboxes),
        readiness: Arc::clone(&readiness),
        heartbeats: heartbeats.clone(),
        told: told_sender,
        disk,
        started_at,
    };
    let clicks_at = listeners.clicks.first().map(Bound::address);
    // The workers' threads listen before it is said to have started.
    threads.start(config, started, bells, listeners.clicks)?;
    begin(work, &addresses, &readiness, &inboxes);
    demo::start(work, clicks_at)?;
    let progress = (work == Work::ExportAll).then(|| Progress { meter, started_at, said_at: Instant::now() });
    let exit = wait(config, &told, &inboxes, &readiness, &heartbeats, progress);
    readiness.set(Phase::Draining);
    // The query side ends by itself when nobody listens any more.
    drop(querying);
    drop(data_dir);
    Ok(exit)
}

/// Says that everything runs, to whoever waits for that.
fn begin(work: Work, addresses: &str, readiness: &Readiness, inboxes: &[Inbox]) {
    match work {
        Work::Serve | Work::Demo => {
            readiness.set(Phase::Ready);
            say::out(format_args!("ready {addresses}\n"));
        }
        Work::ExportAll => {
            readiness.set(Phase::Exporting);
            say::out(format_args!("exporting {addresses}\n"));
            tracing::info!(
                "no clicks are taken: what the log holds is exported, however long that takes; then this ends"
            );
            tell_all(inboxes, || Inbound::Stop { patience: Patience::UntilExported });
        }
    }
}

/// A start takes memory and reads the log back, for as long as that takes: on a thread of its own, so that a signal does not wait. It is then
/// as safe as in a kill, and ends with the code of what is not exported: nobody knows yet whether all is.
fn start_unless_stopped(
    config: &Config,
    data_dir: &Arc<DataDir>,
    started_at: Instant,
    readiness: &Arc<Readiness>,
    told: &Receiver<Told>,
) -> Result<Started, Failure> {
    let (sender, outcome) = mpsc::channel();
    let (config, data_dir, readiness) = (config.clone(), Arc::clone(data_dir), Arc::clone(readiness));
    spawn("start", move || {
        // The main thread may have been told to stop.
        let _ = sender.send(start::start(&config, &data_dir, started_at, &readiness));
    })?;
    loop {
        match outcome.recv_timeout(LOOK_FOR_SIGNALS_EVERY) {
            Ok(started) => return started,
            Err(RecvTimeoutError::Timeout) if told.try_recv().is_ok() => {
                let text = "stopped by a signal while starting: no click was taken, and what the log holds stays for the next start to export";
                return Err(Failure { exit: Exit::Store, text: text.to_owned() });
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure { exit: Exit::Bug, text: "the start ended before its end".to_owned() });
            }
        }
    }
}

/// What the host lacks is named all at once.
fn the_host_has_all(config: &Config) -> Result<(), Failure> {
    let missing = probe::probe(config);
    let text = missing.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if missing.is_empty() { Ok(()) } else { Err(Failure { exit: Exit::Unavailable, text }) }
}

/// Workers that are left are as safe as in a kill: which of them has ended is not known here, so none is asked to do it.
fn halt(exit: Exit, why: &str) -> Exit {
    tracing::error!(code = exit.code(), "halt: {why}");
    exit
}

fn tell_all(inboxes: &[Inbox], message: impl Fn() -> Inbound) {
    for inbox in inboxes {
        inbox.send(message());
    }
}

/// Until every worker has ended, or one could not go on: passes a signal on, watches for progress. With `exporting`, nothing is waited for but the sink, and
/// what a signal leaves stays in the log.
fn wait(
    config: &Config,
    told: &Receiver<Told>,
    inboxes: &[Inbox],
    readiness: &Readiness,
    heartbeats: &[Arc<AtomicU64>],
    mut exporting: Option<Progress>,
) -> Exit {
    let beats = || heartbeats.iter().map(|beat| beat.load(Ordering::Relaxed));
    let mut watches = Watches::new(beats());
    let mut looked_at = Instant::now();
    let mut stop_at: Option<Instant> = None;
    loop {
        if stop_at.is_some_and(|at| at <= Instant::now()) {
            tell_all(inboxes, || Inbound::Stop { patience: Patience::Deadline });
            stop_at = None;
        }
        let until_stop = stop_at.map_or(LOOK_EVERY, |at| at.saturating_duration_since(Instant::now()));
        match told.recv_timeout(LOOK_EVERY.min(until_stop)) {
            Ok(Told::Signal(_)) if let Some(progress) = &exporting => {
                let why = format!(
                    "stopped by a signal with {} clicks left to export: they stay in the log, and the next start exports them",
                    progress.clicks_behind()
                );
                return halt(Exit::Store, &why);
            }
            Ok(Told::Signal(signal)) => {
                tracing::info!(signal, "stopping: what was received is answered, then the last cut is exported");
                readiness.set(Phase::Draining);
                stop_at.get_or_insert(Instant::now() + Duration::from_millis(config.drain_delay_ms));
            }
            Ok(Told::WorkerEnded(core, Exit::Clean)) if watches.others_than(core) => watches.ended(core),
            Ok(Told::WorkerEnded(_, exit)) => {
                if exporting.is_some() && exit == Exit::Clean {
                    tracing::info!("everything is exported");
                }
                return exit;
            }
            Ok(Told::ExporterEnded(Exit::Clean)) => {}
            Ok(Told::ExporterEnded(exit)) => {
                return halt(exit, CANNOT_GO_ON);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Exit::Bug,
        }
        if let Some(progress) = &mut exporting {
            progress.say_when_due();
        }
        let since = looked_at.elapsed();
        looked_at += since;
        if let Some(core) = watches.stuck(beats(), since) {
            tracing::error!(core, "a worker made no progress for {} s", STUCK_AFTER.as_secs());
            return Exit::Stuck;
        }
    }
}

/// Says how far an export of everything is.
struct Progress {
    meter: Arc<Meter>,
    /// The start of the process's monotonic clock.
    started_at: Instant,
    said_at: Instant,
}

impl Progress {
    fn clicks_behind(&self) -> u64 {
        self.meter.clicks_behind.load(Ordering::Relaxed)
    }

    fn say_when_due(&mut self) {
        if self.said_at.elapsed() >= PROGRESS_EVERY {
            self.said_at = Instant::now();
            let answers = self.meter.sink_answers(now(self.started_at));
            let what =
                if !answers { "the sink gives no answer to go on with, and is asked again" } else { "exporting" };
            tracing::info!(clicks_behind = self.clicks_behind(), "{what}");
        }
    }
}

/// What happens is told on standard error, a line each; standard output has the ready line alone.
pub fn log_to_stderr(format: LogFormat) {
    let lines = tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false);
    // It would say on a full standard error that this is full, and end the process by that.
    let lines = lines.log_internal_errors(false);
    let set = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    if let Err(error) = set {
        say::error(format_args!("nothing will be told on standard error: {error}"));
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Failure> {
    Builder::new().name(name.to_owned()).spawn(body).map_err(Failure::unavailable("a thread"))
}

/// Where workers are pinned, everything else stays off their CPUs, if there are others: a worker that wakes would wait for the
/// rest of another thread's time slice, milliseconds, whatever that thread's priority. Where it stays can be said.
fn leave_to_workers(config: &Config) -> std::io::Result<()> {
    let workers = &config.cpus;
    let others: Vec<usize> = match &config.tuning.housekeeping_cpus[..] {
        [] => Machine::read().cpus.into_iter().filter(|cpu| !workers.contains(cpu)).collect(),
        said => said.to_vec(),
    };
    if workers.is_empty() || others.is_empty() { Ok(()) } else { run_on(others) }
}

/// Where the calling thread may run, and those that it will start.
fn run_on(cpus: impl IntoIterator<Item = usize>) -> std::io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    cpus.into_iter().for_each(|cpu| set.set(cpu));
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Rolls the store's hours up and prunes it, on a thread of its own; it ends when the returned sender is dropped, with `serve`.
fn keep_store(store: &Arc<Store>, path: PathBuf, kept: Arc<Kept>) -> Result<Sender<()>, Failure> {
    let (stop, stopped) = mpsc::channel();
    let store = Arc::clone(store);
    spawn("rollup", move || {
        if let Err(error) = kept.keep(&store, &path, &stopped) {
            // The exporter finds the store failed at its next commit, and decides.
            tracing::error!("the store cannot be kept in order: {error}");
        }
    })?;
    Ok(stop)
}

fn catch_signals(told: Sender<Told>) -> Result<(), Failure> {
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT])
        .map_err(Failure::unavailable("signal handlers"))?;
    spawn("signals", move || {
        for signal in signals.forever() {
            if told.send(Told::Signal(signal)).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}
