//! Drives. The sink in Kafka of one incarnation: it stands where `export/kafka.rs` stands in production, does with the simulated broker
//! what the product's `Order` and `Following` say, and decides as little as that file does.

use std::collections::VecDeque;

use prost::Message as _;
use tollgate::exit::Exit;
use tollgate::export::kafka::following::{Following, Wait};
use tollgate::export::kafka::order::{Ask, Order};
use tollgate::export::{Halt, Look, Outcome, SinkError, Told};
use tollgate_wire::{Checkpoint, Transaction, decode_checkpoint, decode_partial};

use crate::broker::{CHECKPOINTS, Kind, PARTIALS, Record, Refused, Writer};
use crate::exporting::{Pending, Plan};
use crate::oracle::Rows;
use crate::world::{Happening, MS, SECOND, World};

/// The edge that is tested, and the writer that it is.
const EDGE: Writer = 0;
pub const EDGE_ID: &str = "edge";
const INIT_NS: u64 = 20 * SECOND;
const READ_NS: u64 = 40 * SECOND;
const SEND_NS: u64 = 15 * SECOND;
/// A client that is told to ask again.
const AGAIN_NS: u64 = 20 * MS;
/// Markers reach the partitions within this.
const MARKER_NS_MAX: u64 = 300 * MS;

/// Whose newest checkpoint a topic has lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewound {
    Ours {
        at_ns: u64,
    },
    /// What this edge exported last is still there.
    Others,
}

#[derive(Default)]
pub struct KafkaSink {
    order: Order,
    /// Over one connection; after a doubt it is made anew.
    following: Following,
    /// Of the producer that fenced last.
    epoch: u32,
    /// What is to be committed; else it is a look.
    transaction: Option<Box<Transaction>>,
}

/// What the brokers were asked, and what of it is done.
pub enum Doing {
    Fence { until_ns: u64 },
    Read { wait: Wait, end: i64, at: i64, newest: Option<(i64, Checkpoint)>, until_ns: u64 },
    Send { left: VecDeque<(usize, Record)>, until_ns: u64 },
    End { plan: Plan },
}

impl World {
    pub fn kafka_looks(&mut self, look: Look) {
        let kafka = &mut self.exporting().kafka;
        kafka.transaction = None;
        let ask = kafka.order.look(look);
        if look == Look::Peek {
            // Read by itself: nothing of it is followed.
            kafka.following = Following::default();
        }
        let told = self.ask(ask);
        assert!(told.is_none(), "a look asks the brokers");
    }

    pub fn kafka_commits(&mut self, transaction: Box<Transaction>) {
        let kafka = &mut self.exporting().kafka;
        kafka.transaction = Some(transaction);
        let ask = kafka.order.commit();
        let told = self.ask(ask);
        assert!(told.is_none(), "a commit asks the brokers");
    }

    /// Asks the brokers, or has the call's answer.
    fn ask(&mut self, ask: Ask) -> Option<Told> {
        let (now_ns, ns_max) = (self.now_ns, self.options.commit_ns_max);
        match ask {
            Ask::Fence { .. } => self.block(Pending::Asked(Doing::Fence { until_ns: now_ns + INIT_NS }), 5 * MS),
            Ask::Find(wait) => self.begin_reading(wait),
            Ask::Last => self.begin_reading(Wait::ForOpen),
            Ask::Send => {
                let left = records(self.exporting().kafka.transaction.as_ref().expect("a commit"));
                self.block(Pending::Asked(Doing::Send { left, until_ns: now_ns + SEND_NS }), ns_max);
            }
            Ask::Found(found) => return Some(Told::Checkpoint(Ok(found))),
            Ask::Rival => return Some(self.kafka_fails()),
        }
        None
    }

    fn begin_reading(&mut self, wait: Wait) {
        let ends = self.broker.ends(CHECKPOINTS);
        let offsets = self.exporting().kafka.following.begin(ends);
        let until_ns = self.now_ns + READ_NS;
        let doing = Doing::Read { wait, end: offsets.end, at: offsets.start, newest: None, until_ns };
        self.block(Pending::Asked(doing), 5 * MS);
    }

    /// Time has passed for what was asked. The call's answer, where it has one.
    pub fn kafka_goes_on(&mut self, doing: Doing) -> Option<Told> {
        if (self.sink_away || self.clones.are_cut_off()) && !matches!(doing, Doing::End { .. }) {
            self.trace.cover("sink unreachable");
            return Some(self.kafka_fails());
        }
        match doing {
            Doing::Fence { until_ns } => self.fence(until_ns),
            Doing::Read { wait, end, at, newest, until_ns } => self.read(wait, end, (at, newest), until_ns),
            Doing::Send { left, until_ns } => self.send_records(left, until_ns),
            Doing::End { plan } => self.end_transaction(plan),
        }
    }

