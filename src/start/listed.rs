//! Drives. Whether the logs are here that a start cannot do without: any at all, and every one that the last checkpoint known lists.

use std::path::Path;

use tollgate_wire::Checkpoint;

use super::Failure;
use crate::exit::Exit;
use crate::export::{Halt, Mirror};
use crate::wal::recover::RecoveredLog;
use crate::wal::segments::list_logs;

/// For a start that takes no clicks: a directory that was never served is a mistyped one, and says nothing of what another holds.
pub fn a_log_is_there(data_dir: &Path) -> Result<(), Failure> {
    let logs = data_dir.join("logs");
    if logs.is_dir() && !list_logs(data_dir)?.is_empty() {
        return Ok(());
    }
    let text = format!(
        "--until-exported: {} holds no log, so there is nothing to export, and nothing was made there; name the edge's directory with --data-dir",
        data_dir.display()
    );
    Err(Failure { exit: Exit::Usage, text })
}

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
