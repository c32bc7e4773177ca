//! The admin port: `/metrics`, `/healthz`, `/readyz`, on a thread of its own that no click passes. It asks the worker for a
//! snapshot between two turns, so what it shows balances; it never reads a core's state itself.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, UNIX_EPOCH};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::sync::oneshot;
use tollgate_global::{Port, PortLimits};

use crate::chunk::CoreIndex;
use crate::meters::Meters;
use crate::metrics::Snapshot;
use crate::metrics_text::{Process, render};
use crate::wake::Wake;

/// A worker answers within a turn; one that does not in this time is stuck, and its own watch ends the process.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(2);

/// Kernel ticks a second in `/proc/self/stat`: fixed by Linux's interface, whatever the kernel counts with.
const TICKS_PER_SECOND: f64 = 100.0;

/// The worker sends the snapshot here; the admin side may have given up by then.
pub type ScrapeAnswer = oneshot::Sender<Box<Snapshot>>;

/// Asks a worker for a snapshot and wakes it.
pub struct ScrapeSender {
    requests: SyncSender<ScrapeAnswer>,
    /// An eventfd that the worker's ring waits on.
    wake: Arc<Wake>,
}

impl ScrapeSender {
    pub fn new(requests: SyncSender<ScrapeAnswer>, wake: Arc<Wake>) -> ScrapeSender {
        ScrapeSender { requests, wake }
    }

    fn send(&self) -> Result<oneshot::Receiver<Box<Snapshot>>, &'static str> {
        let (answer, receiver) = oneshot::channel();
        self.requests.try_send(answer).map_err(|error| match error {
            TrySendError::Full(_) => "other scrapes are waiting for a worker; scrape less often",
            TrySendError::Disconnected(_) => "a worker has ended",
        })?;
        self.wake.ring();
        Ok(receiver)
    }
}

/// What the process is at, for `/readyz`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    Starting,
    /// Touching the memory for remembered ids. Nothing is served yet.
    TakingMemory {
        bytes_done: u64,
        bytes_total: u64,
    },
    /// Reading the log back. Nothing is served yet.
    Recovering {
        bytes_done: u64,
        bytes_total: u64,
    },
    Ready,
    /// Takes no clicks, and ends when everything is exported.
    Exporting,
    Draining,
}

/// Shared by the threads that know and the one that answers. Held for a copy only.
pub struct Readiness {
    state: Mutex<ReadinessState>,
}

struct ReadinessState {
    phase: Phase,
    /// Why clicks are turned away, and what helps, by core.
    shedding: BTreeMap<CoreIndex, &'static str>,
    memory_since: Option<Instant>,
    recovering_since: Option<Instant>,
    recovered_bytes: (u64, u64),
    notes: BTreeMap<CoreIndex, String>,
    /// Since 1970, when this was made.
    started: Duration,
}

impl Default for Readiness {
    fn default() -> Readiness {
        let state = ReadinessState {
            phase: Phase::Starting,
            shedding: BTreeMap::new(),
            memory_since: None,
            recovering_since: None,
            recovered_bytes: (0, 0),
            notes: BTreeMap::new(),
            started: UNIX_EPOCH.elapsed().unwrap_or_default(),
        };
        Readiness { state: Mutex::new(state) }
    }
}

