//! The store of the global tier, one redb file: a commit is one blob, rows are written when their pane closes. One thread
//! commits (the exporter); any number read. A reader takes a snapshot of the file and of the open panes that belong together.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use prost::Message;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use tollgate_wire::users::{Users, UsersError};
use tollgate_wire::{Checkpoint, Transaction};

use crate::key::{self, PANE_MS};
use crate::panes::{self, Open, OpenRun, RowDelta, Run, RunError};
use crate::records::{Edge, Row};
use crate::sums::Sums;
use crate::transaction::{self, Refusal};

/// Row key (see `key`) to [`Row`].
const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");
/// Pane start to [`crate::records::PaneTotals`].
const TOTALS: TableDefinition<i64, &[u8]> = TableDefinition::new("totals");
/// Runs with a pane that is still open, by edge and transaction.
const RUNS: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("runs");
/// Edge to [`Checkpoint`].
const CHECKPOINTS: TableDefinition<&str, &[u8]> = TableDefinition::new("checkpoints");
/// Edge to [`Edge`].
const EDGES: TableDefinition<&str, &[u8]> = TableDefinition::new("edges");
/// Single numbers by name.
const STATE: TableDefinition<&str, i64> = TableDefinition::new("state");

const VERSION: &str = "version";
const GENERATION: &str = "generation";
const FOLDED_BEFORE_MS: &str = "folded_before_ms";

/// Version of everything above; an older tollgate refuses a newer store.
const STORE_VERSION: i64 = 1;
/// What redb may hold of the file in memory.
const CACHE_BYTES: usize = 32 << 20;
/// Open panes beyond this are folded before they close: 50,000 rows a second of 100 bytes, for 12 s.
const OPEN_BYTES_MAX: usize = 64 << 20;
/// More runs make every query look into more places; a cut a second closes its panes within 20 s unless an edge is silent.
const OPEN_RUNS_MAX: usize = 256;
/// A pane this far ahead of its edge's watermark goes to its row at once: it would stay open too long.
const OPEN_AHEAD_MS: i64 = 5 * 60 * 1000;

