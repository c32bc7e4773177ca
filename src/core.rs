//! Pure. One core is one owned struct with one door: [`Core::apply`] takes a turn's events and says what to do. Nothing else
//! changes a core; it holds no clock, no lock, no I/O.
//!
//!     events ─▶ lanes (frame, parse, encode) ─▶ staging ─▶ home (dedup, log, merge) ─▶ replies, once durable
//!                                                  └─▶ outbound ─▶ another core's inbound ─▶ its home ─▶ back
//!
//! `lanes` is the receiving side of a core, `home` the deciding one. The same upkeep runs after every turn.

pub mod ahead;
pub mod clock;
pub mod cuts;
pub mod home;
pub mod idle;
pub mod inbound;
pub mod incarnation;
pub mod intake;
mod judging;
pub mod lanes;
pub mod outbound;
pub mod room;
mod snapshot;
pub mod staging;
mod stopping;
mod waiting;

use crate::chunk::CoreIndex;
use crate::config::Config;
use crate::core::ahead::Lookahead;
use crate::core::clock::Clock;
use crate::core::home::Home;
use crate::core::idle::IdleLog;
use crate::core::inbound::Inbound;
use crate::core::intake::Intake;
use crate::core::lanes::Lanes;
use crate::core::outbound::Outbound;
use crate::core::room::LogRoom;
use crate::core::staging::{StagedRequest, Staging};
use crate::event::{Action, Actions, ConnectionId, Event, FrameBuffer, Now, WriteEnd};
use crate::exit::Exit;
use crate::metrics::{Ledger, Shed, Snapshot};
use crate::net::assembly::AssemblyPool;
use crate::parse::Parser;

/// Clicks staged within a turn before the home looks at them: enough to overlap their cache misses, few enough that what was
/// prefetched is still in the cache.
const HOME_BATCH_CLICKS: usize = 128;

/// How long a stop waits for requests that are half received before their connections are closed.
const DRAIN_MAX_NS: u64 = 15_000_000_000;

/// How long a stop lasts at most. With a `--drain-delay` of 10 s it ends within 30 s.
const STOP_MAX_NS: u64 = 19_000_000_000;

/// A log that waits for its disk for so long is stuck: nobody would ever be answered.
const LOG_STUCK_NS: u64 = 30_000_000_000;

/// Turns are no further apart, unless the process was stopped meanwhile: that time is not the disk's.
const TURN_SPACING_NS: u64 = 2_000_000_000;

pub struct Core {
    config: Config,
    lanes: Lanes,
    parser: Parser,
    assembly: AssemblyPool,
    staging: Staging,
    /// Of what is staged.
    ahead: Lookahead,
    home: Home,
    inbound: Inbound,
    outbound: Outbound,
    /// The other cores that may still forward clicks, while this one stops.
    peers_left: CoreIndex,
    /// Requests that a chunk has brought the last verdicts of; kept for its memory.
    whole: Vec<(StagedRequest, u64)>,
    /// Logs that no core writes to and that this one clears away.
    idle_logs: Vec<IdleLog>,
    ledger: Ledger,
    snapshot: Box<Snapshot>,
    phase: Phase,
    room: LogRoom,
    clock: Clock,
    /// The memory of ids was full less than a second before this.
    full_until_ns: u64,
    next_cut_ns: u64,
    cut_interval_ms: u64,
    /// When the log write in flight began.
    write_began_ns: u64,
    /// How long the log has waited for its disk, and the last turn.
    log_waits_ns: u64,
    turned_ns: u64,
    scrape: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Connections finish what they have wholly received, until the first deadline. The second is the stop's.
    Draining {
        until_ns: u64,
        end_ns: u64,
    },
    /// Those left are closed.
    Closing {
        end_ns: u64,
    },
    /// No connection is left here, and nothing of this core's is elsewhere; other cores may still forward clicks.
    AwaitingPeers {
        end_ns: u64,
    },
    /// No connection is left; the last cut is on its way out.
    LastCut {
        end_ns: u64,
    },
    Stopped,
}

