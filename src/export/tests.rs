//! The protocol against a tiny sink and a model of a log: whatever is lost, delayed or killed, the sink holds each click
//! of the log once.

use crate::click::{Agent, Class, Device, Pane};
use crate::config::EXPORT_CREDITS;
use crate::cut::{Cut, CutTable, LogId, Position, Totals};
use crate::event::Now;
use crate::exit::Exit;
use crate::export::bounds::Most;
use crate::export::{
    Adopted, Behind, Exporter, Found, Halt, LogStart, Look, Mirror, Outcome, Rebuilt, Room, SinkError, Start, Step,
    Told,
};
use crate::preagg::{Table, key::PartialKey};
use proptest::prelude::*;
use std::collections::BTreeMap;
use tollgate_wire::{Checkpoint, LogPosition, LogRange, Transaction};

#[cfg(test)]
mod halts;

/// Records that are no clicks.
const REFUSED: u64 = 3;
const DATA_DIR: [u8; 16] = [0xD1; 16];

#[derive(Clone)]
struct Frame {
    /// One ad each.
    clicks: Vec<u8>,
    /// As of its end.
    to: Position,
    totals: Totals,
    time_ms: i64,
}

/// A log: all of its frames are durable.
struct Log {
    id: LogId,
    frames: Vec<Frame>,
    /// So many frames were handed over in cuts, or found by recovery.
    cut: usize,
}

impl Log {
    fn end_of(&self, frames: usize) -> Frame {
        let start = Position { log_id: self.id, lsn: 0, chain: 0 };
        let start = Frame { clicks: vec![], to: start, totals: Totals::default(), time_ms: 0 };
        frames.checked_sub(1).map_or(start, |last| self.frames[last].clone())
    }

    /// A frame of these clicks; without any, of refused ones.
    fn append(&mut self, clicks: Vec<u8>, time_ms: i64) {
        let end = self.end_of(self.frames.len());
        let records = if clicks.is_empty() { REFUSED } else { clicks.len() as u64 };
        let to =
            Position { lsn: end.to.lsn + records, chain: end.to.chain.wrapping_mul(31) + time_ms as u64, ..end.to };
        let totals = Totals { clicks: end.totals.clicks + clicks.len() as u64, ..end.totals };
        self.frames.push(Frame { clicks, to, totals, time_ms });
    }

    fn table(&self, frames: std::ops::Range<usize>) -> CutTable {
        let mut table = Table::new(512, 512, 1);
        for ad in self.frames[frames].iter().flat_map(|frame| &frame.clicks) {
            table.merge(Pane(1), u32::from(*ad), &key(*ad), u64::from(*ad) + 1);
        }
        let spare = table.spare();
        table.swap(spare)
    }

    fn start(&self) -> LogStart {
        let end = self.end_of(self.frames.len());
        LogStart {
            end: end.to,
            totals: end.totals,
            horizon_ms: end.time_ms - 1_000,
            watermark_ms: end.time_ms,
            base_lsn: 0,
            open: true,
            behind: Behind::default(),
        }
    }
}

fn key(ad: u8) -> Vec<u8> {
    let ad_id = &format!("ad_{ad}");
    let (class, device, agent) = (Class::Valid, Device::Unknown, Agent::Unknown);
    let mut bytes = Vec::new();
    PartialKey { class, device, agent, rules: 1, region: "", ad_id, campaign_id: "", advertiser_id: "" }
        .encode(&mut bytes);
    bytes
}

/// Keeps what is committed, and at most one transaction of which nobody knows yet.
#[derive(Default)]
struct Sink {
    transactions: Vec<Transaction>,
    in_flight: Option<Transaction>,
}

impl Sink {
    fn checkpoint(&self) -> Option<Checkpoint> {
        self.transactions.last().map(|transaction| transaction.checkpoint.clone())
    }

    fn commit(&mut self, transaction: Transaction) {
        assert_eq!(transaction.check(), Ok(()));
        assert_eq!(transaction.end.txn_seq, self.transactions.len() as u64 + 1, "sequence numbers are dense");
        let mut ends = BTreeMap::new();
        for range in &transaction.end.ranges {
            let end = ends.insert(&range.log_uuid, range.to_lsn).unwrap_or(self.exported(&range.log_uuid));
            assert_eq!(range.from_lsn, end, "ranges follow each other without gap or overlap");
            assert!(range.clicks_total >= range.clicks);
        }
        self.transactions.push(transaction);
    }

