//! A run: one executor a core, each with its share of the connections, a pacer and a feed; a line of progress a second.

use crate::cpu;
use crate::feed::Feed;
use crate::ledger::Ledger;
use crate::link;
use crate::plan::{Plan, PlanError};
use crate::report::{Outcome, Totals};
use glommio::{LocalExecutorBuilder, Placement};
use hdrhistogram::Histogram;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A generator that sleeps makes the server pay for waking it, reply by reply (an interrupt to another processor, costly in
/// a guest): it looks for completions so long before it does.
const SPIN: Duration = Duration::from_micros(100);

/// How long tasks may keep the executor from the kernel's events. An executor that is told to stop before it has run anything, as
/// one is that other processes kept waiting, takes that for having nothing to do, and sleeps for good, whatever is due: so this
/// is longer than any processor keeps a thread waiting, and tasks that poll are never told to stop.
const PREEMPT: Duration = Duration::from_secs(1);
const NEVER: Duration = Duration::from_secs(86_400);

/// Between two looks of the progress line at the threads.
const PROGRESS: Duration = Duration::from_secs(1);
const PUBLISH_NS: u64 = 20_000_000;

/// Shorter sleeps cost more than they are exact.
const SLEEP_MIN: Duration = Duration::from_micros(20);

/// Completion entries and registered buffers: small, so that a memlock limit of 8 MiB carries several executors.
const RING_DEPTH: usize = 512;
const IO_MEMORY_BYTES: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("cannot connect to {target}: {error}; start the server or name another --target")]
    Connect { target: std::net::SocketAddr, error: std::io::Error },
    #[error("cannot start a sending thread: {0}")]
    Executor(String),
}

/// What one thread brings home.
struct Share {
    totals: Totals,
    ledger: Ledger,
    latency: Histogram<u64>,
    lag: Histogram<u64>,
    cpu_ns: u64,
    elapsed: Duration,
}

/// How far a run is; its text is a line for a person.
pub struct Progress<'a> {
    /// Since the start, and since the last look.
    pub at_s: f64,
    pub span_s: f64,
    pub before: &'a Totals,
    pub now: &'a Totals,
}

impl Progress<'_> {
    pub fn clicks_per_s(&self) -> f64 {
        (self.now.acknowledged() - self.before.acknowledged()) as f64 / self.span_s
    }
}

impl std::fmt::Display for Progress<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (now, last) = (self.now, self.before);
        write!(
            out,
            "{:>5.0} s  {:>9.0} clicks/s  {:>8.0} requests/s  duplicate {}  rejected {}  shed {}  retries {}  wrong {}",
            self.at_s,
            self.clicks_per_s(),
            (now.answered - last.answered) as f64 / self.span_s,
            now.duplicates - last.duplicates,
            now.rejected - last.rejected,
            now.shed - last.shed,
            now.retries - last.retries,
            now.wrong,
        )
    }
}

