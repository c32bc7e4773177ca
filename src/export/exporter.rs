//! Pure. The export protocol: told what happened, it says what to do next. One thread drives it; see `export::thread`.
//!
//! ```text
//!  Unknown ─▶ read, look up (unfenced) ─▶ read, look up (fenced) ─▶ Ready ◀──▶ rebuild, remember, check
//!     ▲                                     │  known ────────────────▲  │
//!     └──────── any doubt ──────────────────┴────────────────────────┼─ commit ─▶ Stopped
//! ```
//!
//! The first read fences nobody, and all of it is compared: a host set up wrongly, or a copy of a directory, must not stop the
//! right one.
//!
//! The stored checkpoint is the only truth about what was exported. A commit that did not cleanly succeed is an unknown
//! outcome, whatever the error: fence, read, and the checkpoint found is either the last one known (nothing of the
//! transaction is in) or the one just sent (all of it is); any other is a rival's, and the process ends.

use crate::config::EXPORT_CREDITS;
use crate::cut::{Cut, CutTable, LogId};
use crate::event::{Exported, Now};
use crate::export::bounds::{Bounds, Room};
use crate::export::build::{self, Head, Part, TokensByRow};
use crate::export::ranges::{Content, Log, Start, Times};
use crate::export::retry::Retry;
use crate::export::{Halt, Look, Names, Outcome, Rebuilt, Step, Told, compare};
use std::collections::{BTreeMap, VecDeque};
use tollgate_wire::{Checkpoint, FORMAT_VERSION, Transaction};

/// An edge with nothing to export still says so this often.
const IDLE_NS: u64 = 3_000_000_000;

/// The stored checkpoint is read again this often: a sink that lost it, or took another's, is noticed.
pub(super) const CHECK_NS: u64 = 3_600_000_000_000;

#[derive(Debug, PartialEq)]
pub(super) enum State {
    /// What is stored is in doubt, from the start or since a commit; read it, but not before then.
    Unknown {
        retry_ns: u64,
    },
    Reading,
    /// The checkpoint's owner and logs are ours; whether its chains are, the logs must say.
    Compared(Box<Checkpoint>),
    LookingUp(Box<Checkpoint>),
    Ready,
    /// Reads again what is known to be stored.
    Checking,
    Rebuilding {
        log: LogId,
        room: Room,
    },
    Committing,
    Stopped,
    Halted(Halt),
}

/// A transaction whose outcome is not yet known.
#[derive(Debug)]
pub(super) struct Sent {
    pub checkpoint: Checkpoint,
    pub stopped: bool,
}

pub struct Exporter {
    pub(super) start: Start,
    pub(super) logs: BTreeMap<LogId, Log>,
    pub(super) state: State,
    /// The sink was once read without fencing anyone, and is ours.
    pub(super) peeked: bool,
    /// `known` is not in the mirror yet; and whether that was asked for.
    pub(super) unremembered: bool,
    pub(super) remembering: bool,
    pub(super) check_at_ns: u64,
    /// The stored checkpoint, once it was compared with the logs; `Some(None)`: there is none.
    pub(super) known: Option<Option<Checkpoint>>,
    pub(super) sent: Option<Sent>,
    /// What goes back to cores: tables, and how many export credits.
    pub(super) outputs: VecDeque<(LogId, Option<CutTable>, u32)>,
    pub(super) bounds: Bounds,
    pub(super) retry: Retry,
    pub(super) idle_at_ns: u64,
    /// Whose turn it is to be first in a transaction.
    pub(super) turn: usize,
    pub(super) tokens: TokensByRow,
    pub(super) names: Names,
}

impl Exporter {
    /// What is called often while a large transaction is built, so that others can run.
    pub fn give_way_by(&mut self, give_way: fn()) {
        self.tokens = TokensByRow::new(give_way);
    }

    /// What its logs go by outside.
    pub fn goes_by(&mut self, names: Names) {
        self.names = names;
    }

    /// Each click of a transaction is sent in it, too.
    pub fn sends_clicks(&mut self) {
        self.bounds.with_clicks();
    }

