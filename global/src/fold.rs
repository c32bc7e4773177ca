//! Writing rows and pane totals: what closed panes, late partials and corrections add to what the file holds of them.

use std::collections::BTreeMap;

use prost::Message;
use redb::{ReadableTable, WriteTransaction};
use tollgate_wire::users::{Users, UsersError};

use crate::panes::{self, RowDelta, Run};
use crate::records::Row;
use crate::sums::Sums;
use crate::tables::{ROWS, StoreError, TOTALS, damaged_users, decode};

/// Adds the runs' entries of panes in [from, to) to rows and totals, which may be there already.
pub fn add_to_rows<'a>(
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