/// Why the store did not do as asked; the variants say what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing to do: this very transaction is in the store.
    #[error("transaction {txn_seq} of edge {edge_id:?} is already committed, with this checkpoint")]
    AlreadyCommitted { edge_id: String, txn_seq: u64 },
    /// Another writer, or a store that was put back: stop.
    #[error(
        "edge {edge_id:?} sent transaction {found}, the store expects {expected}: another writer, or an older store"
    )]
    Sequence { edge_id: String, expected: u64, found: u64 },
    /// A bug of the sender, or damage on the way: the same transaction will never be taken.
    #[error("transaction refused: {0}")]
    Refused(#[from] Refusal),
    /// Stop: this file is not for this version.
    #[error("the store has format {found}, this tollgate reads {STORE_VERSION}: run the version that wrote it")]
    Version { found: i64 },
    /// Stop: what the store holds cannot be read.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// An earlier commit failed with its outcome unknown: open the store again and read the checkpoint.
    #[error("an earlier commit failed and its outcome is unknown: open the store again and read the checkpoint")]
    Failed,
    /// The outcome of a commit is unknown, a read failed: open the store again and read the checkpoint.
    #[error("store: {0}")]
    Database(#[from] redb::Error),
}

/// The store. Shared by the exporter's thread and the query side.
pub struct Store {
    database: Database,
    /// Replaced at the end of every commit, after the file.
    open: RwLock<Arc<Open>>,
    /// Held through a commit.
    committing: Mutex<()>,
    failed: AtomicBool,
}

/// The file and the open panes after the same commit.
pub struct Snapshot {
    file: ReadTransaction,
    open: Arc<Open>,
}

impl Store {
    /// Opens the store, or begins one where there is no file. Loads the runs that hold open panes, no row.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(redb::Error::from)?;
        let file = begin_write(&database)?;
        let open = load(&file)?;
        commit_file(file)?;
        Ok(Store {
            database,
            open: RwLock::new(Arc::new(open)),
            committing: Mutex::new(()),
            failed: AtomicBool::new(false),
        })
    }

    /// Commits a transaction, all or nothing and on disk when this returns.
    pub fn commit(&self, transaction: &Transaction) -> Result<(), StoreError> {
        let _committing = self.committing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.failed.load(Ordering::Acquire) {
            return Err(StoreError::Failed);
        }
        transaction::check(transaction)?;
        let outcome = self.write(transaction);
        if let Err(StoreError::Database(_) | StoreError::Damaged(_)) = &outcome {
            self.failed.store(true, Ordering::Release);
        }
        outcome
    }

    /// The last checkpoint of an edge: the only truth about what it exported.
    pub fn checkpoint(&self, edge_id: &str) -> Result<Option<Checkpoint>, StoreError> {
        let file = begin_read(&self.database)?;
        let table = file.open_table(CHECKPOINTS).map_err(redb::Error::from)?;
        read(&table, edge_id)
    }

    /// What is committed, for one query.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        loop {
            let open = self.open.read().unwrap_or_else(PoisonError::into_inner).clone();
            let file = begin_read(&self.database)?;
            let generation = {
                let state = file.open_table(STATE).map_err(redb::Error::from)?;
                state_value(&state, GENERATION)?.unwrap_or(0)
            };
            if generation == open.generation {
                return Ok(Snapshot { file, open });
            }
            if self.failed.load(Ordering::Acquire) {
                return Err(StoreError::Failed);
            }
            // A commit is between the file and the open panes: a few instructions apart.
            std::thread::yield_now();
        }
    }

    /// Runs in memory, for tests of what bounds them.
    #[cfg(test)]
    pub fn open_runs(&self) -> usize {
        self.open.read().unwrap_or_else(PoisonError::into_inner).runs.len()
    }

    fn write(&self, transaction: &Transaction) -> Result<(), StoreError> {
        let before = self.open.read().unwrap_or_else(PoisonError::into_inner).clone();
        let file = begin_write(&self.database)?;
        put_checkpoint(&file, transaction)?;
        let watermark_ms = put_edge(&file, transaction)?;
        let open = put_partials(&file, transaction, &before, watermark_ms)?;
        {
            let mut state = file.open_table(STATE).map_err(redb::Error::from)?;
            put_state(&mut state, GENERATION, open.generation)?;
            put_state(&mut state, FOLDED_BEFORE_MS, open.folded_before_ms)?;
        }
        commit_file(file)?;
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(open);
        Ok(())
    }
}

impl Snapshot {
    /// What the edges claim to be complete up to: the smallest watermark of those that have not stopped.
    pub fn watermark_ms(&self) -> Option<i64> {
        self.open.watermark_ms
    }

    /// Sums of one ad over panes in [from, to).
    pub fn ad(&self, ad_id: &str, from_ms: i64, to_ms: i64) -> Result<Sums, StoreError> {
        let mut sums = Sums::default();
        if from_ms >= to_ms || ad_id.len() > key::TEXT_BYTES_MAX {
            return Ok(sums);
        }
        let rows = self.file.open_table(ROWS).map_err(redb::Error::from)?;
        let (first, end) = (key::start(ad_id, from_ms), key::start(ad_id, to_ms));
        for entry in rows.range(first.as_slice()..end.as_slice()).map_err(redb::Error::from)? {
            let (key, value) = entry.map_err(redb::Error::from)?;
            let row: Row = decode(value.value())?;
            sums.add(key::class(key.value()), row.clicks, &row.users).map_err(damaged_users)?;
        }
        self.open.add_ad(ad_id, from_ms, to_ms, &mut sums).map_err(damaged_users)?;
        Ok(sums)
    }

