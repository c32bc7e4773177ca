//! `tollgate audit`: recounts the log of a stopped data directory and compares with what was exported. The laws of the ledger:
//!
//! - by ad, pane and class: clicks in the log up to the checkpoint = clicks in the store. Where the log no longer holds
//!   everything (segments were freed, a loss was accepted), this holds for panes from the horizon on, because nothing that is
//!   gone is newer; of older panes the log holds at most what the store does;
//! - in all: the store's clicks = the checkpoint's total, less what an accepted loss took away;
//! - the log's own total at the checkpoint = the checkpoint's total = the last end record's.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde::Serialize;
use tollgate_wire::LogPosition;

use super::exported::Exported;
use super::halted;
use super::wal::{CommandError, logs_of};
use crate::click::EventTime;
use crate::cut::{LogId, Position};
use crate::exit::Exit;
use crate::export::positions;
use crate::units::utc;
use crate::wal::record::{Record, UUID_TEXT_BYTES};
use crate::wal::recover::{Progress, Walked, walk_log};
use crate::wal::replay::{ReplayedFrame, hex, totals_with};
use crate::wal::segments::{DataDir, LogDir};

/// Ad, start of the pane, code of the class.
type Key = (String, i64, u32);

/// Clicks of one key: in the logs up to the checkpoint, and in the store.
#[derive(Clone, Copy, Debug, Default)]
struct Clicks {
    log: u64,
    store: u64,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    logs: Vec<LogReport>,
    /// Where the counts are in Kafka: its cluster. They are not read here; the log is compared with what the directory remembers.
    counts_in_kafka: Option<String>,
    /// Clicks that the logs still hold up to the checkpoint, and those that the store counts.
    clicks_in_log: u64,
    clicks_in_store: u64,
    /// Clicks up to the checkpoint since the logs' creation, and how many of them an accepted loss may have taken away.
    clicks_exported: u64,
    clicks_lost_at_most: u64,
    /// Clicks that are durable and not yet exported: the next start exports them.
    clicks_behind: u64,
    /// Panes from here on are compared click by click; none: all of them.
    compared_from_ms: Option<i64>,
    keys: usize,
    differences: Vec<Difference>,
    contradictions: Vec<String>,
}

#[derive(Debug, Serialize)]
struct LogReport {
    log_id: String,
    /// The log still holds the records after this LSN.
    base_lsn: u64,
    exported_lsn: u64,
    end_lsn: u64,
    clicks_total: u64,
}

/// A key whose counts cannot both be right.
#[derive(Debug, Serialize)]
struct Difference {
    ad_id: String,
    pane_start_ms: i64,
    class: u32,
    log: u64,
    store: u64,
}

pub fn run(dir: &Path, json: bool, out: &mut dyn Write) -> Result<Exit, CommandError> {
    let logs = logs_of(dir)?;
    let _lock = DataDir::open(dir)?;
    let exported = Exported::read(dir)?;
    let mut audit = Audit::default();
    for log in &logs {
        audit.log(dir, log, &exported)?;
    }
    audit.store(&exported)?;
    audit.report.counts_in_kafka = exported.kafka.as_ref().map(|place| place.cluster.clone());
    if exported.kafka.is_none() {
        audit.end_record(&exported);
    }
    audit.missing_logs(&exported, &logs);
    let report = audit.close();
    let found = !report.differences.is_empty() || !report.contradictions.is_empty();
    if json {
        writeln!(out, "{:#}", serde_json::json!({ "same": !found, "audit": report }))?;
    } else {
        print(&report, out)?;
    }
    Ok(if found { Exit::Difference } else { Exit::Clean })
}

#[derive(Default)]
struct Audit {
    report: Report,
    counts: BTreeMap<Key, Clicks>,
}

/// What one log comes to up to the checkpoint's position.
struct Recount {
    clicks: u64,
    /// The log's clicks since its creation up to that position, where a frame says so.
    total: Option<u64>,
}

