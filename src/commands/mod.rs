//! What each command does beside serving clicks. Each takes what was read from the command line and returns how to exit.

use std::path::Path;

use tollgate_global::{QuerySideError, StoreError};

use self::wal::CommandError;
use crate::exit::Exit;
use crate::export::mirror;
use crate::wal::replay::{Fault, Proof};
use crate::wal::segments::LogError;

pub mod adopt;
pub mod audit;
pub mod check;
pub mod doctor;
pub mod exported;
pub mod global;
pub mod status;
pub mod token;
pub mod topics;
pub mod wal;
pub mod wal_repair;

#[cfg(test)]
mod wal_tests;

/// The directory as a flag that a shell takes as it is pasted.
pub fn named(dir: &Path) -> String {
    let text = dir.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if text.chars().all(plain) {
        return format!("--data-dir {text}");
    }
    format!("--data-dir '{}'", text.replace('\'', "'\\''"))
}

/// Why a log is not gone on with, and which command says more.
pub fn halt_text(error: &LogError, path: &Path) -> String {
    let dir = named(path);
    match error {
        LogError::Damaged(_) if error.exit() == Exit::Checkpoint && mirror::path(path).is_file() => format!(
            "{error}. Delete nothing; put the log and the exported.json that belong together back; or `tollgate adopt {dir}` with \
             the settings of Kafka shows what going on would mean"
        ),
        LogError::Damaged(_) if error.exit() == Exit::Checkpoint => format!(
            "{error}. Delete nothing; put the log and the store that belong together back, then `tollgate audit {dir}`"
        ),
        LogError::Damaged(damage) if matches!(damage.fault, Fault::Frame { proof: Proof::Checkpoint { .. }, .. }) => {
            format!(
                "{error}. If the log is older than what was exported, bring its newer files back, in the place of those in logs/; else \
             `tollgate wal verify {dir}` shows what is lost, and the `tollgate wal repair` command that goes on"
            )
        }
        LogError::Damaged(_) => format!(
            "{error}. `tollgate wal verify {dir}` shows what is lost, and the `tollgate wal repair` command that goes on"
        ),
        LogError::Io { .. } | LogError::NotSynced { .. } | LogError::InUse { .. } | LogError::Unreadable { .. } => {
            error.to_string()
        }
    }
}

/// Why the store cannot be used, and what to do; the log does not need it.
pub fn store_text(error: &StoreError, path: &Path) -> String {
    let path = path.display();
    match error {
        StoreError::Version { .. } | StoreError::Uncounted { .. } => format!("the store {path}: {error}"),
        StoreError::AlreadyCommitted { .. }
        | StoreError::Sequence { .. }
        | StoreError::Refused(_)
        | StoreError::Damaged(_)
        | StoreError::Failed
        | StoreError::Database(_) => format!(
            "the store {path} cannot be used: {error}. The log holds what is not exported: look at the disk and its room \
             (dmesg, df) and start again. If it stays so, put a copy of that file back, or move it away: the log is \
             exported anew if its first segment is still there, and else the next start halts with 74"
        ),
    }
}

/// How a process ends that may not open its query port.
pub fn query_side_exit(error: &QuerySideError) -> Exit {
    match error {
        QuerySideError::Open { .. } | QuerySideError::Catalogue(_) => Exit::Usage,
        QuerySideError::Tokens(_) => Exit::DataDir,
    }
}

fn halted(error: LogError, dir: &Path) -> CommandError {
    CommandError::Halted(error.exit(), halt_text(&error, dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_named_so_that_a_shell_takes_it() {
        for (dir, want) in [
            ("./tollgate-data", "--data-dir ./tollgate-data"),
            ("/a b", "--data-dir '/a b'"),
            ("/it's", "--data-dir '/it'\\''s'"),
        ] {
            assert_eq!(named(Path::new(dir)), want);
        }
    }
}