    /// Sums of all ads over panes in [from, to).
    pub fn totals(&self, from_ms: i64, to_ms: i64) -> Result<Sums, StoreError> {
        let mut sums = Sums::default();
        if from_ms >= to_ms {
            return Ok(sums);
        }
        let table = self.file.open_table(TOTALS).map_err(redb::Error::from)?;
        for entry in table.range(from_ms..to_ms).map_err(redb::Error::from)? {
            let (_, value) = entry.map_err(redb::Error::from)?;
            sums.add_pane(&decode(value.value())?).map_err(damaged_users)?;
        }
        self.open.add_totals(from_ms, to_ms, &mut sums).map_err(damaged_users)?;
        Ok(sums)
    }
}

/// Makes the tables where they are not there, and reads what belongs in memory.
fn load(file: &WriteTransaction) -> Result<Open, StoreError> {
    file.open_table(ROWS).map_err(redb::Error::from)?;
    file.open_table(TOTALS).map_err(redb::Error::from)?;
    file.open_table(CHECKPOINTS).map_err(redb::Error::from)?;
    let mut state = file.open_table(STATE).map_err(redb::Error::from)?;
    match state_value(&state, VERSION)? {
        Some(STORE_VERSION) => {}
        Some(found) => return Err(StoreError::Version { found }),
        None => put_state(&mut state, VERSION, STORE_VERSION)?,
    }
    let mut runs = Vec::new();
    let stored = file.open_table(RUNS).map_err(redb::Error::from)?;
    for entry in stored.iter().map_err(redb::Error::from)? {
        let (name, bytes) = entry.map_err(redb::Error::from)?;
        let (edge_id, txn_seq) = name.value();
        let run = Run::from_bytes(bytes.value().to_vec())
            .map_err(|error| StoreError::Damaged(format!("run {txn_seq} of edge {edge_id:?}: {error}")))?;
        runs.push(Arc::new(OpenRun { edge_id: edge_id.to_owned(), txn_seq, run }));
    }
    let edges = file.open_table(EDGES).map_err(redb::Error::from)?;
    Ok(Open {
        generation: state_value(&state, GENERATION)?.unwrap_or(0),
        folded_before_ms: state_value(&state, FOLDED_BEFORE_MS)?.unwrap_or(i64::MIN),
        watermark_ms: watermark(&edges)?,
        runs,
    })
}

/// Replaces the edge's checkpoint, if the transaction is the next after it.
fn put_checkpoint(file: &WriteTransaction, transaction: &Transaction) -> Result<(), StoreError> {
    let next = &transaction.checkpoint;
    let edge_id = next.edge_id.as_str();
    let mut table = file.open_table(CHECKPOINTS).map_err(redb::Error::from)?;
    let last: Option<Checkpoint> = read(&table, edge_id)?;
    if last.as_ref() == Some(next) {
        return Err(StoreError::AlreadyCommitted { edge_id: edge_id.to_owned(), txn_seq: next.txn_seq });
    }
    let expected = last.map_or(0, |last| last.txn_seq) + 1;
    if next.txn_seq != expected {
        return Err(StoreError::Sequence { edge_id: edge_id.to_owned(), expected, found: next.txn_seq });
    }
    table.insert(edge_id, next.encode_to_vec().as_slice()).map_err(redb::Error::from)?;
    Ok(())
}

/// Notes what the edge claims, keeping the highest, and gives the watermark over all edges.
fn put_edge(file: &WriteTransaction, transaction: &Transaction) -> Result<Option<i64>, StoreError> {
    let end = &transaction.end;
    let mut table = file.open_table(EDGES).map_err(redb::Error::from)?;
    let last: Option<Edge> = read(&table, end.edge_id.as_str())?;
    let edge = Edge {
        watermark_ms: last.as_ref().map_or(end.watermark_ms, |last| last.watermark_ms.max(end.watermark_ms)),
        horizon_ms: last.as_ref().map_or(end.horizon_ms, |last| last.horizon_ms.max(end.horizon_ms)),
        stopped: end.stopped,
        end: end.clone(),
    };
    table.insert(end.edge_id.as_str(), edge.encode_to_vec().as_slice()).map_err(redb::Error::from)?;
    watermark(&table)
}