#[derive(Debug, Serialize)]
struct Answer {
    ready: bool,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_done: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_left: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl Readiness {
    pub fn set(&self, phase: Phase) {
        let mut state = self.lock();
        if let Phase::TakingMemory { .. } = phase {
            state.memory_since.get_or_insert_with(Instant::now);
        }
        if let Phase::Recovering { bytes_done, bytes_total } = phase {
            state.recovering_since.get_or_insert_with(Instant::now);
            state.recovered_bytes = (bytes_done, bytes_total);
        }
        state.phase = phase;
    }

    /// The core turns clicks away (`Some`, why), or takes them again.
    pub fn shed(&self, core: CoreIndex, why: Option<&'static str>) {
        let shedding = &mut self.lock().shedding;
        match why {
            Some(why) => shedding.insert(core, why),
            None => shedding.remove(&core),
        };
    }

    /// Something worth an operator's look that does not stop clicks: the horizon rose early, say.
    pub fn set_note(&self, core: CoreIndex, note: Option<String>) {
        let notes = &mut self.lock().notes;
        match note {
            Some(note) => notes.insert(core, note),
            None => notes.remove(&core),
        };
    }

    pub fn is_ready(&self) -> bool {
        let state = self.lock();
        state.phase == Phase::Ready && state.shedding.is_empty()
    }

    /// A thread that panicked has ended the process, so the lock is never poisoned to any effect.
    fn lock(&self) -> MutexGuard<'_, ReadinessState> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn answer(&self) -> Answer {
        let state = self.lock();
        let said = |ready, reason| Answer {
            ready,
            reason,
            bytes_done: None,
            bytes_total: None,
            seconds_left: None,
            note: state.notes.values().next().cloned(),
        };
        let under_way = |reason, since: Option<Instant>, bytes_done, bytes_total| {
            let elapsed = since.map_or(Duration::ZERO, |since| since.elapsed());
            let seconds_left = seconds_left(elapsed, bytes_done, bytes_total);
            let (bytes_done, bytes_total) = (Some(bytes_done), Some(bytes_total));
            Answer { bytes_done, bytes_total, seconds_left, ..said(false, reason) }
        };
        match state.phase {
            Phase::Starting => said(false, "starting"),
            Phase::TakingMemory { bytes_done, bytes_total } => {
                under_way("taking memory", state.memory_since, bytes_done, bytes_total)
            }
            Phase::Recovering { bytes_done, bytes_total } => {
                under_way("recovering", state.recovering_since, bytes_done, bytes_total)
            }
            Phase::Ready => state.shedding.values().next().map_or_else(|| said(true, "ready"), |why| said(false, why)),
            Phase::Exporting => said(false, "exporting"),
            Phase::Draining => said(false, "draining"),
        }
    }

    fn process(&self) -> Process {
        let (ready, (recovered_bytes, to_recover_bytes)) = (self.is_ready(), self.lock().recovered_bytes);
        let started_seconds = self.lock().started.as_secs_f64();
        let (cpu_seconds, resident_bytes) = (cpu_seconds().unwrap_or(0.0), resident_bytes().unwrap_or(0));
        Process { cpu_seconds, resident_bytes, started_seconds, ready, recovered_bytes, to_recover_bytes }
    }
}

/// At the pace so far; unknown before the first byte.
fn seconds_left(elapsed: Duration, done: u64, total: u64) -> Option<f64> {
    (done > 0).then(|| elapsed.as_secs_f64() * total.saturating_sub(done) as f64 / done as f64)
}

struct Shared {
    /// Of each worker.
    scrapes: Vec<ScrapeSender>,
    meters: Meters,
    readiness: Arc<Readiness>,
}

/// Serves the admin port from a thread of its own until the process ends.
pub fn serve(
    listener: TcpListener,
    scrapes: Vec<ScrapeSender>,
    meters: Meters,
    readiness: Arc<Readiness>,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(Arc::new(Shared { scrapes, meters, readiness }));
    std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
        let served = runtime.block_on(async { axum::serve(Port::new(listener, PortLimits::ADMIN)?, router).await });
        if let Err(error) = served {
            tracing::error!(%error, "the admin port ended; clicks go on");
        }
    })
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let process = shared.readiness.process();
    let before_worker = match shared.readiness.lock().phase {
        Phase::Starting | Phase::TakingMemory { .. } | Phase::Recovering { .. } => true,
        Phase::Ready | Phase::Exporting | Phase::Draining => false,
    };
    let text = if before_worker {
        render(None, &process)
    } else {
        match snapshot(&shared).await {
            Ok(snapshot) => render(Some(&snapshot), &process),
            Err(why) => return (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
        }
    };
    let text = text + &shared.meters.text();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// Of all cores together: each balances by itself, so the sum does.
async fn snapshot(shared: &Shared) -> Result<Box<Snapshot>, &'static str> {
    let asked: Vec<_> = shared.scrapes.iter().map(ScrapeSender::send).collect::<Result<_, _>>()?;
    let mut sum: Option<Box<Snapshot>> = None;
    let all = async {
        for answer in asked {
            let snapshot = answer.await.map_err(|_| "a worker has ended")?;
            match &mut sum {
                Some(sum) => sum.add(&snapshot),
                None => sum = Some(snapshot),
            }
        }
        Ok::<(), &'static str>(())
    };
    tokio::time::timeout(SCRAPE_TIMEOUT, all).await.map_err(|_| "a worker did not answer in 2 s")??;
    let mut sum = sum.ok_or("no worker was asked")?;
    shared.meters.show(&mut sum);
    Ok(sum)
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let mut answer = shared.readiness.answer();
    answer.note = answer.note.or_else(|| shared.meters.note());
    let status = if answer.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(answer)).into_response()
}