impl Audit {
    fn log(&mut self, dir: &Path, log: &LogDir, exported: &Exported) -> Result<(), CommandError> {
        let positions = exported.checkpoint.as_ref().map_or(Vec::new(), positions);
        let position = positions.iter().find(|position| position.log_id == log.log_id);
        let listed = listed(exported, &log.log_id);
        let (exported_lsn, exported_clicks) = listed.map_or((0, 0), |listed| (listed.lsn, listed.clicks_total));
        let (walked, recount) = self.recount(log, position).map_err(|error| match error {
            CommandError::Log(error) => halted(error, dir),
            other => other,
        })?;
        let id = hex(&log.log_id);
        if let Some(total) = recount.total.filter(|total| *total != exported_clicks) {
            self.contradiction(format!(
                "log {id} counts {total} clicks up to LSN {exported_lsn}, the checkpoint says {exported_clicks}"
            ));
        }
        let lost = walked.repairs.iter().filter(|repair| repair.audit.kind == "accept-loss");
        let lost: u64 = lost.map(|repair| repair.audit.lost_clicks.unwrap_or(repair.audit.lost_records)).sum();
        let whole = walked.base_lsn == 0 && walked.repairs.is_empty();
        if whole && recount.clicks != exported_clicks {
            self.contradiction(format!(
                "log {id} holds {} clicks up to LSN {exported_lsn}, the checkpoint says {exported_clicks}",
                recount.clicks
            ));
        }
        if walked.base_lsn > exported_lsn {
            self.contradiction(format!(
                "log {id} begins after LSN {}, and only records up to LSN {exported_lsn} were exported",
                walked.base_lsn
            ));
        }
        let report = &mut self.report;
        if !whole {
            report.compared_from_ms = report.compared_from_ms.max(Some(walked.replay.horizon_ms));
        }
        report.clicks_in_log += recount.clicks;
        report.clicks_exported += exported_clicks;
        report.clicks_lost_at_most += lost;
        report.clicks_behind += walked.replay.totals.clicks.saturating_sub(exported_clicks);
        report.logs.push(LogReport {
            log_id: id,
            base_lsn: walked.base_lsn,
            exported_lsn,
            end_lsn: walked.replay.lsn,
            clicks_total: walked.replay.totals.clicks,
        });
        Ok(())
    }

    /// Counts a log's clicks up to the position, by key.
    fn recount(&mut self, log: &LogDir, position: Option<&Position>) -> Result<(Walked, Recount), CommandError> {
        let to_lsn = position.map_or(0, |position| position.lsn);
        let mut recount = Recount { clicks: 0, total: None };
        let mut each = |frame: &ReplayedFrame<'_>| {
            let header = &frame.header;
            let own = totals_with(crate::cut::Totals::default(), &frame.records).clicks;
            if header.first_lsn == to_lsn + 1 && recount.total.is_none() {
                recount.total = Some(header.totals.clicks.saturating_sub(own));
            }
            if header.last_lsn() == to_lsn {
                recount.total = Some(header.totals.clicks);
            }
            for (lsn, record) in (header.first_lsn..).zip(&frame.records) {
                let Record::Click(click) = record else { continue };
                if lsn <= to_lsn {
                    let mut uuid = [0; UUID_TEXT_BYTES];
                    let (fields, pane) = (click.to_click(&mut uuid), EventTime(click.event_ms()).pane());
                    let ad = String::from_utf8_lossy(fields.ad_id).into_owned();
                    self.counts.entry((ad, pane.start_ms(), fields.class as u32)).or_default().log += 1;
                    recount.clicks += 1;
                }
            }
        };
        let mut progress = Progress::default();
        let walked = walk_log(log, position, &mut progress, &mut |_| {}, &mut |_, _, frame| each(frame))?;
        Ok((walked, recount))
    }

    fn store(&mut self, exported: &Exported) -> Result<(), CommandError> {
        let Some((path, store)) = &exported.store else { return Ok(()) };
        let failed = |error| CommandError::Store(path.clone(), error);
        let visited = store.snapshot().map_err(failed)?.visit_counts(|count| {
            let key = (count.ad_id.to_owned(), count.pane_start_ms, count.class);
            self.counts.entry(key).or_default().store += count.clicks;
            self.report.clicks_in_store += count.clicks;
        });
        visited.map_err(failed)
    }

    /// The last transaction's end record and its checkpoint were committed together.
    fn end_record(&mut self, exported: &Exported) {
        let (end, checkpoint) = match (&exported.end, &exported.checkpoint) {
            (Some(end), Some(checkpoint)) => (end, checkpoint),
            (None, None) => return,
            (Some(_), None) | (None, Some(_)) => {
                return self
                    .contradiction("the store holds a checkpoint or an end record without the other".to_owned());
            }
        };
        if end.txn_seq != checkpoint.txn_seq {
            self.contradiction(format!(
                "the end record is of transaction {}, the checkpoint of {}",
                end.txn_seq, checkpoint.txn_seq
            ));
        }
        for listed in &checkpoint.logs {
            let range = end.ranges.iter().rfind(|range| range.log_uuid == listed.log_uuid);
            if let Some(range) =
                range.filter(|range| (range.to_lsn, range.clicks_total) != (listed.lsn, listed.clicks_total))
            {
                self.contradiction(format!(
                    "of log {} the end record says {} clicks up to LSN {}, the checkpoint {} up to {}",
                    hex(&listed.log_uuid),
                    range.clicks_total,
                    range.to_lsn,
                    listed.clicks_total,
                    listed.lsn
                ));
            }
        }
    }

    fn missing_logs(&mut self, exported: &Exported, logs: &[LogDir]) {
        for listed in exported.checkpoint.iter().flat_map(|checkpoint| &checkpoint.logs) {
            if !logs.iter().any(|log| log.log_id == *listed.log_uuid) {
                self.contradiction(format!("the checkpoint lists log {}, which is missing", hex(&listed.log_uuid)));
            }
        }
    }

    fn contradiction(&mut self, text: String) {
        self.report.contradictions.push(text);
    }

    /// Compares key by key and in all.
    fn close(mut self) -> Report {
        self.report.keys = self.counts.len();
        if self.report.counts_in_kafka.is_some() {
            return self.report;
        }
        let from_ms = self.report.compared_from_ms.unwrap_or(i64::MIN);
        for ((ad_id, pane_start_ms, class), Clicks { log, store }) in std::mem::take(&mut self.counts) {
            let same = if pane_start_ms >= from_ms { log == store } else { log <= store };
            if !same {
                self.report.differences.push(Difference { ad_id, pane_start_ms, class, log, store });
            }
        }
        let (store, most) = (self.report.clicks_in_store, self.report.clicks_exported);
        let least = most.saturating_sub(self.report.clicks_lost_at_most);
        if !(least..=most).contains(&store) {
            let lost = self.report.clicks_lost_at_most;
            self.contradiction(format!(
                "the store counts {store} clicks, the checkpoint {most}, of which at most {lost} were given up as lost"
            ));
        }
        self.report
    }
}

