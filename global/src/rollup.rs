//! Rolling hours of panes up to minutes and hours, and pruning what is older than its retention: a bounded step at a time,
//! each within a commit, so that nobody waits for long.

use std::collections::BTreeMap;
use std::ops::Bound;

use redb::{ReadableTable, WriteTransaction};
use tollgate_wire::users::Users;

use crate::fold::add_to_rows;
use crate::key;
use crate::panes::RowDelta;
use crate::progress::{Progress, Rolling};
use crate::records::Row;
use crate::store::Store;
use crate::tables::{Bytes, StoreError, begin_read, corrections_of, damaged_users, decode, rows_of};
use crate::window::{Grain, HOUR_MS, Retention, floor};

/// What one step may do: some tens of milliseconds, whatever ads and users there are.
#[derive(Clone, Copy)]
pub struct Step {
    /// Rows of panes that are rolled up, and rows that are pruned.
    pub rows: usize,
    /// Sketches of users, which take more time than the rows that they are of; one row may have more.
    pub users_bytes: usize,
}

impl Default for Step {
    fn default() -> Step {
        Step { rows: 4_096, users_bytes: 1 << 20 }
    }
}

/// What rows of panes add up to, by row of a coarser grain.
#[derive(Default)]
struct Rolled(BTreeMap<Vec<u8>, (u64, Users)>);

/// Rolls up some rows of the oldest hour that is not. True: there is more that can be.
pub fn roll(file: &WriteTransaction, progress: &mut Progress, step: Step) -> Result<bool, StoreError> {
    let panes = file.open_table(rows_of(Grain::Pane)).map_err(redb::Error::from)?;
    let Some(hour_ms) = next_hour(&panes, progress)? else { return Ok(false) };
    // Hours before it have no rows. From here on, what comes to one of them goes to its minute and hour at once: nobody rolls it up.
    progress.rolled_before_ms = hour_ms;
    let mut first = key::bucket_start(hour_ms).to_vec();
    if let Some(rolling) = progress.rolling.take() {
        if rolling.hour_ms != hour_ms {
            let text =
                format!("the hour {} is being rolled up, and the first that has rows is {hour_ms}", rolling.hour_ms);
            return Err(StoreError::Damaged(text));
        }
        first.extend_from_slice(&rolling.row_key);
    }
    let end = key::bucket_start(hour_ms.saturating_add(HOUR_MS));
    let (mut minutes, mut last, mut left) = (Rolled::default(), Vec::new(), step);
    let range = (Bound::Excluded(first.as_slice()), Bound::Excluded(end.as_slice()));
    for entry in panes.range::<&[u8]>(range).map_err(redb::Error::from)? {
        let (stored, value) = entry.map_err(redb::Error::from)?;
        let row: Row = decode(value.value())?;
        if left.rows == 0 || row.users.len() > left.users_bytes && left.rows < step.rows {
            progress.rolling = Some(Rolling { hour_ms, row_key: last });
            break;
        }
        left = Step { rows: left.rows - 1, users_bytes: left.users_bytes.saturating_sub(row.users.len()) };
        last.clear();
        last.extend_from_slice(key::unstored(stored.value()).1);
        minutes.add(Grain::Minute, &last, row.clicks, &row.users)?;
    }
    drop(panes);
    let minutes = minutes.into_rows();
    let mut hours = Rolled::default();
    for (row_key, row) in &minutes {
        hours.add(Grain::Hour, row_key, row.clicks, &row.users)?;
    }
    add_rows(file, Grain::Minute, &minutes)?;
    add_rows(file, Grain::Hour, &hours.into_rows())?;
    if progress.rolling.is_none() {
        progress.rolled_before_ms = hour_ms.saturating_add(HOUR_MS);
    }
    Ok(true)
}

/// Prunes some rows that are older than their retention. True: there are more.
pub fn prune(
    file: &WriteTransaction,
    progress: &mut Progress,
    retention: &Retention,
    step: Step,
) -> Result<bool, StoreError> {
    let mut left = step.rows;
    for grain in Grain::ALL {
        // What is asked for is moved to what is kept before anything goes. What begins before the hours that are kept is refused: where
        // none go, none are missing.
        let kept_from_ms = kept_from(progress, retention, grain);
        if grain != Grain::Hour || has_hours_before(file, kept_from_ms)? {
            progress.kept_from_ms[grain as usize] = kept_from_ms;
        }
        let end = key::bucket_start(progress.kept_from(grain));
        for table in pruned_tables(grain) {
            left = prune_table(file, table, &end, left)?;
        }
    }
    Ok(left == 0)
}

