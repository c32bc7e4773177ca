//! Canned turns: a core with everything around it but I/O. Clients that send when they were answered, a disk that takes its
//! time, an exporter that is always done, a clock that goes by what was received. The same at every run.

use crate::counting::allocations;
use memmap2::MmapMut;
use tollgate::click::ClickKey;
use tollgate::config::{Config, DedupConfig, FRAME_BUFFERS, GENERATIONS, TABLE_ROWS_MAX, TABLE_USERS_MAX};
use tollgate::core::Core;
use tollgate::core::home::{Home, Seat};
use tollgate::core::incarnation::{Incarnation, LogEnd};
use tollgate::dedup;
use tollgate::event::{Action, Actions, ConnectionId, Event, Exported, FrameBuffer, Now, SendBuffer, WriteEnd};
use tollgate::metrics::Snapshot;
use tollgate::preagg;
use tollgate::wal::writer::buffer_bytes;
use tollgate_loadgen::clicks::Clicks;
use tollgate_loadgen::link;
use tollgate_loadgen::plan::Plan;
use tollgate_loadgen::text::{mix, timestamp13};

/// The receive buffers of a core.
const PIECE_BYTES: usize = 16 << 10;
const BEGIN: Now = Now { wall_ms: 1_763_791_000_000, mono_ns: 1_000_000_000 };
/// A turn that does nothing but find out.
const TURN_NS: u64 = 1_000;
/// A synced write, and each byte of it (4, 64 and 256 KiB were measured).
const WRITE_NS: u64 = 110_000;
const WRITE_NS_PER_KIB: u64 = 280;
/// How full the dedup table is, just before a generation of it goes.
const DEDUP_LOAD: f64 = 0.8;

/// A way to send clicks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    pub name: &'static str,
    pub connections: u32,
    pub pipeline: u32,
    pub batch: u32,
    /// How fast the canned clock goes: about what a click takes on one core of the day.
    pub click_ns: u64,
    /// What comes of that with the waits for the disk: the dedup window is made to fit it.
    pub pace_ns: u64,
}

pub const SHAPES: [Shape; 3] = [
    Shape { name: "one", connections: 256, pipeline: 1, batch: 1, click_ns: 6_000, pace_ns: 6_350 },
    Shape { name: "pipelined", connections: 64, pipeline: 32, batch: 1, click_ns: 500, pace_ns: 600 },
    Shape { name: "ndjson", connections: 64, pipeline: 1, batch: 100, click_ns: 300, pace_ns: 400 },
];

/// What the measured turns came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub turns: u64,
    pub clicks: u64,
    pub requests: u64,
    pub commits: u64,
    pub log_bytes: u64,
    /// Calls of the allocator from inside `apply`.
    pub allocations: u64,
    pub cuts: u64,
    pub wall_ns: u64,
}

struct Client {
    id: ConnectionId,
    /// Requests sent and not answered.
    awaited: u32,
    out: Vec<u8>,
}

/// A core and its world.
pub struct World {
    shape: Shape,
    core: Core,
    actions: Actions,
    now: Now,
    head: Vec<u8>,
    clicks: Clicks,
    number: u64,
    clients: Vec<Client>,
    /// Completions that the next turn brings.
    coming: Vec<Event<'static>>,
    writing: Option<(Box<FrameBuffer>, u64)>,
    snapshot: Option<Box<Snapshot>>,
    pub tally: Tally,
}

impl World {
    pub fn new(shape: Shape, dedup_memory_bytes: u64) -> World {
        let config = config(shape, dedup_memory_bytes);
        let plan = Plan { batch: shape.batch, ..Plan::default() };
        let core = Core::new(config.clone(), home(&config, shape), Vec::new(), shape.connections, BEGIN);
        let id = |slot| ConnectionId { slot, generation: 1 };
        let client = |slot| Client { id: id(slot), awaited: 0, out: Vec::new() };
        World {
            shape,
            core,
            actions: Vec::with_capacity(1024),
            now: BEGIN,
            head: link::head(&plan, 0),
            clicks: Clicks::new(&plan),
            number: 0,
            clients: (0..shape.connections).map(client).collect(),
            coming: (0..shape.connections).map(|slot| Event::Accepted { connection: id(slot) }).collect(),
            writing: None,
            snapshot: None,
            tally: Tally::default(),
        }
    }

