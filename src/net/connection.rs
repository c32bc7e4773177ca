//! Pure. One connection: frames requests out of what was received, keeps the order of its replies, and knows every
//! deadline. It never waits: the core asks for the next [`Step`] until there is none.
//!
//!     Between ──first byte──▶ Head ──▶ Body ──▶ Between …        after a fault, FIN or drain: Ended
//!     Ended ──every reply written──▶ Lingering (FIN sent, what comes is dropped) ──peer's FIN or deadline──▶ over

mod answering;
mod reading;

use super::assembly::AssemblyPool;
use super::chunked::Chunked;
use super::fault::Fault;
use super::http::{Head, RequestInfo};
use super::remembered::Remembered;
use super::reply::{ReplyQueue, Ticket};
use crate::config::{HELD_BYTES_MAX, HttpConfig};
use crate::metrics::Shed;

/// What comes next out of a connection's bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'s> {
    /// A request of clicks begins; its place among the replies is reserved.
    Begin { ticket: Ticket, request: RequestInfo },
    /// A piece of its body, in order: whole lines of NDJSON as they arrive, anything else in one piece when whole.
    Body { bytes: &'s [u8], last: bool },
    /// The request begun will never be whole: drop what was staged of it. Its answer, if it gets one, is queued.
    Abandon { ticket: Ticket, status: Option<u16> },
    /// A request was refused before it began; its answer is queued. For the metrics.
    Refused { status: u16 },
    /// Too many replies wait: what is left was kept. Pause receiving, and ask again once `may_go_on` says so.
    Paused,
    /// All was read. Ask again when more bytes come.
    NeedMore,
    /// Nothing more is read from this connection; what still comes is dropped.
    Stop,
}

/// What a deadline that has passed asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// None has.
    Nothing,
    /// Something was queued or abandoned: take the steps (with no input), then release.
    TakeSteps,
    /// The peer had its time: close without another word.
    CutOff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Between,
    Head,
    Body(Body),
    Ended,
    Lingering,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    /// NDJSON of known length: handed on in whole lines.
    Lines {
        left: u64,
    },
    /// Of known length, handed on in one piece.
    Whole {
        left: u64,
    },
    /// Handed on in one piece; `Connection::chunked` knows where in it we are.
    Chunked,
    /// A refused request's, dropped.
    SkipLength {
        left: u64,
    },
    SkipChunked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    Idle,
    Head,
    Body,
    Linger,
}

/// A step before it is known where its bytes are to be borrowed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Raw {
    Begin {
        ticket: Ticket,
        request: RequestInfo,
    },
    /// A range of the source.
    Piece {
        start: usize,
        end: usize,
        last: bool,
    },
    /// All of the assembly buffer.
    Assembled {
        last: bool,
    },
    Abandon {
        ticket: Ticket,
        status: Option<u16>,
    },
    Refused {
        status: u16,
    },
    Paused,
    NeedMore,
    Stop,
}

/// One slot's connection, used again for the next one.
#[derive(Debug)]
pub struct Connection {
    phase: Phase,
    head: Head,
    chunked: Chunked,
    remembered: Remembered,
    /// The request of clicks whose body is being read.
    current: Option<Ticket>,
    /// Nothing is read after the request at hand.
    close_after: bool,
    /// The one empty line that is forgiven before a request was there: RFC 9112, section 2.2.
    blank_line_read: bool,
    /// The torn line, or the body so far.
    assembly: Vec<u8>,
    /// The assembly buffer was handed on with the last step.
    assembly_spent: bool,
    /// What came while the connection was paused, from `held_from` on.
    held: Vec<u8>,
    held_from: usize,
    abandoned: Option<(Ticket, Option<u16>)>,
    replies: ReplyQueue,
    /// Bytes written for sending that the peer has not taken.
    unsent_bytes: usize,
    receive_deadline: Option<(Timer, u64)>,
    send_deadline: Option<u64>,
    draining: bool,
    peer_finished: bool,
}

impl Default for Connection {
    fn default() -> Connection {
        Connection::new()
    }
}

