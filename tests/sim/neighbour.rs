//! Drives. Another edge in the same partitions of Kafka: its transactions stay open while ours are committed, and now and then it dies in
//! one. What it counts is known here, so that a reader of the topic can be held to it.

use std::collections::BTreeMap;

use tollgate_wire::{Checkpoint, EndRecord, FORMAT_VERSION, LogPosition, LogRange, Partial, Transaction, crc_of};

use crate::broker::{PARTIALS, Record, Writer};
use crate::kafka::records;
use crate::world::{Happening, MS, SECOND, World};

const NEIGHBOUR: Writer = 1;
pub const NEIGHBOUR_ID: &str = "neighbour";
/// So long its clicks may still come, as it says.
const HORIZON_MS: i64 = 2_500;

#[derive(Default)]
pub struct Neighbour {
    /// Of its producer, where it has one.
    epoch: Option<u32>,
    /// Records of its transaction that are not sent yet, and the transaction.
    open: Option<(Vec<(usize, Record)>, Transaction)>,
    /// Its last committed transaction, and the clicks of all.
    txn_seq: u64,
    clicks: u64,
    /// What it had committed, by ad and pane.
    pub rows: BTreeMap<(String, i64), u64>,
    pub stopped: bool,
}

impl World {
    pub fn neighbour_acts(&mut self) {
        if self.neighbour.stopped {
            return;
        }
        let next_ns = if self.rests() { self.resting_until_ns - self.now_ns } else { self.neighbour_turn() };
        self.after(next_ns, Happening::NeighbourActs);
    }

    /// Writes on in topics that were emptied, until there is something at this offset again. False: it had ended.
    pub fn neighbour_writes_beyond(&mut self, offset: i64) -> bool {
        while !self.neighbour.stopped && self.broker.ends(PARTIALS).1 <= offset {
            self.now_ns += self.neighbour_turn();
            self.broker_ticks();
        }
        self.broker.ends(PARTIALS).1 > offset
    }

    /// One thing after the other; how long it then waits.
    fn neighbour_turn(&mut self) -> u64 {
        let now_ns = self.now_ns;
        let Some(epoch) = self.neighbour.epoch else {
            let delays_ns = self.marker_delays();
            self.neighbour.epoch = self.broker.init(NEIGHBOUR, now_ns, delays_ns).ok();
            self.expect_markers(delays_ns);
            return 50 * MS;
        };
        let Some((mut left, transaction)) = self.neighbour.open.take() else {
            let transaction = self.neighbours_transaction();
            self.neighbour.open = Some((records(&transaction).into(), transaction));
            return self.rng.skewed(800 * MS);
        };
        // The end record and the checkpoint wait for a while.
        let now = if left.len() > 2 { left.len() - 2 } else { left.len() };
        for (partition, record) in left.drain(..now) {
            if self.broker.produce(NEIGHBOUR, epoch, now_ns, partition, record).is_err() {
                self.neighbour.epoch = None;
                return 100 * MS;
            }
        }
        self.after(15 * SECOND, Happening::BrokerTicks);
        if !self.draining && self.rng.percent(2) {
            self.trace.cover("another edge dies in a transaction");
            self.neighbour.epoch = None;
            return self.rng.skewed(20 * SECOND);
        }
        if !left.is_empty() {
            self.neighbour.open = Some((left, transaction));
            return self.rng.skewed(1_500 * MS);
        }
        self.commit_neighbours(epoch, &transaction);
        self.rng.skewed(1_000 * MS)
    }

    fn commit_neighbours(&mut self, epoch: u32, transaction: &Transaction) {
        let (now_ns, delays_ns, commit) = (self.now_ns, self.marker_delays(), self.draining || self.rng.percent(90));
        let ended = self.broker.end(NEIGHBOUR, epoch, commit, now_ns, delays_ns);
        self.expect_markers(delays_ns);
        if ended.is_err() || !commit {
            self.neighbour.epoch = None;
            return;
        }
        let neighbour = &mut self.neighbour;
        neighbour.txn_seq = transaction.end.txn_seq;
        for partial in &transaction.partials {
            neighbour.clicks += partial.clicks;
            *neighbour.rows.entry((partial.ad_id.clone(), partial.pane_start_ms)).or_default() += partial.clicks;
        }
        neighbour.stopped = transaction.end.stopped;
    }

    fn neighbours_transaction(&mut self) -> Transaction {
        let (wall_ms, txn_seq, before) = (self.true_ms(), self.neighbour.txn_seq + 1, self.neighbour.clicks);
        let log_uuid = vec![77; 16];
        let partial = |world: &mut World, index| Partial {
            format_version: FORMAT_VERSION,
            edge_id: NEIGHBOUR_ID.to_owned(),
            log_uuid: log_uuid.clone(),
            txn_seq,
            index,
            pane_start_ms: (wall_ms - world.rng.below(HORIZON_MS as u64) as i64).div_euclid(10_000) * 10_000,
            ad_id: format!("of_another_{}", world.rng.below(5)),
            rules: 1,
            clicks: world.rng.between(1, 9),
            watermark_ms: wall_ms,
            ..Partial::default()
        };
        let count = self.rng.below(4) as u32;
        let partials: Vec<Partial> = (0..count).map(|index| partial(self, index)).collect();
        let clicks = partials.iter().map(|partial| partial.clicks).sum();
        let range = LogRange {
            log_uuid: log_uuid.clone(),
            from_lsn: before,
            to_lsn: before + clicks,
            clicks,
            clicks_total: before + clicks,
        };
        let end = EndRecord {
            format_version: FORMAT_VERSION,
            edge_id: NEIGHBOUR_ID.to_owned(),
            txn_seq,
            partials: count,
            crc: crc_of(&partials),
            ranges: vec![range],
            watermark_ms: wall_ms - HORIZON_MS / 5,
            // Of the time before it sends: what it sends later is then never below it.
            horizon_ms: wall_ms - 2 * HORIZON_MS,
            stopped: self.draining,
        };
        let checkpoint = Checkpoint {
            format_version: FORMAT_VERSION,
            edge_id: NEIGHBOUR_ID.to_owned(),
            txn_seq,
            logs: vec![LogPosition { log_uuid, lsn: before + clicks, chain: 1, clicks_total: before + clicks }],
            nonce: vec![7; 16],
            data_dir_uuid: vec![8; 16],
            written_ms: wall_ms,
        };
        Transaction { partials, end, checkpoint }
    }
}
