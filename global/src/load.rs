//! Opening a store: what belongs in memory of its file, and what an earlier version left out.

use std::collections::BTreeMap;
use std::sync::Arc;

use redb::{Database, ReadableTable, WriteTransaction};

use crate::edges::Claims;
use crate::hearing::Hearing;
use crate::panes::{Open, Run};
use crate::records::Edge;
use crate::snapshot::{Moment, Snapshot};
use crate::store::Options;
use crate::tables::{
    self, CAUGHT_UP, COMMITTED_MS, COUNTED, EDGES, GENERATION, RUNS, STATE, StoreError, begin_read, begin_write,
    commit_file, decode, state_value,
};
use crate::tops::Tops;

/// What belongs in memory of a file.
pub fn load(
    file: &WriteTransaction,
    options: &Options,
    is_counted: bool,
) -> Result<(Moment, BTreeMap<String, Edge>), StoreError> {
    let progress = tables::read_progress(file)?;
    let mut runs = Vec::new();
    let stored = file.open_table(RUNS).map_err(redb::Error::from)?;
    for entry in stored.iter().map_err(redb::Error::from)? {
        let (number, bytes) = entry.map_err(redb::Error::from)?;
        let run = Run::from_bytes(bytes.value().to_vec())
            .map_err(|error| StoreError::Damaged(format!("run {}: {error}", number.value())))?;
        runs.push((number.value(), Arc::new(run)));
    }
    let mut edges = BTreeMap::new();
    let table = file.open_table(EDGES).map_err(redb::Error::from)?;
    for entry in table.iter().map_err(redb::Error::from)? {
        let (edge_id, bytes) = entry.map_err(redb::Error::from)?;
        edges.insert(edge_id.value().to_owned(), decode::<Edge>(bytes.value())?);
    }
    let mut counted = BTreeMap::new();
    if is_counted {
        let table = file.open_table(COUNTED).map_err(redb::Error::from)?;
        for entry in table.iter().map_err(redb::Error::from)? {
            let (class, clicks) = entry.map_err(redb::Error::from)?;
            counted.insert(class.value(), clicks.value());
        }
    }
    let state = file.open_table(STATE).map_err(redb::Error::from)?;
    let committed_ms = state_value(&state, COMMITTED_MS)?;
    // As of the last commit: whether edges fell silent since then, the next one says.
    let at_ms = committed_ms.unwrap_or(0);
    let moment = Moment {
        generation: state_value(&state, GENERATION)?.unwrap_or(0),
        committed_ms,
        has_caught_up: state_value(&state, CAUGHT_UP)? == Some(1),
        claims: Claims::of(edges.values(), at_ms, options.idle_after_ms, &Hearing::since(at_ms)),
        open: Open { folded_before_ms: progress.folded_before_ms, runs },
        progress,
        counted,
        tops: Tops::default(),
    };
    Ok((moment, edges))
}

/// Fills the table of clicks by class of a store that was made before there was one: as long as nothing is pruned, they are what its
/// rows and runs hold.
pub fn count_by_class(
    database: &Database,
    moment: &Moment,
    edges: &BTreeMap<String, Edge>,
) -> Result<BTreeMap<u32, u64>, StoreError> {
    let snapshot =
        Snapshot::new(begin_read(database)?, Arc::new(moment.clone()), (0, Hearing::default()), Arc::default());
    let counted = snapshot.totals(i64::MIN, i64::MAX)?.clicks_by_class().clone();
    let (found, told) = (counted.values().sum(), edges.values().map(|edge| edge.clicks).sum());
    if found != told {
        return Err(StoreError::Uncounted { found, told });
    }
    let file = begin_write(database)?;
    {
        let mut table = file.open_table(COUNTED).map_err(redb::Error::from)?;
        for (class, clicks) in &counted {
            table.insert(class, clicks).map_err(redb::Error::from)?;
        }
    }
    commit_file(file)?;
    tracing::info!(clicks = found, "the store is of an earlier version: its clicks were counted by class");
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{partial, transaction};
    use crate::key::PANE_MS;
    use crate::store::Store;
    use crate::window::{DAY_MS, Grain, HOUR_MS, Retention};

    /// 2024-04-12T08:00:00Z.
    const START_MS: i64 = 1_712_908_800_000;

    /// A store of before clicks were counted by class is taken, with what its rows hold, folded, rolled up and open; one of which rows are
    /// pruned is not, and stays as it is.
    #[test]
    fn a_store_without_clicks_by_class_is_counted_once_or_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("store");
        let uncounted = || {
            let database = redb::Database::create(&path).expect("it is closed");
            let file = begin_write(&database).expect("a transaction");
            assert!(file.delete_table(COUNTED).expect("deleted"), "it was there");
            commit_file(file).expect("committed");
        };
        let store = Store::open(&path).expect("a new store");
        let sent = vec![partial("a", START_MS, 0, 5, &[1]), partial("b", START_MS + PANE_MS, 2, 3, &[])];
        store.commit(&transaction("e", 1, START_MS + 3 * HOUR_MS, sent)).expect("commit");
        let now_ms = START_MS + 3 * HOUR_MS;
        while store.keep_up(now_ms).expect("kept") {}
        store.commit(&transaction("f", 1, now_ms, vec![partial("a", now_ms, 1, 4, &[])])).expect("commit");
        assert!(store.snapshot().expect("snapshot").rows(Grain::Hour).expect("rows") > 0, "rolled up");
        drop(store);
        let expected = BTreeMap::from([(0, 5), (1, 4), (2, 3)]);
        uncounted();
        for _ in 0..2 {
            let store = Store::open(&path).expect("an earlier version's");
            assert_eq!(store.snapshot().expect("snapshot").counted(), &expected);
        }
        let store = Store::open(&path).expect("the same store");
        store.commit(&transaction("e", 2, now_ms, vec![partial("a", now_ms, 1, 1, &[])])).expect("commit");
        assert_eq!(store.snapshot().expect("snapshot").counted()[&1], 5, "and counted on");
        drop(store);
        uncounted();
        let old = Options {
            retention: Retention { panes_ms: HOUR_MS, minutes_ms: HOUR_MS, hours_ms: HOUR_MS },
            ..Options::default()
        };
        let store = Store::open_with(&path, old).expect("nothing is pruned yet");
        // Hours go by the month, when later ones are rolled up.
        let later_ms = now_ms + 100 * DAY_MS;
        let sent = vec![partial("a", later_ms - DAY_MS, 0, 7, &[])];
        store.commit(&transaction("e", 3, later_ms, sent)).expect("commit");
        store.commit(&transaction("f", 2, later_ms, Vec::new())).expect("commit");
        while store.keep_up(later_ms).expect("kept") {}
        drop(store);
        uncounted();
        for _ in 0..2 {
            let refused = Store::open(&path).err().expect("its classes are lost").to_string();
            assert!(refused.contains("only 7 of the 20 clicks") && refused.contains("pruned"), "{refused}");
        }
    }
}