    fn exported(&self, log: &[u8]) -> u64 {
        let checkpoint = self.checkpoint().unwrap_or_default();
        checkpoint.logs.iter().find(|listed| listed.log_uuid == log).map_or(0, |listed| listed.lsn)
    }

    fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for partial in self.transactions.iter().flat_map(|transaction| &transaction.partials) {
            *counts.entry(partial.ad_id.clone()).or_default() += partial.clicks;
        }
        counts
    }
}

/// What becomes of the next thing that is asked of the sink.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Good,
    /// It is done, but nobody hears of it.
    ReplyLost,
    /// It is not done.
    Lost,
    /// It is done later: at the latest when the writer is fenced.
    Late,
    /// It was never done when the writer is fenced.
    LateLost,
}

struct World {
    logs: Vec<Log>,
    sink: Sink,
    late_lands: bool,
    exporter: Exporter,
    mirror: Option<Checkpoint>,
    /// Looks at what should still be there.
    looks: u32,
    look_fate: Fate,
    nonces: Vec<[u8; 16]>,
    now: Now,
    /// Tables and cuts that cores handed over and did not get back.
    tables_out: i64,
    cuts_out: i64,
    /// Up to where each log's owner was told that it is exported.
    told: BTreeMap<LogId, u64>,
    stopped: bool,
}

impl World {
    fn new(logs: u8) -> World {
        let logs = (1..=logs).map(|log| Log { id: [log; 16], frames: vec![], cut: 0 }).collect();
        let now = Now { wall_ms: 1_000_000, mono_ns: 0 };
        let exporter = Exporter::new(start(&[], vec![[0; 16]]));
        let (sink, nonces) = (Sink::default(), vec![]);
        let (late_lands, mirror, tables_out, cuts_out, stopped) = (false, None, 0, 0, false);
        let mut world = World {
            logs,
            sink,
            late_lands,
            exporter,
            mirror,
            looks: 0,
            look_fate: Fate::Good,
            nonces,
            now,
            tables_out,
            cuts_out,
            told: BTreeMap::new(),
            stopped,
        };
        world.crash();
        world
    }

    /// A new incarnation that knows the log and nothing else.
    fn crash(&mut self) {
        self.nonces.push([self.nonces.len() as u8 + 1; 16]);
        self.logs.iter_mut().for_each(|log| log.cut = log.frames.len());
        let mirror = Mirror::Kept { checkpoint: self.mirror.clone(), adopted: None };
        self.exporter = Exporter::new(Start { mirror, ..start(&self.logs, self.nonces.clone()) });
        self.exporter.bounds.most = Most { room: Room { rows: 8, bytes: 1_000, clicks: 12 }, ranges: 4 };
        (self.tables_out, self.cuts_out, self.stopped) = (0, 0, false);
    }

    fn append(&mut self, log: usize, clicks: Vec<u8>) {
        self.now.wall_ms += 100;
        let log = log % self.logs.len();
        self.logs[log].append(clicks, self.now.wall_ms);
    }

    fn cut(&mut self, log: usize, with_table: bool, last: bool) {
        let at = log % self.logs.len();
        let log = &mut self.logs[at];
        let (from, frames) = (log.end_of(log.cut), log.cut..log.frames.len());
        let to = log.end_of(log.frames.len());
        let table = with_table.then(|| log.table(frames));
        log.cut = log.frames.len();
        self.tables_out += i64::from(with_table);
        self.cuts_out += 1;
        let (horizon_ms, watermark_ms) = (to.time_ms - 1_000, to.time_ms);
        let cut =
            Cut { from: from.to, to: to.to, totals: to.totals, horizon_ms, watermark_ms, oldest_ms: None, table, last };
        self.exporter.apply(Told::Cut(Box::new(cut)), self.now);
    }