    fn kafka_fails(&mut self) -> Told {
        let kafka = &mut self.exporting().kafka;
        kafka.following = Following::default();
        match kafka.transaction.take() {
            None => Told::Checkpoint(Err(SinkError::Unreachable("away".to_owned()))),
            Some(_) => Told::Committed(Outcome::Unknown),
        }
    }

    fn fence(&mut self, until_ns: u64) -> Option<Told> {
        if self.stops_at("before a producer fences") {
            self.kill();
            return None;
        }
        let (now_ns, delays_ns) = (self.now_ns, self.marker_delays());
        match self.broker.init(EDGE, now_ns, delays_ns) {
            Ok(epoch) => {
                self.note("fenced", &[u64::from(epoch)]);
                self.clones.fenced(epoch);
                if self.stops_at("after a producer fenced") {
                    self.kill();
                    return None;
                }
                let kafka = &mut self.exporting().kafka;
                kafka.epoch = epoch;
                let ask = kafka.order.fenced();
                self.ask(ask)
            }
            Err(Refused::Concurrent) if now_ns < until_ns => {
                self.trace.cover("a fence waits for what is being ended");
                self.expect_markers(delays_ns);
                self.block(Pending::Asked(Doing::Fence { until_ns }), AGAIN_NS);
                None
            }
            Err(_) => Some(self.kafka_fails()),
        }
    }

    fn read(
        &mut self,
        wait: Wait,
        end: i64,
        (at, newest): (i64, Option<(i64, Checkpoint)>),
        until_ns: u64,
    ) -> Option<Told> {
        if self.stops_at("before a checkpoint is read") {
            self.kill();
            return None;
        }
        if self.broker.ends(CHECKPOINTS).1 < end {
            self.trace.cover("a topic ends before what was to be read");
            return Some(self.kafka_fails());
        }
        let (records, stable) = self.broker.committed(CHECKPOINTS, at);
        let mut ours = records.iter().filter(|(offset, record)| *offset < end && record.key == EDGE_ID);
        let decoded = |record: &Record| decode_checkpoint(&record.payload).expect("as it was sent");
        let last = ours.next_back().map(|(offset, record)| (*offset, decoded(record)));
        let (at, newest) = (at.max(stable.min(end)), last.or(newest));
        if !wait.is_over(at, end, stable <= at) {
            self.trace.cover("a read waits for what is open");
            if self.now_ns >= until_ns {
                return Some(self.kafka_fails());
            }
            self.block(Pending::Asked(Doing::Read { wait, end, at, newest, until_ns }), AGAIN_NS);
            return None;
        }
        if at < end {
            self.trace.cover("a read stops before what is open");
        }
        if self.stops_at("after a checkpoint is read") {
            self.kill();
            return None;
        }
        let epoch = self.exporting().kafka.epoch;
        self.reads.insert(epoch, self.now_ns);
        let kafka = &mut self.exporting().kafka;
        if let Some(offsets) = kafka.following.read(at, newest) {
            let doing = Doing::Read { wait, end: offsets.end, at: offsets.start, newest: None, until_ns };
            self.block(Pending::Asked(doing), 5 * MS);
            return None;
        }
        let found = kafka.following.last().cloned();
        let ask = kafka.order.read(found);
        self.ask(ask)
    }

    fn send_records(&mut self, mut left: VecDeque<(usize, Record)>, until_ns: u64) -> Option<Told> {
        if self.stops_at("before records are sent") {
            self.kill();
            return None;
        }
        let (now_ns, epoch) = (self.now_ns, self.exporting().kafka.epoch);
        let most = 1 + self.rng.skewed(200);
        for _ in 0..most {
            let Some((partition, record)) = left.front() else { break };
            match self.broker.produce(EDGE, epoch, now_ns, *partition, record.clone()) {
                Ok(()) => drop(left.pop_front()),
                Err(Refused::Concurrent) if now_ns < until_ns => break,
                Err(refused) => {
                    self.note("not sent", &[refused as u64]);
                    return Some(self.kafka_fails());
                }
            }
        }
        self.after(SEND_NS, Happening::BrokerTicks);
        let doing =
            if left.is_empty() { Doing::End { plan: self.plan_of_commit() } } else { Doing::Send { left, until_ns } };
        // A process may be held up for longer than its transaction may be open, while faults come.
        let faults_ns = self.drains_at_ns.saturating_sub(now_ns);
        let ns_max = if !self.draining && self.rng.percent(1) { faults_ns.min(30 * SECOND) } else { AGAIN_NS };
        self.block(Pending::Asked(doing), ns_max);
        None
    }