impl Core {
    /// `idle_logs`: those that this core clears away beside its own.
    pub fn new(config: Config, home: Home, idle_logs: Vec<IdleLog>, slots: u32, now: Now) -> Core {
        let seat = home.seat();
        assert_eq!(seat.cores, config.cores(), "a core is one of as many as are configured");
        Core {
            lanes: Lanes::new(&config, slots, now),
            parser: Parser::new(&config.click),
            assembly: AssemblyPool::new(config.http.assembly_bytes_max),
            staging: Staging::new(config.http.parked_memory_bytes() as usize),
            ahead: Lookahead::with_capacity(1024),
            home,
            inbound: Inbound::default(),
            outbound: Outbound::new(&config, seat.own),
            peers_left: seat.cores - 1,
            whole: Vec::new(),
            idle_logs,
            ledger: Ledger::default(),
            snapshot: Box::default(),
            phase: Phase::Serving,
            room: LogRoom::default(),
            clock: Clock::new(config.click.clock_skew_ms, config.dedup.window_ms, now),
            full_until_ns: 0,
            next_cut_ns: now.mono_ns + config.export.interval_ms * 1_000_000,
            cut_interval_ms: config.export.interval_ms,
            write_began_ns: 0,
            log_waits_ns: 0,
            turned_ns: now.mono_ns,
            scrape: false,
            config,
        }
    }

    /// One turn: everything that happened, in order, then the upkeep.
    pub fn apply(&mut self, events: &mut Vec<Event<'_>>, now: Now, actions: &mut Actions) {
        let now = self.advance_clock(now);
        let full = self.ledger.shed[Shed::DedupFull as usize];
        let mut would_sleep = false;
        for event in events.drain(..) {
            would_sleep |= matches!(event, Event::Idle);
            self.take(event, now, actions);
            if self.staging.fresh_clicks() >= HOME_BATCH_CLICKS {
                self.judge(now);
            }
        }
        self.judge(now);
        self.upkeep(would_sleep, now, actions);
        // At home here, or at another core.
        if self.ledger.shed[Shed::DedupFull as usize] > full {
            self.full_until_ns = now.mono_ns + 1_000_000_000;
        }
    }

    /// Whether the core holds records that it would commit if it had nothing else to do.
    pub fn could_commit(&self, now: Now) -> bool {
        self.home.writer.could_start(now.mono_ns)
    }

    /// Why clicks are turned away at present: all of them, or all that are new.
    pub fn shedding(&self, now: Now) -> Option<Shed> {
        self.sheds(now).or((now.mono_ns < self.full_until_ns).then_some(Shed::DedupFull))
    }

    /// How often memory ran short and ids were forgotten before their time.
    pub fn forgot_early(&self) -> u64 {
        self.home.dedup.generations_dropped_early()
    }

    /// Segments that went before their time because the log's room was short.
    pub fn freed_early(&self) -> u64 {
        self.room.freed_early()
    }

    /// Whether another turn has work though nothing happens.
    pub fn has_more(&self) -> bool {
        self.lanes.more_due(self.home.writer.durable_lsn())
    }

    /// Whether a log write is under way: what comes in meanwhile waits for the next one.
    pub fn awaits_disk(&self) -> bool {
        self.home.writer.in_flight()
    }

    /// When `apply` must be called though nothing happens.
    pub fn next_deadline_ns(&self) -> u64 {
        let log = self.home.writer.next_deadline_ns().unwrap_or(u64::MAX);
        let (cut, stop) = match self.phase {
            Phase::Serving => (self.next_cut_ns, u64::MAX),
            Phase::Draining { until_ns, .. } => (self.next_cut_ns, until_ns),
            Phase::Closing { end_ns } | Phase::AwaitingPeers { end_ns } => (self.next_cut_ns, end_ns),
            // There is no other cut to wait for.
            Phase::LastCut { end_ns } => (u64::MAX, end_ns),
            Phase::Stopped => (u64::MAX, u64::MAX),
        };
        log.min(cut).min(self.lanes.next_deadline_ns()).min(stop)
    }

