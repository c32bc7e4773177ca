//! Drives. Connections between clients and the server, and what of the ring driver's behaviour the core can see: order, pauses
//! that come late, sends that take their time, resets at any moment.

use std::collections::VecDeque;

use tollgate::event::{ConnectionId, Event, ReceiveEnd, SendBuffer};

use crate::server::In;
use crate::world::{Happening, MS, World};

/// A receive buffer of the driver.
const RECEIVE_BYTES: usize = 4 << 10;
/// How long one is away.
const BUFFER_LENT_NS: u64 = MS;

/// On its way on a connection, in order.
#[derive(Debug)]
pub enum Piece {
    Bytes(Vec<u8>),
    Fin,
}

pub struct Conn {
    pub client: usize,
    /// Whose connection it is, as the kernel and the spread had it.
    core: usize,
    pub id: ConnectionId,
    pub life: u32,
    /// The client uses it still.
    pub open: bool,
    /// Requests sent and not answered, oldest first.
    pub outstanding: VecDeque<usize>,
    pub received: Vec<u8>,
    slow: bool,
    up: VecDeque<Piece>,
    last_up_ns: u64,
    /// Arrived at the server's host, not yet taken by the core.
    held: VecDeque<Piece>,
    paused: bool,
    /// The core was told the end of what it receives.
    ended: bool,
    /// The core wants it closed.
    closing: bool,
    /// The server's side is gone.
    gone: bool,
    sending: Option<Box<SendBuffer>>,
    down: VecDeque<Piece>,
    last_down_ns: u64,
}

impl World {
    /// Connects a client; `None` where nobody listens.
    pub fn connect(&mut self, client: usize) -> Option<usize> {
        let number = self.conns.len();
        let (rng, server) = (&mut self.rng, self.server.as_mut()?);
        let core = rng.index(server.cores.len());
        let id = server.cores[core].take_slot(number)?;
        let slow = self.rng.percent(self.options.slow_percent);
        self.conns.push(Conn {
            client,
            core,
            id,
            life: self.lives,
            open: true,
            outstanding: VecDeque::new(),
            received: Vec::new(),
            slow,
            up: VecDeque::new(),
            last_up_ns: 0,
            held: VecDeque::new(),
            paused: false,
            ended: false,
            closing: false,
            gone: false,
            sending: None,
            down: VecDeque::new(),
            last_down_ns: 0,
        });
        self.note("connect", &[number as u64, core as u64, u64::from(id.slot)]);
        self.tell(core, In::Event(Event::Accepted { connection: id }));
        Some(number)
    }

    fn alive(&self, number: usize) -> bool {
        let conn = &self.conns[number];
        self.server.is_some() && conn.life == self.lives && !conn.gone
    }

    /// Sends bytes to the server, split anywhere, with pauses anywhere.
    pub fn send_up(&mut self, number: usize, bytes: &[u8]) {
        let mut rest = bytes;
        let pieces = if self.rng.percent(60) { 1 } else { self.rng.between(1, 6) };
        for left in (1..=pieces).rev() {
            let length = if left == 1 { rest.len() } else { self.rng.index(rest.len() + 1) };
            let (piece, after) = rest.split_at(length);
            rest = after;
            if !piece.is_empty() {
                self.push_up(number, Piece::Bytes(piece.to_vec()));
            }
        }
    }

    pub fn push_up(&mut self, number: usize, piece: Piece) {
        let delay_ns = if !self.draining && self.rng.percent(self.options.drip_percent) {
            self.rng.below(3_000 * MS)
        } else {
            self.rng.skewed(2 * MS)
        };
        let conn = &mut self.conns[number];
        conn.last_up_ns = conn.last_up_ns.max(self.now_ns + delay_ns);
        conn.up.push_back(piece);
        let at_ns = conn.last_up_ns;
        self.at(at_ns, Happening::ToServer(number));
    }

    pub fn reaches_server(&mut self, number: usize) {
        let Some(piece) = self.conns[number].up.pop_front() else { return };
        if self.alive(number) && !self.conns[number].closing {
            self.conns[number].held.push_back(piece);
            self.feed(number);
        }
    }

    fn feed(&mut self, number: usize) {
        while !self.conns[number].paused && self.feed_one(number) {}
    }

    /// Gives the core the next piece that is there.
    fn feed_one(&mut self, number: usize) -> bool {
        if matches!(self.conns[number].held.front(), Some(Piece::Bytes(_))) && !self.takes_a_buffer(number) {
            return false;
        }
        let conn = &mut self.conns[number];
        let (core, id) = (conn.core, conn.id);
        match conn.held.pop_front() {
            None => false,
            Some(Piece::Bytes(mut bytes)) => {
                if bytes.len() > RECEIVE_BYTES {
                    conn.held.push_front(Piece::Bytes(bytes.split_off(RECEIVE_BYTES)));
                }
                self.tell(core, In::Bytes(id, bytes));
                true
            }
            Some(Piece::Fin) => {
                conn.ended = true;
                self.tell(core, In::Event(Event::ReceiveEnded { connection: id, end: ReceiveEnd::Finished }));
                true
            }
        }
    }

    /// Whether a receive buffer is free for what comes next on a connection; else it waits its turn.
    fn takes_a_buffer(&mut self, number: usize) -> bool {
        let (most, now_ns, core) = (self.options.receive_buffers, self.now_ns, self.conns[number].core);
        let host = self.core(core);
        if now_ns >= host.buffers_back_ns {
            (host.buffers_lent, host.buffers_back_ns) = (0, now_ns + BUFFER_LENT_NS);
        }
        if host.buffers_lent < most {
            host.buffers_lent += 1;
            return true;
        }
        if !host.starved.contains(&number) {
            host.starved.push_back(number);
        }
        if host.starved.len() == 1 {
            let at_ns = host.buffers_back_ns;
            self.at(at_ns, Happening::BuffersBack { life: self.lives, core });
        }
        self.trace.cover("receive buffers run out");
        false
    }