    pub fn new(start: Start) -> Exporter {
        assert!(start.nonces.contains(&start.nonce), "our own nonce must be in our log before anything is exported");
        let logs = start.logs.iter().map(|log| (log.end.log_id, Log::new(log.clone()))).collect();
        let retry = Retry::new(start.nonce);
        Exporter {
            start,
            logs,
            state: State::Unknown { retry_ns: 0 },
            peeked: false,
            unremembered: false,
            remembering: false,
            check_at_ns: 0,
            known: None,
            sent: None,
            outputs: VecDeque::new(),
            bounds: Bounds::default(),
            retry,
            idle_at_ns: 0,
            turn: 0,
            tokens: TokensByRow::new(|| ()),
            names: Names::default(),
        }
    }

    /// Takes in what happened.
    pub fn apply(&mut self, told: Told, now: Now) {
        let result = match told {
            Told::Cut(cut) => {
                self.take_cut(*cut);
                Ok(())
            }
            Told::Checkpoint(read) => self.checkpoint_read(read, now),
            Told::LookedUp(found) => self.looked_up(found),
            Told::Rebuilt(rebuilt) => self.rebuilt(rebuilt),
            Told::Committed(outcome) => {
                self.committed(outcome, now);
                Ok(())
            }
            Told::Remembered(result) => self.remembered(result),
        };
        if let Err(halt) = result {
            self.state = State::Halted(halt);
        }
    }

    /// What to do next.
    pub fn next(&mut self, now: Now) -> Step {
        if let State::Halted(halt) = &self.state {
            return Step::Halt(halt.clone());
        }
        if self.unremembered
            && let Some(Some(checkpoint)) = &self.known
        {
            if self.remembering {
                return Step::Wait { until_ns: u64::MAX };
            }
            self.remembering = true;
            return Step::Remember(Box::new(checkpoint.clone()));
        }
        // An exported LSN never goes back: before the checkpoint is known none is named.
        if self.known.is_some()
            && let Some((id, table, cuts)) = self.outputs.pop_front()
        {
            let log = self.logs.get_mut(&id).expect("logs are never removed");
            // Segments go by it, and with them the nonce that the stored checkpoint names: ours must have taken its place.
            let ours = self.known.iter().flatten().any(|known| *known.nonce == self.start.nonce);
            let lsn = if ours { log.exported.lsn } else { log.start.base_lsn };
            log.told_lsn = lsn;
            return Step::Exported(id, Box::new(Exported { lsn, table, cuts }));
        }
        match &self.state {
            State::Unknown { retry_ns } if now.mono_ns < *retry_ns => Step::Wait { until_ns: *retry_ns },
            State::Unknown { .. } => {
                self.state = State::Reading;
                Step::ReadCheckpoint { look: if self.peeked { Look::Fence } else { Look::Peek } }
            }
            State::Compared(checkpoint) => {
                let positions = compare::positions(checkpoint);
                self.state = State::LookingUp(checkpoint.clone());
                Step::LookUp(positions)
            }
            State::Ready => self.ready(now).unwrap_or_else(|halt| {
                self.state = State::Halted(halt.clone());
                Step::Halt(halt)
            }),
            State::Reading | State::LookingUp(_) | State::Checking | State::Rebuilding { .. } | State::Committing => {
                Step::Wait { until_ns: u64::MAX }
            }
            State::Stopped => Step::Stopped,
            State::Halted(halt) => Step::Halt(halt.clone()),
        }
    }

    /// Clicks that were handed over or found at the start and are not known to be exported.
    pub fn clicks_behind(&self) -> u64 {
        self.logs.values().map(Log::clicks_behind).sum()
    }

    /// Clicks of the logs that are known to be exported.
    pub fn clicks_exported(&self) -> u64 {
        self.logs.values().map(Log::clicks_exported).sum()
    }

