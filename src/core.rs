//! Pure. One core is one owned struct with one door: [`Core::apply`] takes a turn's events and says what to do. Nothing else
//! changes a core; it holds no clock, no lock, no I/O.
//!
//!     events ─▶ lanes (frame, parse, encode) ─▶ staging ─▶ home (dedup, log, merge) ─▶ replies, once durable
//!
//! `lanes` is the receiving side of a core, `home` the deciding one. The same upkeep runs after every turn.

pub mod cuts;
pub mod home;
pub mod lanes;
pub mod staging;

use crate::config::Config;
use crate::core::home::{Bench, Home};
use crate::core::lanes::Lanes;
use crate::core::staging::{Staging, Tally};
use crate::event::{Action, Actions, Event, Now};
use crate::exit::Exit;
use crate::metrics::{Ledger, Shed, Snapshot};
use crate::wal::frame::{FLAG_IDLE, FLAG_STOPPED};

/// Clicks staged within a turn before the home looks at them: enough to overlap their cache misses, few enough that what was
/// prefetched is still in the cache.
const HOME_BATCH_CLICKS: usize = 128;

/// How long a stop waits for requests that are half received before their connections are closed.
const DRAIN_MAX_NS: u64 = 15_000_000_000;

pub struct Core {
    config: Config,
    lanes: Lanes,
    staging: Staging,
    home: Home,
    ledger: Ledger,
    snapshot: Box<Snapshot>,
    phase: Phase,
    room: bool,
    clock: Clock,
    next_cut_ns: u64,
    /// When the log write in flight began.
    write_began_ns: u64,
    scrape: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Connections finish what they have wholly received; those left at the deadline are closed.
    Draining { until_ns: u64 },
    /// No connection is left; the last cut is on its way out.
    LastCut,
    Stopped,
}

/// The wall clock against the monotonic one, as they stood at the start.
struct Clock {
    offset_ms: i64,
    skew_ms: i64,
    /// They disagree by more than the skew: horizon and watermark stand still, clicks are shed.
    leapt: bool,
}

impl Core {
    pub fn new(config: Config, home: Home, slots: u32, now: Now) -> Core {
        let clock = Clock {
            offset_ms: now.wall_ms - (now.mono_ns / 1_000_000) as i64,
            skew_ms: config.click.clock_skew_ms,
            leapt: false,
        };
        Core {
            lanes: Lanes::new(&config, slots),
            staging: Staging::default(),
            home,
            ledger: Ledger::default(),
            snapshot: Box::default(),
            phase: Phase::Serving,
            room: true,
            clock,
            next_cut_ns: now.mono_ns + config.export.interval_ms * 1_000_000,
            write_began_ns: 0,
            scrape: false,
            config,
        }
    }

    /// One turn: everything that happened, in order, then the upkeep.
    pub fn apply(&mut self, events: &mut Vec<Event<'_>>, now: Now, actions: &mut Actions) {
        self.advance_clock(now);
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
    }

    /// When `apply` must be called though nothing happens.
    pub fn next_deadline_ns(&self) -> u64 {
        let log = self.home.writer.next_deadline_ns().unwrap_or(u64::MAX);
        let drain = match self.phase {
            Phase::Draining { until_ns } => until_ns,
            Phase::Serving | Phase::LastCut | Phase::Stopped => u64::MAX,
        };
        log.min(self.next_cut_ns).min(self.lanes.next_deadline_ns()).min(drain)
    }

    fn take(&mut self, event: Event<'_>, now: Now, actions: &mut Actions) {
        match event {
            Event::Accepted { connection } => self.lanes.accepted(connection, now, actions),
            Event::Received { connection, bytes } => {
                let shed = self.sheds();
                let horizon_ms = self.home.dedup.horizon_ms();
                let intake = lanes::Intake {
                    staging: &mut self.staging,
                    ledger: &mut self.ledger,
                    home: &self.home,
                    shed,
                    horizon_ms,
                    now,
                };
                self.lanes.received(connection, bytes, intake, actions);
            }
            Event::ReceiveEnded { connection, end } => self.lanes.receive_ended(connection, end, now, actions),
            Event::Sent { connection, buffer, sent } => self.lanes.sent(connection, buffer, sent, now, actions),
            Event::Closed { connection } => self.lanes.closed(connection),
            Event::LogWritten { buffer, ok } => {
                self.snapshot.log.commit_seconds.add_ns(now.mono_ns - self.write_began_ns);
                if let Err(failed) = self.home.writer.written(buffer, ok) {
                    tracing::error!("{failed}");
                    actions.push(Action::Halt { exit: Exit::LogWriteFailed, why: "a write of the log failed" });
                }
            }
            Event::SegmentReady { segment } => self.home.writer.segment_ready(segment),
            Event::Room { open } => self.room = open,
            Event::Exported(exported) => self.home.exported(*exported),
            Event::Scrape => self.scrape = true,
            Event::Idle => {}
            Event::Stop => self.stop(now, actions),
        }
    }