    /// Does what the exporter asks for next, or what fate makes of it.
    fn step(&mut self, fate: Fate) -> Option<Halt> {
        let told = match self.exporter.next(self.now) {
            Step::ReadCheckpoint { look } => {
                self.looks += u32::from(look == Look::Again);
                Told::Checkpoint(self.read(look, if look == Look::Again { self.look_fate } else { fate }))
            }
            Step::LookUp(positions) => {
                let same = |position: &Position| {
                    let log = self.logs.iter().find(|log| log.id == position.log_id).unwrap();
                    log.frames.iter().any(|frame| frame.to == *position)
                };
                let found = positions.iter().map(|position| if same(position) { Found::Same } else { Found::Other });
                Told::LookedUp(Ok(found.collect()))
            }
            Step::Rebuild { log, from_lsn, to_lsn, room, .. } => {
                Told::Rebuilt(Ok(self.rebuild(log, from_lsn, to_lsn, room)))
            }
            Step::Commit(transaction) => Told::Committed(self.commit(*transaction, fate)),
            Step::Remember(checkpoint) => {
                self.mirror = Some(*checkpoint);
                Told::Remembered(Ok(()))
            }
            Step::Exported(log, exported) => {
                let remembered =
                    self.mirror.iter().flat_map(|mirror| &mirror.logs).find(|listed| *listed.log_uuid == log);
                let remembered = remembered.map_or(0, |listed| listed.lsn);
                assert!(exported.lsn <= remembered, "nothing is freed before it is remembered");
                assert!(exported.lsn <= self.sink.exported(&log), "only what is stored is exported");
                let came_back = exported.table.as_ref().is_some_and(|table| table.rows.is_empty());
                self.tables_out -= i64::from(came_back);
                self.cuts_out -= i64::from(exported.cuts);
                self.told.insert(log, exported.lsn);
                return None;
            }
            Step::Wait { until_ns } => {
                assert!(
                    until_ns > self.now.mono_ns && until_ns < u64::MAX,
                    "nobody would wake the exporter: {until_ns} at {:?}",
                    self.now
                );
                self.now.mono_ns = until_ns;
                return None;
            }
            Step::Halt(halt) => return Some(halt),
            Step::Stopped => {
                self.stopped = true;
                return None;
            }
        };
        self.exporter.apply(told, self.now);
        None
    }

    fn read(&mut self, look: Look, fate: Fate) -> Result<Option<Checkpoint>, SinkError> {
        if matches!(fate, Fate::Lost) {
            return Err(SinkError::Unreachable("lost".to_owned()));
        }
        if look == Look::Fence
            && let Some(transaction) = self.sink.in_flight.take()
            && self.late_lands
        {
            self.sink.commit(transaction);
        }
        if matches!(fate, Fate::ReplyLost) {
            return Err(SinkError::Unreachable("the reply is lost".to_owned()));
        }
        // The marker of the last commit may not be there yet.
        if look == Look::Peek && matches!(fate, Fate::Late) {
            return Ok(self.sink.transactions.iter().rev().nth(1).map(|transaction| transaction.checkpoint.clone()));
        }
        Ok(self.sink.checkpoint())
    }

    fn commit(&mut self, transaction: Transaction, fate: Fate) -> Outcome {
        let (ranges, clicks) = (&transaction.end.ranges, |range: &LogRange| range.clicks);
        let one_frame = |range: &LogRange| {
            let log = self.logs.iter().find(|log| *range.log_uuid == log.id).unwrap();
            let within = |frame: &&Frame| (range.from_lsn + 1..=range.to_lsn).contains(&frame.to.lsn);
            log.frames.iter().filter(within).filter(|frame| !frame.clicks.is_empty()).count() <= 1
        };
        let room = self.exporter.bounds.room();
        // The least that is reckoned with for a partial with one user.
        let bytes = 235 * transaction.partials.len();
        let fits = (ranges.iter().map(clicks).sum::<u64>() <= room.clicks && bytes <= room.bytes)
            || ranges.len() == 1 && one_frame(&ranges[0]);
        assert!(fits, "more than a transaction is to have: {ranges:?}, {bytes} bytes");
        match fate {
            Fate::Good => self.sink.commit(transaction),
            Fate::ReplyLost => self.sink.commit(transaction),
            Fate::Lost => {}
            Fate::Late => (self.sink.in_flight, self.late_lands) = (Some(transaction), true),
            Fate::LateLost => (self.sink.in_flight, self.late_lands) = (Some(transaction), false),
        }
        if matches!(fate, Fate::Good) { Outcome::Committed } else { Outcome::Unknown }
    }

    fn rebuild(&self, log: LogId, from_lsn: u64, to_lsn: u64, room: Room) -> Rebuilt {
        let log = self.logs.iter().find(|other| other.id == log).unwrap();
        let from = log.frames.iter().position(|frame| frame.to.lsn > from_lsn).unwrap();
        let mut until = from + 1;
        let fits = |until: usize| {
            let table = log.table(from..until + 1);
            log.frames[until].to.lsn <= to_lsn && room.holds(Room::of(&table, table.clicks()))
        };
        while until < log.frames.len() && fits(until) {
            until += 1;
        }
        let end = log.end_of(until);
        let (horizon_ms, watermark_ms) = (end.time_ms - 1_000, end.time_ms);
        Rebuilt {
            to: end.to,
            totals: end.totals,
            built_ms: end.time_ms,
            lost_clicks: 0,
            horizon_ms,
            watermark_ms,
            table: log.table(from..until),
        }
    }

