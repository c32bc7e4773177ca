//! Drives. The exporter's thread of one incarnation: the product's protocol against the simulated sink, whose commits may be
//! done, not done, or not yet, without saying so. It stands where `export/thread.rs` stands in production.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;

use tollgate::cut::{Cut, LogId, Position};
use tollgate::event::{Event, Exported};
use tollgate::export::rebuild::Rebuilder;
use tollgate::export::{Exporter, Found, Look, Mirror, Outcome, Rebuilt, SinkError, Step, Told};
use tollgate::wal::reader::LogReader;
use tollgate::wal::segments::LogDir;
use tollgate_wire::{Checkpoint, Transaction};

use crate::faults::{Ambush, Refused};
use crate::kafka::{Doing, KafkaSink};
use crate::server::In;
use crate::world::{Happening, MS, World};

pub struct Exporting {
    exporter: Exporter,
    rebuilder: Rebuilder,
    readers: BTreeMap<LogId, LogReader>,
    /// The checkpoint's positions that recovery met in the logs.
    confirmed: Vec<Position>,
    pending: Option<Pending>,
    /// Where the sink is in Kafka.
    pub kafka: KafkaSink,
    /// Of each core.
    ways: Vec<Way>,
    token: u64,
}

/// Between one core and the exporter.
#[derive(Default)]
struct Way {
    /// Cuts on their way, those that have arrived first.
    cuts: VecDeque<Box<Cut>>,
    arrived: usize,
    /// What the core will be told.
    exported: VecDeque<Event<'static>>,
    last_exported_ns: u64,
}

/// What the thread is blocked in.
pub enum Pending {
    /// Of the embedded sink.
    Read {
        look: Look,
    },
    Commit(Box<Transaction>, Plan),
    /// Of the sink in Kafka.
    Asked(Doing),
    Rebuilt(Result<Rebuilt, String>),
    Remember(Box<Checkpoint>),
}

/// What will become of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    Done,
    /// And a second time, later; in Kafka alone.
    DoneTwice,
    DoneUntold,
    NotDone,
    /// It lands, if at all, before the next fence; in Kafka, whenever it arrives.
    Late,
}

impl Exporting {
    /// `logs`: of the cores, then the idle ones.
    pub fn new(exporter: Exporter, logs: &[LogDir], cores: u16, confirmed: Vec<Position>, secret: u64) -> Exporting {
        Exporting {
            exporter,
            rebuilder: Rebuilder::new(secret),
            readers: logs.iter().map(|log| (log.log_id, LogReader::new(log.clone()))).collect(),
            confirmed,
            pending: None,
            kafka: KafkaSink::default(),
            ways: (0..cores).map(|_| Way::default()).collect(),
            token: 0,
        }
    }

    pub fn what_is_left(&self) -> String {
        let cuts: usize = self.ways.iter().map(|way| way.cuts.len()).sum();
        let clicks = self.exporter.clicks_behind();
        format!("exporter: {cuts} cuts on their way, {clicks} clicks behind, blocked {}", self.pending.is_some())
    }

    fn look_up(&mut self, position: &Position) -> Result<Found, String> {
        if self.confirmed.contains(position) {
            return Ok(Found::Same);
        }
        let mut found = Found::Other;
        let reader = self.readers.get_mut(&position.log_id).expect("a position of a log that is there");
        let read = reader.read_frames(position.lsn - 1, position.lsn, &mut |frame| {
            if (frame.header.last_lsn(), frame.chain) == (position.lsn, position.chain) {
                found = Found::Same;
            }
            ControlFlow::Continue(())
        });
        read.map(|()| found).map_err(|error| error.to_string())
    }

    fn rebuild(&mut self, log: &LogId, from_lsn: u64, to_lsn: u64) -> Result<Rebuilt, String> {
        let (rebuilder, reader) = (&mut self.rebuilder, self.readers.get_mut(log).expect("a log that is there"));
        let read = reader.read_frames(from_lsn, to_lsn, &mut |frame| rebuilder.frame(frame));
        read.map_err(|error| error.to_string())?;
        self.rebuilder.finish().ok_or_else(|| "no frame lies in the range".to_owned())
    }
}

impl World {
    /// What the data directory remembers of its exports.
    pub fn mirror(&self) -> Mirror {
        if !self.options.remote {
            return Mirror::Unkept;
        }
        Mirror::Kept { checkpoint: self.disk.mirrored(), adopted: None }
    }

    pub fn exporting(&mut self) -> &mut Exporting {
        &mut self.server.as_mut().expect("only a live process exports").exporting
    }