/// The smallest watermark of the edges that have not stopped; where all have, the highest of theirs.
fn watermark(edges: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<Option<i64>, StoreError> {
    let (mut live, mut stopped) = (None::<i64>, None::<i64>);
    for entry in edges.iter().map_err(redb::Error::from)? {
        let edge: Edge = decode(entry.map_err(redb::Error::from)?.1.value())?;
        if edge.stopped {
            stopped = Some(stopped.map_or(edge.watermark_ms, |other| other.max(edge.watermark_ms)));
        } else {
            live = Some(live.map_or(edge.watermark_ms, |other| other.min(edge.watermark_ms)));
        }
    }
    Ok(live.or(stopped))
}

/// Keeps the partials of open panes as a run, adds those of closed ones to their rows, and folds what has closed.
fn put_partials(
    file: &WriteTransaction,
    transaction: &Transaction,
    before: &Open,
    watermark_ms: Option<i64>,
) -> Result<Open, StoreError> {
    let end = &transaction.end;
    let closed_ms = watermark_ms.map_or(i64::MIN, |at| at.div_euclid(PANE_MS).saturating_mul(PANE_MS));
    let mut folded_before_ms = before.folded_before_ms.max(closed_ms);
    let open_until_ms = end.watermark_ms.saturating_add(OPEN_AHEAD_MS);
    let stays_open = |pane_ms: i64| pane_ms >= folded_before_ms && pane_ms <= open_until_ms;
    let run = Run::of(&transaction.partials, |partial| stays_open(partial.pane_start_ms)).map_err(refused)?;
    let direct = Run::of(&transaction.partials, |partial| !stays_open(partial.pane_start_ms)).map_err(refused)?;

    let mut open = Open { generation: before.generation + 1, watermark_ms, ..before.clone() };
    if !run.is_empty() {
        let name = (end.edge_id.as_str(), end.txn_seq);
        let mut runs = file.open_table(RUNS).map_err(redb::Error::from)?;
        runs.insert(name, run.bytes()).map_err(redb::Error::from)?;
        open.runs.push(Arc::new(OpenRun { edge_id: end.edge_id.clone(), txn_seq: end.txn_seq, run }));
    }
    if open.runs.len() > OPEN_RUNS_MAX || open.bytes() > OPEN_BYTES_MAX {
        let last_pane = open.runs.iter().filter_map(|open| open.run.last_pane()).max();
        folded_before_ms =
            last_pane.map_or(folded_before_ms, |pane| folded_before_ms.max(pane.saturating_add(PANE_MS)));
    }
    add_to_rows(file, [&direct].into_iter(), i64::MIN, i64::MAX)?;
    if folded_before_ms > before.folded_before_ms {
        let runs = open.runs.iter().map(|open| &open.run);
        add_to_rows(file, runs, before.folded_before_ms, folded_before_ms)?;
        open.folded_before_ms = folded_before_ms;
        drop_folded_runs(file, &mut open)?;
    }
    Ok(open)
}

/// Adds the runs' entries of panes in [from, to) to rows and totals, which may be there already.
fn add_to_rows<'a>(
    file: &WriteTransaction,
    runs: impl Iterator<Item = &'a Run> + Clone,
    from_ms: i64,
    to_ms: i64,
) -> Result<(), StoreError> {
    let mut rows = file.open_table(ROWS).map_err(redb::Error::from)?;
    for delta in panes::merge_rows(runs.clone(), from_ms, to_ms) {
        let before = rows.get(delta.key).map_err(redb::Error::from)?.map(|value| decode(value.value()));
        let row = add_to_row(before.transpose()?, &delta).map_err(damaged_users)?;
        rows.insert(delta.key, row.encode_to_vec().as_slice()).map_err(redb::Error::from)?;
    }
    add_to_totals(file, runs, from_ms, to_ms)
}