    pub fn buffers_are_back(&mut self, core: usize) {
        for number in std::mem::take(&mut self.core(core).starved) {
            if self.alive(number) && !self.conns[number].closing {
                self.feed(number);
            }
        }
    }

    pub fn pause(&mut self, number: usize, paused: bool) {
        self.conns[number].paused = paused;
        if paused {
            self.trace.cover("receive paused");
            if self.rng.percent(50) {
                self.feed_one(number);
            }
        } else {
            self.feed(number);
        }
    }

    /// The core sends: how long that takes is up to the reader.
    pub fn send_down(&mut self, number: usize, buffer: Box<SendBuffer>) {
        assert!(self.conns[number].sending.is_none(), "one send at a time on a connection");
        let delay_ns = match self.conns[number].slow {
            true if !self.draining => self.rng.below(3_000 * MS),
            _ => self.rng.skewed(2 * MS),
        };
        let mut rest = &buffer.bytes[..];
        while !rest.is_empty() {
            let length =
                if self.rng.percent(80) { rest.len() } else { self.rng.between(1, rest.len() as u64) as usize };
            let (piece, after) = rest.split_at(length);
            rest = after;
            self.push_down(number, Piece::Bytes(piece.to_vec()), delay_ns);
        }
        self.conns[number].sending = Some(buffer);
        self.after(delay_ns, Happening::Sent(number));
    }

    fn push_down(&mut self, number: usize, piece: Piece, delay_ns: u64) {
        let more_ns = self.rng.skewed(MS);
        let conn = &mut self.conns[number];
        conn.last_down_ns = conn.last_down_ns.max(self.now_ns + delay_ns + more_ns);
        conn.down.push_back(piece);
        let at_ns = conn.last_down_ns;
        self.at(at_ns, Happening::ToClient(number));
    }

    pub fn send_ends(&mut self, number: usize) {
        if self.alive(number) {
            self.end_send(number, u32::MAX);
        }
    }

    fn end_send(&mut self, number: usize, sent: u32) {
        let conn = &mut self.conns[number];
        let (core, connection) = (conn.core, conn.id);
        if let Some(buffer) = conn.sending.take() {
            let sent = sent.min(buffer.bytes.len() as u32);
            self.tell(core, In::Event(Event::Sent { connection, buffer, sent }));
        }
    }

    pub fn shutdown_down(&mut self, number: usize) {
        self.push_down(number, Piece::Fin, 0);
    }

    /// The core closes: what is under way ends, then the slot is free.
    pub fn close_down(&mut self, number: usize) {
        self.conns[number].closing = true;
        self.conns[number].held.clear();
        if let Some(buffer) = &self.conns[number].sending {
            let sent = self.rng.index(buffer.bytes.len()) as u32;
            self.end_send(number, sent);
        }
        self.push_down(number, Piece::Fin, 0);
        let delay_ns = self.rng.skewed(MS);
        self.after(delay_ns, Happening::Closed(number));
    }

    pub fn close_ends(&mut self, number: usize) {
        if self.alive(number) {
            let Conn { core, id: connection, .. } = self.conns[number];
            self.conns[number].gone = true;
            self.tell(core, In::Event(Event::Closed { connection }));
            self.core(core).free_slot(connection);
        }
    }

    /// The client gives a connection up without a word more to it: by FIN, or by a reset, which loses what is under way.
    pub fn abandon(&mut self, number: usize, reset: bool) {
        let conn = &mut self.conns[number];
        conn.open = false;
        if !reset {
            self.push_up(number, Piece::Fin);
            return;
        }
        self.trace.cover("connection reset");
        let keep = self.rng.percent(50);
        let conn = &mut self.conns[number];
        conn.up.clear();
        conn.down.clear();
        if !self.alive(number) {
            return;
        }
        if keep && !self.conns[number].paused {
            self.feed(number);
        }
        let conn = &mut self.conns[number];
        conn.held.clear();
        let (core, connection, told) = (conn.core, conn.id, conn.ended || conn.closing);
        conn.ended = true;
        if !told {
            self.tell(core, In::Event(Event::ReceiveEnded { connection, end: ReceiveEnd::Broken }));
        }
        if let Some(buffer) = &self.conns[number].sending {
            let sent = self.rng.index(buffer.bytes.len()) as u32;
            self.end_send(number, sent);
        }
    }

    pub fn reaches_client(&mut self, number: usize) {
        let conn = &mut self.conns[number];
        let Some(piece) = conn.down.pop_front() else { return };
        if !conn.open {
            return;
        }
        match piece {
            Piece::Bytes(bytes) => {
                conn.received.extend_from_slice(&bytes);
                self.client_reads(number);
            }
            Piece::Fin => {
                self.abandon(number, false);
                self.client_lost(number);
            }
        }
    }

    /// The process is gone: what was sent may still arrive, as far as it was on the wire.
    pub fn cut_off_all(&mut self) {
        for number in 0..self.conns.len() {
            let conn = &mut self.conns[number];
            if conn.life != self.lives || conn.gone {
                continue;
            }
            conn.gone = true;
            conn.sending = None;
            conn.up.clear();
            conn.held.clear();
            let arrives = self.rng.index(conn.down.len() + 1);
            conn.down.truncate(arrives);
            self.push_down(number, Piece::Fin, 0);
        }
    }
}