impl Connection {
    pub fn new() -> Connection {
        Connection {
            phase: Phase::Ended,
            head: Head::begin(false),
            chunked: Chunked::default(),
            remembered: Remembered::default(),
            current: None,
            close_after: false,
            blank_line_read: false,
            assembly: Vec::new(),
            assembly_spent: false,
            held: Vec::new(),
            held_from: 0,
            abandoned: None,
            replies: ReplyQueue::default(),
            unsent_bytes: 0,
            receive_deadline: None,
            send_deadline: None,
            draining: false,
            peer_finished: false,
        }
    }

    /// A new tenant. The one before was cleared.
    pub fn reset(&mut self, now_ns: u64, limits: &HttpConfig) {
        assert!(self.assembly.capacity() == 0 && self.held.capacity() == 0, "the slot still holds assembly buffers");
        self.phase = Phase::Between;
        self.receive_deadline = Some((Timer::Idle, after_ms(now_ns, limits.idle_timeout_ms)));
    }

    /// The connection is gone: buffers go back, replies are forgotten. The remembered head stays: equal bytes mean the same,
    /// whoever sends them.
    pub fn clear(&mut self, pool: &mut AssemblyPool) {
        pool.reclaim(&mut self.assembly);
        pool.reclaim(&mut self.held);
        self.held_from = 0;
        self.assembly_spent = false;
        self.phase = Phase::Ended;
        self.current = None;
        self.close_after = false;
        self.blank_line_read = false;
        self.abandoned = None;
        self.replies.clear();
        self.unsent_bytes = 0;
        self.receive_deadline = None;
        self.send_deadline = None;
        self.draining = false;
        self.peer_finished = false;
    }

    /// The client waits for `100 Continue` before it sends the body of the request at hand: release it.
    pub fn owes_continue(&self) -> bool {
        self.replies.owes_continue()
    }