    fn take(&mut self, event: Event<'_>, now: Now, actions: &mut Actions) {
        match event {
            Event::Accepted { connection } => self.accepted(connection, now, actions),
            Event::Received { connection, bytes } => {
                let (lanes, mut intake) = self.receiving(now);
                lanes.received(connection, bytes, &mut intake, actions);
            }
            Event::ReceiveEnded { connection, end } => {
                let (lanes, mut intake) = self.receiving(now);
                lanes.receive_ended(connection, end, &mut intake, actions);
            }
            Event::Sent { connection, buffer, sent } => {
                let (lanes, intake) = self.receiving(now);
                lanes.sent(connection, buffer, sent, &intake, actions);
            }
            Event::Closed { connection } => {
                let (lanes, mut intake) = self.receiving(now);
                lanes.closed(connection, &mut intake);
            }
            Event::LogWritten { buffer, end } => self.log_written(buffer, end, now, actions),
            Event::SegmentReady { segment } => self.home.writer.segment_ready(segment),
            Event::Room { open, segments_over, frees_seen } => self.room.told(open, segments_over, frees_seen),
            Event::CutInterval { ms } => self.cut_interval_ms = ms,
            Event::Exported(exported) => self.home.cuts.exported(*exported),
            Event::IdleExported { log, lsn } => self.idle_logs[log as usize].exported(lsn),
            Event::Forwarded { from, chunk } => self.inbound.push(from, chunk),
            Event::Judged { by, chunk } => self.judged(by, chunk),
            Event::PeerDone { core } => {
                assert!(self.peers_left > 0, "core {core} was done already");
                self.peers_left -= 1;
            }
            Event::Scrape => self.scrape = true,
            Event::Idle => {}
            Event::Stop { patience } => self.stop(patience, now, actions),
        }
    }

    /// An accept may end after the stop has begun: then its connection is treated as those that were there.
    fn accepted(&mut self, connection: ConnectionId, now: Now, actions: &mut Actions) {
        let phase = self.phase;
        let (lanes, mut intake) = self.receiving(now);
        lanes.accepted(connection, &intake);
        match phase {
            Phase::Serving => {}
            Phase::Draining { .. } => lanes.begin_drain(connection.slot, &mut intake, actions),
            Phase::Closing { .. } | Phase::AwaitingPeers { .. } | Phase::LastCut { .. } | Phase::Stopped => {
                lanes.close(connection.slot, actions);
            }
        }
    }

    /// The receiving side, and what it works with.
    fn receiving(&mut self, now: Now) -> (&mut Lanes, Intake<'_>) {
        let shed = self.sheds(now);
        let intake = Intake {
            config: &self.config,
            parser: &mut self.parser,
            assembly: &mut self.assembly,
            staging: &mut self.staging,
            ledger: &mut self.ledger,
            home: &self.home,
            shed,
            now,
        };
        (&mut self.lanes, intake)
    }

    fn log_written(&mut self, buffer: Box<FrameBuffer>, end: WriteEnd, now: Now, actions: &mut Actions) {
        self.snapshot.log.commit.record(now.mono_ns - self.write_began_ns);
        self.log_waits_ns = 0;
        let ok = end == WriteEnd::Synced;
        if let Err(failed) = self.home.writer.written(buffer, ok) {
            let why = format!("{failed}: {end}. Look at the disk (dmesg, SMART) before a restart");
            actions.push(Action::Halt { exit: Exit::LogWriteFailed, why });
        }
    }

    /// Clicks that cannot be taken now are shed before anything of them changes state.
    fn sheds(&self, now: Now) -> Option<Shed> {
        if self.clock.leapt() {
            Some(Shed::Clock)
        } else if !self.room.is_open() {
            Some(Shed::DiskFull)
        } else if self.home.dedup.horizon_ms() > now.wall_ms {
            // So much was forgotten at the start that even a click of now could be one of it: not "too old", but not now.
            Some(Shed::HorizonAhead)
        } else {
            None
        }
    }