    pub fn cut_leaves(&mut self, core: usize, cut: Box<Cut>) {
        let values = [core as u64, cut.from.lsn, cut.to.lsn, cut.totals.clicks, u64::from(cut.table.is_some())];
        self.note("cut", &values);
        self.exporting().ways[core].cuts.push_back(cut);
        let (life, delay_ns) = (self.lives, 50_000);
        self.after(delay_ns, Happening::CutArrives { life, core });
    }

    pub fn cut_arrives(&mut self, core: usize) {
        self.exporting().ways[core].arrived += 1;
        self.pump();
    }

    pub fn exporter_wakes(&mut self, token: u64) {
        if self.exporting().token == token {
            self.pump();
        }
    }

    /// Takes steps until the thread blocks or sleeps.
    pub fn pump(&mut self) {
        loop {
            let (now, life, remote) = (self.now(), self.lives, self.options.remote);
            let exporting = self.exporting();
            if exporting.pending.is_some() {
                return;
            }
            for way in &mut exporting.ways {
                for cut in way.cuts.drain(..std::mem::take(&mut way.arrived)) {
                    exporting.exporter.apply(Told::Cut(cut), now);
                }
            }
            match exporting.exporter.next(now) {
                Step::ReadCheckpoint { look } if remote => self.kafka_looks(look),
                Step::ReadCheckpoint { look } => self.block(Pending::Read { look }, 5 * MS),
                Step::LookUp(positions) => {
                    let found = positions.iter().map(|position| exporting.look_up(position)).collect();
                    exporting.exporter.apply(Told::LookedUp(found), now);
                }
                Step::Rebuild { log, from_lsn, to_lsn, from_clicks, room } => {
                    exporting.rebuilder.begin(from_lsn, from_clicks, room);
                    let rebuilt = exporting.rebuild(&log, from_lsn, to_lsn);
                    self.note("rebuild", &[from_lsn, to_lsn]);
                    self.trace.cover("range rebuilt");
                    self.block(Pending::Rebuilt(rebuilt), 20 * MS);
                }
                Step::Commit(transaction) if remote => self.kafka_commits(transaction),
                Step::Commit(transaction) => {
                    let plan = self.plan_of_commit();
                    self.block(Pending::Commit(transaction, plan), self.options.commit_ns_max);
                }
                Step::Remember(checkpoint) => self.block(Pending::Remember(checkpoint), 5 * MS),
                Step::Exported(log, exported) => self.exported_leaves(&log, exported),
                Step::Wait { until_ns } => {
                    exporting.token += 1;
                    let token = exporting.token;
                    if until_ns != u64::MAX {
                        self.at(until_ns, Happening::ExporterWakes { life, token });
                    }
                    return;
                }
                Step::Halt(halt) => return self.exporter_halts(&halt),
                Step::Stopped => return,
            }
        }
    }

    pub fn block(&mut self, pending: Pending, ns_max: u64) {
        let (life, delay_ns) = (self.lives, 10_000 + self.rng.skewed(ns_max));
        if matches!(pending, Pending::Commit(..) | Pending::Asked(Doing::Send { .. } | Doing::End { .. })) {
            self.spring(Ambush::Commit, delay_ns);
        }
        self.exporting().pending = Some(pending);
        self.after(delay_ns, Happening::Exporter { life });
    }

    pub fn plan_of_commit(&mut self) -> Plan {
        if self.draining || !(self.sink_away || self.rng.percent(self.options.doubt_percent)) {
            return if !self.draining && self.rng.percent(25) { Plan::DoneTwice } else { Plan::Done };
        }
        self.rng.pick(&[Plan::DoneUntold, Plan::NotDone, Plan::Late])
    }

    pub fn exporter_answered(&mut self) {
        let now = self.now();
        let Some(pending) = self.exporting().pending.take() else { return };
        let told = match pending {
            Pending::Asked(doing) => match self.kafka_goes_on(doing) {
                Some(told) => told,
                None => return,
            },
            Pending::Read { .. } if self.sink_away => {
                self.trace.cover("sink unreachable");
                Told::Checkpoint(Err(SinkError::Unreachable("away".to_owned())))
            }
            Pending::Read { look } => {
                if self.stops_at("before a checkpoint is read") {
                    return self.kill();
                }
                if look == Look::Fence {
                    self.settle_doubt();
                }
                if self.stops_at("after a checkpoint is read") {
                    return self.kill();
                }
                Told::Checkpoint(Ok(self.sink.checkpoint.clone()))
            }
            Pending::Rebuilt(rebuilt) => Told::Rebuilt(rebuilt),
            Pending::Commit(transaction, plan) => {
                if self.stops_at("before a commit has its effect") {
                    return self.kill();
                }
                let outcome = self.commit(transaction, plan);
                if self.stops_at("after a commit had its effect, untold") {
                    return self.kill();
                }
                Told::Committed(outcome)
            }
            Pending::Remember(checkpoint) => {
                if self.stopped_in_remembering(&checkpoint) {
                    return self.kill();
                }
                if self.refuses(Refused::Mirror) {
                    self.mirror_refused = true;
                    self.remembered_in_part(&checkpoint);
                    Told::Remembered(Err("the simulated disk refuses".to_owned()))
                } else {
                    self.disk.remember(&checkpoint);
                    Told::Remembered(Ok(()))
                }
            }
        };
        let unkept = matches!(told, Told::Remembered(Err(_)));
        self.exporting().exporter.apply(told, now);
        self.pump();
        assert!(!unkept || self.server.is_none(), "a mirror that cannot be kept, and the exporter goes on");
    }