    fn end_transaction(&mut self, plan: Plan) -> Option<Told> {
        if self.stops_at("before a commit has its effect") {
            self.kill();
            return None;
        }
        let kafka = &mut self.exporting().kafka;
        let (epoch, transaction) = (kafka.epoch, kafka.transaction.take().expect("a commit"));
        self.note("commit", &[transaction.end.txn_seq, u64::from(transaction.end.partials), plan as u64]);
        let late_ns = self.rng.skewed(4 * SECOND);
        let done = match plan {
            Plan::Done | Plan::DoneTwice | Plan::DoneUntold => self.end_txn(epoch),
            Plan::NotDone | Plan::Late => true,
        };
        if matches!(plan, Plan::Late | Plan::DoneTwice) {
            self.after(late_ns, Happening::EndTxnArrives { epoch });
        }
        if self.stops_at("after a commit had its effect, untold") {
            self.kill();
            return None;
        }
        let outcome = if done { self.told_of(plan) } else { Outcome::Unknown };
        let kafka = &mut self.exporting().kafka;
        match outcome {
            Outcome::Committed => kafka.order.committed(&transaction.checkpoint),
            Outcome::Unknown => kafka.following = Following::default(),
        }
        Some(Told::Committed(outcome))
    }

    /// A word to commit arrives at the coordinator. False: it is refused.
    fn end_txn(&mut self, epoch: u32) -> bool {
        let (now_ns, delays_ns) = (self.now_ns, self.marker_delays());
        match self.broker.end(EDGE, epoch, true, now_ns, delays_ns) {
            Ok(committed) => {
                self.expect_markers(delays_ns);
                if let Some(committed) = committed {
                    let landed = self.sink.land_records(&committed.records);
                    self.held(landed);
                    let over = self.exports_over_a_gap(epoch);
                    self.held(over);
                    self.look_at_watermark();
                    self.clone_exported(epoch);
                }
                true
            }
            Err(refused) => {
                self.trace.cover(match refused {
                    Refused::Fenced => "a late word to commit is fenced",
                    Refused::Concurrent | Refused::NoTransaction => "a word to commit finds no transaction",
                });
                false
            }
        }
    }

    pub fn end_txn_arrives(&mut self, epoch: u32) {
        self.note("a late word to commit", &[u64::from(epoch)]);
        if self.end_txn(epoch) {
            self.trace.cover("a late word to commit is heard");
        }
    }

    pub fn marker_delays(&mut self) -> [u64; 2] {
        [self.rng.skewed(MARKER_NS_MAX), self.rng.skewed(MARKER_NS_MAX)]
    }

    pub fn expect_markers(&mut self, delays_ns: [u64; 2]) {
        delays_ns.into_iter().for_each(|delay_ns| self.after(delay_ns, Happening::BrokerTicks));
    }

    pub fn broker_ticks(&mut self) {
        let now_ns = self.now_ns;
        while self.broker.tick(now_ns) {}
        if std::mem::take(&mut self.broker.timed_out[EDGE]) {
            self.trace.cover("our own transaction is ended by its time-out");
        }
    }

    /// The topic of checkpoints loses its last records, or both topics are made anew: at a moment when nothing is under way and what was
    /// exported is remembered, so that there is something to compare.
    pub fn rewind_topics(&mut self) {
        let known = self.sink.checkpoint.as_ref().map(|checkpoint| checkpoint.txn_seq);
        let remembered = self.disk.mirrored().map(|checkpoint| checkpoint.txn_seq);
        if self.draining || self.rewound.is_some() {
            return;
        }
        if !self.broker.is_quiet() || known.is_none() || known != remembered {
            return self.after(7 * MS, Happening::Rewind);
        }
        let newest = self.newest_checkpoint();
        if self.rng.percent(50) {
            self.note("topics emptied", &[]);
            self.trace.cover("topics emptied");
            [PARTIALS, CHECKPOINTS].into_iter().for_each(|partition| self.broker.rewind(partition, usize::MAX));
            if let Some(global) = &mut self.global {
                global.topic_emptied();
            }
        } else {
            let entries = self.rng.between(2, 40) as usize;
            self.note("topic rewound", &[entries as u64]);
            self.trace.cover("topic rewound");
            self.broker.rewind(CHECKPOINTS, entries);
        }
        self.rewound = Some(if self.newest_checkpoint() == newest {
            Rewound::Others
        } else {
            Rewound::Ours { at_ns: self.now_ns }
        });
    }

