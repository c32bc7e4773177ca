//! Pure. A core's connections: what each still owes and is owed, and when its patience ends. One lane a slot of the driver.

use crate::config::{Config, ERRORS_LISTED_MAX};
use crate::core::intake::{self, Fed, Intake};
use crate::core::staging::{OpenRequest, StagedRequest};
use crate::core::waiting::{Waiting, WaitingReplies};
use crate::event::{Action, Actions, ConnectionId, Now, ReceiveEnd, SendBuffer};
use crate::metrics::{Histogram, Replies};
use crate::net::connection::{Connection, Expired};
use crate::net::reply::{Letterhead, Outcome};
use crate::parse::Layout;

/// Emptied send buffers kept for reuse, and the memory above which one is not kept.
const SEND_BUFFERS_KEPT: usize = 1024;
const SEND_BUFFER_KEPT_BYTES: usize = 64 << 10;

/// Connections that a turn sends to. A commit releases hundreds of replies at once; sent in one go they would keep the
/// requests of everybody else, and the next commit, waiting for as long as all their sends take.
const TURN_SENDS_MAX: usize = 64;

const NEVER: u64 = u64::MAX;

/// One connection.
pub struct Lane {
    pub id: ConnectionId,
    pub connection: Connection,
    pub layout: Layout,
    /// The request whose body is coming in.
    pub open: Option<OpenRequest>,
    /// Replies may be due.
    pub dirty: bool,
    /// Statuses of requests refused before they held clicks, not yet counted.
    pub refused: Vec<u16>,
    live: bool,
    listed: bool,
    sending: bool,
    /// FIN goes when the send in flight is done.
    shutdown: bool,
    paused: bool,
    closing: bool,
}

pub struct Lanes {
    lanes: Vec<Lane>,
    deadlines: Vec<u64>,
    earliest_ns: u64,
    waiting: WaitingReplies,
    /// Slots with something to do at the end of the turn.
    listed: Vec<u32>,
    buffers: Vec<Box<SendBuffer>>,
    letterhead: Letterhead,
    live: usize,
    connections_max: usize,
    /// Connections turned away because as many as may be were open.
    pub refused: u64,
    /// Connections cut off for breaking a deadline.
    pub timed_out: u64,
    pub statuses: Replies,
}

impl Lanes {
    /// `slots` is the driver's table; those beyond `connections_max` are turned away with an answer.
    pub fn new(config: &Config, slots: u32, now: Now) -> Lanes {
        let lane = |slot| Lane {
            id: ConnectionId { slot, generation: 0 },
            connection: Connection::new(),
            layout: Layout::default(),
            open: None,
            dirty: false,
            refused: Vec::new(),
            live: false,
            listed: false,
            sending: false,
            shutdown: false,
            paused: false,
            closing: false,
        };
        Lanes {
            lanes: (0..slots).map(lane).collect(),
            deadlines: vec![NEVER; slots as usize],
            earliest_ns: NEVER,
            waiting: WaitingReplies::with_capacity(4096),
            listed: Vec::with_capacity(slots as usize),
            buffers: Vec::new(),
            letterhead: Letterhead::new(now.wall_ms),
            live: 0,
            connections_max: config.connections_a_core() as usize,
            refused: 0,
            timed_out: 0,
            statuses: Replies::default(),
        }
    }

    pub fn next_deadline_ns(&self) -> u64 {
        self.earliest_ns
    }

    pub fn accepted(&mut self, id: ConnectionId, intake: &Intake<'_>) {
        self.live += 1;
        let over = self.live > self.connections_max;
        let lane = &mut self.lanes[id.slot as usize];
        assert!(!lane.live, "slot {} was accepted twice", id.slot);
        lane.id = id;
        lane.live = true;
        (lane.sending, lane.shutdown, lane.paused, lane.closing) = (false, false, false, false);
        lane.connection.reset(intake.now.mono_ns, &intake.config.http);
        lane.layout.reset();
        if over {
            lane.connection.turn_away(&intake.config.http);
            lane.dirty = true;
            self.statuses.add(503);
            self.refused += 1;
        }
        self.list(id.slot);
    }

    pub fn received(&mut self, id: ConnectionId, bytes: &[u8], intake: &mut Intake<'_>, actions: &mut Actions) {
        if self.is_live(id) && !self.lanes[id.slot as usize].closing {
            self.feed(id.slot, bytes, intake, actions);
        }
    }

