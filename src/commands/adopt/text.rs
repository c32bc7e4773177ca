//! Pure. What `tollgate adopt` says: what is there, what contradicts what, and what each way on would mean.

use std::io::{Result, Write};

use crate::export::Halt;
use crate::export::adoption::{Conflict, Held, Plan, Seen, Way};
use crate::export::mirror::Place;
use crate::units::utc;
use crate::wal::replay::hex;
use tollgate_wire::Checkpoint;

/// Incarnations of a log that are shown, the newest.
const INCARNATIONS: usize = 10;

pub fn facts(seen: &Seen, place: &Place, remembered: Option<&Place>, now_ms: i64, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "edge {}, data directory {}", seen.edge_id, hex(&seen.data_dir))?;
    if let Some(remembered) = remembered.filter(|_| seen.moved) {
        writeln!(out, "\nThis directory exported to {}", placed(remembered))?;
    }
    match &seen.found {
        None => writeln!(out, "\nIn {} there is no checkpoint of this edge", placed(place))?,
        Some(found) => {
            writeln!(out, "\nThe checkpoint in {}:", placed(place))?;
            checkpoint(found, now_ms, out)?;
            let ours = *found.data_dir_uuid == seen.data_dir;
            let whose = if ours { "this one, or a copy of it" } else { "another one than this" };
            writeln!(out, "  by data directory {}: {whose}", hex(&found.data_dir_uuid))?;
        }
    }
    match &seen.remembered {
        None => writeln!(out, "\nThis directory remembers no transaction")?,
        Some(remembered) => {
            writeln!(out, "\nThis directory remembers as its last:")?;
            checkpoint(remembered, now_ms, out)?;
        }
    }
    seen.logs.iter().try_for_each(|log| held(log, now_ms, out))
}

fn placed(place: &Place) -> String {
    let Place { cluster, topic_partials, topic_checkpoints, partition_checkpoints, .. } = place;
    format!("cluster {cluster}, {topic_checkpoints}/{partition_checkpoints} (counts in {topic_partials})")
}

fn checkpoint(checkpoint: &Checkpoint, now_ms: i64, out: &mut dyn Write) -> Result<()> {
    let Checkpoint { txn_seq, written_ms, nonce, .. } = checkpoint;
    let age = age(*written_ms, now_ms);
    writeln!(out, "  transaction {txn_seq}, written at {} ({age}), nonce {}", utc(*written_ms), hex(nonce))?;
    checkpoint.logs.iter().try_for_each(|log| {
        let (id, lsn, clicks) = (hex(&log.log_uuid), log.lsn, log.clicks_total);
        writeln!(out, "  log {id} exported up to LSN {lsn}, {clicks} clicks")
    })
}

fn held(log: &Held, now_ms: i64, out: &mut dyn Write) -> Result<()> {
    let (id, from, to) = (hex(&log.log_id), log.base.lsn + 1, log.end.lsn);
    let clicks = log.end.clicks - log.base.clicks;
    writeln!(out, "\nLog {id} here holds LSN {from} to {to}, {clicks} clicks, {} since its creation", log.end.clicks)?;
    let shown = log.began.len().saturating_sub(INCARNATIONS);
    if shown > 0 {
        writeln!(out, "  {shown} older incarnations")?;
    }
    for began in &log.began[shown..] {
        let (lsn, age) = (began.before.lsn, age(began.started_ms, now_ms));
        let clicks = log.end.clicks - began.before.clicks;
        let (incarnation, started) = (began.incarnation, utc(began.started_ms));
        writeln!(
            out,
            "  after LSN {lsn}: incarnation {incarnation}, begun at {started} ({age}), {clicks} clicks from there on"
        )?;
    }
    Ok(())
}

pub fn conflict(seen: &Seen, plan: &Plan, out: &mut dyn Write) -> Result<()> {
    match &plan.conflict {
        Conflict::Moved => {
            writeln!(out, "\nThe contradiction: this directory exported to another cluster, or to other topics")?;
        }
        Conflict::Halt(halt) => writeln!(out, "\nThe contradiction: {halt}")?,
    }
    writeln!(out, "  {}", consequence(seen, &plan.conflict))
}