    /// Of this edge, as whoever reads finds it.
    fn newest_checkpoint(&self) -> Option<Record> {
        let (records, _) = self.broker.committed(CHECKPOINTS, 0);
        records.into_iter().map(|(_, record)| record).rfind(|record| record.key == EDGE_ID).cloned()
    }

    /// What a topic has lost is missed by whoever looks next; nobody exports on top of that but who had looked before.
    fn exports_over_a_gap(&mut self, epoch: u32) -> Result<(), String> {
        let read_ns = self.reads.get(&epoch).copied().unwrap_or(0);
        let seq = self.sink.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.txn_seq);
        match self.rewound {
            Some(Rewound::Ours { at_ns }) if read_ns >= at_ns => {
                Err(format!("transaction {seq} is exported, and the checkpoint before it is gone"))
            }
            Some(_) => {
                self.rewound = Some(Rewound::Others);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The exporter ends the process rather than count something twice or not at all: right where the topics are not what they were,
    /// another one exported as this edge, and nowhere else.
    pub fn exporter_halts(&mut self, halt: &Halt) {
        if let Halt::Mirror(_) = halt {
            assert!(self.mirror_refused && halt.exit() == Exit::Store, "{halt}");
            self.mirror_refused = false;
            self.trace.cover("halted by a mirror that cannot be kept");
            return self.kill();
        }
        if self.clone_halts(halt) {
            return;
        }
        let ours_is_gone = matches!(self.rewound, Some(Rewound::Ours { .. }));
        assert!(ours_is_gone && halt.exit() == Exit::Checkpoint, "the exporter halts: {halt}");
        self.note("halted", &[]);
        self.trace.cover("halted over a topic that was rewound");
        (self.halted, self.finished) = (true, true);
    }

    /// What a reader of the topic sums in the end is what was decided: no record is missing, none is there twice, or of a transaction that was
    /// aborted. The oracle holds what was decided against what clients know.
    pub fn topic_holds_what_was_decided(&mut self) {
        if !self.options.remote || self.trace.covered.contains_key("topics emptied") {
            return;
        }
        // Markers that are on their way arrive, and what nobody ends any more is aborted.
        while self.broker.tick(u64::MAX) {}
        let mut rows = Rows::new();
        for (_, record) in self.broker.committed(PARTIALS, 0).0 {
            if record.key == EDGE_ID && record.kind == Kind::Partial {
                let partial = decode_partial(&record.payload).expect("what was committed can be read");
                *rows.entry((partial.campaign_id, partial.ad_id, partial.pane_start_ms)).or_default() += partial.clicks;
            }
        }
        let differs = self.sink.rows.iter().find(|(key, clicks)| rows.get(key) != Some(clicks));
        assert!(
            differs.is_none() && rows.len() == self.sink.rows.len(),
            "the topic holds {} rows, {} were decided; the first that differs: {differs:?}",
            rows.len(),
            self.sink.rows.len()
        );
    }

    /// The process is gone; its word to commit may be on its way.
    pub fn kafka_dies(&mut self, doing: &Doing, kafka: &KafkaSink) {
        match doing {
            Doing::End { plan } if *plan != Plan::NotDone => {
                self.trace.cover("killed in a commit");
                let epoch = kafka.epoch;
                if self.rng.percent(60) {
                    let late_ns = self.rng.skewed(3 * SECOND);
                    self.after(late_ns, Happening::EndTxnArrives { epoch });
                }
            }
            Doing::Send { .. } => self.trace.cover("killed with a transaction open"),
            Doing::End { .. } | Doing::Fence { .. } | Doing::Read { .. } => {}
        }
    }
}

/// A transaction as it is sent: partials and their end record, then the checkpoint.
pub fn records(transaction: &Transaction) -> VecDeque<(usize, Record)> {
    let key = transaction.end.edge_id.clone();
    let record = |kind, payload| Record { kind, key: key.clone(), payload };
    let partials =
        transaction.partials.iter().map(|partial| (PARTIALS, record(Kind::Partial, partial.encode_to_vec())));
    let end = (PARTIALS, record(Kind::End, transaction.end.encode_to_vec()));
    let checkpoint = (CHECKPOINTS, record(Kind::Checkpoint, transaction.checkpoint.encode_to_vec()));
    partials.chain([end, checkpoint]).collect()
}