    fn feed(&mut self, slot: u32, bytes: &[u8], intake: &mut Intake<'_>, actions: &mut Actions) {
        let lane = &mut self.lanes[slot as usize];
        let fed = intake::feed(lane, bytes, intake);
        for status in lane.refused.drain(..) {
            self.statuses.add(status);
        }
        let pause = fed == Fed::Paused;
        if pause != lane.paused {
            lane.paused = pause;
            let connection = lane.id;
            actions.push(if pause {
                Action::PauseReceive { connection }
            } else {
                Action::ResumeReceive { connection }
            });
        }
        self.list(slot);
    }

    pub fn receive_ended(&mut self, id: ConnectionId, end: ReceiveEnd, intake: &mut Intake<'_>, actions: &mut Actions) {
        if !self.is_live(id) {
            return;
        }
        match end {
            ReceiveEnd::Finished => {
                let lane = &mut self.lanes[id.slot as usize];
                lane.connection.finished();
                lane.dirty = true;
                self.feed(id.slot, &[], intake, actions);
            }
            ReceiveEnd::Broken => self.close(id.slot, actions),
        }
    }

    pub fn sent(
        &mut self,
        id: ConnectionId,
        mut buffer: Box<SendBuffer>,
        sent: u32,
        intake: &Intake<'_>,
        actions: &mut Actions,
    ) {
        let whole = sent as usize == buffer.bytes.len();
        buffer.bytes.clear();
        if self.buffers.len() < SEND_BUFFERS_KEPT && buffer.bytes.capacity() <= SEND_BUFFER_KEPT_BYTES {
            self.buffers.push(buffer);
        }
        if !self.is_live(id) {
            return;
        }
        let lane = &mut self.lanes[id.slot as usize];
        lane.sending = false;
        if !whole {
            return self.close(id.slot, actions);
        }
        lane.connection.sent(sent as usize, intake.now.mono_ns, &intake.config.http);
        if lane.shutdown && !lane.closing {
            lane.shutdown = false;
            actions.push(Action::ShutdownSend { connection: id });
        }
        lane.dirty = true;
        self.list(id.slot);
    }

    pub fn closed(&mut self, id: ConnectionId, intake: &mut Intake<'_>) {
        let lane = &mut self.lanes[id.slot as usize];
        assert!(lane.live && lane.id == id, "a connection closes once");
        if let Some(open) = lane.open.take() {
            intake.staging.drop_open(open);
        }
        lane.connection.clear(intake.assembly);
        lane.live = false;
        lane.dirty = false;
        self.live -= 1;
        self.deadlines[id.slot as usize] = NEVER;
    }

    /// A request has all its verdicts: its reply is due when the log is durable up to `lsn`.
    pub fn settle(&mut self, request: &mut StagedRequest, lsn: u64, config: &Config) {
        let tally = request.tally;
        if request.away.is_some() {
            request.errors.sort_unstable_by_key(|error| error.index);
            request.errors.truncate(ERRORS_LISTED_MAX);
        }
        let outcome = match tally.shed {
            Some(shed) => Outcome::Shed(shed),
            None => Outcome::Clicks {
                accepted: tally.accepted,
                duplicates: tally.duplicates,
                rejected: tally.rejected,
                errors: std::mem::take(&mut request.errors),
            },
        };
        self.statuses.add(status_of(&outcome));
        let connection = request.connection;
        if self.is_live(connection) {
            self.lanes[connection.slot as usize].connection.settle(request.ticket, outcome, lsn, &config.http);
        }
        let waiting = Waiting { lsn, connection, began_ns: request.began_ns, clicks: request.clicks };
        self.waiting.push(waiting);
    }

    /// Sends every reply that is due, one send a connection; gives paused connections their next steps.
    pub fn release(
        &mut self,
        durable_lsn: u64,
        intake: &mut Intake<'_>,
        acknowledge: &mut Histogram,
        actions: &mut Actions,
    ) {
        self.letterhead.set_time(intake.now.wall_ms);
        let mut woken = 0;
        while woken < TURN_SENDS_MAX
            && let Some(waiting) = self.waiting.pop_due(durable_lsn)
        {
            acknowledge.record_many(intake.now.mono_ns - waiting.began_ns, u64::from(waiting.clicks));
            if self.is_live(waiting.connection) {
                self.lanes[waiting.connection.slot as usize].dirty = true;
                woken += usize::from(!self.lanes[waiting.connection.slot as usize].listed);
                self.list(waiting.connection.slot);
            }
        }
        let mut index = 0;
        // Steps taken here may list more lanes.
        while index < self.listed.len() {
            let slot = self.listed[index];
            index += 1;
            self.lanes[slot as usize].listed = false;
            if self.lanes[slot as usize].live && !self.lanes[slot as usize].closing {
                self.flush(slot, durable_lsn, intake, actions);
            }
        }
        self.listed.clear();
    }

