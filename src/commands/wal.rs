//! `tollgate wal inspect | verify | export`: what a data directory holds, whether it is sound, its clicks as NDJSON. They
//! only read the log, and take no lock for it but while they look up what was exported; of one that is being written to they see what
//! was there when they began.

mod inspect;

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tollgate_global::StoreError;

pub use self::inspect::inspect;
use super::exported::exported_positions;
use super::wal_repair::{Way, repair};
use super::{halted, named, store_text};
use crate::cli::WalCommand;
use crate::cut::Position;
use crate::exit::Exit;
use crate::units::utc;
use crate::wal::extent::{Extent, Finding, Verified, verify_log};
use crate::wal::record::{ClickRecord, DeadLetter, Record, UUID_TEXT_BYTES};
use crate::wal::recover::{Progress, Tail, walk_log};
use crate::wal::replay::hex;
use crate::wal::segments::{LogDir, LogError, list_logs};

#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("{0}")]
    Log(#[from] LogError),
    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
    #[error("{}", store_text(.1, .0))]
    Store(PathBuf, StoreError),
    #[error("{0}")]
    Refused(String),
    /// The log cannot be read through; the text names the way out.
    #[error("{1}")]
    Halted(Exit, String),
}

impl CommandError {
    pub fn exit(&self) -> Exit {
        match self {
            CommandError::Log(error) => error.exit(),
            CommandError::Output(_) => Exit::Unavailable,
            CommandError::Store(..) => Exit::Store,
            CommandError::Refused(_) => Exit::Usage,
            CommandError::Halted(exit, _) => *exit,
        }
    }
}

/// Runs one of the commands over a data directory; `now_ms`: the wall clock.
pub fn run(command: &WalCommand, dir: &Path, now_ms: i64, out: &mut dyn Write) -> Result<Exit, CommandError> {
    match command {
        WalCommand::Inspect(args) => inspect(dir, args.json, out),
        WalCommand::Verify(args) => verify(dir, args.json, &exported_positions(dir)?, out),
        WalCommand::Repair(args) => {
            let way = if args.raise_horizon { Way::RaiseHorizon } else { Way::AcceptLoss(args.accept_loss.clone()) };
            repair(dir, &way, args.yes, &exported_positions(dir)?, now_ms, out)
        }
        WalCommand::Export(args) => export(dir, args.dead_letters, out),
    }
}

pub fn verify(dir: &Path, json: bool, checkpoints: &[Position], out: &mut dyn Write) -> Result<Exit, CommandError> {
    let mut exit = Exit::Clean;
    let mut views = Vec::new();
    for log in logs_of(dir)? {
        let checkpoint = checkpoints.iter().find(|position| position.log_id == log.log_id);
        let verified = verify_log(&log, checkpoint)?;
        if !verified.findings.is_empty() {
            exit = Exit::Difference;
        }
        if json {
            views.push(verified_view(&log, &verified));
        } else {
            print_verified(dir, &log, &verified, checkpoint, out)?;
        }
    }
    if json {
        writeln!(out, "{:#}", json!({ "sound": exit == Exit::Clean, "logs": views }))?;
    }
    Ok(exit)
}

fn print_verified(
    dir: &Path,
    log: &LogDir,
    verified: &Verified,
    checkpoint: Option<&Position>,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let id = hex(&log.log_id);
    if let Some(walked) = &verified.walked {
        let (records, lsn) = (walked.records, walked.replay.lsn);
        let state = if verified.findings.is_empty() { "sound" } else { "DAMAGED" };
        writeln!(out, "log {id}: {state}, {records} records up to LSN {lsn} hold")?;
        if let Tail::Torn { segment, offset } = walked.tail {
            writeln!(out, "  a torn tail in segment {segment} at byte {offset}: never acknowledged, nothing is lost")?;
        }
    } else {
        writeln!(out, "log {id}: DAMAGED beyond what can be stepped over")?;
    }
    for finding in &verified.findings {
        writeln!(out, "  {}", finding.damage)?;
        print_extent(dir, finding, checkpoint, out)?;
    }
    Ok(())
}

/// What is lost, and the command that goes on: by the checkpoint it is known which of the two applies.
pub fn print_extent(
    dir: &Path,
    finding: &Finding,
    checkpoint: Option<&Position>,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let damage = &finding.damage;
    let Some(extent) = &finding.extent else {
        return writeln!(
            out,
            "    no records can be skipped to go on: put the right files back, or start anew from them"
        );
    };
    writeln!(out, "    {}", lost_sentence(damage.lsn, extent))?;
    for ((ad, pane_ms), clicks) in &extent.named {
        writeln!(out, "    still readable: ad {ad:?}, pane {}: {clicks} clicks", utc(*pane_ms))?;
    }
    let (id, from, dir) = (hex(&damage.log_id), damage.lsn + 1, named(dir));
    let to = extent.to_lsn;
    let exported = match checkpoint {
        _ if to < from => "nothing has to be given up",
        Some(position) if position.lsn >= to => "all of it was exported, so no count is lost",
        Some(_) => {
            return writeln!(
                out,
                "    not all of it was exported; to give it up: `tollgate wal repair {dir} --accept-loss {id}:{from}-{to}`"
            );
        }
        None => {
            return writeln!(
                out,
                "    nothing says that it was exported; to give it up: `tollgate wal repair {dir} --accept-loss {id}:{from}-{to}`"
            );
        }
    };
    writeln!(out, "    {exported}: `tollgate wal repair {dir} --raise-horizon`")
}

