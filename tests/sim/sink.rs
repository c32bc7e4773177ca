//! Pure. The store at the export protocol's end: transactional, in memory, with commits whose outcome is not told or that
//! land late. It checks the protocol as a reader of the exported records could.

use std::collections::BTreeMap;

use tollgate_wire::{Checkpoint, Transaction};

use crate::oracle::Rows;

#[derive(Default)]
pub struct Sink {
    pub checkpoint: Option<Checkpoint>,
    /// The one before: what a look may find while a commit settles.
    pub previous: Option<Checkpoint>,
    pub rows: Rows,
    pub clicks: u64,
    pub commits: u64,
    /// A transaction that was sent and of which nobody knows whether it lands; a fence settles it.
    pub in_doubt: Option<Box<Transaction>>,
    /// Up to where each log was exported, and its clicks.
    logs: BTreeMap<Vec<u8>, (u64, u64)>,
    horizon_ms: i64,
    pub stopped: bool,
}

impl Sink {
    pub fn new() -> Sink {
        Sink { horizon_ms: i64::MIN, ..Sink::default() }
    }

    /// Makes a transaction final, all of it.
    pub fn land(&mut self, transaction: &Transaction) -> Result<(), String> {
        let Transaction { partials, end, checkpoint } = transaction;
        let seq = self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.txn_seq) + 1;
        if end.txn_seq != seq || checkpoint.txn_seq != seq {
            return Err(format!("transaction {} (checkpoint {}) follows {}", end.txn_seq, checkpoint.txn_seq, seq - 1));
        }
        let sum: u64 = partials.iter().map(|partial| partial.clicks).sum();
        let ranges: u64 = end.ranges.iter().map(|range| range.clicks).sum();
        if sum != ranges || end.partials as usize != partials.len() {
            return Err(format!("transaction {seq} holds {sum} clicks, its ranges {ranges}"));
        }
        for range in &end.ranges {
            let at = self.logs.entry(range.log_uuid.clone()).or_default();
            if range.from_lsn != at.0 || range.clicks_total != at.1 + range.clicks {
                return Err(format!("transaction {seq} exports {range:?} after LSN {} and click {}", at.0, at.1));
            }
            *at = (range.to_lsn, range.clicks_total);
        }
        for log in &checkpoint.logs {
            let at = self.logs.get(&log.log_uuid).copied().unwrap_or_default();
            if (log.lsn, log.clicks_total) != at {
                return Err(format!("the checkpoint of transaction {seq} says {log:?}, its ranges say {at:?}"));
            }
        }
        for partial in partials {
            let key = (partial.campaign_id.clone(), partial.ad_id.clone(), partial.pane_start_ms);
            // A window is final once a horizon past its end is exported.
            if partial.pane_start_ms + 10_000 <= self.horizon_ms {
                return Err(format!("transaction {seq} counts {key:?} before the horizon {}", self.horizon_ms));
            }
            *self.rows.entry(key).or_default() += partial.clicks;
        }
        (self.horizon_ms, self.stopped) = (self.horizon_ms.max(end.horizon_ms), end.stopped);
        self.clicks += sum;
        self.commits += 1;
        self.previous = self.checkpoint.replace(checkpoint.clone());
        Ok(())
    }

    /// Fences every earlier writer: what is in doubt has landed, or never will.
    pub fn fence(&mut self, lands: bool) -> Result<(), String> {
        match self.in_doubt.take() {
            Some(transaction) if lands => self.land(&transaction),
            Some(_) | None => Ok(()),
        }
    }
}
