//! Copies of a store: made of one moment while it serves, and put back where none is. A copy is written aside and has its name when it
//! is whole; what is written aside has a name of its own, so that two at once do not write over each other, and goes when it comes to
//! nothing.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{
    Database, ReadTransaction, ReadableDatabase as _, ReadableTable, TableDefinition, TableHandle as _,
    WriteTransaction,
};

use crate::aside::Aside;
use crate::directory::{self, STORE_FILE};
use crate::durable::{self, NotSynced};
use crate::store::Store;
use crate::tables::{
    self, CHECKPOINTS, CORRECTED, COUNTED, Each, STATE, StoreError, VERSION, begin_read, begin_write, commit_file,
    state_value,
};

/// Rows that one commit of the copy takes.
const STEP_ROWS: usize = 50_000;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("{path}: {error}; name a new file, in a directory that `tollgate global` may write to, with --to")]
    File { path: String, error: io::Error },
    #[error("{0} is there already, and stays as it is; name a new file with --to")]
    Exists(String),
    /// The disk of the copy, most often; a store that cannot be read stops by itself.
    #[error("while copying to {path}: {error}; no copy was left there")]
    Copying { path: String, error: StoreError },
}

/// Why a copy is not put back; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("{path}: {error}; nothing was restored")]
    File { path: String, error: io::Error },
    #[error("nothing was restored: {0}")]
    NotSynced(#[from] NotSynced),
    #[error("{0}")]
    AnEdges(String),
    #[error(
        "{0} is there already, and stays as it is. To have the backup in its place, stop the `tollgate global` that it is of and move \
         it away; or name another directory with --data-dir"
    )]
    Exists(String),
    #[error(
        "{0} is in use by a process that goes on writing to it: have that copied with `tollgate backup`, and restore the copy"
    )]
    InUse(String),
    #[error(
        "{path} is no store of a global tier: {why}. Name a file that `tollgate backup` wrote with --from; nothing was restored"
    )]
    NoStore { path: String, why: String },
    #[error("{path}: {error}; nothing was restored")]
    Store { path: String, error: StoreError },
}

/// Looks for every table of a file; the first that is not there.
struct Looking<'a> {
    file: &'a ReadTransaction,
    missing: Option<String>,
}

/// A copy in the making: tables one after the other, in commits of bounded size.
struct Copying<'a> {
    from: &'a ReadTransaction,
    to: Database,
}

impl Store {
    /// Writes a copy of what is committed now to a new file, synced. Commits go on meanwhile; the copy is of one moment.
    pub fn backup(&self, to: &Path) -> Result<u64, BackupError> {
        let path = to.display().to_string();
        let named = |error| BackupError::File { path: path.clone(), error };
        let copying = |error| BackupError::Copying { path: path.clone(), error };
        if to.exists() {
            return Err(BackupError::Exists(path));
        }
        let (aside, file) = Aside::create(to).map_err(named)?;
        let from = begin_read(&self.database).map_err(copying)?;
        let database = FileBackend::new(file).and_then(|file| Database::builder().create_with_backend(file));
        let database = database.map_err(|error| copying(redb::Error::from(error).into()))?;
        let mut copy = Copying { from: &from, to: database };
        tables::each(&mut copy).map_err(copying)?;
        copy.to.close().map_err(|error| copying(redb::Error::from(error).into()))?;
        match aside.rename(to) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(BackupError::Exists(path)),
            renamed => renamed.map_err(named)?,
        }
        Ok(fs::metadata(to).map_err(named)?.len())
    }
}