fn lost_sentence(lsn: u64, extent: &Extent) -> String {
    if extent.to_lsn == lsn {
        return "no record is lost".to_owned();
    }
    let (records, most) = (extent.to_lsn - lsn, if extent.exact { "" } else { "at most " });
    let clicks =
        extent.lost_clicks.map_or_else(|| "how many clicks is not known".to_owned(), |n| format!("{n} clicks"));
    format!("lost: LSN {} to {}, {most}{records} records ({clicks})", lsn + 1, extent.to_lsn)
}

fn verified_view(log: &LogDir, verified: &Verified) -> Value {
    let finding = |finding: &Finding| {
        let damage = &finding.damage;
        let extent = finding.extent.as_ref().map(|extent| {
            json!({
                "from_lsn": damage.lsn + 1,
                "to_lsn": extent.to_lsn,
                "exact": extent.exact,
                "lost_clicks": extent.lost_clicks,
                "resume": extent.resume,
            })
        });
        json!({
            "segment": damage.segment,
            "offset": damage.offset,
            "why": damage.fault.to_string(),
            "extent": extent,
        })
    };
    json!({
        "core": log.core,
        "log_id": hex(&log.log_id),
        "records": verified.walked.as_ref().map(|walked| walked.records),
        "last_lsn": verified.walked.as_ref().map(|walked| walked.replay.lsn),
        "damage": verified.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

pub fn export(dir: &Path, dead_letters: bool, out: &mut dyn Write) -> Result<Exit, CommandError> {
    let mut out = std::io::BufWriter::with_capacity(1 << 20, out);
    for log in logs_of(dir)? {
        let mut written = Ok(());
        let id = hex(&log.log_id);
        let walked = walk_log(&log, None, &mut Progress::default(), &mut |_| {}, &mut |_, _, frame| {
            for (lsn, record) in (frame.header.first_lsn..).zip(&frame.records) {
                let line = match record {
                    Record::Click(click) if !dead_letters => click_line(&id, lsn, click),
                    Record::DeadLetter(letter) if dead_letters => dead_letter_line(&id, lsn, letter),
                    Record::Click(_) | Record::DeadLetter(_) | Record::Start(_) => continue,
                };
                if written.is_ok() {
                    written = writeln!(out, "{line}");
                }
            }
        });
        written?;
        out.flush()?;
        walked.map_err(|error| halted(error, dir))?;
    }
    Ok(Exit::Clean)
}

fn click_line(log_id: &str, lsn: u64, record: &ClickRecord<'_>) -> Value {
    let mut uuid = [0; UUID_TEXT_BYTES];
    let click = record.to_click(&mut uuid);
    let mut line = Map::new();
    line.insert("log".to_owned(), json!(log_id));
    line.insert("lsn".to_owned(), json!(lsn));
    line.insert("key".to_owned(), json!(hex(&click.key.bytes)));
    line.insert("key_hashed".to_owned(), json!(click.key.hashed));
    line.insert("event_ms".to_owned(), json!(click.event_time.0));
    line.insert("received_ms".to_owned(), json!(record.received_ms()));
    line.insert("class".to_owned(), json!(click.class.name()));
    line.insert("device".to_owned(), json!(click.device.name()));
    line.insert("agent".to_owned(), json!(click.agent.name()));
    let extras = &click.extras;
    let texts = [
        ("ad_id", click.ad_id),
        ("campaign_id", click.campaign_id),
        ("advertiser_id", click.advertiser_id),
        ("region", click.region),
        ("user_id", click.user_id),
        ("request_id", extras.request_id),
        ("click_id", extras.click_id),
        ("impression_id", extras.impression_id),
        ("event_type", extras.event_type),
        ("ip", extras.ip),
        ("country", extras.country),
        ("region_text", extras.region_text),
        ("user_agent", extras.user_agent),
        ("signature", extras.signature),
    ];
    for (name, text) in texts {
        if !text.is_empty() {
            insert_text(&mut line, name, text);
        }
    }
    Value::Object(line)
}

fn dead_letter_line(log_id: &str, lsn: u64, letter: &DeadLetter<'_>) -> Value {
    let mut line = Map::new();
    line.insert("log".to_owned(), json!(log_id));
    line.insert("lsn".to_owned(), json!(lsn));
    line.insert("reason".to_owned(), json!(letter.cause.name()));
    line.insert("received_ms".to_owned(), json!(letter.received_ms()));
    if let Some(key) = letter.key() {
        line.insert("key".to_owned(), json!(hex(&key.bytes)));
        line.insert("key_hashed".to_owned(), json!(key.hashed));
    }
    line.insert("cut_off".to_owned(), json!(letter.cut_off()));
    insert_text(&mut line, "raw", &letter.raw());
    Value::Object(line)
}

/// Text as it is where it is UTF-8, otherwise its bytes in hexadecimal under `<name>_hex`.
fn insert_text(line: &mut Map<String, Value>, name: &str, text: &[u8]) {
    match std::str::from_utf8(text) {
        Ok(text) => line.insert(name.to_owned(), json!(text)),
        Err(_) => line.insert(format!("{name}_hex"), json!(hex(text))),
    };
}

/// The logs of what should be a data directory.
pub fn logs_of(dir: &Path) -> Result<Vec<LogDir>, CommandError> {
    if !dir.join("logs").is_dir() {
        let text =
            format!("{} is no data directory: it has no `logs` in it; name what --data-dir names", dir.display());
        return Err(CommandError::Refused(text));
    }
    Ok(list_logs(dir)?)
}
