//! Drives one `Connection` over bytes in pieces and notes all that comes of it.

use tollgate::config::{Config, HttpConfig};
use tollgate::net::assembly::AssemblyPool;
use tollgate::net::connection::{Connection, Step};
use tollgate::net::http::RequestInfo;
use tollgate::net::reply::{Letterhead, Outcome, Ticket};

/// 2026-11-22T12:51:25Z.
pub const WALL_MS: i64 = 1_795_351_885_000;

pub fn limits() -> HttpConfig {
    Config::default().http
}

/// So small that each is met.
pub fn small_limits() -> HttpConfig {
    HttpConfig { head_bytes_max: 512, headers_max: 8, body_bytes_max: 2048, ..limits() }
}

/// A request of clicks as the core would see it. `status`: of its abandonment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub request: RequestInfo,
    pub body: Vec<u8>,
    pub end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Open,
    Whole,
    Abandoned(Option<u16>),
}

pub fn accepted(accepted: u32) -> Outcome {
    Outcome::Clicks { accepted, duplicates: 0, rejected: 0, errors: Vec::new() }
}

/// All that came out of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    pub requests: Vec<Seen>,
    pub refused: Vec<u16>,
    /// In order, `100 Continue` left out: whether it is sent depends on what had arrived.
    pub statuses: Vec<u16>,
    pub stopped: bool,
    pub shut_down: bool,
}

/// A connection with a core of no brain: every whole request is accepted as one click, or waits in `tickets`.
pub struct Driver {
    pub connection: Connection,
    pub pool: AssemblyPool,
    pub limits: HttpConfig,
    pub transcript: Transcript,
    pub out: Vec<u8>,
    pub now_ns: u64,
    pub paused: bool,
    /// The test settles requests itself.
    pub by_hand: bool,
    pub tickets: Vec<Ticket>,
    current: Option<Ticket>,
}

impl Driver {
    pub fn new(limits: HttpConfig) -> Driver {
        let mut connection = Connection::new();
        connection.reset(0, &limits);
        let pool = AssemblyPool::new(limits.assembly_bytes_max);
        Driver {
            connection,
            pool,
            limits,
            transcript: Transcript::default(),
            out: Vec::new(),
            now_ns: 0,
            paused: false,
            by_hand: false,
            tickets: Vec::new(),
            current: None,
        }
    }

    pub fn receive(&mut self, bytes: &[u8]) {
        let mut input = bytes;
        self.paused = false;
        loop {
            match self.connection.next(&mut input, self.now_ns, &self.limits, &mut self.pool) {
                Step::Begin { ticket, request } => {
                    assert!(self.current.is_none(), "a request begins within another");
                    assert!(!self.transcript.stopped, "a request begins after Stop");
                    self.current = Some(ticket);
                    self.transcript.requests.push(Seen { request, body: Vec::new(), end: End::Open });
                }
                Step::Body { bytes, last } => {
                    let seen = self.transcript.requests.last_mut().expect("a body belongs to a request");
                    assert_eq!(seen.end, End::Open, "a body piece after its end");
                    seen.body.extend_from_slice(bytes);
                    assert!(last || bytes.ends_with(b"\n"), "a piece that is not the last holds whole lines");
                    if last {
                        seen.end = End::Whole;
                        let ticket = self.current.take().expect("a body belongs to a request");
                        self.tickets.push(ticket);
                        if !self.by_hand {
                            self.connection.settle(ticket, accepted(1), 0, &self.limits);
                        }
                    }
                }
                Step::Abandon { ticket, status } => {
                    assert_eq!(self.current.take(), Some(ticket), "only the request at hand is abandoned");
                    self.transcript.requests.last_mut().expect("it began").end = End::Abandoned(status);
                }
                Step::Refused { status } => self.transcript.refused.push(status),
                Step::Paused => {
                    self.paused = true;
                    break;
                }
                Step::NeedMore => {
                    assert!(!self.transcript.stopped, "nothing is awaited after Stop");
                    break;
                }
                Step::Stop => {
                    self.transcript.stopped = true;
                    break;
                }
            }
        }
        assert!(input.is_empty(), "NeedMore, Paused and Stop leave nothing behind");
    }

