//! Pure. The stored checkpoint against what this host holds: whoever exports on after a contradiction counts twice or not.

use crate::cut::{LogId, Position};
use crate::export::ranges::Mirror;
use crate::export::{Found, Halt, Start};
use tollgate_wire::{Checkpoint, LogPosition};

/// Checked before anyone is fenced: a host set up wrongly must not stop the right one.
pub(super) fn owner(start: &Start, checkpoint: &Checkpoint) -> Result<(), Halt> {
    if checkpoint.edge_id != start.edge_id {
        return Err(Halt::ForeignEdge { found: checkpoint.edge_id.clone(), ours: start.edge_id.clone() });
    }
    if checkpoint.data_dir_uuid != start.data_dir {
        return Err(Halt::ForeignDataDir { found: checkpoint.data_dir_uuid.clone(), ours: start.data_dir });
    }
    Ok(())
}

/// The sink against what this directory remembers. One more than remembered was committed by us and not yet remembered; more
/// was not by us.
pub(super) fn mirror(start: &Start, found: Option<&Checkpoint>) -> Result<(), Halt> {
    let Mirror::Kept { checkpoint: mirrored, .. } = &start.mirror else { return Ok(()) };
    let (ours, theirs) = (start.mirror.txn_seq(), found.map_or(0, |checkpoint| checkpoint.txn_seq));
    match found {
        None if ours > 0 => Err(Halt::Vanished { ours }),
        Some(_) if theirs < ours => Err(Halt::Rewound { found: theirs, ours }),
        Some(_) if theirs > ours + 1 => Err(Halt::Overtaken { found: theirs, ours }),
        Some(found) if theirs == ours && mirrored.as_ref() != Some(found) => Err(Halt::Replaced { seq: ours }),
        Some(_) | None => Ok(()),
    }
}

/// Whether the checkpoint is one that our logs can have led to, as far as that shows without reading them. A log that it
/// does not list, and every log where there is none, must still have its first record.
pub(super) fn listed_logs(start: &Start, checkpoint: Option<&Checkpoint>) -> Result<(), Halt> {
    let listed = checkpoint.map_or(&[][..], |checkpoint| &checkpoint.logs);
    for listed in listed {
        let log = start.logs.iter().find(|log| log.end.log_id == *listed.log_uuid);
        let log = log.ok_or_else(|| Halt::ForeignLog { log: listed.log_uuid.clone() })?;
        if listed.lsn > log.end.lsn {
            return Err(Halt::BeyondEnd { log: log.end.log_id, lsn: listed.lsn, end: log.end.lsn });
        }
    }
    // A log that is gone takes its nonces with it, so it is looked for first.
    if let Some(Checkpoint { nonce, .. }) = checkpoint
        && !start.nonces.iter().any(|ours| *ours == **nonce)
    {
        return Err(Halt::UnknownNonce { nonce: nonce.clone() });
    }
    for log in &start.logs {
        let listed = listed.iter().find(|listed| log.end.log_id == *listed.log_uuid);
        let lsn = listed.map_or(0, |listed| listed.lsn);
        if lsn < log.base_lsn {
            return Err(Halt::BelowStart { log: log.end.log_id, lsn, base: log.base_lsn });
        }
    }
    Ok(())
}

/// The positions that only the logs' frames can confirm; the start of a log has no chain.
pub fn positions(checkpoint: &Checkpoint) -> Vec<Position> {
    listed_positions(&checkpoint.logs)
}

pub fn listed_positions(logs: &[LogPosition]) -> Vec<Position> {
    let position = |listed: &LogPosition| {
        let log_id = LogId::try_from(listed.log_uuid.as_slice()).ok()?;
        (listed.lsn > 0).then_some(Position { log_id, lsn: listed.lsn, chain: listed.chain })
    };
    logs.iter().filter_map(position).collect()
}

/// What the logs hold at those positions.
pub(super) fn chains(checkpoint: &Checkpoint, found: &[Found]) -> Result<(), Halt> {
    let positions = positions(checkpoint);
    assert_eq!(found.len(), positions.len(), "one answer for each position looked up");
    for (position, found) in positions.iter().zip(found) {
        match found {
            Found::Same => {}
            Found::Other => {
                let Position { log_id: log, lsn, chain } = *position;
                return Err(Halt::OtherChain { log, lsn, chain });
            }
        }
    }
    Ok(())
}
