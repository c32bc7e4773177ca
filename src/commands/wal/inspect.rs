//! `tollgate wal inspect`: what each log holds, up to where it was exported, and how it ended.

use std::io::Write;
use std::path::Path;

use serde::Serialize;
use serde_json::json;

use super::{CommandError, logs_of};
use crate::commands::exported::exported_positions_or_why;
use crate::commands::named;
use crate::exit::Exit;
use crate::units::utc;
use crate::wal::frame::FLAG_STOPPED;
use crate::wal::record::Record;
use crate::wal::recover::{Progress, Tail, walk_log};
use crate::wal::replay::hex;
use crate::wal::segments::{LogDir, LogError, read_identity};

#[derive(Debug, Default, Serialize)]
struct LogView {
    core: u32,
    log_id: String,
    segments: Vec<SegmentView>,
    first_lsn: u64,
    last_lsn: u64,
    durable_chain: String,
    clicks_total: u64,
    dead_letters_total: u64,
    horizon_ms: Option<i64>,
    watermark_ms: Option<i64>,
    newest_frame_ms: Option<i64>,
    incarnation: u64,
    incarnations_named: usize,
    /// Up to where its counts have left; none where that is not known.
    exported_lsn: Option<u64>,
    /// Its last frame is a stop's.
    stopped: bool,
    /// And all of it was exported.
    stopped_cleanly: bool,
    tail: String,
    repairs: usize,
    damage: Option<String>,
}

#[derive(Debug, Default, Serialize)]
struct SegmentView {
    segment: u64,
    frames: u64,
    bytes: u64,
    first_lsn: u64,
    last_lsn: u64,
    clicks: u64,
    dead_letters: u64,
    starts: u64,
    oldest_event_ms: Option<i64>,
    newest_event_ms: Option<i64>,
    newest_received_ms: Option<i64>,
}

pub fn inspect(dir: &Path, json: bool, out: &mut dyn Write) -> Result<Exit, CommandError> {
    let logs = logs_of(dir)?;
    let identity = read_identity(dir)?;
    let mut logs = logs.iter().map(inspect_settled).collect::<Result<Vec<_>, _>>()?;
    let exported = exported_positions_or_why(dir);
    for log in logs.iter_mut().filter(|log| log.damage.is_none()) {
        log.exported_lsn = exported.as_ref().ok().map(|positions| {
            let own = positions.iter().find(|position| hex(&position.log_id) == log.log_id);
            own.map_or(0, |position| position.lsn)
        });
        log.stopped_cleanly = log.stopped && log.exported_lsn.is_some_and(|exported| exported >= log.last_lsn);
    }
    let not_known = exported.err().map(|error| error.to_string());
    let damaged = logs.iter().any(|log| log.damage.is_some());
    if json {
        writeln!(out, "{:#}", json!({ "identity": identity, "exported_not_known": not_known, "logs": logs }))?;
    } else {
        match identity {
            Some(identity) => writeln!(out, "edge {}, data directory {}", identity.edge_id, identity.uuid)?,
            None => writeln!(out, "no identity.toml: this directory was never served from")?,
        }
        if let Some(why) = &not_known {
            writeln!(out, "what was exported, and whether it has stopped, is not known: {why}")?;
        }
        logs.iter().try_for_each(|log| print_log(log, out))?;
        if damaged {
            writeln!(out, "\n`tollgate wal verify {}` shows what is lost and how to go on", named(dir))?;
        }
    }
    Ok(if damaged { Exit::LogDamaged } else { Exit::Clean })
}

/// Looks again where there is damage: a write caught half-way looks like it, and is gone then.
fn inspect_settled(log: &LogDir) -> Result<LogView, LogError> {
    let view = inspect_log(log)?;
    if view.damage.is_none() { Ok(view) } else { inspect_log(log) }
}