    fn commit(&mut self, transaction: Box<Transaction>, plan: Plan) -> Outcome {
        let end = &transaction.end;
        self.note("commit", &[end.txn_seq, u64::from(end.partials), plan as u64]);
        assert!(self.sink.in_doubt.is_none(), "a transaction begins while an earlier one may still land: not fenced");
        match plan {
            Plan::Done | Plan::DoneTwice | Plan::DoneUntold => {
                let landed = self.sink.land(&transaction);
                self.held(landed);
                self.look_at_watermark();
            }
            Plan::NotDone => {}
            Plan::Late => self.sink.in_doubt = Some(transaction),
        }
        self.told_of(plan)
    }

    /// What the exporter hears of a commit.
    pub fn told_of(&mut self, plan: Plan) -> Outcome {
        self.trace.cover(match plan {
            Plan::Done | Plan::DoneTwice => return Outcome::Committed,
            Plan::DoneUntold => "commit done and untold",
            Plan::NotDone => "commit not done",
            Plan::Late => "commit in doubt",
        });
        Outcome::Unknown
    }

    /// No earlier writer's transaction can land any more.
    pub fn settle_doubt(&mut self) {
        let lands = self.rng.percent(50);
        let settled = self.sink.fence(lands);
        self.held(settled);
        self.look_at_watermark();
    }

    /// How far what is exported is complete, as it says itself. Under clocks that were wrong it may say too much.
    pub fn look_at_watermark(&mut self) {
        // Of a clone that lost, what it had answered is not owed.
        if self.options.clock_is_right() && !self.clones.used {
            self.trace.cover("an exported watermark is held to what was answered");
            let passed = self.oracle.passed_by(self.sink.watermark_ms, &self.sink.campaigns);
            self.held(passed);
        }
    }

    /// To the core that writes the log; of an idle one, to the first.
    fn exported_leaves(&mut self, log: &LogId, exported: Box<Exported>) {
        let (life, delay_ns, now_ns) = (self.lives, self.rng.skewed(MS), self.now_ns);
        let server = self.server.as_mut().expect("only a live process exports");
        let (core, event) = match server.cores.iter().position(|core| core.log.log_id == *log) {
            Some(core) => (core, Event::Exported(exported)),
            None => {
                let idle = server.idle.iter().position(|idle| idle.log_id == *log).expect("a log that is there");
                self.trace.cover("idle log exported");
                (0, Event::IdleExported { log: idle as u32, lsn: exported.lsn })
            }
        };
        let way = &mut server.exporting.ways[core];
        way.exported.push_back(event);
        way.last_exported_ns = way.last_exported_ns.max(now_ns + delay_ns);
        let at_ns = way.last_exported_ns;
        self.at(at_ns, Happening::ExportedArrives { life, core });
    }

    pub fn exported_arrives(&mut self, core: usize) {
        if let Some(event) = self.exporting().ways[core].exported.pop_front() {
            self.tell(core, In::Event(event));
        }
    }

    /// The process ends in the middle of a commit: whether that lands shows at the next start.
    pub fn exporter_dies(&mut self, exporting: &mut Exporting) {
        match exporting.pending.take() {
            Some(Pending::Asked(doing)) => self.kafka_dies(&doing, &exporting.kafka),
            Some(Pending::Commit(transaction, plan)) if plan != Plan::NotDone => {
                self.trace.cover("killed in a commit");
                self.sink.in_doubt = Some(transaction);
            }
            Some(Pending::Remember(checkpoint)) if self.options.remote => self.remembered_in_part(&checkpoint),
            Some(_) | None => {}
        }
    }

    /// The file is the old one or the new one.
    fn remembered_in_part(&mut self, checkpoint: &Checkpoint) {
        match self.rng.below(3) {
            0 => self.disk.remember(checkpoint),
            part => self.disk.remember_aside(checkpoint, 512 * part as usize),
        }
    }
}