/// What cannot be seen from here, and must be known to choose.
fn consequence(seen: &Seen, conflict: &Conflict) -> &'static str {
    match conflict {
        Conflict::Moved | Conflict::Halt(Halt::Vanished { .. }) => {
            "What was exported before is not there. `exported` sends none of it again; `start` sends again what the log still holds, \
             which is right where all who read there begin anew, and is twice for whoever has read it before"
        }
        Conflict::Halt(Halt::Rewound { .. }) => {
            "The topic lost the transactions after that. `found` sends their clicks again, as far as the log still holds them: once for \
             whoever reads the topic, twice only for a reader that had taken them and did not go back with it"
        }
        Conflict::Halt(Halt::ForeignDataDir { .. } | Halt::ForeignLog { .. }) if seen.remembered.is_some() => {
            "What that log acknowledged and did not export is in its files alone. Stop that edge for good: two may not export under \
             one name. Was this one killed between a commit and its note of it, the clicks of that one transaction go out twice"
        }
        Conflict::Halt(Halt::ForeignDataDir { .. } | Halt::ForeignLog { .. }) => {
            "What that log acknowledged and did not export is in its files alone. Stop that edge for good: two may not export under \
             one name"
        }
        Conflict::Halt(
            Halt::UnknownNonce { .. }
            | Halt::OtherChain { .. }
            | Halt::BeyondEnd { .. }
            | Halt::Overtaken { .. }
            | Halt::Replaced { .. },
        ) => {
            "Up to the fork both logs are one, and the other one exported it. What that one acknowledged later and did not export is in \
             its files alone; the ids of it are not remembered here, and count again if they are sent again. Stop it for good: two \
             may not export under one name"
        }
        Conflict::Halt(
            Halt::ForeignEdge { .. }
            | Halt::BelowStart { .. }
            | Halt::Totals { .. }
            | Halt::ForeignSink(_)
            | Halt::Mirror(_)
            | Halt::Rival { .. }
            | Halt::Unbalanced { .. }
            | Halt::Row { .. }
            | Halt::Log(_)
            | Halt::Sink(_),
        ) => "What the files that are gone held cannot be told: bring them back if they are anywhere",
    }
}

pub fn ways(seen: &Seen, plan: &Plan, chosen: Option<&Way>, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "\nGoing on would mean:")?;
    let right = plan.right.map(|right| &plan.ways[right]);
    for way in &plan.ways {
        print(way, right == Some(way), out)?;
    }
    if let Some(way) = chosen.filter(|way| !plan.ways.contains(way)) {
        print(way, false, out)?;
    }
    if right.is_some() {
        return Ok(());
    }
    writeln!(out, "or, if the other one parted from this log where an incarnation began:")?;
    let conflict = &plan.conflict;
    let incarnations =
        seen.logs.iter().flat_map(|log| log.began.iter().rev().take(INCARNATIONS).map(move |it| (log, it)));
    for (log, began) in incarnations {
        let place = (log.log_id, began.before.lsn);
        // Of several logs, one alone is no way.
        if let Ok(way) = seen.way_at(conflict, &[place]) {
            print(&way, false, out)?;
        }
    }
    Ok(())
}

fn print(way: &Way, right: bool, out: &mut dyn Write) -> Result<()> {
    let number =
        |clicks: Option<u64>| clicks.map_or_else(|| "an unknown number".to_owned(), |clicks| clicks.to_string());
    let (flags, out_clicks, taken) = (flags(way), way.out, way.taken);
    let (twice, missing) = (number(way.twice), number(way.missing));
    writeln!(
        out,
        "  {flags}{}: {out_clicks} clicks go out, of them {twice} a second time; {taken} are taken for exported, of them \
         {missing} are counted nowhere",
        if right { " (unless you say otherwise)" } else { "" }
    )
}

/// As the shell takes it.
pub fn flags(way: &Way) -> String {
    way.from.iter().map(|from| format!("--from {from}")).collect::<Vec<_>>().join(" ")
}

fn age(ms: i64, now_ms: i64) -> String {
    let (seconds, word) = ((now_ms - ms).abs() / 1_000, if ms > now_ms { "from now" } else { "ago" });
    match seconds {
        0..300 => format!("{seconds} s {word}"),
        300..18_000 => format!("{} min {word}", seconds / 60),
        18_000..432_000 => format!("{} h {word}", seconds / 3_600),
        _ => format!("{} days {word}", seconds / 86_400),
    }
}