    /// Turns until so many more clicks were received; what they came to is added to the tally if `measured`.
    pub fn run(&mut self, clicks: u64, measured: bool) {
        let until = self.number + clicks;
        while self.number < until {
            self.turn(measured);
        }
    }

    /// Lets what is under way end, and asks the core for its counters.
    pub fn finish(mut self) -> (Tally, Box<Snapshot>) {
        let tally = self.tally;
        while self.clients.iter().any(|client| client.awaited > 0) {
            self.step(false, &[]);
        }
        self.coming.push(Event::Scrape);
        self.step(false, &[]);
        (tally, self.snapshot.expect("a core answers a scrape in its turn"))
    }

    fn turn(&mut self, measured: bool) {
        let ready: Vec<usize> = (0..self.clients.len()).filter(|at| self.clients[*at].awaited == 0).collect();
        for at in &ready {
            self.send(*at);
        }
        self.step(measured, &ready);
    }

    /// A client's next requests, all at once.
    fn send(&mut self, at: usize) {
        let stamp = timestamp13(self.now.wall_ms);
        let client = &mut self.clients[at];
        client.out.clear();
        client.awaited = self.shape.pipeline;
        for _ in 0..self.shape.pipeline {
            client.out.extend_from_slice(&self.head);
            for line in 0..self.shape.batch {
                if line > 0 {
                    client.out.push(b'\n');
                }
                self.clicks.append(self.number, self.now.wall_ms, &stamp, &mut client.out);
                self.number += 1;
            }
        }
    }

    /// One turn: what has ended, what these clients sent, or nothing at all.
    fn step(&mut self, measured: bool, ready: &[usize]) {
        let mut events: Vec<Event<'_>> = std::mem::take(&mut self.coming);
        if let Some((buffer, _)) = self.writing.take_if(|(_, due_ns)| *due_ns <= self.now.mono_ns) {
            events.push(Event::LogWritten { buffer, end: WriteEnd::Synced });
        }
        for at in ready {
            let client = &self.clients[*at];
            let pieces = client.out.chunks(PIECE_BYTES);
            events.extend(pieces.map(|bytes| Event::Received { connection: client.id, bytes }));
        }
        let clicks = ready.len() as u64 * u64::from(self.shape.pipeline) * u64::from(self.shape.batch);
        if events.is_empty() && !self.core.has_more() {
            if self.core.could_commit(self.now) {
                events.push(Event::Idle);
            } else {
                let due_ns = self.writing.as_ref().map_or(u64::MAX, |(_, due_ns)| *due_ns);
                self.now = at(self.now, self.core.next_deadline_ns().min(due_ns));
            }
        }
        if measured {
            measured_turn(&mut self.core, &mut events, self.now, &mut self.actions, &mut self.tally);
            self.tally.clicks += clicks;
            self.tally.requests += ready.len() as u64 * u64::from(self.shape.pipeline);
        } else {
            self.core.apply(&mut events, self.now, &mut self.actions);
        }
        drop(events);
        self.perform(measured);
        self.now = at(self.now, self.now.mono_ns + TURN_NS + clicks * self.shape.click_ns);
    }