/// From when on rows of a grain are to be kept. Nothing goes that is not rolled up.
fn kept_from(progress: &Progress, retention: &Retention, grain: Grain) -> i64 {
    let limit_ms = progress.marks.closed_before_ms.saturating_sub(retention.of(grain)).min(progress.rolled_before_ms);
    progress.kept_from(grain).max(floor(limit_ms, grain.bucket_ms()))
}

/// Rows, and how they were corrected, which panes have no tables for.
fn pruned_tables(grain: Grain) -> impl Iterator<Item = Bytes> {
    [rows_of(grain)].into_iter().chain((grain != Grain::Pane).then(|| corrections_of(grain)))
}

fn has_hours_before(file: &WriteTransaction, limit_ms: i64) -> Result<bool, StoreError> {
    let hours = file.open_table(rows_of(Grain::Hour)).map_err(redb::Error::from)?;
    let first = hours.first().map_err(redb::Error::from)?;
    Ok(first.is_some_and(|(stored, _)| key::unstored(stored.value()).0 < limit_ms))
}

/// Whether a step would do something: looks at the file without a commit.
pub fn is_due(store: &Store, progress: &Progress) -> bool {
    let looked = || -> Result<bool, StoreError> {
        let file = begin_read(&store.database)?;
        let panes = file.open_table(rows_of(Grain::Pane)).map_err(redb::Error::from)?;
        if next_hour(&panes, progress)?.is_some() {
            return Ok(true);
        }
        for grain in Grain::ALL {
            let kept_from_ms = kept_from(progress, &store.options().retention, grain);
            for table in pruned_tables(grain) {
                let table = file.open_table(table).map_err(redb::Error::from)?;
                let first = table.first().map_err(redb::Error::from)?;
                if first.is_some_and(|(stored, _)| key::unstored(stored.value()).0 < kept_from_ms) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    };
    // A read that fails is seen by the commit that then comes.
    looked().unwrap_or(true)
}

/// The hour to roll up, if one can be: the oldest that has rows.
fn next_hour(
    panes: &impl ReadableTable<&'static [u8], &'static [u8]>,
    progress: &Progress,
) -> Result<Option<i64>, StoreError> {
    let first = key::bucket_start(progress.rolled_before_ms);
    let mut found = panes.range(first.as_slice()..).map_err(redb::Error::from)?;
    let Some(entry) = found.next() else { return Ok(None) };
    let (stored, _) = entry.map_err(redb::Error::from)?;
    Ok(Some(key::unstored(stored.value()).0).filter(|hour_ms| progress.can_roll(*hour_ms)))
}

/// Removes rows from the front of a table, up to `end`; returns how many more may go in this step.
fn prune_table(file: &WriteTransaction, table: Bytes, end: &[u8], mut left: usize) -> Result<usize, StoreError> {
    let mut rows = file.open_table(table).map_err(redb::Error::from)?;
    while left > 0 {
        let first = rows.first().map_err(redb::Error::from)?;
        if first.is_none_or(|(stored, _)| stored.value() >= end) {
            break;
        }
        rows.pop_first().map_err(redb::Error::from)?;
        left -= 1;
    }
    Ok(left)
}

impl Rolled {
    fn add(&mut self, grain: Grain, row_key: &[u8], clicks: u64, users: &[u8]) -> Result<(), StoreError> {
        let mut row_key = row_key.to_vec();
        let start_ms = floor(key::window_start(&row_key), grain.ms());
        key::set_window_start(&mut row_key, start_ms);
        let sums = self.0.entry(row_key).or_default();
        sums.0 += clicks;
        sums.1.merge_bytes(users).map_err(damaged_users)
    }

    fn into_rows(self) -> Vec<(Vec<u8>, Row)> {
        let row = |(clicks, users): (u64, Users)| Row { clicks, users: users.into_bytes() };
        self.0.into_iter().map(|(row_key, sums)| (row_key, row(sums))).collect()
    }
}

/// Adds to rows of minutes or hours: a step before, and what came late since, may have begun them.
fn add_rows<'a>(file: &WriteTransaction, grain: Grain, rows: &'a [(Vec<u8>, Row)]) -> Result<(), StoreError> {
    let delta = |(row_key, row): &'a (Vec<u8>, Row)| {
        let users = [&row.users[..]].into_iter().filter(|users| !users.is_empty()).collect();
        RowDelta { key: row_key, clicks: row.clicks, users }
    };
    add_to_rows(file, grain, rows.iter().map(delta))
}