    /// When the oldest click was taken that is not known to be exported.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.logs.values().filter_map(Log::oldest_ms).min()
    }

    fn take_cut(&mut self, cut: Cut) {
        let id = cut.to.log_id;
        let log = self.logs.get_mut(&id).expect("a core writes only to a log that the exporter was started with");
        if let Some(table) = log.push(cut) {
            self.outputs.push_back((id, Some(cleared(table)), 0));
        }
    }

    fn rebuilt(&mut self, rebuilt: Result<Rebuilt, String>) -> Result<(), Halt> {
        let State::Rebuilding { log, room } = self.state else { panic!("a rebuild nobody asked for") };
        let log = self.logs.get_mut(&log).expect("logs are never removed");
        log.rebuilt(rebuilt.map_err(Halt::Log)?, room)?;
        self.state = State::Ready;
        Ok(())
    }

    fn committed(&mut self, outcome: Outcome, now: Now) {
        assert_eq!(self.state, State::Committing, "an outcome of a commit nobody asked for");
        match outcome {
            Outcome::Committed => self.finish(now),
            Outcome::Unknown => self.retry_later(now),
        }
    }

    pub(super) fn retry_later(&mut self, now: Now) {
        self.state = State::Unknown { retry_ns: now.mono_ns.saturating_add(self.retry.next_ns()) };
    }

    /// The transaction sent is stored: its ranges are done, its tables go back.
    pub(super) fn finish(&mut self, now: Now) {
        let sent = self.sent.take().expect("only a transaction that was sent can be finished");
        for (id, log) in &mut self.logs {
            for range in log.queue.drain(..log.sent) {
                (log.exported, log.exported_clicks) = (range.to, range.to_clicks);
                log.ended |= range.last;
                log.exported_times = Some(Times { horizon_ms: range.horizon_ms, watermark_ms: range.watermark_ms });
                let table = match range.content {
                    Content::Handed(table) => Some(cleared(table)),
                    Content::Absent | Content::Rebuilt(..) => None,
                };
                self.outputs.push_back((*id, table, range.cuts));
            }
            log.sent = 0;
            // Most logs that no core writes to have nothing left to export: that is how their owner learns of it.
            if !log.start.open && log.exported.lsn > log.told_lsn {
                self.outputs.push_back((*id, None, 0));
            }
        }
        self.known = Some(Some(sent.checkpoint));
        self.unremembered = self.keeps_mirror();
        self.bounds.committed(now);
        self.retry.succeeded();
        self.idle_at_ns = now.mono_ns.saturating_add(IDLE_NS);
        self.turn = self.turn.wrapping_add(1);
        self.state = if sent.stopped { State::Stopped } else { State::Ready };
    }

    fn ready(&mut self, now: Now) -> Result<Step, Halt> {
        let ranges = || self.logs.values().flat_map(|log| &log.queue);
        if self.check_at_ns == 0 {
            self.check_at_ns = now.mono_ns.saturating_add(CHECK_NS);
        } else if now.mono_ns >= self.check_at_ns {
            self.state = State::Checking;
            return Ok(Step::ReadCheckpoint { look: Look::Again });
        }
        // A core that may hand over no more may keep clicks behind ranges without any.
        let without_credit = |log: &Log| log.queue.iter().map(|range| range.cuts).sum::<u32>() >= EXPORT_CREDITS;
        let due = self.logs.values().any(without_credit) || ranges().any(|range| range.clicks() > 0 || range.last);
        if !due && now.mono_ns < self.idle_at_ns {
            return Ok(Step::Wait { until_ns: self.idle_at_ns });
        }
        let room = self.bounds.room();
        if let Some(log) = self.first_to_rebuild(room) {
            let front = &log.queue[0];
            let (log, from_lsn, to_lsn, from_clicks) = (log.id(), front.from_lsn, front.to.lsn, front.from_clicks);
            self.state = State::Rebuilding { log, room };
            return Ok(Step::Rebuild { log, from_lsn, to_lsn, from_clicks, room });
        }
        let transaction = self.build(room, now)?;
        self.state = State::Committing;
        Ok(Step::Commit(Box::new(transaction)))
    }

    /// The log whose turn it is, if its first range has no table, or is too large for the transactions that now succeed.
    fn first_to_rebuild(&mut self, room: Room) -> Option<&Log> {
        let id = *self.waiting_logs().first()?;
        let log = self.logs.get_mut(&id)?;
        let front = log.queue.front_mut()?;
        if front.may_split(room)
            && let Content::Handed(table) = std::mem::replace(&mut front.content, Content::Absent)
        {
            self.outputs.push_back((id, Some(cleared(table)), 0));
        }
        front.wants_rebuild().then_some(log)
    }

    /// Logs with something to export, the one whose turn it is in front: the first is taken whole, so it is the one that is split.
    fn waiting_logs(&self) -> Vec<LogId> {
        let mut waiting: Vec<LogId> = self.logs.values().filter(|log| !log.queue.is_empty()).map(Log::id).collect();
        let turn = self.turn % waiting.len().max(1);
        waiting.rotate_left(turn);
        waiting
    }

    /// Takes ranges in turn, as many as the bounds allow and at least one where there is one.
    fn build(&mut self, room: Room, now: Now) -> Result<Transaction, Halt> {
        let (mut size, mut ranges, ranges_max) = (Room::default(), 0, self.bounds.ranges());
        let order = self.waiting_logs();
        self.logs.values_mut().for_each(|log| log.sent = 0);
        for log in order {
            let log = self.logs.get_mut(&log).expect("it waits");
            for range in &log.queue {
                let with = size.and(range.size());
                let fits = room.holds(with) && ranges < ranges_max;
                if range.wants_rebuild() || (ranges > 0 && !fits) {
                    break;
                }
                (size, ranges) = (with, ranges + 1);
                log.sent += 1;
            }
        }
        self.bounds.sends(size, now);
        self.transaction(now)
    }

    /// The transaction that exports the first `sent` ranges of each log.
    fn transaction(&mut self, now: Now) -> Result<Transaction, Halt> {
        let logs = || self.logs.values();
        let times = || logs().filter_map(|log| log.times_after(log.sent));
        let known = self.known.as_ref().expect("nothing is built before the checkpoint is known");
        // Never a number that was used, also where the sink has lost it.
        let stored = known.as_ref().map_or(0, |checkpoint| checkpoint.txn_seq);
        let txn_seq = stored.max(self.start.mirror.txn_seq()) + 1;
        // Stopped: every open log's last cut is in, and nothing stays behind.
        let ends = |log: &Log| log.sent == log.queue.len() && (!log.start.open || log.has_last_cut());
        let head = Head {
            edge_id: &self.start.edge_id,
            txn_seq,
            watermark_ms: times().map(|times| times.watermark_ms).min().unwrap_or(0),
            horizon_ms: times().map(|times| times.horizon_ms).min().unwrap_or(0),
            stopped: logs().all(ends),
        };
        let parts: Vec<Part<'_>> = logs()
            .flat_map(|log| log.queue.iter().take(log.sent).map(|range| (log.id(), range)))
            .map(|(log, range)| Part {
                log,
                name: self.names.of(&log),
                from_lsn: range.from_lsn,
                to_lsn: range.to.lsn,
                clicks: range.clicks(),
                clicks_total: range.to_clicks,
                table: range.table(),
            })
            .collect();
        let checkpoint = Checkpoint {
            format_version: FORMAT_VERSION,
            edge_id: self.start.edge_id.clone(),
            txn_seq,
            logs: logs().map(|log| log.position_after(log.sent)).collect(),
            nonce: self.start.nonce.to_vec(),
            data_dir_uuid: self.start.data_dir.to_vec(),
            written_ms: now.wall_ms,
        };
        let transaction = build::transaction(&head, &parts, checkpoint, &mut self.tokens)?;
        self.sent = Some(Sent { checkpoint: transaction.checkpoint.clone(), stopped: transaction.end.stopped });
        Ok(transaction)
    }
}

fn cleared(mut table: CutTable) -> CutTable {
    table.clear();
    table
}