    /// The time to go by in this turn.
    fn advance_clock(&mut self, now: Now) -> Now {
        let now = self.clock.follow(now);
        if !self.clock.leapt() {
            self.home.dedup.advance(now.wall_ms);
            self.home.advance_watermark(now);
        }
        now
    }

    /// The same after every turn, cheap and always.
    fn upkeep(&mut self, would_sleep: bool, now: Now, actions: &mut Actions) {
        self.home.note_clicks(now);
        self.cut_when_due(now, actions);
        loop {
            self.commit(would_sleep, now, actions);
            self.release(now, actions);
            // A connection that was paused may have gone on.
            if self.staging.fresh_clicks() == 0 {
                break;
            }
            self.judge(now);
        }
        self.outbound.send(actions);
        self.inbound.release(self.home.writer.durable_lsn(), actions);
        self.home.hand_over(actions);
        self.free_segments(now, actions);
        self.watch_disk(now, actions);
        self.progress_stop(now, actions);
        if std::mem::take(&mut self.scrape) {
            actions.push(Action::Snapshot(self.take_snapshot(now)));
        }
    }

    fn release(&mut self, now: Now, actions: &mut Actions) {
        let durable_lsn = self.home.writer.durable_lsn();
        let mut acknowledgement = self.snapshot.acknowledgement;
        let (lanes, mut intake) = self.receiving(now);
        lanes.check_deadlines(&mut intake, actions);
        lanes.release(durable_lsn, &mut intake, &mut acknowledgement, actions);
        self.snapshot.acknowledgement = acknowledgement;
    }

    fn commit(&mut self, would_sleep: bool, now: Now, actions: &mut Actions) {
        if self.home.writer.due(now.mono_ns, would_sleep) {
            self.home.seal(now, 0);
        }
        if let Some((buffer, write)) = self.home.writer.next_write(now.mono_ns) {
            self.write_began_ns = now.mono_ns;
            self.snapshot.log.commits += 1;
            self.snapshot.log.bytes_written += u64::from(write.length);
            actions.push(Action::WriteLog { buffer, write });
        }
        while let Some(segment) = self.home.writer.wants_segment() {
            actions.push(Action::PrepareSegment { segment });
        }
    }

    fn cut_when_due(&mut self, now: Now, actions: &mut Actions) {
        if matches!(self.phase, Phase::LastCut { .. } | Phase::Stopped) {
            return;
        }
        if now.mono_ns >= self.next_cut_ns {
            self.next_cut_ns = now.mono_ns + self.cut_interval_ms * 1_000_000;
            if self.home.something_to_cut() {
                self.home.cut(now, false);
            } else if self.home.cuts.settled() {
                self.home.seal_idle(now);
                self.home.cut(now, false);
            }
            self.home.hand_over(actions);
        } else if self.home.partials.wants_cut() {
            self.home.cut(now, false);
        }
    }

    /// A write that does not end, or a segment that is never prepared. One for which the disk has no room, as the core was told, may take
    /// as long as somebody needs to make some.
    fn watch_disk(&mut self, now: Now, actions: &mut Actions) {
        let since_ns = (now.mono_ns - self.turned_ns).min(TURN_SPACING_NS);
        self.turned_ns = now.mono_ns;
        let writer = &self.home.writer;
        let waits = writer.unwritten() && (self.room.is_open() || !writer.waits_for_segment());
        self.log_waits_ns = if waits { self.log_waits_ns + since_ns } else { 0 };
        if self.log_waits_ns > LOG_STUCK_NS {
            let why = "the log has waited for its disk for more than 30 s; what is not on disk was not acknowledged";
            actions.push(Action::Halt { exit: Exit::Stuck, why: why.to_owned() });
        }
    }
}

#[cfg(test)]
mod mesh_tests;
#[cfg(test)]
mod room_tests;
#[cfg(test)]
mod tests;
