//! Writing rows: what closed panes, late partials and corrections add to what the file holds of them.

use std::borrow::Borrow;
use std::sync::Arc;

use prost::Message;
use redb::{ReadableTable, WriteTransaction};
use tollgate_wire::users::UsersError;

use crate::history::{Added, Corrections};
use crate::key;
use crate::panes::{Open, RowDelta, Run, merge_rows, merged_users};
use crate::progress::Progress;
use crate::records::{History, Row};
use crate::tables::{CORRECTED, HISTORY, RUNS, StoreError, damaged_users, decode, rows_of};
use crate::window::{Grain, floor};

/// Adds to rows of a grain, which may be there already. The keys name panes, whatever the grain.
pub fn add_to_rows<'a>(
    file: &WriteTransaction,
    grain: Grain,
    deltas: impl Iterator<Item: Borrow<RowDelta<'a>>>,
) -> Result<(), StoreError> {
    let mut rows = file.open_table(rows_of(grain)).map_err(redb::Error::from)?;
    let (mut row_key, mut stored) = (Vec::new(), Vec::new());
    for delta in deltas {
        let delta = delta.borrow();
        row_key.clear();
        row_key.extend_from_slice(delta.key);
        let start_ms = floor(key::window_start(delta.key), grain.ms());
        key::set_window_start(&mut row_key, start_ms);
        key::stored(&row_key, floor(start_ms, grain.bucket_ms()), &mut stored);
        let before = rows.get(stored.as_slice()).map_err(redb::Error::from)?.map(|value| decode(value.value()));
        let row = add_to_row(before.transpose()?, delta).map_err(damaged_users)?;
        rows.insert(stored.as_slice(), row.encode_to_vec().as_slice()).map_err(redb::Error::from)?;
    }
    Ok(())
}

/// Adds what did not wait in a run: to its pane, and where that is rolled up already, to its minute and hour too.
pub fn add_late(file: &WriteTransaction, deltas: &[RowDelta<'_>], progress: &Progress) -> Result<(), StoreError> {
    let rolled: Vec<bool> = deltas.iter().map(|delta| progress.is_rolled(delta.key)).collect();
    for grain in Grain::ALL {
        let kept_from_ms = progress.kept_from(grain);
        let belongs = |(delta, rolled): &(&RowDelta<'_>, &bool)| {
            let start_ms = floor(key::window_start(delta.key), grain.ms());
            match grain {
                Grain::Pane => start_ms >= kept_from_ms,
                Grain::Minute => **rolled && start_ms >= kept_from_ms,
                // However old: it is counted before it is pruned.
                Grain::Hour => **rolled,
            }
        };
        let of_grain = deltas.iter().zip(&rolled).filter(belongs).map(|(delta, _)| delta);
        add_to_rows(file, grain, of_grain)?;
    }
    Ok(())
}

/// Adds to the history of closed minutes, and to how often their hours were corrected.
pub fn add_corrections(file: &WriteTransaction, corrections: &Corrections, now_ms: i64) -> Result<(), StoreError> {
    if corrections.by_minute.is_empty() {
        return Ok(());
    }
    let mut table = file.open_table(HISTORY).map_err(redb::Error::from)?;
    let mut stored = Vec::new();
    for ((ad_id, minute_ms), added) in &corrections.by_minute {
        let added: Added = *added;
        key::stored(&key::start(ad_id, *minute_ms), floor(*minute_ms, Grain::Minute.bucket_ms()), &mut stored);
        let before = table.get(stored.as_slice()).map_err(redb::Error::from)?.map(|value| decode(value.value()));
        let mut history: History = before.transpose()?.unwrap_or_default();
        history.push(added, now_ms);
        table.insert(stored.as_slice(), history.encode_to_vec().as_slice()).map_err(redb::Error::from)?;
    }
    let mut table = file.open_table(CORRECTED).map_err(redb::Error::from)?;
    for (ad_id, minute_ms) in corrections.by_minute.keys() {
        let hour_ms = floor(*minute_ms, Grain::Hour.ms());
        key::stored(&key::start(ad_id, hour_ms), floor(hour_ms, Grain::Hour.bucket_ms()), &mut stored);
        let before = table.get(stored.as_slice()).map_err(redb::Error::from)?.map(|value| decode(value.value()));
        let mut hour: History = before.transpose()?.unwrap_or_default();
        hour.corrections += 1;
        table.insert(stored.as_slice(), hour.encode_to_vec().as_slice()).map_err(redb::Error::from)?;
    }
    Ok(())
}

/// All runs become one, in memory and in the file: their keys are often the same.
pub fn merge_runs(file: &WriteTransaction, open: &mut Open, number: i64) -> Result<(), StoreError> {
    let rows = merge_rows(open.runs.iter().map(|(_, run)| run.as_ref()), open.folded_before_ms, i64::MAX);
    let merged = Run::of_rows(rows).map_err(|error| StoreError::Damaged(format!("runs to be merged: {error}")))?;
    let mut runs = file.open_table(RUNS).map_err(redb::Error::from)?;
    for (of_one, _) in &open.runs {
        runs.remove(of_one).map_err(redb::Error::from)?;
    }
    runs.insert(number, merged.bytes()).map_err(redb::Error::from)?;
    open.runs = vec![(number, Arc::new(merged))];
    Ok(())
}

/// Lets runs go whose last pane is folded.
pub fn drop_folded_runs(file: &WriteTransaction, open: &mut Open) -> Result<(), StoreError> {
    let mut runs = file.open_table(RUNS).map_err(redb::Error::from)?;
    let folded_before_ms = open.folded_before_ms;
    let is_folded = |run: &Run| run.last_pane().is_none_or(|pane| pane < folded_before_ms);
    for (number, _) in open.runs.iter().filter(|(_, run)| is_folded(run)) {
        runs.remove(number).map_err(redb::Error::from)?;
    }
    open.runs.retain(|(_, run)| !is_folded(run));
    Ok(())
}

fn add_to_row(before: Option<Row>, delta: &RowDelta<'_>) -> Result<Row, UsersError> {
    let before = before.unwrap_or_default();
    let kept = Some(before.users.as_slice()).filter(|users| !users.is_empty());
    let users: Vec<&[u8]> = kept.into_iter().chain(delta.users.iter().copied()).collect();
    Ok(Row { clicks: before.clicks + delta.clicks, users: merged_users(&users)?.into_owned() })
}
