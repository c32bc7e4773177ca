//! Drives. What a directory is for: an edge's is not the global tier's; and clicks that nobody made are never counted beside real ones:
//! `up --demo` marks the directory that it makes, and neither serves another nor leaves its own to anybody else.

use std::ffi::OsString;
use std::path::Path;

use tollgate_global::TOKENS_FILE;

use super::{Failure, store_path};
use crate::config::Config;
use crate::exit::Exit;
use crate::export::mirror::MirrorFile;
use crate::probe::PROBE_PREFIX;
use crate::wal::durable::write_synced;
use crate::wal::segments::{DataDir, LogError, io_error, list_logs};

/// That it is there is what counts; its text is for whoever finds it.
const MARK: &str = "DEMO";
const TEXT: &[u8] = b"tollgate up --demo made this directory: nobody made the clicks that are counted in it.\n";

/// Before anything is written there: what an edge keeps beside the global tier's store would make the directory an edge's.
pub fn of_an_edge_alone(data_dir: &Path) -> Result<(), Failure> {
    let Some(store) = tollgate_global::of_the_global_tier(data_dir) else { return Ok(()) };
    let text = format!(
        "{} is the directory of a `tollgate global` ({store} lies in it), and an edge has one of its own: name another with --data-dir",
        data_dir.display()
    );
    Err(Failure { exit: Exit::DataDir, text })
}

/// What a directory has that was locked, marked by half, or made tokens for, wholly or by half, and no more; `logs` is empty then.
const OF_NOBODY: [&str; 7] = ["LOCK", "logs", "DEMO.new", TOKENS_FILE, "tokens.json.new", "tokens.lock", "lost+found"];

/// Before anything is written there: who is told to delete a demo's directory when he is done must find nothing of his in it.
pub fn of_nobody_else(data_dir: &Path) -> Result<(), Failure> {
    let failed = |source| io_error("look into", data_dir, source);
    let entries = match std::fs::read_dir(data_dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    let names = entries.map(|entry| Ok(entry.map_err(failed)?.file_name())).collect::<Result<Vec<_>, LogError>>()?;
    let tried = |name: &OsString| name.as_encoded_bytes().starts_with(PROBE_PREFIX.as_bytes());
    let is_of_nobody = |name: &OsString| OF_NOBODY.iter().any(|none| name == none) || tried(name);
    let logs = data_dir.join("logs");
    let nothing_logged = !logs.is_dir() || std::fs::read_dir(&logs).map_err(failed)?.next().is_none();
    if names.iter().any(|name| name == MARK) || nothing_logged && names.iter().all(is_of_nobody) {
        return Ok(());
    }
    Err(Failure { exit: Exit::Usage, text: not_a_demos(data_dir) })
}

fn not_a_demos(dir: &Path) -> String {
    format!(
        "--demo: {} was not made by --demo, and clicks that nobody made would be counted beside those that it holds, for good: name a \
         directory that is not there yet with --data-dir; without it, ./tollgate-demo is taken",
        dir.display()
    )
}

/// Before anything else is written there, and before a click can come.
pub fn kept_apart(config: &Config, data_dir: &DataDir, demo: bool) -> Result<(), Failure> {
    let mark = data_dir.path.join(MARK);
    let marked = mark.try_exists().map_err(|source| io_error("look for", &mark, source))?;
    let dir = data_dir.path.display();
    let text = match (marked, demo) {
        (true, true) | (false, false) => return Ok(()),
        (false, true) if is_new(config, data_dir)? => return Ok(write_synced(&mark, TEXT)?),
        (false, true) => not_a_demos(&data_dir.path),
        (true, false) => format!(
            "{dir} was made by --demo ({MARK} lies in it): clicks that nobody made are among its counts, and real ones would be added to \
             them. Name another --data-dir, or delete this one; `tollgate up --demo --data-dir {dir}` goes on with the demo"
        ),
    };
    Err(Failure { exit: Exit::Usage, text })
}

/// Nothing was ever served from it; tokens may have been made for it.
fn is_new(config: &Config, data_dir: &DataDir) -> Result<bool, LogError> {
    let served = data_dir.identity()?.is_some() || !list_logs(&data_dir.path)?.is_empty();
    Ok(!served && !store_path(config).exists() && MirrorFile::read(&data_dir.path)?.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kill_before_the_mark_leaves_is_of_nobody_and_all_else_is_of_somebody() {
        let dir = tempfile::tempdir().unwrap();
        assert!(of_nobody_else(&dir.path().join("none")).is_ok());
        for name in OF_NOBODY.into_iter().chain([".probe-4711", "tokens.json.new"]).filter(|name| *name != "logs") {
            std::fs::write(dir.path().join(name), "").unwrap();
            assert!(of_nobody_else(dir.path()).is_ok(), "{name}");
        }
        for name in ["letter.txt", "probe-1", "tokens.json.old", "identity.toml"] {
            std::fs::write(dir.path().join(name), "").unwrap();
            assert!(of_nobody_else(dir.path()).is_err(), "{name}");
            std::fs::remove_file(dir.path().join(name)).unwrap();
        }
    }
}
