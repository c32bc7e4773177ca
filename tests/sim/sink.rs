//! Pure. What is exported, transaction by transaction as each becomes final: the embedded sink's store, and, of a sink in Kafka, what a
//! reader of everything would know. It checks the protocol as such a reader could.

use std::collections::BTreeMap;

use tollgate_wire::{Checkpoint, Transaction, decode_checkpoint, decode_end_record, decode_partial};

use crate::broker::{Kind, Record};
use crate::oracle::Rows;

#[derive(Default)]
pub struct Sink {
    pub checkpoint: Option<Checkpoint>,
    pub rows: Rows,
    /// Of these, by campaign.
    pub campaigns: BTreeMap<String, u64>,
    pub watermark_ms: i64,
    pub clicks: u64,
    pub commits: u64,
    /// A transaction that was sent and of which nobody knows whether it lands; a fence settles it.
    pub in_doubt: Option<Box<Transaction>>,
    /// Up to where each log was exported, and its clicks.
    pub logs: BTreeMap<Vec<u8>, (u64, u64)>,
    pub horizon_ms: i64,
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
            *self.campaigns.entry(partial.campaign_id.clone()).or_default() += partial.clicks;
            *self.rows.entry(key).or_default() += partial.clicks;
        }
        (self.horizon_ms, self.stopped) = (self.horizon_ms.max(end.horizon_ms), end.stopped);
        self.watermark_ms = self.watermark_ms.max(end.watermark_ms);
        self.clicks += sum;
        self.commits += 1;
        self.checkpoint = Some(checkpoint.clone());
        Ok(())
    }

    /// What a transaction of Kafka holds becomes final: it must be a whole one.
    pub fn land_records(&mut self, records: &[Record]) -> Result<(), String> {
        let of =
            |kind: Kind| records.iter().filter(move |record| record.kind == kind).map(|record| &record.payload[..]);
        let whole = |what: &str| format!("a transaction was committed in part, of {} records: {what}", records.len());
        let partials =
            of(Kind::Partial).map(decode_partial).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        let (Some(end), Some(checkpoint)) = (of(Kind::End).next(), of(Kind::Checkpoint).next()) else {
            return Err(whole("there is no end record, or no checkpoint"));
        };
        if of(Kind::End).count() > 1 || of(Kind::Checkpoint).count() > 1 {
            return Err(whole("there are two of a kind"));
        }
        let end = decode_end_record(end).map_err(|error| error.to_string())?;
        let checkpoint = decode_checkpoint(checkpoint).map_err(|error| error.to_string())?;
        self.land(&Transaction { partials, end, checkpoint })
    }

    /// Fences every earlier writer: what is in doubt has landed, or never will.
    pub fn fence(&mut self, lands: bool) -> Result<(), String> {
        match self.in_doubt.take() {
            Some(transaction) if lands => self.land(&transaction),
            Some(_) | None => Ok(()),
        }
    }
}
