//! The tables of the store's file, and how their values are read and written.

use prost::Message;
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableHandle as _, WriteTransaction,
};
use tollgate_wire::users::UsersError;

use crate::key::{self, Parts};
use crate::progress::{Progress, Rolling};
use crate::records::Row;
use crate::transaction::Refusal;
use crate::window::{Grain, HOUR_MS, Marks, floor};

pub type Bytes = TableDefinition<'static, &'static [u8], &'static [u8]>;
/// Is shown a row's parts, clicks and users.
pub type EachRow<'a> = &'a mut dyn FnMut(&Parts<'_>, u64, &[u8]) -> Result<(), StoreError>;

/// Stored key (see `key`) to [`crate::records::Row`], a table for each grain.
const PANES: Bytes = TableDefinition::new("panes");
const MINUTES: Bytes = TableDefinition::new("minutes");
const HOURS: Bytes = TableDefinition::new("hours");
/// Bucket of minutes, ad and minute, as a stored key begins, to [`crate::records::History`].
pub const HISTORY: Bytes = TableDefinition::new("history");
/// Bucket of hours, ad and hour, as a stored key begins, to how often its minutes were corrected: a [`crate::records::History`] of which
/// no correction is kept. It is there from the first correction on, and says it alone once the minutes are pruned.
pub const CORRECTED: Bytes = TableDefinition::new("corrected");
/// Which ads a campaign (`c`) or advertiser (`a`) has, and the last hour in which each had a click.
pub const ADS: TableDefinition<(&str, &str, &str), i64> = TableDefinition::new("ads");
/// Runs with a pane that is still open, by commit.
pub const RUNS: TableDefinition<i64, &[u8]> = TableDefinition::new("runs");
/// Edge to [`tollgate_wire::Checkpoint`]; of the embedded sink alone.
pub const CHECKPOINTS: TableDefinition<&str, &[u8]> = TableDefinition::new("checkpoints");
/// Edge to [`crate::records::Edge`].
pub const EDGES: TableDefinition<&str, &[u8]> = TableDefinition::new("edges");
/// Partition of the topic of partials to the offset that is read next; with Kafka.
pub const OFFSETS: TableDefinition<i32, i64> = TableDefinition::new("offsets");
/// Class to the clicks that were counted of it, ever. A store of before there was this table has none until it is filled.
pub const COUNTED: TableDefinition<u32, u64> = TableDefinition::new("counted");
/// Single numbers by name.
pub const STATE: TableDefinition<&str, i64> = TableDefinition::new("state");
/// Single texts by name.
pub const TEXTS: TableDefinition<&str, &str> = TableDefinition::new("texts");

pub const VERSION: &str = "version";
pub const GENERATION: &str = "generation";
pub const COMMITTED_MS: &str = "committed_ms";
/// 1: everything that the topic had was counted at some time. A store that is read into for the first time has it not yet.
pub const CAUGHT_UP: &str = "caught_up";
const CLOSED_BEFORE_MS: &str = "closed_before_ms";
const FINAL_BEFORE_MS: &str = "final_before_ms";
const FOLDED_BEFORE_MS: &str = "folded_before_ms";
const ROLLED_BEFORE_MS: &str = "rolled_before_ms";
const ROLLING_HOUR_MS: &str = "rolling_hour_ms";
const KEPT_FROM_MS: [&str; 3] = ["panes_kept_from_ms", "minutes_kept_from_ms", "hours_kept_from_ms"];
/// Of the last row that is, in hexadecimal digits.
const ROLLING_ROW_KEY: &str = "rolling_row_key";
/// Instead of it in stores of version 2: the last ad that is.
const ROLLING_AD: &str = "rolling_ad";
/// Where the partials are from: Kafka's cluster, and the topic.
pub const SOURCE: &str = "source";
/// The id of that topic: its name is given again to one that is made anew.
pub const TOPIC_ID: &str = "topic_id";

/// Version of all tables; an older tollgate refuses a newer store.
pub const STORE_VERSION: i64 = 3;
/// The one before, which rolled up whole ads; made into this one when it is opened.
const OF_WHOLE_ADS: i64 = 2;

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
    /// Stop: what is pruned cannot be counted by class any more.
    #[error(
        "the store is of a tollgate that did not count clicks by class, and only {found} of the {told} clicks that it counted have rows \
         yet: the others are pruned, and their classes are known to nobody. Run the version that wrote it, or begin a new store"
    )]
    Uncounted { found: u64, told: u64 },
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