/// Puts a copy in the place of a store that is not there; the directory is made where it is missing. The copy is opened first: what is
/// no store is refused.
pub fn restore(from: &Path, data_dir: &Path) -> Result<u64, RestoreError> {
    let to = &data_dir.join(STORE_FILE);
    let named = |path: &Path| {
        let path = path.display().to_string();
        move |error| RestoreError::File { path, error }
    };
    directory::refusal(data_dir).map_or(Ok(()), |why| Err(RestoreError::AnEdges(why)))?;
    if to.exists() {
        return Err(RestoreError::Exists(to.display().to_string()));
    }
    let mut source = File::open(from).map_err(named(from))?;
    // Where files cannot be locked, nobody has a store open.
    if let Err(TryLockError::WouldBlock) = source.try_lock_shared() {
        return Err(RestoreError::InUse(from.display().to_string()));
    }
    let is_new = !data_dir.exists();
    fs::create_dir_all(data_dir).map_err(named(data_dir))?;
    // The folder itself is synced once more when the copy has its name.
    let synced = durable::sync_names(data_dir).map_err(RestoreError::from);
    let restored = synced.and_then(|()| copied(&mut source, from, to));
    if restored.is_err() && is_new {
        // Whatever came to be in it meanwhile keeps it.
        let _ = fs::remove_dir(data_dir);
    }
    restored
}

fn copied(source: &mut File, from: &Path, to: &Path) -> Result<u64, RestoreError> {
    let path = from.display().to_string();
    let (aside, mut file) =
        Aside::create(to).map_err(|error| RestoreError::File { path: to.display().to_string(), error })?;
    let bytes = io::copy(source, &mut file).map_err(|error| RestoreError::File { path: path.clone(), error })?;
    drop(file);
    if let Some(why) = no_store(&aside.path) {
        return Err(RestoreError::NoStore { path, why });
    }
    Store::open(&aside.path).map_err(|error| RestoreError::Store { path, error })?;
    let path = to.display().to_string();
    match aside.rename(to) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(RestoreError::Exists(path)),
        renamed => renamed.map(|()| bytes).map_err(|error| RestoreError::File { path, error }),
    }
}

/// Why a file is none: a store that is opened is made where there is nothing, also in a file that is something else's.
fn no_store(path: &Path) -> Option<String> {
    if fs::metadata(path).is_ok_and(|about| about.len() == 0) {
        return Some("it is empty".to_owned());
    }
    let read = || -> Result<Option<String>, redb::Error> {
        let database = Database::open(path)?;
        let file = database.begin_read()?;
        let state = match file.open_table(STATE) {
            Err(redb::TableError::TableDoesNotExist(_)) => {
                return Ok(Some("it is somebody else's database".to_owned()));
            }
            opened => opened?,
        };
        let mut looking = Looking { file: &file, missing: None };
        let looked = tables::each(&mut looking);
        Ok(match looked.and_then(|()| state_value(&state, VERSION)) {
            Ok(Some(_)) if looking.missing.is_some() => {
                looking.missing.map(|name| format!("it has no table {name:?}, which every store has"))
            }
            Ok(Some(_)) if file.open_table(CHECKPOINTS)?.first()?.is_some() => {
                Some("it is the store.redb of an edge, which is put back as a file".to_owned())
            }
            Ok(Some(_)) => None,
            Ok(None) => Some("it has no version".to_owned()),
            Err(error) => Some(error.to_string()),
        })
    };
    read().unwrap_or_else(|error| Some(error.to_string()))
}

impl Each for Looking<'_> {
    fn table<K: redb::Key + 'static, V: redb::Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<(), StoreError> {
        match self.file.open_table(table) {
            // The first stores of this version have not these: what counts by class is filled when they are opened.
            Err(redb::TableError::TableDoesNotExist(name))
                if ![COUNTED.name(), CORRECTED.name()].contains(&name.as_str()) =>
            {
                self.missing.get_or_insert(name);
            }
            Err(redb::TableError::TableDoesNotExist(_)) | Ok(_) => {}
            Err(error) => return Err(redb::Error::from(error).into()),
        }
        Ok(())
    }
}

