//! Pure. Whether every log is here that the last checkpoint known lists.

use tollgate_wire::Checkpoint;

use super::Failure;
use crate::export::{Halt, Mirror};
use crate::wal::recover::RecoveredLog;

/// A log that is gone takes its ids with it: what was accepted into it would be accepted again. So it is missed before the first click,
/// not when the sink is first asked, which may be hours later.
pub(super) fn all_listed_are_here(
    checkpoint: &Checkpoint,
    mirror: &Mirror,
    recovered: &[RecoveredLog],
) -> Result<(), Failure> {
    let (listed, mirrored) = match mirror {
        // Where an operator said that export goes on without it.
        Mirror::Kept { adopted: Some(adopted), .. } => (&adopted.logs, true),
        Mirror::Kept { adopted: None, .. } => (&checkpoint.logs, true),
        Mirror::Unkept => (&checkpoint.logs, false),
    };
    let here = |uuid: &[u8]| recovered.iter().any(|log| log.dir.log_id == *uuid);
    let Some(gone) = listed.iter().find(|listed| !here(&listed.log_uuid)) else { return Ok(()) };
    let halt = Halt::ForeignLog { log: gone.log_uuid.clone() };
    Err(Failure { exit: halt.exit(), text: format!("nothing is served: {halt}. {}", halt.way_out(mirrored)) })
}