fn inspect_log(log: &LogDir) -> Result<LogView, LogError> {
    let mut view = LogView { core: log.core, log_id: hex(&log.log_id), ..LogView::default() };
    let mut segments: Vec<SegmentView> = Vec::new();
    let walked = walk_log(log, None, &mut Progress::default(), &mut |_| {}, &mut |segment, _, frame| {
        if segments.last().is_none_or(|view| view.segment != segment) {
            let first_lsn = frame.header.first_lsn;
            segments.push(SegmentView { segment, first_lsn, last_lsn: first_lsn - 1, ..SegmentView::default() });
        }
        let view = segments.last_mut().expect("just pushed");
        view.frames += 1;
        view.bytes += u64::from(frame.header.frame_bytes);
        view.last_lsn = frame.header.last_lsn();
        frame.records.iter().for_each(|record| view.count(record));
    });
    view.segments = segments;
    match walked {
        Ok(walked) => {
            let known = |ms: i64| (ms != i64::MIN).then_some(ms);
            let replay = &walked.replay;
            view.first_lsn = walked.base_lsn + 1;
            view.last_lsn = replay.lsn;
            view.durable_chain = format!("{:016x}", replay.chain);
            (view.clicks_total, view.dead_letters_total) = (replay.totals.clicks, replay.totals.dead_letters);
            (view.horizon_ms, view.watermark_ms) = (known(replay.horizon_ms), known(replay.watermark_ms));
            view.newest_frame_ms = known(replay.built_ms);
            (view.incarnation, view.incarnations_named) = (replay.incarnation, walked.nonces.len());
            view.stopped = replay.flags & FLAG_STOPPED != 0;
            view.repairs = walked.repairs.len();
            view.tail = match walked.tail {
                Tail::Clean => "clean".to_owned(),
                Tail::Torn { segment, offset } => format!("torn in segment {segment} at byte {offset}"),
            };
        }
        Err(LogError::Damaged(damage)) => view.damage = Some(damage.to_string()),
        Err(other) => return Err(other),
    }
    Ok(view)
}

impl SegmentView {
    fn count(&mut self, record: &Record<'_>) {
        match record {
            Record::Click(click) => {
                self.clicks += 1;
                let (event, received) = (Some(click.event_ms()), Some(click.received_ms()));
                self.oldest_event_ms = self.oldest_event_ms.map_or(event, |oldest| Some(oldest.min(click.event_ms())));
                self.newest_event_ms = self.newest_event_ms.max(event);
                self.newest_received_ms = self.newest_received_ms.max(received);
            }
            Record::DeadLetter(letter) => {
                self.dead_letters += 1;
                self.newest_received_ms = self.newest_received_ms.max(Some(letter.received_ms()));
            }
            Record::Start(_) => self.starts += 1,
        }
    }
}

fn print_log(log: &LogView, out: &mut dyn Write) -> std::io::Result<()> {
    let time = |value: Option<i64>| value.map_or_else(|| "-".to_owned(), utc);
    writeln!(out, "\nlog {} of core {}", log.log_id, log.core)?;
    if let Some(damage) = &log.damage {
        writeln!(out, "  DAMAGED: {damage}")?;
    } else {
        writeln!(out, "  LSN {} to {}, chain {}", log.first_lsn, log.last_lsn, log.durable_chain)?;
        writeln!(out, "  clicks {}, dead letters {} since creation", log.clicks_total, log.dead_letters_total)?;
        let (horizon, watermark) = (time(log.horizon_ms), time(log.watermark_ms));
        writeln!(out, "  horizon {horizon}, watermark {watermark}, newest frame {}", time(log.newest_frame_ms))?;
        let end = match log.exported_lsn {
            None => "exported up to an LSN that is not known".to_owned(),
            Some(exported) => {
                let behind = log.last_lsn.saturating_sub(exported);
                let end = match (log.stopped, behind) {
                    (true, 0) => "stopped cleanly",
                    (true, _) => "stopped before all was exported",
                    (false, _) => "not stopped cleanly",
                };
                format!("{end}, exported up to LSN {exported}, {behind} records behind")
            }
        };
        writeln!(out, "  incarnation {}, {end}, tail {}, repairs {}", log.incarnation, log.tail, log.repairs)?;
    }
    writeln!(
        out,
        "  {:>10} {:>8} {:>12} {:>14} {:>14} {:>12} {:>8} {:>24} {:>24}",
        "segment", "frames", "bytes", "first LSN", "last LSN", "clicks", "dead", "oldest event", "newest event"
    )?;
    for view in &log.segments {
        writeln!(
            out,
            "  {:>10} {:>8} {:>12} {:>14} {:>14} {:>12} {:>8} {:>24} {:>24}",
            view.segment,
            view.frames,
            view.bytes,
            view.first_lsn,
            view.last_lsn,
            view.clicks,
            view.dead_letters,
            time(view.oldest_event_ms),
            time(view.newest_event_ms)
        )?;
    }
    Ok(())
}