    fn flush(&mut self, slot: u32, durable_lsn: u64, intake: &mut Intake<'_>, actions: &mut Actions) {
        let lane = &mut self.lanes[slot as usize];
        let connection = lane.id;
        if std::mem::take(&mut lane.dirty) && !lane.sending {
            let mut buffer = self.buffers.pop().unwrap_or_default();
            let http = &intake.config.http;
            let shutdown =
                lane.connection.release(durable_lsn, intake.now.mono_ns, http, &self.letterhead, &mut buffer.bytes);
            if buffer.bytes.is_empty() {
                self.buffers.push(buffer);
            } else {
                lane.sending = true;
                actions.push(Action::Send { connection, buffer });
            }
            if shutdown {
                if lane.sending {
                    lane.shutdown = true;
                } else {
                    actions.push(Action::ShutdownSend { connection });
                }
            }
            if lane.connection.is_over() {
                return self.close(slot, actions);
            }
        }
        if lane.paused && lane.connection.may_go_on(&intake.config.http) {
            self.feed(slot, &[], intake, actions);
        }
        self.note_deadline(slot);
    }

    /// Looks through the deadlines when the earliest has passed.
    pub fn check_deadlines(&mut self, intake: &mut Intake<'_>, actions: &mut Actions) {
        let now_ns = intake.now.mono_ns;
        if now_ns < self.earliest_ns {
            return;
        }
        for slot in 0..self.deadlines.len() {
            if self.deadlines[slot] > now_ns {
                continue;
            }
            let lane = &mut self.lanes[slot];
            match lane.connection.on_deadline(now_ns, &intake.config.http, intake.assembly) {
                Expired::Nothing => {}
                Expired::TakeSteps => {
                    lane.dirty = true;
                    self.feed(slot as u32, &[], intake, actions);
                }
                Expired::CutOff => {
                    self.timed_out += 1;
                    self.close(slot as u32, actions);
                }
            }
            self.note_deadline(slot as u32);
        }
        self.earliest_ns = self.deadlines.iter().copied().min().unwrap_or(NEVER);
    }

    fn note_deadline(&mut self, slot: u32) {
        let lane = &self.lanes[slot as usize];
        let deadline = if lane.live && !lane.closing { lane.connection.next_deadline_ns() } else { None };
        self.deadlines[slot as usize] = deadline.unwrap_or(NEVER);
        self.earliest_ns = self.earliest_ns.min(deadline.unwrap_or(NEVER));
    }

    pub fn begin_drain_all(&mut self, intake: &mut Intake<'_>, actions: &mut Actions) {
        for slot in 0..self.lanes.len() as u32 {
            self.begin_drain(slot, intake, actions);
        }
    }

    pub fn begin_drain(&mut self, slot: u32, intake: &mut Intake<'_>, actions: &mut Actions) {
        let lane = &mut self.lanes[slot as usize];
        if lane.live && !lane.closing {
            lane.connection.begin_drain();
            lane.dirty = true;
            self.feed(slot, &[], intake, actions);
        }
    }

    pub fn close_all(&mut self, actions: &mut Actions) {
        for slot in 0..self.lanes.len() as u32 {
            if self.lanes[slot as usize].live {
                self.close(slot, actions);
            }
        }
    }

    pub fn all_closed(&self) -> bool {
        self.live == 0
    }

    /// Replies are due that the last turn did not get to.
    pub fn more_due(&self, durable_lsn: u64) -> bool {
        self.waiting.is_due(durable_lsn)
    }

    pub fn close(&mut self, slot: u32, actions: &mut Actions) {
        let lane = &mut self.lanes[slot as usize];
        if !lane.closing {
            lane.closing = true;
            actions.push(Action::Close { connection: lane.id });
            self.deadlines[slot as usize] = NEVER;
        }
    }

    fn is_live(&self, id: ConnectionId) -> bool {
        let lane = &self.lanes[id.slot as usize];
        lane.live && lane.id == id
    }

    fn list(&mut self, slot: u32) {
        let lane = &mut self.lanes[slot as usize];
        if !lane.listed {
            lane.listed = true;
            self.listed.push(slot);
        }
    }
}

pub fn status_of(outcome: &Outcome) -> u16 {
    match outcome {
        Outcome::Clicks { accepted: 0, duplicates: 0, .. } => 422,
        Outcome::Clicks { .. } => 202,
        Outcome::Shed(_) => 503,
        Outcome::Refused(fault) => fault.status(),
    }
}
