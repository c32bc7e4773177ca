//! Reading the store at one moment: rows from the file, open panes from memory.

use std::sync::Arc;

use redb::{ReadTransaction, ReadableTable};

use crate::key;
use crate::panes::Open;
use crate::records::Row;
use crate::sums::Sums;
use crate::tables::{ROWS, StoreError, TOTALS, damaged_users, decode};

/// Some clicks of one ad, pane and class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count<'a> {
    pub ad_id: &'a str,
    pub pane_start_ms: i64,
    pub class: u32,
    pub clicks: u64,
}

/// The file and the open panes after the same commit.
pub struct Snapshot {
    file: ReadTransaction,
    open: Arc<Open>,
}

impl Snapshot {
    pub(crate) fn new(file: ReadTransaction, open: Arc<Open>) -> Snapshot {
        Snapshot { file, open }
    }

    /// What the edges claim to be complete up to: the smallest watermark of those that have not stopped. None while one of
    /// them has claimed nothing.
    pub fn watermark_ms(&self) -> Option<i64> {
        self.open.watermark_ms.filter(|watermark_ms| *watermark_ms > 0)
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

    /// Shows each key's clicks to `visit`, all ads and panes, for the audit; a key comes once for its row and once for each
    /// transaction that still holds it open.
    pub fn visit_counts(&self, mut visit: impl FnMut(Count<'_>)) -> Result<(), StoreError> {
        let rows = self.file.open_table(ROWS).map_err(redb::Error::from)?;
        for entry in rows.iter().map_err(redb::Error::from)? {
            let (key, value) = entry.map_err(redb::Error::from)?;
            let row: Row = decode(value.value())?;
            visit(Count::of(key.value(), row.clicks)?);
        }
        for entry in self.open.entries() {
            visit(Count::of(entry.key, entry.clicks)?);
        }
        Ok(())
    }
}

impl<'a> Count<'a> {
    fn of(key: &'a [u8], clicks: u64) -> Result<Count<'a>, StoreError> {
        let ad_id =
            std::str::from_utf8(key::ad_id(key)).map_err(|_| StoreError::Damaged("an ad_id is no UTF-8".into()))?;
        Ok(Count { ad_id, pane_start_ms: key::pane(key), class: key::class(key), clicks })
    }
}