fn listed<'a>(exported: &'a Exported, log_id: &LogId) -> Option<&'a LogPosition> {
    exported.checkpoint.as_ref()?.logs.iter().find(|listed| *listed.log_uuid == *log_id)
}

fn print(report: &Report, out: &mut dyn Write) -> std::io::Result<()> {
    for log in &report.logs {
        writeln!(
            out,
            "log {}: records after LSN {} up to {}, exported up to {}, {} clicks since its creation",
            log.log_id, log.base_lsn, log.end_lsn, log.exported_lsn, log.clicks_total
        )?;
    }
    if let Some(cluster) = &report.counts_in_kafka {
        let (exported, behind) = (report.clicks_exported, report.clicks_behind);
        writeln!(
            out,
            "the counts are in the Kafka cluster {cluster} and were not read: {exported} clicks of these logs should stand there, {behind} \
             are not known to be exported, {} were recounted over {} keys",
            report.clicks_in_log, report.keys
        )?;
        return print_verdict(report, out);
    }
    writeln!(
        out,
        "exported {}, in the store {}, behind the checkpoint {}, recounted {} over {} keys",
        report.clicks_exported, report.clicks_in_store, report.clicks_behind, report.clicks_in_log, report.keys
    )?;
    if let Some(from_ms) = report.compared_from_ms {
        writeln!(
            out,
            "the log no longer holds everything: of panes before {} it holds at most what the store does",
            utc(from_ms)
        )?;
    }
    for found in &report.differences {
        let Difference { ad_id, pane_start_ms, class, log, store } = found;
        let pane = utc(*pane_start_ms);
        writeln!(out, "DIFFERENT: ad {ad_id:?}, pane {pane}, class {class}: log {log}, store {store}")?;
    }
    print_verdict(report, out)
}

fn print_verdict(report: &Report, out: &mut dyn Write) -> std::io::Result<()> {
    for text in &report.contradictions {
        writeln!(out, "CONTRADICTION: {text}")?;
    }
    let same = report.differences.is_empty() && report.contradictions.is_empty();
    if !same {
        return writeln!(out, "NOT the same: keep the directory as it is");
    }
    match (report.clicks_exported, report.clicks_behind) {
        (_, 0) => writeln!(out, "the same"),
        (0, behind) => writeln!(
            out,
            "nothing was compared: {behind} clicks of the log are not known to be exported, and no others are in it; the next start exports \
             them, and with --until-exported takes no others"
        ),
        (_, behind) => writeln!(
            out,
            "the same; {behind} clicks of the log are not known to be exported, and were not compared: the next start exports them"
        ),
    }
}