/// The table of a grain's rows.
pub fn rows_of(grain: Grain) -> Bytes {
    match grain {
        Grain::Pane => PANES,
        Grain::Minute => MINUTES,
        Grain::Hour => HOURS,
    }
}

/// The table of how often windows of a grain were corrected.
pub fn corrections_of(grain: Grain) -> Bytes {
    match grain {
        Grain::Pane | Grain::Minute => HISTORY,
        Grain::Hour => CORRECTED,
    }
}

/// What is done with each table, whatever its types.
pub trait Each {
    fn table<K: redb::Key + 'static, V: redb::Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<(), StoreError>;
}

/// Shows every table there is: whoever makes, copies or looks for them all goes by this. The one that has the version comes last: what
/// is without is no store.
pub fn each(visit: &mut impl Each) -> Result<(), StoreError> {
    for grain in Grain::ALL {
        visit.table(rows_of(grain))?;
    }
    visit.table(HISTORY)?;
    visit.table(CORRECTED)?;
    visit.table(ADS)?;
    visit.table(COUNTED)?;
    visit.table(RUNS)?;
    visit.table(CHECKPOINTS)?;
    visit.table(EDGES)?;
    visit.table(OFFSETS)?;
    visit.table(TEXTS)?;
    visit.table(STATE)
}

/// Makes tables where they are not there, but for the one that is made when it is filled.
struct Making<'a> {
    file: &'a WriteTransaction,
    is_counted: bool,
}

impl Each for Making<'_> {
    fn table<K: redb::Key + 'static, V: redb::Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<(), StoreError> {
        if self.is_counted || table.name() != COUNTED.name() {
            self.file.open_table(table).map_err(redb::Error::from)?;
        }
        Ok(())
    }
}

/// Makes the tables where they are not there, and checks whose file this is. False: what it holds is not counted by class yet.
pub fn make(file: &WriteTransaction) -> Result<bool, StoreError> {
    let mut is_counted = file.list_tables().map_err(redb::Error::from)?.any(|table| table.name() == COUNTED.name());
    let mut state = file.open_table(STATE).map_err(redb::Error::from)?;
    match state_value(&state, VERSION)? {
        Some(STORE_VERSION) => {}
        Some(OF_WHOLE_ADS) => {
            roll_anew(file, &mut state)?;
            put_state(&mut state, VERSION, STORE_VERSION)?;
        }
        Some(found) => return Err(StoreError::Version { found }),
        None => {
            put_state(&mut state, VERSION, STORE_VERSION)?;
            is_counted = true;
        }
    }
    drop(state);
    each(&mut Making { file, is_counted })?;
    Ok(is_counted)
}

/// The hour that is being rolled up begins anew: its panes hold everything, and rolling up adds to the rows of minutes and hours that it finds.
fn roll_anew(file: &WriteTransaction, state: &mut redb::Table<'_, &'static str, i64>) -> Result<(), StoreError> {
    let hour_ms = state.remove(ROLLING_HOUR_MS).map_err(redb::Error::from)?.map(|value| value.value());
    file.open_table(TEXTS).map_err(redb::Error::from)?.remove(ROLLING_AD).map_err(redb::Error::from)?;
    let Some(hour_ms) = hour_ms else { return Ok(()) };
    for grain in [Grain::Minute, Grain::Hour] {
        let bucket_ms = floor(hour_ms, grain.bucket_ms());
        let (first, end) =
            (key::bucket_start(bucket_ms), key::bucket_start(bucket_ms.saturating_add(grain.bucket_ms())));
        let mut rows = file.open_table(rows_of(grain)).map_err(redb::Error::from)?;
        let is_of_another = |stored: &[u8]| floor(key::window_start(key::unstored(stored).1), HOUR_MS) != hour_ms;
        rows.retain_in(first.as_slice()..end.as_slice(), |stored, _| is_of_another(stored))
            .map_err(redb::Error::from)?;
    }
    Ok(())
}