impl Each for Copying<'_> {
    fn table<K: redb::Key + 'static, V: redb::Value + 'static>(
        &mut self,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Batch, Delivered, Delivery};
    use crate::fixture::{partial, transaction};
    use crate::records::Place;
    use crate::store::Options;
    use crate::tables::EDGES;
    use crate::window::{DAY_MS, HOUR_MS, Retention};
    use redb::ReadableTableMetadata as _;
    use std::collections::BTreeMap;
    use tollgate_wire::Partial;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }

    /// The rows of each table of a file, by name: what the file says that it has, whatever is known of it here.
    fn tables_of(path: &Path) -> Vec<(String, u64)> {
        let database = Database::open(path).expect("a database");
        let file = database.begin_read().expect("a transaction");
        let named = file.list_tables().expect("listed").map(|table| {
            let name = table.name().to_owned();
            let rows = file.open_untyped_table(table).expect("it is there").len().expect("counted");
            (name, rows)
        });
        let mut named: Vec<_> = named.collect();
        named.sort();
        named
    }

    #[test]
    fn a_copy_has_every_table_with_all_its_rows() {
        let folder = tempfile::tempdir().expect("folder");
        let (path, copy) = (folder.path().join("a"), folder.path().join("copy"));
        let store = Store::open(&path).expect("a new store");
        let now_ms = 3 * HOUR_MS;
        for txn_seq in 1..=2 {
            // What comes second is a correction.
            let sent = Partial { campaign_id: "c".to_owned(), ..partial("a", 0, 0, 5, &[]) };
            store.commit(&transaction("e", txn_seq, now_ms, vec![sent])).expect("committed");
            while store.keep_up(now_ms).expect("kept") {}
        }
        store.commit(&transaction("e", 3, now_ms, vec![partial("a", now_ms, 0, 5, &[])])).expect("committed");
        let offsets = BTreeMap::from([(0, 5)]);
        let batch = Batch { deliveries: &[], offsets: &offsets, now_ms, closing_cap_ms: None };
        store.apply(&batch).expect("applied");
        store.set_source("cluster/topic").expect("written");
        store.backup(&copy).expect("copied");
        drop(store);
        let tables = tables_of(&path);
        assert!(tables.iter().all(|(_, rows)| *rows > 0), "one with nothing in it tells nothing here: {tables:?}");
        assert_eq!(tables_of(&copy), tables);
    }

    /// Of a store whose first hours are pruned, what was counted by class is known to its own table alone.
    #[test]
    fn clicks_that_are_pruned_are_in_a_copy_too() {
        let folder = tempfile::tempdir().expect("folder");
        let retention = Retention { panes_ms: HOUR_MS, minutes_ms: HOUR_MS, hours_ms: HOUR_MS };
        let store = Store::open_with(&folder.path().join("a"), Options { retention, ..Options::default() });
        let store = store.expect("a new store");
        for (txn_seq, day) in [(1, 1), (2, 100)] {
            let sent = transaction("e", txn_seq, day * DAY_MS, vec![partial("a", day * DAY_MS - DAY_MS, 0, 5, &[])]);
            let place = Place { partition: 0, offset: txn_seq as i64 };
            let mut whole = Delivery::of(sent, place).expect("rows");
            let range = &mut whole.end.ranges[0];
            (range.from_lsn, range.to_lsn) = (5 * (txn_seq - 1), 5 * txn_seq);
            range.clicks_total = range.to_lsn;
            let (deliveries, offsets) = ([Delivered::Whole(whole)], BTreeMap::from([(0, place.offset + 1)]));
            let batch =
                Batch { deliveries: &deliveries, offsets: &offsets, now_ms: day * DAY_MS, closing_cap_ms: None };
            store.apply(&batch).expect("applied");
        }
        while store.keep_up(100 * DAY_MS).expect("kept") {}
        let rows = store.snapshot().and_then(|snapshot| snapshot.totals(i64::MIN, i64::MAX)).expect("read");
        assert_eq!(rows.gross(), 5, "the first day is pruned");
        let copy = folder.path().join("copy");
        store.backup(&copy).expect("copied");
        restore(&copy, &folder.path().join("dir")).expect("restored");
        let restored = Store::open(&folder.path().join("dir").join(STORE_FILE)).expect("a store");
        let counted = |store: &Store| store.snapshot().expect("read").counted().clone();
        assert_eq!((counted(&restored), counted(&store)[&0]), (counted(&store), 10));
    }

    /// What is not whole has no name that another copy could want, and is not left.
    #[test]
    fn copies_at_once_do_not_meet_and_what_comes_to_nothing_leaves_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open(&folder.path().join("store")).expect("a new store");
        store.commit(&transaction("e", 1, 20_000, vec![partial("a", 0, 0, 5, &[])])).expect("committed");
        let copies = folder.path().join("copies");
        let refused = store.backup(&copies.join("a.redb")).expect_err("no such directory").to_string();
        assert!(refused.contains("copies/a.redb: No such file") && refused.contains("--to"), "{refused}");
        fs::create_dir(&copies).expect("made");
        std::thread::scope(|scope| {
            for name in ["a.redb", "a.bak", "a"] {
                let (store, to) = (&store, copies.join(name));
                scope.spawn(move || store.backup(&to).expect("copied"));
            }
        });
        assert_eq!(names(&copies), ["a", "a.bak", "a.redb"]);
        for name in ["a", "a.bak", "a.redb"] {
            let copied = Store::open(&copies.join(name)).expect("a store");
            assert_eq!(copied.snapshot().and_then(|snapshot| snapshot.ad("a", 0, 60_000)).expect("read").gross(), 5);
        }
        let refused = store.backup(&copies.join("a")).expect_err("it is there").to_string();
        assert!(refused.contains("copies/a is there already") && refused.contains("--to"), "{refused}");
    }

    /// What is left of a copy after this.
    fn without(path: &Path, change: impl FnOnce(&WriteTransaction)) {
        let database = Database::open(path).expect("a database");
        let file = begin_write(&database).expect("a transaction");
        change(&file);
        commit_file(file).expect("committed");
    }

    #[test]
    fn what_is_no_store_is_not_restored_and_nothing_is_left_of_it() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("text"), "no store\n").expect("written");
        fs::write(path("empty"), "").expect("written");
        drop(Database::create(path("foreign")).expect("made"));
        let edges = Store::open(&path("of-an-edge")).expect("a new store");
        edges.commit(&transaction("e", 1, 20_000, Vec::new())).expect("committed");
        drop(edges);
        let serving = Store::open(&path("serving")).expect("a new store");
        serving.backup(&path("good")).expect("copied");
        for (name, table) in [("no-state", STATE.name()), ("no-edges", EDGES.name()), ("no-hours", "hours")] {
            serving.backup(&path(name)).expect("copied");
            without(&path(name), |file| {
                let found = file.list_tables().expect("listed").find(|found| found.name() == table);
                assert!(file.delete_table(found.expect("it is there")).expect("deleted"));
            });
        }
        serving.backup(&path("no-version")).expect("copied");
        without(&path("no-version"), |file| {
            file.open_table(STATE).expect("it is there").remove(VERSION).expect("removed").expect("it was there");
        });
        let dir = path("dir");
        for (from, why) in [
            ("no-state", "no-state is no store of a global tier: it is somebody else's database"),
            ("no-edges", "it has no table \"edges\""),
            ("no-hours", "it has no table \"hours\""),
            ("no-version", "it has no version"),
            ("none", "none: No such file"),
            ("text", "text is no store of a global tier: "),
            ("empty", "empty is no store of a global tier: it is empty"),
            ("foreign", "somebody else's database"),
            ("of-an-edge", "of an edge"),
            ("serving", "`tollgate backup`"),
        ] {
            let refused = restore(&path(from), &dir).expect_err(from).to_string();
            assert!(refused.contains(why) && !dir.exists(), "{from}: {refused}");
        }
        fs::create_dir(&dir).expect("made");
        fs::write(dir.join("identity.toml"), "").expect("written");
        let refused = restore(&path("good"), &dir).expect_err("an edge's").to_string();
        assert!(refused.contains("is an edge's") && names(&dir) == ["identity.toml"], "{refused}");
        fs::remove_file(dir.join("identity.toml")).expect("removed");
        assert!(restore(&path("text"), &dir).is_err() && names(&dir).is_empty(), "a directory that was there stays");
        restore(&path("good"), &dir).expect("restored");
        let refused = restore(&path("good"), &dir).expect_err("it is there").to_string();
        assert!(refused.contains("dir/global.redb is there already") && refused.contains("--data-dir"), "{refused}");
        assert_eq!(names(&dir), ["global.redb"]);
    }
}
