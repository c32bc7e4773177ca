//! The tables of the store's file, and how their values are read and written.

use prost::Message;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use tollgate_wire::users::UsersError;

use crate::transaction::Refusal;

/// Row key (see `key`) to [`crate::records::Row`].
pub const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");
/// Pane start to [`crate::records::PaneTotals`].
pub const TOTALS: TableDefinition<i64, &[u8]> = TableDefinition::new("totals");
/// Runs with a pane that is still open, by edge and transaction.
pub const RUNS: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("runs");
/// Edge to [`tollgate_wire::Checkpoint`].
pub const CHECKPOINTS: TableDefinition<&str, &[u8]> = TableDefinition::new("checkpoints");
/// Edge to [`crate::records::Edge`].
pub const EDGES: TableDefinition<&str, &[u8]> = TableDefinition::new("edges");
/// Single numbers by name.
pub const STATE: TableDefinition<&str, i64> = TableDefinition::new("state");

pub const VERSION: &str = "version";
pub const GENERATION: &str = "generation";
pub const FOLDED_BEFORE_MS: &str = "folded_before_ms";

/// Version of all tables; an older tollgate refuses a newer store.
pub const STORE_VERSION: i64 = 1;

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

pub fn read<T: Message + Default>(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
) -> Result<Option<T>, StoreError> {
    let value = table.get(name).map_err(redb::Error::from)?;
    value.map(|value| decode(value.value())).transpose()
}

pub fn decode<T: Message + Default>(bytes: &[u8]) -> Result<T, StoreError> {
    T::decode(bytes).map_err(|error| StoreError::Damaged(error.to_string()))
}

pub fn state_value(table: &impl ReadableTable<&'static str, i64>, name: &str) -> Result<Option<i64>, StoreError> {
    Ok(table.get(name).map_err(redb::Error::from)?.map(|value| value.value()))
}

pub fn put_state(table: &mut redb::Table<'_, &'static str, i64>, name: &str, value: i64) -> Result<(), StoreError> {
    table.insert(name, value).map_err(redb::Error::from)?;
    Ok(())
}

pub fn begin_read(database: &Database) -> Result<ReadTransaction, StoreError> {
    Ok(database.begin_read().map_err(redb::Error::from)?)
}

/// A transaction whose commit is on disk when it returns (`Durability::Immediate` is redb's default).
pub fn begin_write(database: &Database) -> Result<WriteTransaction, StoreError> {
    let mut file = database.begin_write().map_err(redb::Error::from)?;
    // A second sync a commit; without it the start after a kill reads the whole file (0.7 s instead of 0.03 s at a million
    // rows, warm), and one commit a second is few.
    file.set_quick_repair(true);
    Ok(file)
}

pub fn commit_file(file: WriteTransaction) -> Result<(), StoreError> {
    Ok(file.commit().map_err(redb::Error::from)?)
}

pub fn damaged_users(error: UsersError) -> StoreError {
    StoreError::Damaged(error.to_string())
}