fn add_to_totals<'a>(
    file: &WriteTransaction,
    runs: impl Iterator<Item = &'a Run>,
    from_ms: i64,
    to_ms: i64,
) -> Result<(), StoreError> {
    let mut added: BTreeMap<i64, Sums> = BTreeMap::new();
    for run in runs {
        for (pane_ms, pane) in run.totals(from_ms, to_ms) {
            added.entry(pane_ms).or_default().add_pane(pane).map_err(damaged_users)?;
        }
    }
    let mut totals = file.open_table(TOTALS).map_err(redb::Error::from)?;
    for (pane_ms, mut sums) in added {
        if let Some(before) = totals.get(pane_ms).map_err(redb::Error::from)? {
            sums.add_pane(&decode(before.value())?).map_err(damaged_users)?;
        }
        totals.insert(pane_ms, sums.into_pane().encode_to_vec().as_slice()).map_err(redb::Error::from)?;
    }
    Ok(())
}

fn add_to_row(before: Option<Row>, delta: &RowDelta<'_>) -> Result<Row, UsersError> {
    let before = before.unwrap_or_default();
    let clicks = before.clicks + delta.clicks;
    // One sketch alone is kept as it came.
    let users = match (before.users.is_empty(), delta.users.as_slice()) {
        (_, []) => before.users,
        (true, [only]) => only.to_vec(),
        (_, several) => {
            let mut sketch = Users::new();
            sketch.merge_bytes(&before.users)?;
            several.iter().try_for_each(|bytes| sketch.merge_bytes(bytes))?;
            sketch.to_bytes()
        }
    };
    Ok(Row { clicks, users })
}

fn drop_folded_runs(file: &WriteTransaction, open: &mut Open) -> Result<(), StoreError> {
    let mut runs = file.open_table(RUNS).map_err(redb::Error::from)?;
    let folded_before_ms = open.folded_before_ms;
    let is_folded = |open: &Arc<OpenRun>| open.run.last_pane().is_none_or(|pane| pane < folded_before_ms);
    for folded in open.runs.iter().filter(|open| is_folded(open)) {
        runs.remove((folded.edge_id.as_str(), folded.txn_seq)).map_err(redb::Error::from)?;
    }
    open.runs.retain(|open| !is_folded(open));
    Ok(())
}

fn read<T: Message + Default>(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
) -> Result<Option<T>, StoreError> {
    let value = table.get(name).map_err(redb::Error::from)?;
    value.map(|value| decode(value.value())).transpose()
}

fn decode<T: Message + Default>(bytes: &[u8]) -> Result<T, StoreError> {
    T::decode(bytes).map_err(|error| StoreError::Damaged(error.to_string()))
}

fn state_value(table: &impl ReadableTable<&'static str, i64>, name: &str) -> Result<Option<i64>, StoreError> {
    Ok(table.get(name).map_err(redb::Error::from)?.map(|value| value.value()))
}

fn put_state(table: &mut redb::Table<'_, &'static str, i64>, name: &str, value: i64) -> Result<(), StoreError> {
    table.insert(name, value).map_err(redb::Error::from)?;
    Ok(())
}

fn begin_read(database: &Database) -> Result<ReadTransaction, StoreError> {
    Ok(database.begin_read().map_err(redb::Error::from)?)
}

/// A transaction whose commit is on disk when it returns (`Durability::Immediate` is redb's default).
fn begin_write(database: &Database) -> Result<WriteTransaction, StoreError> {
    Ok(database.begin_write().map_err(redb::Error::from)?)
}

fn commit_file(file: WriteTransaction) -> Result<(), StoreError> {
    Ok(file.commit().map_err(redb::Error::from)?)
}

fn damaged_users(error: UsersError) -> StoreError {
    StoreError::Damaged(error.to_string())
}

fn refused(error: RunError) -> StoreError {
    StoreError::Refused(Refusal::Run(error.to_string()))
}
