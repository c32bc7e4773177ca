//! The store of the global tier, one redb file: a commit is one blob, rows are written when their pane closes. One thread
//! commits (the exporter); any number read. A reader takes a snapshot of the file and of the open panes that belong together.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use prost::Message;
use redb::{Database, ReadableTable, WriteTransaction};
use tollgate_wire::{Checkpoint, EndRecord, Transaction};

use crate::fold::add_to_rows;
use crate::key::PANE_MS;
use crate::panes::{Open, OpenRun, Run, RunError};
use crate::records::Edge;
use crate::snapshot::Snapshot;
use crate::tables::{
    CHECKPOINTS, EDGES, FOLDED_BEFORE_MS, GENERATION, ROWS, RUNS, STATE, STORE_VERSION, StoreError, TOTALS, VERSION,
    begin_read, begin_write, commit_file, decode, put_state, read, state_value,
};
use crate::transaction::{self, Refusal};

/// What redb may hold of the file in memory.
const CACHE_BYTES: usize = 32 << 20;
/// What the store may hold in memory, page cache of the kernel aside.
pub const MEMORY_BYTES_MAX: usize = CACHE_BYTES + OPEN_BYTES_MAX;
/// Open panes beyond this are folded before they close: 50,000 rows a second of 100 bytes, for 12 s.
const OPEN_BYTES_MAX: usize = 64 << 20;
/// More runs make every query look into more places; a cut a second closes its panes within 20 s unless an edge is silent.
const OPEN_RUNS_MAX: usize = 256;
/// A pane this far ahead of its edge's watermark goes to its row at once: it would stay open too long.
const OPEN_AHEAD_MS: i64 = 5 * 60 * 1000;

/// The store. Shared by the exporter's thread and the query side.
pub struct Store {
    database: Database,
    /// Replaced at the end of every commit, after the file.
    open: RwLock<Arc<Open>>,
    /// Held through a commit.
    committing: Mutex<()>,
    failed: AtomicBool,
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

    /// The last checkpoint of any other edge.
    pub fn checkpoint_of_another(&self, edge_id: &str) -> Result<Option<Checkpoint>, StoreError> {
        let file = begin_read(&self.database)?;
        let table = file.open_table(CHECKPOINTS).map_err(redb::Error::from)?;
        for entry in table.iter().map_err(redb::Error::from)? {
            let (edge, bytes) = entry.map_err(redb::Error::from)?;
            if edge.value() != edge_id {
                return decode(bytes.value()).map(Some);
            }
        }
        Ok(None)
    }

    /// The end record of the edge's last transaction, for the audit.
    pub fn last_end(&self, edge_id: &str) -> Result<Option<EndRecord>, StoreError> {
        let file = begin_read(&self.database)?;
        let table = file.open_table(EDGES).map_err(redb::Error::from)?;
        Ok(read::<Edge>(&table, edge_id)?.map(|edge| edge.end))
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
                return Ok(Snapshot::new(file, open));
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

/// Makes the tables where they are not there, and reads what belongs in memory.
fn load(file: &WriteTransaction) -> Result<Open, StoreError> {
    let mut state = file.open_table(STATE).map_err(redb::Error::from)?;
    match state_value(&state, VERSION)? {
        Some(STORE_VERSION) => {}
        Some(found) => return Err(StoreError::Version { found }),
        None => put_state(&mut state, VERSION, STORE_VERSION)?,
    }
    file.open_table(ROWS).map_err(redb::Error::from)?;
    file.open_table(TOTALS).map_err(redb::Error::from)?;
    file.open_table(CHECKPOINTS).map_err(redb::Error::from)?;
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

fn refused(error: RunError) -> StoreError {
    StoreError::Refused(Refusal::Run(error.to_string()))
}
