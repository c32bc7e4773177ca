//! A proxy between Kafka clients and a broker that knows where requests begin and what kind each is, and so can lose, hold,
//! delay and double them one by one. Two threads a connection:
//!
//!     client ──requests──▶ rules ──▶ broker      what is to become of each answer is noted before its request is sent
//!     client ◀── notes ◀──responses── broker     an answer finds its note by its correlation id

use std::collections::{BTreeMap, VecDeque};
use std::io::{Error, Read, Result, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::end_txn::outcome;
use crate::ports;
use crate::rules::{Action, Api, Applied, Rule, Rules};
use crate::wait::{PATIENCE, let_pass, wait_until};

/// API key, version and correlation id; all that is looked at.
const REQUEST_BYTES_MIN: usize = 8;

/// Correlation id.
const RESPONSE_BYTES_MIN: usize = 4;

/// Beyond what Kafka takes; more is no frame.
const FRAME_BYTES_MAX: usize = 200 << 20;

pub struct Proxy {
    shared: Arc<Shared>,
    /// None while it is paused.
    acceptor: Mutex<Option<Acceptor>>,
}

struct Shared {
    address: SocketAddr,
    upstream: SocketAddr,
    rules: Mutex<Rules>,
    requests: Mutex<BTreeMap<Api, u64>>,
    open: Mutex<Vec<Arc<Connection>>>,
    held: Mutex<Vec<(Vec<u8>, Applied)>>,
    accepted: AtomicU64,
}

struct Acceptor {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

struct Connection {
    client: TcpStream,
    broker: TcpStream,
    notes: Mutex<VecDeque<Note>>,
}

/// What is to become of the answer to a request.
struct Note {
    correlation_id: [u8; 4],
    answer: Answer,
}

enum Answer {
    Pass,
    PassAfter(Duration, Applied),
    Drop(Applied),
    Swallow(Applied),
}

/// A panic while it was held fails its test; what it guards is whole at any moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Proxy {
    /// Listens on a port of its own for a broker that will be there.
    pub fn start(upstream: SocketAddr) -> Proxy {
        let shared = Arc::new(Shared {
            address: ports::free(),
            upstream,
            rules: Mutex::default(),
            requests: Mutex::default(),
            open: Mutex::default(),
            held: Mutex::default(),
            accepted: AtomicU64::new(0),
        });
        let proxy = Proxy { shared, acceptor: Mutex::new(None) };
        proxy.resume();
        proxy
    }

    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    pub fn upstream(&self) -> SocketAddr {
        self.shared.upstream
    }

    pub fn add(&self, rule: Rule) -> Applied {
        lock(&self.shared.rules).add(rule)
    }

    /// As new: no rules, and nothing held. Connections stay.
    pub fn clear(&self) {
        lock(&self.shared.rules).clear();
        lock(&self.shared.held).clear();
    }

    /// Requests of this kind that came from clients.
    pub fn requests(&self, api: Api) -> u64 {
        lock(&self.shared.requests).get(&api).copied().unwrap_or(0)
    }

    /// Connections that were let in.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many requests wait for [`Proxy::release`].
    pub fn held(&self) -> usize {
        lock(&self.shared.held).len()
    }

    /// Gives the broker what [`Action::Hold`] held, each on a connection of its own; returns its answers, from the correlation
    /// id on. The rule counts what was answered.
    pub fn release(&self) -> Vec<Vec<u8>> {
        let held = std::mem::take(&mut *lock(&self.shared.held));
        held.iter().filter_map(|(frame, applied)| self.shared.deliver(frame, applied).ok()).collect()
    }

    /// Cuts every connection; new ones are let in.
    pub fn cut(&self) {
        for connection in std::mem::take(&mut *lock(&self.shared.open)) {
            connection.cut();
        }
    }

    /// Cuts every connection and refuses new ones, as a host that is gone.
    pub fn pause(&self) {
        let Some(acceptor) = lock(&self.acceptor).take() else { return };
        acceptor.stop.store(true, Ordering::SeqCst);
        // Wakes it where it accepts.
        let _ = TcpStream::connect(self.shared.address);
        acceptor.thread.join().expect("the acceptor does not panic");
        self.cut();
    }

    /// Lets clients in again.
    pub fn resume(&self) {
        let mut acceptor = lock(&self.acceptor);
        if acceptor.is_some() {
            return;
        }
        let mut listener = None;
        wait_until("the proxy's port is free again", || {
            listener = TcpListener::bind(self.shared.address).ok();
            listener.is_some()
        });
        let listener = listener.expect("it was waited for");
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (self.shared.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                // A broker that is down: the client sees its connection closed.
                let _ = shared.clone().connect(client);
            }
        });
        *acceptor = Some(Acceptor { stop, thread });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.pause();
    }
}