    /// No more faults: everything is cut, exported, and the last cut ends the exporter.
    fn finish(&mut self) {
        (0..self.logs.len()).for_each(|log| self.cut(log, true, true));
        let mut steps = 0;
        while !self.stopped {
            assert_eq!(self.step(Fate::Good), None);
            steps += 1;
            assert!(steps < 100_000, "the exporter makes no progress");
        }
        let mut logged = BTreeMap::new();
        for ad in self.logs.iter().flat_map(|log| &log.frames).flat_map(|frame| &frame.clicks) {
            *logged.entry(format!("ad_{ad}")).or_default() += 1u64;
        }
        assert_eq!(self.sink.counts(), logged, "each click of the log once");
        assert_eq!((self.tables_out, self.cuts_out), (0, 0), "tables and credits come back once each");
        assert!(self.sink.transactions.last().unwrap().end.stopped);
    }
}

fn start(logs: &[Log], nonces: Vec<[u8; 16]>) -> Start {
    Start {
        edge_id: "edge".to_owned(),
        data_dir: DATA_DIR,
        nonce: *nonces.last().unwrap(),
        nonces,
        logs: logs.iter().map(Log::start).collect(),
        mirror: Mirror::Unkept,
    }
}

#[derive(Clone, Debug)]
enum Act {
    Append(usize, Vec<u8>),
    Cut(usize, bool),
    Step(Fate),
    Steps(u8),
    Crash,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let fate = prop_oneof![
        6 => Just(Fate::Good),
        1 => Just(Fate::ReplyLost),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Late),
        1 => Just(Fate::LateLost),
    ];
    let act = prop_oneof![
        4 => (0usize..2, proptest::collection::vec(0u8..30, 0..12)).prop_map(|(log, clicks)| Act::Append(log, clicks)),
        3 => (0usize..2, proptest::bool::weighted(0.7)).prop_map(|(log, table)| Act::Cut(log, table)),
        8 => fate.prop_map(Act::Step),
        1 => (0u8..20).prop_map(Act::Steps),
        1 => Just(Act::Crash),
    ];
    proptest::collection::vec(act, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_click_of_the_log_is_in_the_sink_once(logs in 1u8..3, acts in acts()) {
        let mut world = World::new(logs);
        for act in acts {
            match act {
                Act::Append(log, clicks) => world.append(log, clicks),
                Act::Cut(log, with_table) => world.cut(log, with_table, false),
                Act::Step(fate) => assert_eq!(world.step(fate), None),
                Act::Steps(count) => (0..count).for_each(|_| assert_eq!(world.step(Fate::Good), None)),
                Act::Crash => world.crash(),
            }
        }
        world.finish();
    }
}

/// A world in which ten clicks are exported and ten more wait.
fn exported_world() -> World {
    let mut world = World::new(1);
    world.append(0, vec![1; 10]);
    world.cut(0, true, false);
    while world.sink.exported(&[1; 16]) < 10 {
        assert_eq!(world.step(Fate::Good), None);
    }
    world.append(0, vec![2; 10]);
    world
}

/// Nothing of it comes any more, so nothing else would say so: its segments would stay for ever.
#[test]
fn of_a_log_that_no_core_writes_to_its_owner_learns_that_it_is_exported() {
    let mut world = World::new(2);
    world.append(0, vec![1; 10]);
    world.append(1, vec![2; 10]);
    world.finish();
    world.crash();
    let mirror = Mirror::Kept { checkpoint: world.mirror.clone(), adopted: None };
    let mut start = Start { mirror, ..start(&world.logs, world.nonces.clone()) };
    start.logs[1].open = false;
    world.exporter = Exporter::new(start);
    world.told.clear();
    world.append(0, vec![3; 5]);
    world.cut(0, true, false);
    while world.sink.exported(&[1; 16]) < 15 || world.told.len() < 2 {
        assert_eq!(world.step(Fate::Good), None);
        assert!(world.now.mono_ns < 60_000_000_000, "a minute, and its owner was told {:?}", world.told);
    }
    assert_eq!(world.told, BTreeMap::from([([1; 16], 15), ([2; 16], 10)]));
    let transactions = world.sink.transactions.len();
    world.told.clear();
    while world.sink.transactions.len() < transactions + 2 {
        assert_eq!(world.step(Fate::Good), None);
    }
    assert!(world.told.is_empty(), "once is enough: {:?}", world.told);
}

