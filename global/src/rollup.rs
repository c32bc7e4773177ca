//! Rolling hours of panes up to minutes and hours, and pruning what is older than its retention: a bounded step at a time,
//! each within a commit, so that nobody waits for long.

use std::collections::BTreeMap;
use std::ops::Bound;

use prost::Message;
use redb::{ReadableTable, WriteTransaction};
use tollgate_wire::users::Users;

use crate::key::{self, Parts};
use crate::progress::{Progress, Rolling};
use crate::records::Row;
use crate::store::Store;
use crate::tables::{Bytes, StoreError, begin_read, corrections_of, damaged_key, damaged_users, decode, rows_of};
use crate::window::{Grain, HOUR_MS, Retention, floor};

/// Rows of panes that one step reads, and rows that one step prunes: some ten milliseconds.
const STEP_ROWS: usize = 4_096;

/// What one ad's panes of an hour add up to.
#[derive(Default)]
struct Rolled {
    rows: BTreeMap<(Grain, Vec<u8>), (u64, Users)>,
}

/// Rolls up some ads of the oldest hour that is not. True: there is more that can be.
pub fn roll(file: &WriteTransaction, progress: &mut Progress) -> Result<bool, StoreError> {
    let panes = file.open_table(rows_of(Grain::Pane)).map_err(redb::Error::from)?;
    let Some(hour_ms) = next_hour(&panes, progress)? else { return Ok(false) };
    // Hours before it have no rows. From here on, what comes to one of them goes to its minute and hour at once: nobody rolls it up.
    progress.rolled_before_ms = hour_ms;
    let under_way = progress.rolling.take().filter(|rolling| rolling.hour_ms == hour_ms);
    let first = match &under_way {
        Some(rolling) => key::stored_range(hour_ms, &rolling.ad_id, i64::MAX, i64::MAX).0,
        None => key::bucket_start(hour_ms).to_vec(),
    };
    let end = key::bucket_start(hour_ms.saturating_add(HOUR_MS));
    let (mut rolled, mut ad_id, mut read) = (Rolled::default(), None::<String>, 0);
    let mut whole = true;
    let range = (Bound::Included(first.as_slice()), Bound::Excluded(end.as_slice()));
    for entry in panes.range::<&[u8]>(range).map_err(redb::Error::from)? {
        let (stored, value) = entry.map_err(redb::Error::from)?;
        let (_, row_key) = key::unstored(stored.value());
        let parts = Parts::read(row_key).ok_or_else(damaged_key)?;
        // Ads are rolled up whole: the place to go on from is an ad.
        if ad_id.as_deref() != Some(parts.ad_id) {
            if read >= STEP_ROWS {
                whole = false;
                break;
            }
            ad_id = Some(parts.ad_id.to_owned());
        }
        rolled.add(row_key, &decode(value.value())?)?;
        read += 1;
    }
    drop(panes);
    rolled.write(file)?;
    match ad_id {
        Some(ad_id) if !whole => progress.rolling = Some(Rolling { hour_ms, ad_id }),
        _ => {
            progress.rolling = None;
            progress.rolled_before_ms = hour_ms.saturating_add(HOUR_MS);
        }
    }
    Ok(true)
}

/// Prunes some rows that are older than their retention. True: there are more.
pub fn prune(file: &WriteTransaction, progress: &mut Progress, retention: &Retention) -> Result<bool, StoreError> {
    let mut left = STEP_ROWS;
    for grain in Grain::ALL {
        // Nothing goes that is not rolled up; what is asked for is moved to what is kept before anything goes.
        let limit_ms =
            progress.marks.closed_before_ms.saturating_sub(retention.of(grain)).min(progress.rolled_before_ms);
        let kept_from_ms = &mut progress.kept_from_ms[grain as usize];
        *kept_from_ms = (*kept_from_ms).max(floor(limit_ms, grain.bucket_ms()));
        let end = key::bucket_start(*kept_from_ms);
        left = prune_table(file, rows_of(grain), &end, left)?;
        if grain != Grain::Pane {
            left = prune_table(file, corrections_of(grain), &end, left)?;
        }
    }
    Ok(left == 0)
}

/// Whether a step would do something: looks at the file without a commit.
pub fn is_due(store: &Store, progress: &Progress) -> bool {
    let looked = || -> Result<bool, StoreError> {
        let file = begin_read(&store.database)?;
        let panes = file.open_table(rows_of(Grain::Pane)).map_err(redb::Error::from)?;
        if next_hour(&panes, progress)?.is_some() {
            return Ok(true);
        }
        let mut after = progress.clone();
        for grain in Grain::ALL {
            let closed_ms = after.marks.closed_before_ms;
            let limit_ms = closed_ms.saturating_sub(store.options().retention.of(grain)).min(after.rolled_before_ms);
            let kept_from_ms = &mut after.kept_from_ms[grain as usize];
            *kept_from_ms = (*kept_from_ms).max(floor(limit_ms, grain.bucket_ms()));
            let table = file.open_table(rows_of(grain)).map_err(redb::Error::from)?;
            let first = table.first().map_err(redb::Error::from)?;
            if first.is_some_and(|(stored, _)| key::unstored(stored.value()).0 < *kept_from_ms) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    // A read that fails is seen by the commit that then comes.
    looked().unwrap_or(true)
}

/// The hour to roll up, if one can be: the oldest that has rows. Another one may be under way in a store of before hours without
/// rows counted as rolled up; that one then begins anew, and comes to the same.
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
    fn add(&mut self, row_key: &[u8], row: &Row) -> Result<(), StoreError> {
        for grain in [Grain::Minute, Grain::Hour] {
            let mut row_key = row_key.to_vec();
            let start_ms = floor(key::window_start(&row_key), grain.ms());
            key::set_window_start(&mut row_key, start_ms);
            let (clicks, users) = self.rows.entry((grain, row_key)).or_default();
            *clicks += row.clicks;
            users.merge_bytes(&row.users).map_err(damaged_users)?;
        }
        Ok(())
    }

    /// The rows are new: what came late to this hour before went to its panes alone.
    fn write(self, file: &WriteTransaction) -> Result<(), StoreError> {
        let mut minutes = file.open_table(rows_of(Grain::Minute)).map_err(redb::Error::from)?;
        let mut hours = file.open_table(rows_of(Grain::Hour)).map_err(redb::Error::from)?;
        let mut stored = Vec::new();
        for ((grain, row_key), (clicks, users)) in self.rows {
            let table = if grain == Grain::Minute { &mut minutes } else { &mut hours };
            key::stored(&row_key, floor(key::window_start(&row_key), grain.bucket_ms()), &mut stored);
            let row = Row { clicks, users: users.into_bytes() };
            table.insert(stored.as_slice(), row.encode_to_vec().as_slice()).map_err(redb::Error::from)?;
        }
        Ok(())
    }
}
