//! Copies of a store: made of one moment while it serves, and put back where none is.

use std::fs::{self, File};
use std::path::Path;

use redb::{Database, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use crate::store::Store;
use crate::tables::{
    ADS, CHECKPOINTS, EDGES, HISTORY, OFFSETS, RUNS, STATE, StoreError, TEXTS, begin_read, begin_write, commit_file,
    rows_of,
};
use crate::window::Grain;

/// Rows that one commit of the copy takes.
const STEP_ROWS: usize = 50_000;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("{path}: {error}")]
    File { path: String, error: std::io::Error },
    #[error("{0} is there already; name a file that is not")]
    Exists(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A copy in the making: tables one after the other, in commits of bounded size.
struct Copying<'a> {
    from: &'a ReadTransaction,
    to: Database,
}

impl Store {
    /// Writes a copy of what is committed now to a new file, synced. Commits go on meanwhile; the copy is of one moment.
    pub fn backup(&self, to: &Path) -> Result<u64, BackupError> {
        let named = |error| BackupError::File { path: to.display().to_string(), error };
        if to.exists() {
            return Err(BackupError::Exists(to.display().to_string()));
        }
        let partial = to.with_extension("partial");
        if partial.exists() {
            fs::remove_file(&partial).map_err(named)?;
        }
        let from = begin_read(&self.database)?;
        let copying = Copying {
            from: &from,
            to: Database::create(&partial).map_err(redb::Error::from).map_err(StoreError::from)?,
        };
        copying.all()?;
        drop(copying);
        sync_and_rename(&partial, to).map_err(named)?;
        Ok(fs::metadata(to).map_err(named)?.len())
    }
}

/// Puts a copy in the place of a store that is not there. The copy is opened first: what is no store is refused.
pub fn restore(from: &Path, to: &Path) -> Result<u64, BackupError> {
    let named = |path: &Path| {
        let path = path.display().to_string();
        move |error| BackupError::File { path, error }
    };
    if to.exists() {
        return Err(BackupError::Exists(to.display().to_string()));
    }
    let partial = to.with_extension("partial");
    let bytes = fs::copy(from, &partial).map_err(named(from))?;
    Store::open(&partial)?;
    sync_and_rename(&partial, to).map_err(named(to))?;
    Ok(bytes)
}

fn sync_and_rename(from: &Path, to: &Path) -> std::io::Result<()> {
    File::open(from)?.sync_all()?;
    fs::rename(from, to)?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

impl Copying<'_> {
    fn all(&self) -> Result<(), StoreError> {
        for grain in Grain::ALL {
            self.table(rows_of(grain))?;
        }
        self.table(HISTORY)?;
        self.table(ADS)?;
        self.table(RUNS)?;
        self.table(CHECKPOINTS)?;
        self.table(EDGES)?;
        self.table(OFFSETS)?;
        self.table(TEXTS)?;
        // Last: a file without a version is no store.
        self.table(STATE)
    }

    fn table<K: redb::Key + 'static, V: redb::Value + 'static>(
        &self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<(), StoreError> {
        let from = self.from.open_table(table).map_err(redb::Error::from)?;
        let mut entries = from.iter().map_err(redb::Error::from)?;
        loop {
            let file: WriteTransaction = begin_write(&self.to)?;
            let mut copied = 0;
            {
                let mut to = file.open_table(table).map_err(redb::Error::from)?;
                for entry in entries.by_ref().take(STEP_ROWS) {
                    let (key, value) = entry.map_err(redb::Error::from)?;
                    to.insert(key.value(), value.value()).map_err(redb::Error::from)?;
                    copied += 1;
                }
            }
            commit_file(file)?;
            if copied < STEP_ROWS {
                return Ok(());
            }
        }
    }
}
