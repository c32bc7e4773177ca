//! Pure. The reading side of a connection: from bytes at hand to the next step, phase by phase. Whatever is whole in
//! `source` is named as a range of it; what is torn goes into the assembly buffer.

use super::{Body, Connection, Phase, Raw};
use crate::config::HttpConfig;
use crate::metrics::Shed;
use crate::net::assembly::AssemblyPool;
use crate::net::chunked::{ChunkLimits, Chunked};
use crate::net::fault::Fault;
use crate::net::http::{Framing, Head, Request, RequestInfo};
use crate::net::media::BodyFormat;
use crate::net::reply::Outcome;

impl Connection {
    /// How much of `source` was read, and what came of it.
    #[inline]
    pub(super) fn advance(&mut self, source: &[u8], limits: &HttpConfig, pool: &mut AssemblyPool) -> (usize, Raw) {
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
    pub(super) fn has_room(&self, limits: &HttpConfig) -> bool {
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
            (Framing::Chunked, _) => {
                self.chunked = Chunked::default();
                Body::Chunked
            }
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
            Framing::Chunked => {
                self.chunked = Chunked::default();
                Body::SkipChunked
            }
        });
    }

    /// Refuses the request at hand. The connection ends, unless where the request ends is still known.
    #[cold]
    pub(super) fn fail(&mut self, fault: Fault, head_only: bool, must_end: bool, limits: &HttpConfig) -> Raw {
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
            Body::Lines { left } => self.read_sized(left, true, source, limits, pool),
            Body::Whole { left } => self.read_sized(left, false, source, limits, pool),
            Body::Chunked => self.read_chunked(source, limits, pool),
            Body::SkipLength { left } => {
                let here = at_hand(left, source);
                self.phase = Phase::Body(Body::SkipLength { left: left - here as u64 });
                if here as u64 == left {
                    self.finish_request();
                }
                (here, None)
            }
            Body::SkipChunked => self.skip_chunked(source, limits),
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

    /// A body of known length, handed on in one piece, or in whole `lines` as they come.
    #[inline]
    fn read_sized(
        &mut self,
        left: u64,
        lines: bool,
        source: &[u8],
        limits: &HttpConfig,
        pool: &mut AssemblyPool,
    ) -> (usize, Option<Raw>) {
        let here = at_hand(left, source);
        if self.assembly.is_empty() {
            if here as u64 == left {
                self.finish_request();
                return (here, Some(Raw::Piece { start: 0, end: here, last: true }));
            }
            let whole = if lines { memchr::memrchr(b'\n', &source[..here]).map_or(0, |end| end + 1) } else { 0 };
            if whole > 0 {
                self.phase = Phase::Body(Body::Lines { left: left - whole as u64 });
                return (whole, Some(Raw::Piece { start: 0, end: whole, last: false }));
            }
        }
        // A torn line is completed first, then handed on alone.
        let line = if lines { memchr::memchr(b'\n', &source[..here]) } else { None };
        let taken = line.map_or(here, |end| end + 1);
        let left = left - taken as u64;
        if !pool.append(&mut self.assembly, &source[..taken]) {
            return (taken, Some(self.shed_request(Body::SkipLength { left }, limits, pool)));
        }
        if left == 0 {
            self.finish_request();
            return (taken, Some(Raw::Assembled { last: true }));
        }
        self.phase = Phase::Body(if lines { Body::Lines { left } } else { Body::Whole { left } });
        (taken, line.map(|_| Raw::Assembled { last: false }))
    }

    /// The assembly memory is used up: this request is shed, its body dropped as it comes, the connection lives on.
    #[cold]
    fn shed_request(&mut self, skip: Body, limits: &HttpConfig, pool: &mut AssemblyPool) -> Raw {
        pool.reclaim(&mut self.assembly);
        self.phase = Phase::Body(skip);
        self.fail(Fault::Shed(Shed::Memory), false, false, limits)
    }

    fn read_chunked(&mut self, source: &[u8], limits: &HttpConfig, pool: &mut AssemblyPool) -> (usize, Option<Raw>) {
        let mut at = 0;
        loop {
            let piece = match self.chunked.next(&source[at..], &chunk_limits(limits)) {
                Ok(piece) => piece,
                Err(fault) => {
                    pool.reclaim(&mut self.assembly);
                    return (source.len(), Some(self.fail(fault, false, true, limits)));
                }
            };
            let data = at + piece.framing;
            at = data + piece.data;
            if piece.data > 0 && !pool.append(&mut self.assembly, &source[data..at]) {
                return (at, Some(self.shed_request(Body::SkipChunked, limits, pool)));
            }
            if piece.last {
                self.finish_request();
                return (at, Some(Raw::Assembled { last: true }));
            }
            if at == source.len() {
                return (at, None);
            }
        }
    }

    fn skip_chunked(&mut self, source: &[u8], limits: &HttpConfig) -> (usize, Option<Raw>) {
        let mut at = 0;
        while at < source.len() {
            match self.chunked.next(&source[at..], &chunk_limits(limits)) {
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
        (at, None)
    }
}

fn at_hand(left: u64, source: &[u8]) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(source.len())
}

fn chunk_limits(limits: &HttpConfig) -> ChunkLimits {
    ChunkLimits {
        body_bytes_max: limits.body_bytes_max,
        head_bytes_max: limits.head_bytes_max,
        headers_max: limits.headers_max,
    }
}