/// The first bucket of a table that begins at this time or after it.
pub fn next_bucket(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    from_ms: i64,
) -> Result<Option<i64>, StoreError> {
    let first = key::bucket_start(from_ms);
    let mut found = table.range(first.as_slice()..).map_err(redb::Error::from)?;
    let Some(entry) = found.next() else { return Ok(None) };
    let (stored, _) = entry.map_err(redb::Error::from)?;
    Ok(Some(key::unstored(stored.value()).0))
}

/// Shows the rows of a range.
pub fn visit_rows(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    range: std::ops::Range<&[u8]>,
    each: EachRow<'_>,
) -> Result<(), StoreError> {
    for entry in table.range(range).map_err(redb::Error::from)? {
        let (stored, value) = entry.map_err(redb::Error::from)?;
        let row: Row = decode(value.value())?;
        let (_, row_key) = key::unstored(stored.value());
        each(&Parts::read(row_key).ok_or_else(damaged_key)?, row.clicks, &row.users)?;
    }
    Ok(())
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

pub fn read_progress(file: &WriteTransaction) -> Result<Progress, StoreError> {
    let state = file.open_table(STATE).map_err(redb::Error::from)?;
    let value = |name: &str| Ok::<_, StoreError>(state_value(&state, name)?.unwrap_or(i64::MIN));
    let marks = Marks { closed_before_ms: value(CLOSED_BEFORE_MS)?, final_before_ms: value(FINAL_BEFORE_MS)? };
    let texts = file.open_table(TEXTS).map_err(redb::Error::from)?;
    let row_key = texts.get(ROLLING_ROW_KEY).map_err(redb::Error::from)?;
    let row_key = row_key.map(|text| bytes_of(text.value()).ok_or_else(damaged_key)).transpose()?;
    let rolling_hour = state_value(&state, ROLLING_HOUR_MS)?;
    Ok(Progress {
        marks,
        folded_before_ms: value(FOLDED_BEFORE_MS)?,
        rolled_before_ms: value(ROLLED_BEFORE_MS)?,
        rolling: rolling_hour.zip(row_key).map(|(hour_ms, row_key)| Rolling { hour_ms, row_key }),
        kept_from_ms: [value(KEPT_FROM_MS[0])?, value(KEPT_FROM_MS[1])?, value(KEPT_FROM_MS[2])?],
    })
}

pub fn put_progress(file: &WriteTransaction, progress: &Progress) -> Result<(), StoreError> {
    let mut state = file.open_table(STATE).map_err(redb::Error::from)?;
    put_state(&mut state, CLOSED_BEFORE_MS, progress.marks.closed_before_ms)?;
    put_state(&mut state, FINAL_BEFORE_MS, progress.marks.final_before_ms)?;
    put_state(&mut state, FOLDED_BEFORE_MS, progress.folded_before_ms)?;
    put_state(&mut state, ROLLED_BEFORE_MS, progress.rolled_before_ms)?;
    for (name, value) in KEPT_FROM_MS.iter().zip(progress.kept_from_ms) {
        put_state(&mut state, name, value)?;
    }
    let mut texts = file.open_table(TEXTS).map_err(redb::Error::from)?;
    match &progress.rolling {
        Some(Rolling { hour_ms, row_key }) => {
            put_state(&mut state, ROLLING_HOUR_MS, *hour_ms)?;
            let digits: String = row_key.iter().map(|byte| format!("{byte:02x}")).collect();
            texts.insert(ROLLING_ROW_KEY, digits.as_str()).map_err(redb::Error::from)?;
        }
        None => {
            state.remove(ROLLING_HOUR_MS).map_err(redb::Error::from)?;
            texts.remove(ROLLING_ROW_KEY).map_err(redb::Error::from)?;
        }
    }
    Ok(())
}

/// What hexadecimal digits say.
fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    pairs.map(|pair| u8::from_str_radix(pair.filter(|pair| pair.len() == 2)?, 16).ok()).collect()
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

pub fn damaged_key() -> StoreError {
    StoreError::Damaged("a row has a key that cannot be read".to_owned())
}