/// Sends the plan, and tells `progress` about it once a second.
pub fn run(plan: &Plan, progress: impl FnMut(&Progress<'_>)) -> Result<Outcome, RunError> {
    run_watched(plan, PROGRESS, progress)
}

/// Sends the plan, and tells `progress` about it each so often.
pub fn run_watched(plan: &Plan, every: Duration, mut progress: impl FnMut(&Progress<'_>)) -> Result<Outcome, RunError> {
    plan.check()?;
    for target in &plan.targets {
        std::net::TcpStream::connect_timeout(target, Duration::from_secs(5))
            .map_err(|error| RunError::Connect { target: *target, error })?;
    }
    let start = Instant::now();
    let started_ms = wall_ms();
    let threads = plan.threads();
    let mut boards = Vec::new();
    let mut handles = Vec::new();
    for thread in 0..threads {
        let placement = plan.cpus.get(thread).map_or(Placement::Unbound, |cpu| Placement::Fixed(*cpu));
        let connections = plan.connections / threads + usize::from(thread < plan.connections % threads);
        let board = Arc::new(Mutex::new(Totals::default()));
        boards.push(board.clone());
        let plan = plan.clone();
        let handle = LocalExecutorBuilder::new(placement)
            .spin_before_park(SPIN)
            .preempt_timer(if plan.busy_poll { NEVER } else { PREEMPT })
            .name("loadgen")
            .ring_depth(RING_DEPTH)
            .io_memory(IO_MEMORY_BYTES)
            .spawn(move || share(plan, thread, connections, start, started_ms, board))
            .map_err(|error| RunError::Executor(error.to_string()))?;
        handles.push(handle);
    }
    watch(&boards, start, every, &mut progress);
    let mut shares = Vec::new();
    for handle in handles {
        shares.push(handle.join().map_err(|error| RunError::Executor(error.to_string()))?);
    }
    Ok(merge(plan, started_ms, shares))
}

pub fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

async fn share(
    plan: Plan,
    thread: usize,
    connections: usize,
    start: Instant,
    started_ms: i64,
    board: Arc<Mutex<Totals>>,
) -> Share {
    let cpu_ns = cpu::of_this_thread_ns();
    let plan = Rc::new(plan);
    let feed = Rc::new(RefCell::new(Feed::new(&plan, thread, connections, started_ms)));
    let links: Vec<_> = (0..connections)
        .map(|lane| glommio::spawn_local(link::run(feed.clone(), lane, plan.clone(), start)).detach())
        .collect();
    let mut publish_ns = 0;
    while !feed.borrow().is_done() {
        let now_ns = start.elapsed().as_nanos() as u64;
        let next_ns = feed.borrow_mut().tick(now_ns);
        if now_ns >= publish_ns {
            publish_ns = now_ns + PUBLISH_NS;
            post(&board, &feed.borrow().totals);
        }
        if plan.busy_poll {
            // All connections have been looked at once. The kernel's workers may need this processor, for the server's writes to
            // disk among others, and would wait for the end of a time slice, milliseconds.
            std::thread::yield_now();
            glommio::executor().yield_now().await;
            continue;
        }
        let sleep = Duration::from_nanos(next_ns.saturating_sub(start.elapsed().as_nanos() as u64));
        glommio::timer::sleep(sleep.max(SLEEP_MIN)).await;
    }
    let elapsed = start.elapsed();
    for link in links {
        link.await;
    }
    let feed = feed.borrow();
    post(&board, &feed.totals);
    Share {
        totals: feed.totals.clone(),
        ledger: feed.ledger.clone(),
        latency: feed.latency.clone(),
        lag: feed.lag.clone(),
        cpu_ns: cpu::of_this_thread_ns() - cpu_ns,
        elapsed,
    }
}

fn post(board: &Mutex<Totals>, totals: &Totals) {
    // The board only shows progress: a panic elsewhere while it was held does not spoil it.
    let mut board = board.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    board.clone_from(totals);
}

fn watch(boards: &[Arc<Mutex<Totals>>], start: Instant, every: Duration, progress: &mut impl FnMut(&Progress<'_>)) {
    let (mut last, mut last_at) = (Totals::default(), start);
    // A thread lets go of its board when it ends, however it ends.
    while boards.iter().any(|board| Arc::strong_count(board) > 1) {
        std::thread::sleep(Duration::from_millis(20));
        if last_at.elapsed() < every {
            continue;
        }
        let (mut now, now_at) = (Totals::default(), Instant::now());
        for board in boards {
            now.add(&board.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        }
        let (at_s, span_s) = ((now_at - start).as_secs_f64(), (now_at - last_at).as_secs_f64());
        progress(&Progress { at_s, span_s, before: &last, now: &now });
        (last, last_at) = (now, now_at);
    }
}

fn merge(plan: &Plan, started_ms: i64, shares: Vec<Share>) -> Outcome {
    let mut shares = shares.into_iter();
    let first = shares.next().expect("a run has at least one thread");
    let mut outcome = Outcome {
        plan: plan.clone(),
        started_ms,
        elapsed_s: first.elapsed.as_secs_f64(),
        totals: first.totals,
        ledger: first.ledger,
        latency: first.latency,
        lag: first.lag,
        cpu_s: first.cpu_ns as f64 / 1e9,
    };
    for share in shares {
        outcome.elapsed_s = outcome.elapsed_s.max(share.elapsed.as_secs_f64());
        outcome.totals.add(&share.totals);
        outcome.ledger.add(&share.ledger);
        outcome.latency.add(&share.latency).expect("histograms of one run have the same bounds");
        outcome.lag.add(&share.lag).expect("histograms of one run have the same bounds");
        outcome.cpu_s += share.cpu_ns as f64 / 1e9;
    }
    outcome
}
