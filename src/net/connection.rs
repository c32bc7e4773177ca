//! Pure. One connection: frames requests out of what was received, keeps the order of its replies, and knows every
//! deadline. It never waits: the core asks for the next [`Step`] until there is none.
//!
//!     Between ──first byte──▶ Head ──▶ Body ──▶ Between …        after a fault, FIN or drain: Ended
//!     Ended ──every reply written──▶ Lingering (FIN sent, what comes is dropped) ──peer's FIN or deadline──▶ over

use super::assembly::AssemblyPool;
use super::chunked::{ChunkLimits, Chunked};
use super::fault::Fault;
use super::http::{Framing, Head, Request, RequestInfo};
use super::media::BodyFormat;
use super::remembered::Remembered;
use super::reply::{Letterhead, Outcome, ReplyQueue, Ticket};
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

/// What `release` wrote, and what the core is to do after sending it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// Bytes appended to the send buffer.
    pub bytes: usize,
    /// Requests answered by them.
    pub answers: u32,
    /// Send FIN after them; said once.
    pub shutdown: bool,
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
    /// Handed on in one piece.
    Chunked(Chunked),
    /// A refused request's, dropped.
    SkipLength {
        left: u64,
    },
    SkipChunked(Chunked),
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

    /// The connection is gone: buffers go back, replies are forgotten.
    pub fn clear(&mut self, pool: &mut AssemblyPool) {
        pool.reclaim(&mut self.assembly);
        pool.reclaim(&mut self.held);
        self.held_from = 0;
        self.assembly_spent = false;
        self.phase = Phase::Ended;
        self.remembered.forget();
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

    /// The request whose body is not yet whole: what the core must drop when the connection breaks.
    pub fn unfinished(&self) -> Option<Ticket> {
        self.current
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

    fn end(&mut self) {
        self.phase = Phase::Ended;
        self.receive_deadline = None;
    }

    /// How much of `source` was read, and what came of it.
    #[inline]
    fn advance(&mut self, source: &[u8], limits: &HttpConfig, pool: &mut AssemblyPool) -> (usize, Raw) {
        let mut at = 0;
        loop {
            let (read, raw) = match self.phase {
                Phase::Between => self.begin_request(&source[at..], limits),
                Phase::Head => self.read_head(&source[at..], limits, pool),
                Phase::Body(body) => self.read_body(body, &source[at..], limits, pool),
                Phase::Ended | Phase::Lingering => (source.len() - at, Some(Raw::Stop)),
            };
            let from = at;
            at += read;
            match raw {
                Some(Raw::Piece { start, end, last }) => {
                    return (at, Raw::Piece { start: from + start, end: from + end, last });
                }
                Some(raw) => return (at, raw),
                None if at == source.len() && self.is_waiting() => return (at, Raw::NeedMore),
                None => {}
            }
        }
    }

    /// Whether the phase can do nothing without more bytes.
    fn is_waiting(&self) -> bool {
        !matches!(self.phase, Phase::Ended | Phase::Lingering)
    }

    /// The gate of the pipeline: bounded in requests and in bytes.
    #[inline]
    fn has_room(&self, limits: &HttpConfig) -> bool {
        self.replies.len() < limits.pipeline_max as usize
            && self.replies.bytes() + self.unsent_bytes < limits.reply_bytes_max as usize
    }

    #[inline]
    fn begin_request(&mut self, source: &[u8], limits: &HttpConfig) -> (usize, Option<Raw>) {
        if source.is_empty() {
            return (0, None);
        }
        if !self.has_room(limits) {
            return (0, Some(Raw::Paused));
        }
        if source.starts_with(b"\r\n") && !self.blank_line_read {
            self.blank_line_read = true;
            return (2, None);
        }
        self.receive_deadline = None;
        if let Some((bytes, length, request)) = self.remembered.recognise(source)
            && length <= u64::from(limits.body_bytes_max)
        {
            return (bytes, Some(self.begin_clicks(request, Framing::Length(length))));
        }
        self.head = Head::begin(!self.blank_line_read);
        self.phase = Phase::Head;
        (0, None)
    }

    #[inline]
    fn begin_clicks(&mut self, request: RequestInfo, framing: Framing) -> Raw {
        let ticket = self.replies.reserve();
        self.current = Some(ticket);
        self.phase = Phase::Body(match (framing, request.format) {
            (Framing::Length(left), BodyFormat::Ndjson) => Body::Lines { left },
            (Framing::Length(left), BodyFormat::Json | BodyFormat::Text) => Body::Whole { left },
            (Framing::Chunked, _) => Body::Chunked(Chunked::default()),
        });
        Raw::Begin { ticket, request }
    }

    fn read_head(&mut self, source: &[u8], limits: &HttpConfig, pool: &mut AssemblyPool) -> (usize, Option<Raw>) {
        // The head can be remembered where it lies in one piece.
        let is_whole_here = self.head.is_untouched() && self.assembly.is_empty();
        let mut at = 0;
        loop {
            let rest = &source[at..];
            let Some(end) = memchr::memchr(b'\n', rest) else {
                at = source.len();
                return (at, self.keep_torn_line(rest, limits, pool));
            };
            at += end + 1;
            let verdict = if self.assembly.is_empty() {
                self.head.read_line(&rest[..=end], limits)
            } else if let Err(fault) = self.head.check_room(self.assembly.len() + end + 1, limits) {
                Err(fault)
            } else if pool.append(&mut self.assembly, &rest[..=end]) {
                let verdict = self.head.read_line(&self.assembly, limits);
                pool.reclaim(&mut self.assembly);
                verdict
            } else {
                Err(Fault::Shed(Shed::Memory))
            };
            match verdict.and_then(|is_end| if is_end { self.head.judge(limits).map(Some) } else { Ok(None) }) {
                Ok(None) if self.head.is_untouched() => {
                    // An empty line before the request, its CR and LF received apart.
                    self.phase = Phase::Between;
                    self.blank_line_read = true;
                    return (at, None);
                }
                Ok(None) => {}
                Ok(Some(request)) => {
                    let head = if is_whole_here { &source[..at] } else { &[] };
                    return (at, Some(self.begin_judged(&request, head, at < source.len(), limits)));
                }
                Err(fault) => {
                    pool.reclaim(&mut self.assembly);
                    return (at, Some(self.fail(fault, self.head.is_head_method(), true, limits)));
                }
            }
        }
    }

    fn keep_torn_line(&mut self, torn: &[u8], limits: &HttpConfig, pool: &mut AssemblyPool) -> Option<Raw> {
        let fault = match self.head.check_room(self.assembly.len() + torn.len(), limits) {
            Err(fault) => fault,
            Ok(()) if torn.is_empty() || pool.append(&mut self.assembly, torn) => return None,
            Ok(()) => Fault::Shed(Shed::Memory),
        };
        pool.reclaim(&mut self.assembly);
        Some(self.fail(fault, self.head.is_head_method(), true, limits))
    }

    /// `head`: its bytes, where they lie in one piece. `body_is_here`: its first byte at least was received.
    fn begin_judged(&mut self, request: &Request, head: &[u8], body_is_here: bool, limits: &HttpConfig) -> Raw {
        self.receive_deadline = None;
        self.close_after = request.close;
        let has_body = request.framing != Framing::Length(0);
        match request.clicks {
            Ok(clicks) => {
                if request.expects_continue && has_body && !body_is_here {
                    self.replies.interim();
                }
                if let (Some(digits), false, false) =
                    (self.head.length_digits(), request.close, request.expects_continue)
                {
                    self.remembered.remember(head, digits, clicks);
                }
                self.begin_clicks(clicks, request.framing)
            }
            Err(fault) => {
                // Who waits for 100 and gets a refusal may leave the body out: then nobody knows what comes next.
                let must_end = request.expects_continue && has_body;
                let raw = self.fail(fault, request.head_only, must_end, limits);
                if self.phase != Phase::Ended {
                    self.skip_body(request.framing);
                }
                raw
            }
        }
    }

    fn skip_body(&mut self, framing: Framing) {
        self.phase = Phase::Body(match framing {
            Framing::Length(left) => Body::SkipLength { left },
            Framing::Chunked => Body::SkipChunked(Chunked::default()),
        });
    }

    /// Refuses the request at hand. The connection ends, unless where the request ends is still known.
    #[cold]
    fn fail(&mut self, fault: Fault, head_only: bool, must_end: bool, limits: &HttpConfig) -> Raw {
        if must_end || !fault.leaves_framing_whole() {
            self.end();
        }
        let status = fault.status();
        match self.current.take() {
            Some(ticket) => {
                self.replies.settle(ticket, Outcome::Refused(fault), 0, limits.reply_bytes_max as usize);
                Raw::Abandon { ticket, status: Some(status) }
            }
            None => {
                self.replies.refuse(fault, head_only);
                Raw::Refused { status }
            }
        }
    }

    #[inline]
    fn read_body(
        &mut self,
        body: Body,
        source: &[u8],
        limits: &HttpConfig,
        pool: &mut AssemblyPool,
    ) -> (usize, Option<Raw>) {
        match body {
            Body::Lines { left } => self.read_lines(left, source, limits, pool),
            Body::Whole { left } => self.read_whole(left, source, limits, pool),
            Body::Chunked(chunked) => self.read_chunked(chunked, source, limits, pool),
            Body::SkipLength { left } => {
                let here = at_hand(left, source);
                self.phase = Phase::Body(Body::SkipLength { left: left - here as u64 });
                if here as u64 == left {
                    self.finish_request();
                }
                (here, None)
            }
            Body::SkipChunked(chunked) => self.skip_chunked(chunked, source, limits),
        }
    }

    #[inline]
    fn finish_request(&mut self) {
        self.current = None;
        self.blank_line_read = false;
        self.receive_deadline = None;
        self.phase = if self.close_after { Phase::Ended } else { Phase::Between };
        self.close_after = false;
    }

    #[inline]
    fn read_whole(
        &mut self,
        left: u64,
        source: &[u8],
        limits: &HttpConfig,
        pool: &mut AssemblyPool,
    ) -> (usize, Option<Raw>) {
        let here = at_hand(left, source);
        let is_last = here as u64 == left;
        if is_last && self.assembly.is_empty() {
            self.finish_request();
            return (here, Some(Raw::Piece { start: 0, end: here, last: true }));
        }
        if !pool.append(&mut self.assembly, &source[..here]) {
            return (here, Some(self.shed_request(Body::SkipLength { left: left - here as u64 }, limits, pool)));
        }
        if is_last {
            self.finish_request();
            return (here, Some(Raw::Assembled { last: true }));
        }
        self.phase = Phase::Body(Body::Whole { left: left - here as u64 });
        (here, None)
    }

    /// The assembly memory is used up: this request is shed, its body dropped as it comes, the connection lives on.
    #[cold]
    fn shed_request(&mut self, skip: Body, limits: &HttpConfig, pool: &mut AssemblyPool) -> Raw {
        pool.reclaim(&mut self.assembly);
        self.phase = Phase::Body(skip);
        self.fail(Fault::Shed(Shed::Memory), false, false, limits)
    }

    fn read_lines(
        &mut self,
        left: u64,
        source: &[u8],
        limits: &HttpConfig,
        pool: &mut AssemblyPool,
    ) -> (usize, Option<Raw>) {
        let here = at_hand(left, source);
        let is_last = here as u64 == left;
        if self.assembly.is_empty() {
            if is_last {
                self.finish_request();
                return (here, Some(Raw::Piece { start: 0, end: here, last: true }));
            }
            let whole = memchr::memrchr(b'\n', &source[..here]).map_or(0, |end| end + 1);
            if whole > 0 {
                self.phase = Phase::Body(Body::Lines { left: left - whole as u64 });
                return (whole, Some(Raw::Piece { start: 0, end: whole, last: false }));
            }
        }
        // The torn line is completed first, then handed on alone.
        let line = memchr::memchr(b'\n', &source[..here]).map_or(here, |end| end + 1);
        let after = left - line as u64;
        if !pool.append(&mut self.assembly, &source[..line]) {
            return (line, Some(self.shed_request(Body::SkipLength { left: after }, limits, pool)));
        }
        if after == 0 {
            self.finish_request();
            return (line, Some(Raw::Assembled { last: true }));
        }
        self.phase = Phase::Body(Body::Lines { left: after });
        let is_whole_line = self.assembly.last() == Some(&b'\n');
        (line, is_whole_line.then_some(Raw::Assembled { last: false }))
    }

    fn read_chunked(
        &mut self,
        mut chunked: Chunked,
        source: &[u8],
        limits: &HttpConfig,
        pool: &mut AssemblyPool,
    ) -> (usize, Option<Raw>) {
        let mut at = 0;
        loop {
            let piece = match chunked.next(&source[at..], &chunk_limits(limits)) {
                Ok(piece) => piece,
                Err(fault) => {
                    pool.reclaim(&mut self.assembly);
                    return (source.len(), Some(self.fail(fault, false, true, limits)));
                }
            };
            let data = at + piece.framing;
            at = data + piece.data;
            if piece.data > 0 && !pool.append(&mut self.assembly, &source[data..at]) {
                return (at, Some(self.shed_request(Body::SkipChunked(chunked), limits, pool)));
            }
            if piece.last {
                self.finish_request();
                return (at, Some(Raw::Assembled { last: true }));
            }
            if at == source.len() {
                self.phase = Phase::Body(Body::Chunked(chunked));
                return (at, None);
            }
        }
    }

    fn skip_chunked(&mut self, mut chunked: Chunked, source: &[u8], limits: &HttpConfig) -> (usize, Option<Raw>) {
        let mut at = 0;
        while at < source.len() {
            match chunked.next(&source[at..], &chunk_limits(limits)) {
                Ok(piece) => {
                    at += piece.framing + piece.data;
                    if piece.last {
                        self.finish_request();
                        return (at, None);
                    }
                }
                // It has its answer already; there is no other to give.
                Err(_) => {
                    self.end();
                    return (source.len(), Some(Raw::Stop));
                }
            }
        }
        self.phase = Phase::Body(Body::SkipChunked(chunked));
        (at, None)
    }

    /// The core says how a request ended. Its answer goes once everything up to `release_lsn` is durable, after the answers
    /// before it.
    #[inline]
    pub fn settle(&mut self, ticket: Ticket, outcome: Outcome, release_lsn: u64, limits: &HttpConfig) {
        self.replies.settle(ticket, outcome, release_lsn, limits.reply_bytes_max as usize);
    }

    /// Writes every reply that is due, in order.
    pub fn release(
        &mut self,
        durable_lsn: u64,
        now_ns: u64,
        limits: &HttpConfig,
        letterhead: &Letterhead,
        out: &mut Vec<u8>,
    ) -> Released {
        let from = out.len();
        let mut answers = 0;
        while self.replies.is_due(durable_lsn)
            && self.unsent_bytes + (out.len() - from) < limits.reply_bytes_max as usize
        {
            let nothing_follows = self.phase == Phase::Ended || self.close_after;
            let close = nothing_follows && self.replies.len() == 1;
            answers += u32::from(self.replies.write_front(letterhead, close, out));
        }
        let bytes = out.len() - from;
        if bytes > 0 {
            if self.unsent_bytes == 0 {
                self.send_deadline = Some(after_ms(now_ns, limits.send_timeout_ms));
            }
            self.unsent_bytes += bytes;
        }
        let shutdown = self.phase == Phase::Ended && self.replies.is_empty() && self.abandoned.is_none();
        if shutdown {
            self.phase = Phase::Lingering;
            self.start_linger(now_ns, limits);
        }
        Released { bytes, answers, shutdown }
    }

    /// The peer took (or its kernel did) this many bytes of what `release` wrote.
    pub fn sent(&mut self, bytes: usize, now_ns: u64, limits: &HttpConfig) {
        assert!(bytes <= self.unsent_bytes, "more bytes were sent than were written");
        self.unsent_bytes -= bytes;
        self.send_deadline = (self.unsent_bytes > 0).then(|| after_ms(now_ns, limits.send_timeout_ms));
        self.start_linger(now_ns, limits);
    }

    fn start_linger(&mut self, now_ns: u64, limits: &HttpConfig) {
        if self.phase == Phase::Lingering && self.unsent_bytes == 0 {
            self.receive_deadline = Some((Timer::Linger, after_ms(now_ns, limits.linger_timeout_ms)));
        }
    }

    /// Whether a paused connection can be taken further: then take its steps, with no input, and resume receiving when they
    /// do not end in `Paused` again.
    pub fn may_go_on(&self, limits: &HttpConfig) -> bool {
        !self.held.is_empty() && self.has_room(limits)
    }

    /// Both sides have said everything: close it.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Lingering && self.peer_finished && self.unsent_bytes == 0
    }

    /// Nothing is owed to the peer, and nothing of it is awaited.
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Between && self.replies.is_empty() && self.unsent_bytes == 0 && self.held.is_empty()
    }

    /// The peer sent FIN. Take the steps, with no input: what it asked is answered, then the connection ends.
    pub fn finished(&mut self) {
        self.peer_finished = true;
    }

    /// The process is stopping. Take the steps, with no input: what was received is answered, then the connection ends.
    pub fn begin_drain(&mut self) {
        self.draining = true;
    }

    /// The earliest moment at which `on_deadline` may have something to say.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        let receive = self.receive_deadline.map(|(_, deadline)| deadline);
        [receive, self.send_deadline].into_iter().flatten().min()
    }

    pub fn on_deadline(&mut self, now_ns: u64, limits: &HttpConfig, pool: &mut AssemblyPool) -> Expired {
        if self.send_deadline.is_some_and(|deadline| deadline <= now_ns) {
            return Expired::CutOff;
        }
        let Some((timer, deadline)) = self.receive_deadline else { return Expired::Nothing };
        if deadline > now_ns {
            return Expired::Nothing;
        }
        match timer {
            Timer::Idle if !self.is_idle() => {
                self.receive_deadline = Some((Timer::Idle, after_ms(now_ns, limits.idle_timeout_ms)));
                return Expired::Nothing;
            }
            Timer::Idle => self.end(),
            Timer::Head => self.time_out(Fault::HeadTimeout { limit_ms: limits.head_timeout_ms }, limits, pool),
            Timer::Body => self.time_out(Fault::BodyTimeout { limit_ms: limits.body_timeout_ms }, limits, pool),
            Timer::Linger => return Expired::CutOff,
        }
        Expired::TakeSteps
    }

    fn time_out(&mut self, fault: Fault, limits: &HttpConfig, pool: &mut AssemblyPool) {
        pool.reclaim(&mut self.assembly);
        if matches!(self.phase, Phase::Body(Body::SkipLength { .. } | Body::SkipChunked(_))) {
            // It has its answer already.
            self.end();
            return;
        }
        let head_only = self.phase == Phase::Head && self.head.is_head_method();
        if let Raw::Abandon { ticket, status } = self.fail(fault, head_only, true, limits) {
            self.abandoned = Some((ticket, status));
        }
    }
}

fn at_hand(left: u64, source: &[u8]) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(source.len())
}

fn after_ms(now_ns: u64, ms: u64) -> u64 {
    now_ns.saturating_add(ms.saturating_mul(1_000_000))
}

fn chunk_limits(limits: &HttpConfig) -> ChunkLimits {
    ChunkLimits {
        body_bytes_max: limits.body_bytes_max,
        head_bytes_max: limits.head_bytes_max,
        headers_max: limits.headers_max,
    }
}