/// User and system time of all threads: fields 14 and 15, after the name, which may hold anything but ends with `)`.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system) = (fields.next()?.parse::<f64>().ok()?, fields.next()?.parse::<f64>().ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(1024 * line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpStream};
    use std::sync::mpsc::{Receiver, sync_channel};

    fn started() -> (SocketAddr, Receiver<ScrapeAnswer>, Arc<Readiness>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, receiver) = sync_channel(1);
        let (wake, _worker) = Wake::pair().unwrap();
        let readiness = Arc::new(Readiness::default());
        let meters = Meters {
            export: Arc::default(),
            disk: Arc::default(),
            queries: None,
            kept: Arc::default(),
            started: Instant::now(),
        };
        serve(listener, vec![ScrapeSender::new(sender, Arc::new(wake))], meters, readiness.clone()).unwrap();
        (address, receiver, readiness)
    }

    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn a_scrape_shows_what_the_worker_answers() {
        let (address, requests, readiness) = started();
        readiness.set(Phase::Ready);
        let worker = std::thread::spawn(move || {
            let mut snapshot = Box::new(Snapshot::default());
            snapshot.ledger.accepted = 42;
            requests.recv().unwrap().send(snapshot).unwrap();
        });
        let answer = get(address, "/metrics");
        worker.join().unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("\ntollgate_clicks_accepted_total 42\n"),
            "{answer}"
        );
        assert!(answer.contains("\ntollgate_ready 1\n"));
        assert!(!answer.contains("process_resident_memory_bytes 0\n"));
    }

    #[test]
    fn a_worker_that_does_not_answer_is_503_and_so_is_one_that_ended() {
        let (address, requests, readiness) = started();
        readiness.set(Phase::Ready);
        assert!(get(address, "/metrics").contains("did not answer in 2 s"));
        // The one that was given up takes up the queue until the worker looks.
        drop(requests.recv().unwrap());
        let ending = std::thread::spawn(move || {
            drop(requests.recv().unwrap());
            requests
        });
        assert!(get(address, "/metrics").contains("a worker has ended"));
        drop(ending.join().unwrap());
        let answer = get(address, "/metrics");
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("a worker has ended"), "{answer}");
    }

    #[test]
    fn readyz_says_why_not_and_how_far() {
        let (address, _requests, readiness) = started();
        // What the worker says before the process is ready is kept.
        readiness.shed(1, Some("shedding"));
        assert!(get(address, "/readyz").contains(r#"{"ready":false,"reason":"starting"}"#));
        readiness.set(Phase::TakingMemory { bytes_done: 0, bytes_total: 8 });
        assert!(get(address, "/metrics").starts_with("HTTP/1.1 200"), "no worker is asked yet");
        readiness.set(Phase::TakingMemory { bytes_done: 2, bytes_total: 8 });
        let answer = get(address, "/readyz");
        assert!(
            answer.contains(r#""reason":"taking memory","bytes_done":2,"bytes_total":8,"seconds_left":"#),
            "{answer}"
        );
        readiness.set(Phase::Recovering { bytes_done: 0, bytes_total: 10 });
        readiness.set(Phase::Recovering { bytes_done: 5, bytes_total: 10 });
        let answer = get(address, "/readyz");
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.contains(r#""bytes_done":5,"bytes_total":10,"seconds_left":"#)
        );
        assert!(get(address, "/metrics").contains("\ntollgate_recovery_read_bytes 5\n"));
        readiness.set(Phase::Ready);
        let answer = get(address, "/readyz");
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains(r#"{"ready":false,"reason":"shedding"}"#));
        readiness.shed(1, None);
        readiness.set_note(0, Some("the horizon rose early".to_owned()));
        let answer = get(address, "/readyz");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("rose early"), "{answer}");
        readiness.set(Phase::Draining);
        assert!(get(address, "/readyz").contains("draining"));
        assert!(get(address, "/healthz").starts_with("HTTP/1.1 200"));
    }

    #[test]
    fn the_time_left_follows_the_pace_so_far() {
        assert_eq!(seconds_left(Duration::from_secs(2), 0, 10), None);
        assert_eq!(seconds_left(Duration::from_secs(2), 5, 20), Some(6.0));
    }
}
