//! Pure. The answering side of a connection: replies as they fall due, what the peer took of them, deadlines, and the end.

use super::{Body, Connection, Expired, Phase, Raw, Timer, after_ms};
use crate::config::HttpConfig;
use crate::net::assembly::AssemblyPool;
use crate::net::fault::Fault;
use crate::net::reply::{Letterhead, Outcome, Ticket};

impl Connection {
    /// The core says how a request ended. Its answer goes once everything up to `release_lsn` is durable, after the answers
    /// before it.
    #[inline]
    pub fn settle(&mut self, ticket: Ticket, outcome: Outcome, release_lsn: u64, limits: &HttpConfig) {
        self.replies.settle(ticket, outcome, release_lsn, limits.reply_bytes_max as usize);
    }

    /// Writes every reply that is due, in order. `true`: send FIN after them; said once.
    #[must_use]
    pub fn release(
        &mut self,
        durable_lsn: u64,
        now_ns: u64,
        limits: &HttpConfig,
        letterhead: &Letterhead,
        out: &mut Vec<u8>,
    ) -> bool {
        let from = out.len();
        while self.replies.is_due(durable_lsn)
            && self.unsent_bytes + (out.len() - from) < limits.reply_bytes_max as usize
        {
            let nothing_follows = self.phase == Phase::Ended || self.close_after;
            let close = nothing_follows && self.replies.len() == 1;
            self.replies.write_front(letterhead, close, out);
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
        shutdown
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
            return self.cut_off();
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
            Timer::Linger => return self.cut_off(),
        }
        Expired::TakeSteps
    }

    fn cut_off(&mut self) -> Expired {
        self.phase = Phase::Lingering;
        self.receive_deadline = None;
        self.send_deadline = None;
        Expired::CutOff
    }

    fn time_out(&mut self, fault: Fault, limits: &HttpConfig, pool: &mut AssemblyPool) {
        pool.reclaim(&mut self.assembly);
        if matches!(self.phase, Phase::Body(Body::SkipLength { .. } | Body::SkipChunked)) {
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