/// A log with a backlog does not keep the others waiting: their turn comes.
#[test]
fn the_logs_are_exported_in_turn() {
    for (busy, other) in [(0, 1), (1, 0)] {
        let mut world = World::new(2);
        for _ in 0..40 {
            world.append(busy, vec![1; 10]);
            world.cut(busy, true, false);
        }
        world.append(other, vec![2; 10]);
        world.cut(other, true, false);
        while world.sink.exported(&[other as u8 + 1; 16]) < 10 {
            assert_eq!(world.step(Fate::Good), None);
        }
        let exported = world.sink.exported(&[busy as u8 + 1; 16]);
        assert!(exported < 200, "of the 400 of log {busy}, {exported} came before the 10 of log {other}");
    }
}

#[test]
fn an_edge_with_nothing_to_export_still_says_so() {
    let mut world = exported_world();
    world.finish();
    world.crash();
    let before = world.sink.transactions.len();
    let from_ns = world.now.mono_ns;
    while world.sink.transactions.len() < before + 4 {
        assert_eq!(world.step(Fate::Good), None);
    }
    let spent_s = (world.now.mono_ns - from_ns) as f64 / 1e9;
    assert!((6.0..=12.0).contains(&spent_s), "four idle checkpoints in {spent_s} s");
}

/// The stored checkpoint names the nonce of an earlier start, which goes with its segments: a start without it would take a copy of the
/// directory for the one that exported.
#[test]
fn no_owner_is_told_to_free_anything_before_a_checkpoint_of_this_start_is_stored() {
    let mut world = World::new(1);
    world.append(0, vec![1; 10]);
    world.cut(0, true, false);
    while world.cuts_out > 0 {
        assert_eq!(world.step(Fate::Good), None);
    }
    world.crash();
    let before = world.sink.transactions.len();
    world.cut(0, true, false);
    while world.tables_out > 0 {
        assert_eq!(world.step(Fate::Good), None);
    }
    assert_eq!((world.sink.transactions.len(), world.told[&[1; 16]]), (before, 0));
    while world.cuts_out > 0 {
        assert_eq!(world.step(Fate::Good), None);
    }
    assert_eq!((world.sink.transactions.len(), world.told[&[1; 16]]), (before + 1, 10));
}

/// A core that only refuses what comes hands over cuts without clicks: they may not keep those with clicks from being handed over.
#[test]
fn cuts_without_clicks_are_exported_at_once_where_their_core_may_hand_over_no_more() {
    for (cuts, waits) in [(EXPORT_CREDITS - 1, true), (EXPORT_CREDITS, false)] {
        let mut world = World::new(1);
        world.append(0, vec![1; 10]);
        world.cut(0, true, false);
        while world.cuts_out > 0 {
            assert_eq!(world.step(Fate::Good), None);
        }
        let from_ns = world.now.mono_ns;
        for _ in 0..cuts {
            world.append(0, vec![]);
            world.cut(0, false, false);
        }
        while world.cuts_out > 0 {
            assert_eq!(world.step(Fate::Good), None);
        }
        assert_eq!(world.now.mono_ns > from_ns, waits, "{cuts} cuts");
    }
}

#[test]
fn catching_up_claims_only_the_watermark_of_what_is_caught_up() {
    let mut world = World::new(2);
    for frame in 0..40 {
        world.append(0, (0..8).map(|ad| frame % 4 * 8 + ad).collect());
        world.append(1, vec![1]);
    }
    world.crash();
    (0..400).for_each(|_| assert_eq!(world.step(Fate::Good), None));
    let mut caught_up = 0;
    for transaction in &world.sink.transactions {
        let exported = |log: &LogPosition| {
            world
                .logs
                .iter()
                .flat_map(|log| &log.frames)
                .find(|frame| frame.to.log_id == *log.log_uuid && frame.to.lsn == log.lsn)
                .map_or(0, |frame| frame.time_ms)
        };
        let least = transaction.checkpoint.logs.iter().map(exported).min().unwrap();
        assert!(transaction.end.watermark_ms <= least, "the watermark runs ahead of what is exported");
        caught_up += i32::from(transaction.end.watermark_ms > 0);
    }
    assert!(caught_up > 5, "watermarks move while catching up");
}