    pub fn release(&mut self) {
        let from = self.out.len();
        self.transcript.shut_down |=
            self.connection.release(0, self.now_ns, &self.limits, &Letterhead::new(WALL_MS), &mut self.out);
        self.connection.sent(self.out.len() - from, self.now_ns, &self.limits);
    }

    pub fn release_all(&mut self) {
        self.release();
        while self.connection.may_go_on(&self.limits) {
            self.receive(&[]);
            self.release();
        }
    }

    pub fn finish(mut self) -> (Transcript, Vec<u8>) {
        self.transcript.statuses = replies(&self.out).into_iter().map(|reply| reply.status).collect();
        self.transcript.statuses.retain(|&status| status != 100);
        self.connection.clear(&mut self.pool);
        assert_eq!(self.pool.lent_bytes(), 0, "a cleared connection holds no memory");
        (self.transcript, self.out)
    }
}

/// A reply as a strict client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn field(&self, name: &str) -> Option<&str> {
        let is_named = |line: &&str| line.split(':').next().is_some_and(|n| n.eq_ignore_ascii_case(name));
        self.head.lines().find(is_named).map(|line| line[name.len() + 1..].trim())
    }
}

/// Splits what was sent into replies. Panics where it is not well-formed. An answer to HEAD shows by what follows its head:
/// nothing, or the next reply.
pub fn replies(mut out: &[u8]) -> Vec<Reply> {
    let mut all = Vec::new();
    while !out.is_empty() {
        let end = out.windows(4).position(|four| four == b"\r\n\r\n").expect("a reply's head ends") + 4;
        let head = String::from_utf8(out[..end].to_vec()).expect("a reply is text");
        assert!(head.starts_with("HTTP/1.1 "), "not a reply: {head}");
        let status = head[9..12].parse().expect("a status has three digits");
        let mut reply = Reply { status, head, body: String::new() };
        let length: usize = reply.field("content-length").map_or(0, |length| length.parse().expect("a length"));
        out = &out[end..];
        if length > 0 && !out.is_empty() && !out.starts_with(b"HTTP/") {
            reply.body = String::from_utf8(out[..length].to_vec()).expect("a reply is text");
            out = &out[length..];
        }
        all.push(reply);
    }
    all
}

/// Receives `bytes` cut at `cuts`; replies go only at the end, so nothing but the cuts differs between two runs.
pub fn run(bytes: &[u8], cuts: &[usize], limits: &HttpConfig) -> (Transcript, Vec<u8>) {
    let mut driver = Driver::new(limits.clone());
    let mut from = 0;
    for &cut in cuts {
        let cut = cut.clamp(from, bytes.len());
        driver.receive(&bytes[from..cut]);
        from = cut;
    }
    driver.receive(&bytes[from..]);
    driver.release_all();
    driver.finish()
}

/// Whatever the bytes, whatever the cuts: no panic, no lost memory, and the cuts change nothing.
pub fn check_any_bytes(bytes: &[u8], cuts: &[usize]) {
    for limits in [limits(), small_limits()] {
        let whole = run(bytes, &[], &limits).0;
        let cut = run(bytes, cuts, &limits).0;
        // A request that is still open hands on its whole lines as they come, so only whole ones can be compared.
        assert_eq!(
            settled(whole),
            settled(cut),
            "cuts {cuts:?} change what {:?} means",
            String::from_utf8_lossy(bytes)
        );
    }
}

pub fn settled(mut transcript: Transcript) -> Transcript {
    for seen in &mut transcript.requests {
        if seen.end != End::Whole {
            seen.body.clear();
        }
    }
    transcript
}