    /// Takes the next step out of `input`, which shrinks by what was read. After `NeedMore`, `Paused` and `Stop` nothing of
    /// it is left. Steps are also taken, with no input, after `finished`, `begin_drain`, `Expired::TakeSteps`, and when
    /// `may_go_on`.
    #[inline]
    pub fn next<'i: 's, 's>(
        &'s mut self,
        input: &mut &'i [u8],
        now_ns: u64,
        limits: &HttpConfig,
        pool: &mut AssemblyPool,
    ) -> Step<'s> {
        if self.assembly_spent {
            self.assembly_spent = false;
            pool.reclaim(&mut self.assembly);
        }
        if let Some((ticket, status)) = self.abandoned.take() {
            return Step::Abandon { ticket, status };
        }
        if !self.held.is_empty() {
            return self.next_of_held(input, now_ns, limits, pool);
        }
        let source: &'i [u8] = input;
        let (read, raw) = self.advance(source, limits, pool);
        *input = &source[read..];
        match raw {
            Raw::Begin { ticket, request } => Step::Begin { ticket, request },
            Raw::Piece { start, end, last } => Step::Body { bytes: &source[start..end], last },
            Raw::Assembled { last } => {
                self.assembly_spent = true;
                Step::Body { bytes: &self.assembly, last }
            }
            Raw::Abandon { ticket, status } => Step::Abandon { ticket, status },
            Raw::Refused { status } => Step::Refused { status },
            Raw::Paused => {
                let rest = std::mem::take(input);
                self.hold(rest, limits, pool)
            }
            Raw::NeedMore => self.rest(now_ns, limits, pool),
            Raw::Stop => {
                *input = &[];
                Step::Stop
            }
        }
    }

    /// As `next`, out of what was kept while the connection was paused; new input queues up behind it.
    #[cold]
    fn next_of_held<'s>(
        &'s mut self,
        input: &mut &[u8],
        now_ns: u64,
        limits: &HttpConfig,
        pool: &mut AssemblyPool,
    ) -> Step<'s> {
        let more = std::mem::take(input);
        if !more.is_empty()
            && let Some(step) = self.keep(more, limits, pool)
        {
            return step;
        }
        let held = std::mem::take(&mut self.held);
        let from = self.held_from;
        let (read, raw) = self.advance(&held[from..], limits, pool);
        self.held = held;
        self.held_from = from + read;
        match raw {
            Raw::Begin { ticket, request } => Step::Begin { ticket, request },
            Raw::Piece { start, end, last } => Step::Body { bytes: &self.held[from + start..from + end], last },
            Raw::Assembled { last } => {
                self.assembly_spent = true;
                Step::Body { bytes: &self.assembly, last }
            }
            Raw::Abandon { ticket, status } => Step::Abandon { ticket, status },
            Raw::Refused { status } => Step::Refused { status },
            Raw::Paused => {
                self.receive_deadline = None;
                Step::Paused
            }
            Raw::NeedMore => {
                self.drop_held(pool);
                self.rest(now_ns, limits, pool)
            }
            Raw::Stop => {
                self.drop_held(pool);
                Step::Stop
            }
        }
    }

    fn drop_held(&mut self, pool: &mut AssemblyPool) {
        pool.reclaim(&mut self.held);
        self.held_from = 0;
    }

    /// The gate is closed: the rest waits in a buffer of ours.
    #[cold]
    fn hold<'s>(&'s mut self, rest: &[u8], limits: &HttpConfig, pool: &mut AssemblyPool) -> Step<'s> {
        self.receive_deadline = None;
        match self.keep(rest, limits, pool) {
            Some(step) => step,
            None => Step::Paused,
        }
    }

    /// Appends to what is held. Without room for it the stream cannot be followed any further, and the connection ends after
    /// the replies before.
    fn keep<'s>(&mut self, more: &[u8], limits: &HttpConfig, pool: &mut AssemblyPool) -> Option<Step<'s>> {
        if self.held_from > 0 && self.held.len() + more.len() > self.held.capacity() {
            self.held.drain(..self.held_from);
            self.held_from = 0;
        }
        if self.held.len() - self.held_from + more.len() <= HELD_BYTES_MAX && pool.append(&mut self.held, more) {
            return None;
        }
        self.drop_held(pool);
        Some(match self.fail(Fault::Shed(Shed::Memory), false, true, limits) {
            Raw::Abandon { ticket, status } => Step::Abandon { ticket, status },
            _ => Step::Refused { status: Fault::Shed(Shed::Memory).status() },
        })
    }

    /// Everything received was read: sets the deadline for what is awaited, or ends where nothing more is to come.
    #[inline]
    fn rest<'s>(&mut self, now_ns: u64, limits: &HttpConfig, pool: &mut AssemblyPool) -> Step<'s> {
        if self.peer_finished || (self.draining && self.phase == Phase::Between) {
            return self.end_unfinished(pool);
        }
        match self.phase {
            Phase::Between => self.start_timer(Timer::Idle, after_ms(now_ns, limits.idle_timeout_ms)),
            Phase::Head => self.start_timer(Timer::Head, after_ms(now_ns, limits.head_timeout_ms)),
            Phase::Body(_) => self.start_timer(Timer::Body, after_ms(now_ns, limits.body_timeout_ms)),
            Phase::Ended | Phase::Lingering => unreachable!("ended connections answer Stop"),
        }
        Step::NeedMore
    }

    /// Deadlines are absolute: one that runs already is left alone.
    fn start_timer(&mut self, timer: Timer, deadline: u64) {
        match self.receive_deadline {
            Some((running, _)) if running == timer => {}
            _ => self.receive_deadline = Some((timer, deadline)),
        }
    }

    /// Nothing more comes, or is wanted: a request that is not whole gets no answer.
    fn end_unfinished<'s>(&mut self, pool: &mut AssemblyPool) -> Step<'s> {
        self.end();
        pool.reclaim(&mut self.assembly);
        match self.current.take() {
            Some(ticket) => {
                self.replies.withdraw(ticket);
                Step::Abandon { ticket, status: None }
            }
            None => Step::Stop,
        }
    }

    /// The connection is one too many: it is told so, nothing of it is read, then it ends.
    pub fn turn_away(&mut self, limits: &HttpConfig) {
        self.replies.refuse(Fault::TooManyConnections { limit: limits.connections_max }, false);
        self.end();
    }

    pub(super) fn end(&mut self) {
        self.phase = Phase::Ended;
        self.receive_deadline = None;
    }
}

fn after_ms(now_ns: u64, ms: u64) -> u64 {
    now_ns.saturating_add(ms.saturating_mul(1_000_000))
}