    /// Clicks that cannot be taken now are shed before anything of them changes state.
    fn sheds(&self) -> Option<Shed> {
        if self.clock.leapt {
            Some(Shed::Clock)
        } else if !self.room {
            Some(Shed::DiskFull)
        } else if self.staging.bytes() > crate::config::STAGING_BYTES_MAX {
            Some(Shed::LogBehind)
        } else {
            None
        }
    }

    fn advance_clock(&mut self, now: Now) {
        let offset_ms = now.wall_ms - (now.mono_ns / 1_000_000) as i64;
        self.clock.leapt = (offset_ms - self.clock.offset_ms).abs() > self.clock.skew_ms;
        if !self.clock.leapt {
            self.home.dedup.advance(now.wall_ms);
            self.home.advance_watermark(now);
        }
    }

    /// The home's pass over what is staged, as far as there is room; what finds none waits at the head of the line.
    fn judge(&mut self, now: Now) {
        while let Some(mut request) = self.staging.pop() {
            let mut tally = std::mem::replace(&mut request.tally, Tally::default());
            let mut errors = std::mem::take(&mut request.errors);
            let mut bench = Bench {
                ledger: &mut self.ledger,
                tally: &mut tally,
                errors: &mut errors,
                errors_max: crate::config::ERRORS_LISTED_MAX,
            };
            let rest = self.staging.rest(&request);
            let through = self.home.judge(rest, &mut bench, now);
            let whole = through == rest.len();
            request.tally = tally;
            request.errors = errors;
            if !whole {
                Staging::advance(&mut request, through);
                self.staging.unpop(request);
                break;
            }
            self.ledger.settle(request.clicks, &tally);
            self.lanes.settle(&mut request, self.home.writer.end_lsn());
            self.staging.release(request);
        }
        self.staging.compact();
    }

    /// The same after every turn, cheap and always.
    fn upkeep(&mut self, would_sleep: bool, now: Now, actions: &mut Actions) {
        self.cut_when_due(now, actions);
        self.commit(would_sleep, now, actions);
        self.home.hand_over(actions);
        let durable_lsn = self.home.writer.durable_lsn();
        self.lanes.release(durable_lsn, now, &mut self.snapshot.acknowledge_seconds, actions);
        self.lanes.check_deadlines(now, actions);
        self.free_segments(now, actions);
        self.progress_stop(now, actions);
        if std::mem::take(&mut self.scrape) {
            actions.push(Action::Snapshot(self.take_snapshot()));
        }
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
        if matches!(self.phase, Phase::LastCut | Phase::Stopped) {
            return;
        }
        if now.mono_ns >= self.next_cut_ns {
            self.next_cut_ns = now.mono_ns + self.config.export.interval_ms * 1_000_000;
            if self.home.something_to_cut() {
                self.home.cut(now, false);
            } else if self.home.cuts.settled() {
                self.home.seal_idle(now, FLAG_IDLE);
                self.home.cut(now, false);
            }
            self.home.hand_over(actions);
        } else if self.home.partials.wants_cut() {
            self.home.cut(now, false);
        }
    }

    fn free_segments(&mut self, now: Now, actions: &mut Actions) {
        let keep_from_ms = now.wall_ms - self.config.log.retention_ms;
        let (exported_lsn, horizon_ms) = (self.home.cuts.exported_lsn(), self.home.dedup.horizon_ms());
        while let Some(segment) = self.home.writer.free_segment(exported_lsn, horizon_ms, keep_from_ms) {
            actions.push(Action::FreeSegment { segment });
        }
    }

    fn stop(&mut self, now: Now, actions: &mut Actions) {
        if self.phase == Phase::Serving {
            self.phase = Phase::Draining { until_ns: now.mono_ns + DRAIN_MAX_NS };
            actions.push(Action::StopAccepting);
            self.lanes.begin_drain(now, actions);
        }
    }

    fn progress_stop(&mut self, now: Now, actions: &mut Actions) {
        match self.phase {
            Phase::Serving | Phase::Stopped => {}
            Phase::Draining { until_ns } => {
                if now.mono_ns >= until_ns {
                    self.lanes.close_all(actions);
                }
                if self.lanes.all_closed() && self.staging.is_empty() && !self.home.writer.unwritten() {
                    self.phase = Phase::LastCut;
                    self.home.cut(now, true);
                    self.home.seal_idle(now, FLAG_STOPPED);
                    self.commit(true, now, actions);
                    self.home.hand_over(actions);
                }
            }
            Phase::LastCut => {
                if self.home.cuts.settled() && !self.home.writer.unwritten() {
                    self.phase = Phase::Stopped;
                    actions.push(Action::Stopped);
                }
            }
        }
    }

    fn take_snapshot(&mut self) -> Box<Snapshot> {
        let mut snapshot = self.snapshot.clone();
        snapshot.ledger = self.ledger.clone();
        snapshot.log.end_lsn = self.home.writer.end_lsn();
        snapshot.log.durable_lsn = self.home.writer.durable_lsn();
        snapshot
    }
}