impl Shared {
    fn connect(self: Arc<Shared>, client: TcpStream) -> Result<()> {
        let broker = TcpStream::connect(self.upstream)?;
        client.set_nodelay(true)?;
        broker.set_nodelay(true)?;
        self.accepted.fetch_add(1, Ordering::SeqCst);
        let connection = Arc::new(Connection { client, broker, notes: Mutex::default() });
        lock(&self.open).push(connection.clone());
        let other = connection.clone();
        std::thread::spawn(move || {
            // Either side closed: so is the other.
            let _ = other.responses();
            other.cut();
        });
        std::thread::spawn(move || {
            let _ = self.requests(&connection);
            connection.cut();
            lock(&self.open).retain(|open| !Arc::ptr_eq(open, &connection));
        });
        Ok(())
    }

    /// Until the connection ends, one way or the other.
    fn requests(self: &Arc<Shared>, connection: &Connection) -> Result<()> {
        loop {
            let frame = read_frame(&connection.client, REQUEST_BYTES_MIN)?;
            let api = Api::of(&frame);
            *lock(&self.requests).entry(api).or_default() += 1;
            let decided = lock(&self.rules).decide(api);
            let Some((action, applied)) = decided else {
                connection.ask(&frame, Answer::Pass)?;
                continue;
            };
            match action {
                Action::DelayRequest(time) => {
                    let_pass(time);
                    connection.ask(&frame, Answer::Pass)?;
                    applied.count();
                }
                Action::Throttle { bytes_per_second } => {
                    let_pass(Duration::from_millis(frame.len() as u64 * 1_000 / bytes_per_second));
                    connection.ask(&frame, Answer::Pass)?;
                    applied.count();
                }
                Action::DelayResponse(time) => connection.ask(&frame, Answer::PassAfter(time, applied))?,
                Action::DropResponse => connection.ask(&frame, Answer::Drop(applied))?,
                Action::Duplicate => {
                    connection.ask(&frame, Answer::Pass)?;
                    connection.ask(&frame, Answer::Swallow(applied))?;
                }
                Action::DropRequest => {
                    applied.count();
                    return Ok(());
                }
                Action::CutAtOnce => {
                    connection.ask(&frame, Answer::Pass)?;
                    applied.count();
                    return Ok(());
                }
                Action::Hold => {
                    connection.cut();
                    lock(&self.held).push((frame, applied));
                    return Ok(());
                }
                Action::DeliverLate(time) => {
                    connection.cut();
                    let shared = self.clone();
                    std::thread::spawn(move || {
                        let_pass(time);
                        // A broker that is down gets nothing, and the rule does not count it.
                        let _ = shared.deliver(&frame, &applied);
                    });
                    return Ok(());
                }
            }
        }
    }

    fn deliver(&self, frame: &[u8], applied: &Applied) -> Result<Vec<u8>> {
        let mut stream = TcpStream::connect(self.upstream)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(frame)?;
        let answer = read_frame(&stream, RESPONSE_BYTES_MIN)?;
        if Api::of(frame) == Api::END_TXN {
            applied.ended(outcome(frame, &answer));
        }
        applied.count();
        Ok(answer[4..].to_vec())
    }
}

impl Connection {
    /// Sends the broker a request, its answer's fate noted.
    fn ask(&self, frame: &[u8], answer: Answer) -> Result<()> {
        let correlation_id = frame[8..12].try_into().expect("four bytes");
        lock(&self.notes).push_back(Note { correlation_id, answer });
        (&self.broker).write_all(frame)
    }

    fn responses(&self) -> Result<()> {
        loop {
            let frame = read_frame(&self.broker, RESPONSE_BYTES_MIN)?;
            let answer = self.note(&frame[4..8])?;
            match answer {
                Answer::Pass => (&self.client).write_all(&frame)?,
                Answer::PassAfter(time, applied) => {
                    let_pass(time);
                    (&self.client).write_all(&frame)?;
                    applied.count();
                }
                Answer::Swallow(applied) => applied.count(),
                Answer::Drop(applied) => {
                    self.cut();
                    applied.count();
                    return Ok(());
                }
            }
        }
    }

    /// Answers come in the order of their requests; notes before it are of requests that have none.
    fn note(&self, correlation_id: &[u8]) -> Result<Answer> {
        let mut notes = lock(&self.notes);
        while let Some(note) = notes.pop_front() {
            if note.correlation_id == *correlation_id {
                return Ok(note.answer);
            }
        }
        Err(Error::other(format!("the broker answered {correlation_id:?}, which nobody asked")))
    }

    fn cut(&self) {
        for stream in [&self.client, &self.broker] {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// A request or a response with its length before it.
fn read_frame(mut stream: &TcpStream, bytes_min: usize) -> Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let bytes = u32::from_be_bytes(length) as usize;
    if !(bytes_min..=FRAME_BYTES_MAX).contains(&bytes) {
        return Err(Error::other(format!("a frame of {bytes} bytes: this is not Kafka's protocol")));
    }
    let mut frame = vec![0; 4 + bytes];
    frame[..4].copy_from_slice(&length);
    stream.read_exact(&mut frame[4..])?;
    Ok(frame)
}
