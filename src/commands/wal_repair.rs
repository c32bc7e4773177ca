//! `tollgate wal repair`: the ways out of a halt over a damaged log. It shows what it would do; with --yes it takes the lock
//! and writes one repair file for each damaged place, which is also the audit of what was given up. Segments are not touched.

use std::io::Write;
use std::path::Path;

use super::named;
use super::wal::{CommandError, logs_of, print_extent};
use crate::config::CLOCK_SKEW_MS_MAX;
use crate::cut::Position;
use crate::exit::Exit;
use crate::units::utc;
use crate::wal::durable::write_synced;
use crate::wal::extent::{Extent, Finding, repair as repair_of, verify_log};
use crate::wal::replay::hex;
use crate::wal::segments::{DataDir, LogDir};

/// What the operator says of the damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The damaged records were exported: no count is lost. Their ids are, so older clicks are refused from now on.
    RaiseHorizon,
    /// Give up exactly these records, as `verify` names them: LOG:FROM-TO.
    AcceptLoss(Vec<String>),
}

/// One damaged place and the horizon after its repair.
struct Planned<'a> {
    log: &'a LogDir,
    checkpoint: Option<&'a Position>,
    finding: &'a Finding,
    extent: &'a Extent,
    horizon_ms: i64,
}

/// `yes`: does it; otherwise only shows what would be done.
pub fn repair(
    dir: &Path,
    way: &Way,
    yes: bool,
    checkpoints: &[Position],
    now_ms: i64,
    out: &mut dyn Write,
) -> Result<Exit, CommandError> {
    let logs = logs_of(dir)?;
    let lock = if yes { Some(DataDir::open(dir)?) } else { None };
    let mut verified = Vec::new();
    for log in &logs {
        let checkpoint = checkpoints.iter().find(|position| position.log_id == log.log_id);
        verified.push((log, checkpoint, verify_log(log, checkpoint)?));
    }
    let mut planned = Vec::new();
    for (log, checkpoint, verified) in &verified {
        for finding in &verified.findings {
            let extent = finding.extent.as_ref().ok_or_else(|| {
                let (dir, damage) = (dir.display(), &finding.damage);
                CommandError::Refused(format!("{damage}\nno repair of {dir} can go on after this; put the files back"))
            })?;
            allowed(dir, way, finding, extent, *checkpoint)?;
            planned.push(Planned {
                log,
                checkpoint: *checkpoint,
                finding,
                extent,
                horizon_ms: horizon_after(finding, extent, now_ms),
            });
        }
    }
    if planned.is_empty() {
        writeln!(out, "nothing to repair: every log is sound")?;
        return Ok(Exit::Clean);
    }
    for plan in &planned {
        writeln!(out, "{}", plan.finding.damage)?;
        print_extent(dir, plan.finding, plan.checkpoint, out)?;
        let way = match plan.extent.resume {
            Some((segment, offset)) => format!("goes on at byte {offset} of segment {segment}"),
            None => "goes on in a new segment".to_owned(),
        };
        writeln!(out, "    the log {way}, after LSN {}", plan.extent.to_lsn)?;
        if plan.horizon_ms > i64::MIN {
            writeln!(out, "    clicks with an event time before {} are refused as too old then", utc(plan.horizon_ms))?;
        }
        if plan.horizon_ms > now_ms {
            let seconds = (plan.horizon_ms - now_ms) / 1_000;
            writeln!(out, "    and all are shed with 503 until that time, {seconds} s from now")?;
        }
    }
    if lock.is_none() {
        writeln!(out, "nothing was changed; run it again with --yes")?;
        return Ok(Exit::Clean);
    }
    planned.iter().try_for_each(|plan| write_repair(way, plan, now_ms, out))?;
    Ok(Exit::Clean)
}

fn write_repair(way: &Way, plan: &Planned<'_>, now_ms: i64, out: &mut dyn Write) -> Result<(), CommandError> {
    let kind = match way {
        Way::RaiseHorizon => "raise-horizon",
        Way::AcceptLoss(_) => "accept-loss",
    };
    let damage = &plan.finding.damage;
    let repair = repair_of(damage, plan.extent, plan.horizon_ms, now_ms, kind);
    let mut text = serde_json::to_string_pretty(&repair).expect("numbers and strings are JSON");
    text.push('\n');
    // Two repairs at one LSN are at different places.
    let name = format!("{:020}-{:010}-{:012}.repair", damage.lsn, damage.segment, damage.offset);
    let path = plan.log.path.join(name);
    write_synced(&path, text.as_bytes())?;
    writeln!(out, "written: {}", path.display())?;
    Ok(())
}

/// Above every event time that can be among the lost, so that a retry of a lost click is refused and never counted twice.
fn horizon_after(finding: &Finding, extent: &Extent, now_ms: i64) -> i64 {
    if extent.to_lsn == finding.damage.lsn {
        return i64::MIN;
    }
    // Nothing says which `--clock-skew` was in force when unreadable records were taken.
    extent.newest_ms.unwrap_or(now_ms + CLOCK_SKEW_MS_MAX).saturating_add(1)
}

/// Whether the operator's words cover this damage.
fn allowed(
    dir: &Path,
    way: &Way,
    finding: &Finding,
    extent: &Extent,
    checkpoint: Option<&Position>,
) -> Result<(), CommandError> {
    let (from, to) = (finding.damage.lsn + 1, extent.to_lsn);
    if to < from {
        return Ok(());
    }
    let id = hex(&finding.damage.log_id);
    let (dir, loss) = (named(dir), format!("{id}:{from}-{to}"));
    let given = match way {
        Way::RaiseHorizon => {
            return exported(checkpoint, &id, from, to, &format!("`tollgate wal repair {dir} --accept-loss {loss}`"));
        }
        Way::AcceptLoss(given) => given,
    };
    if given.contains(&loss) {
        return Ok(());
    }
    let given = given.join(", ");
    Err(CommandError::Refused(format!("the damage is {loss}, and --accept-loss names {given}: name it exactly")))
}

/// Whether records up to `to` are in the counts already.
fn exported(checkpoint: Option<&Position>, id: &str, from: u64, to: u64, otherwise: &str) -> Result<(), CommandError> {
    match checkpoint {
        Some(position) if position.lsn >= to => Ok(()),
        Some(position) => Err(CommandError::Refused(format!(
            "records up to LSN {to} of log {id} are damaged, and only those up to LSN {} were exported: {otherwise} gives \
             them up",
            position.lsn
        ))),
        None => Err(CommandError::Refused(format!(
            "no checkpoint is known for log {id}, so nobody can say that LSN {from} to {to} were exported: {otherwise} \
             gives them up"
        ))),
    }
}