    fn perform(&mut self, measured: bool) {
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            match action {
                Action::Send { connection, buffer } => self.answered(connection, buffer),
                Action::WriteLog { buffer, write } => {
                    let takes_ns = WRITE_NS + u64::from(write.length) / 1024 * WRITE_NS_PER_KIB;
                    let before = self.writing.replace((buffer, self.now.mono_ns + takes_ns));
                    assert!(before.is_none(), "one write is in flight at a time");
                    if measured {
                        self.tally.commits += 1;
                        self.tally.log_bytes += u64::from(write.length);
                    }
                }
                Action::PrepareSegment { segment } => self.coming.push(Event::SegmentReady { segment }),
                Action::FreeSegment { .. } => {}
                Action::Export(cut) => {
                    self.tally.cuts += u64::from(measured);
                    let exported = Exported { lsn: cut.to.lsn, table: cut.table, cuts: 1 };
                    self.coming.push(Event::Exported(Box::new(exported)));
                }
                Action::Snapshot(snapshot) => self.snapshot = Some(snapshot),
                Action::PauseReceive { .. }
                | Action::ResumeReceive { .. }
                | Action::ShutdownSend { .. }
                | Action::Close { .. }
                | Action::FreeIdleSegment { .. }
                | Action::Forward { .. }
                | Action::Return { .. }
                | Action::Done
                | Action::StopAccepting
                | Action::Stopped
                | Action::Halt { .. } => panic!("canned turns give a core no cause for this: {action:?}"),
            }
        }
        self.actions = actions;
    }

    fn answered(&mut self, connection: ConnectionId, buffer: Box<SendBuffer>) {
        let text = String::from_utf8_lossy(&buffer.bytes);
        let (replies, good) = (text.matches("HTTP/1.1 ").count(), text.matches("HTTP/1.1 202 ").count());
        assert_eq!(replies, good, "every canned click is a good one: {text}");
        self.clients[connection.slot as usize].awaited -= good as u32;
        let sent = buffer.bytes.len() as u32;
        self.coming.push(Event::Sent { connection, buffer, sent });
    }
}

/// The canned clocks at a moment that has not passed yet.
fn at(now: Now, mono_ns: u64) -> Now {
    let mono_ns = mono_ns.max(now.mono_ns);
    Now { wall_ms: BEGIN.wall_ms + ((mono_ns - BEGIN.mono_ns) / 1_000_000) as i64, mono_ns }
}

/// The one place that is measured: `scripts/callgrind-gate` counts what runs while this function does.
#[inline(never)]
fn measured_turn(core: &mut Core, events: &mut Vec<Event<'_>>, now: Now, actions: &mut Actions, tally: &mut Tally) {
    let (before, began) = (allocations(), std::time::Instant::now());
    core.apply(events, now, actions);
    tally.wall_ns += began.elapsed().as_nanos() as u64;
    tally.allocations += allocations() - before;
    tally.turns += 1;
}

/// As served, but for a dedup window that the rate of the canned clock fills to the load.
fn config(shape: Shape, dedup_memory_bytes: u64) -> Config {
    let keys = dedup_memory_bytes as f64 / 16.0 * DEDUP_LOAD;
    let window_ms = (keys * shape.pace_ns as f64 / 1e6) as i64 * GENERATIONS / (GENERATIONS + 1);
    Config {
        dedup: DedupConfig { window_ms, window_min_ms: window_ms / 4, memory_bytes: dedup_memory_bytes },
        ..Config::default()
    }
}

/// The home of a new log's first incarnation; its first frame goes nowhere.
fn home(config: &Config, shape: Shape) -> Home {
    let memory = || MmapMut::map_anon(buffer_bytes(config.log.frame_bytes)).expect("memory for a frame");
    let buffers = (0..FRAME_BUFFERS as u32).map(|id| Box::new(FrameBuffer { memory: memory(), id })).collect();
    let table = prefilled(&config.dedup, shape);
    let (incarnation, buffer, _) =
        Incarnation::begin(config, Seat::ALONE, [2; 16], table, LogEnd::new([3; 16]), buffers, BEGIN);
    let (home, _) = incarnation.begun(config, buffer, preagg::Table::new(TABLE_ROWS_MAX, TABLE_USERS_MAX, 3));
    home
}

/// A table as it is after days of service: as full as it gets, a generation expiring as the next one comes.
fn prefilled(config: &DedupConfig, shape: Shape) -> dedup::Table {
    let memory = MmapMut::map_anon(config.memory_bytes as usize).expect("memory for the dedup table");
    let keys = config.memory_bytes / 16 * 5 / 4;
    let begin_ms = BEGIN.wall_ms - (keys * shape.pace_ns / 1_000_000) as i64;
    let mut table = dedup::Table::new(memory, [3; 16], config, i64::MIN, begin_ms);
    for number in 0..keys {
        let at_ms = begin_ms + (number * shape.pace_ns / 1_000_000) as i64;
        table.advance(at_ms);
        let bytes = (u128::from(mix(number)) << 64 | u128::from(mix(!number))).to_le_bytes();
        let hashed = table.hash(&ClickKey { bytes, hashed: false });
        table.remember(&hashed, 1, at_ms, at_ms);
    }
    table
}
