//! Pure. The open panes: what was committed and is not yet folded into rows, kept as one sorted run a transaction.
//!
//! A run is never changed, so a query reads it without a lock, and its bytes are the very ones that the store keeps until
//! the run's last pane is folded. Entries of a run, sorted by key:
//!
//! ```text
//! u16 key bytes | key (see `key`) | u64 clicks | u32 users bytes | users      numbers little-endian
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use tollgate_wire::Partial;
use tollgate_wire::users::{Users, UsersError};

use crate::key;
use crate::records::PaneTotals;
use crate::sums::{CLASS_VALID, Sums};

/// One entry: how many clicks, and whose, a transaction adds to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    pub key: &'a [u8],
    pub clicks: u64,
    /// Sketch of the distinct users, empty for none.
    pub users: &'a [u8],
}

/// The entries of one transaction, sorted, with their totals by pane.
pub struct Run {
    bytes: Vec<u8>,
    /// Where each entry begins in `bytes`.
    index: Vec<u32>,
    totals: BTreeMap<i64, PaneTotals>,
}

/// A run cannot be made of these partials or bytes.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("entry {entry}: {source}")]
    Users { entry: usize, source: UsersError },
    #[error("{0} bytes of entries, a run holds under 4 GiB")]
    TooLarge(usize),
    #[error("entry {0} is cut off or out of order")]
    Damaged(usize),
}

impl Run {
    /// The run of those partials that `keep` selects.
    pub fn of(partials: &[Partial], mut keep: impl FnMut(&Partial) -> bool) -> Result<Run, RunError> {
        let mut unsorted = Vec::new();
        let mut places = Vec::new();
        for partial in partials.iter().filter(|partial| keep(partial)) {
            places.push(unsorted.len() as u32);
            append_entry(partial, &mut unsorted);
        }
        if u32::try_from(unsorted.len()).is_err() {
            return Err(RunError::TooLarge(unsorted.len()));
        }
        places.sort_unstable_by(|&a, &b| entry_at(&unsorted, a).key.cmp(entry_at(&unsorted, b).key));
        let mut bytes = Vec::with_capacity(unsorted.len());
        let mut index = Vec::with_capacity(places.len());
        for place in places {
            index.push(bytes.len() as u32);
            bytes.extend_from_slice(&unsorted[place as usize..entry_end(&unsorted, place)]);
        }
        Run::with_totals(bytes, index)
    }

    /// The run that was stored as these bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Run, RunError> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(RunError::TooLarge(bytes.len()));
        }
        let mut index: Vec<u32> = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let end = checked_entry_end(&bytes, at).ok_or(RunError::Damaged(index.len()))?;
            let key = entry_at(&bytes, at as u32).key;
            if index.last().is_some_and(|&last| entry_at(&bytes, last).key > key) {
                return Err(RunError::Damaged(index.len()));
            }
            index.push(at as u32);
            at = end;
        }
        Run::with_totals(bytes, index)
    }

    fn with_totals(bytes: Vec<u8>, index: Vec<u32>) -> Result<Run, RunError> {
        let mut totals: BTreeMap<i64, Sums> = BTreeMap::new();
        // Sketches of marked clicks are in no total, but one that cannot be read would stop the fold of its row.
        let mut marked_users = Users::new();
        for (number, &at) in index.iter().enumerate() {
            let Entry { key, clicks, users } = entry_at(&bytes, at);
            let class = key::class(key);
            let added = totals.entry(key::pane(key)).or_default().add(class, clicks, users);
            let read = added.and_then(|()| if class == CLASS_VALID { Ok(()) } else { marked_users.merge_bytes(users) });
            read.map_err(|source| RunError::Users { entry: number, source })?;
        }
        let totals = totals.into_iter().map(|(pane, sums)| (pane, sums.into_pane())).collect();
        Ok(Run { bytes, index, totals })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The latest pane of the run, none where it is empty.
    pub fn last_pane(&self) -> Option<i64> {
        self.totals.last_key_value().map(|(&pane, _)| pane)
    }

    /// All entries, in the order of their keys.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.index.iter().map(|&at| entry_at(&self.bytes, at))
    }

    /// The ad's entries of panes in [from, to).
    pub fn entries_of(&self, ad_id: &str, from_ms: i64, to_ms: i64) -> impl Iterator<Item = Entry<'_>> {
        let (first, end) = (key::start(ad_id, from_ms), key::start(ad_id, to_ms));
        let begin = self.index.partition_point(|&at| entry_at(&self.bytes, at).key < first.as_slice());
        self.index[begin..]
            .iter()
            .map(|&at| entry_at(&self.bytes, at))
            .take_while(move |entry| entry.key < end.as_slice())
    }

    /// Totals of panes in [from, to).
    pub fn totals(&self, from_ms: i64, to_ms: i64) -> impl Iterator<Item = (i64, &PaneTotals)> {
        self.totals.range(from_ms..to_ms.max(from_ms)).map(|(&pane, totals)| (pane, totals))
    }
}

/// A run, and the name that the store keeps it under.
pub struct OpenRun {
    pub edge_id: String,
    pub txn_seq: u64,
    pub run: Run,
}

/// All that is committed and not in rows: panes from `folded_before_ms` on. A new value is made for every commit.
#[derive(Clone)]
pub struct Open {
    /// The commit that this belongs to.
    pub generation: i64,
    /// Panes that begin before this lie in rows alone; what a run still holds of them no longer counts.
    pub folded_before_ms: i64,
    pub watermark_ms: Option<i64>,
    pub runs: Vec<Arc<OpenRun>>,
}

impl Open {
    /// Adds to `sums` what is open of the ad in [from, to).
    pub fn add_ad(&self, ad_id: &str, from_ms: i64, to_ms: i64, sums: &mut Sums) -> Result<(), UsersError> {
        let from_ms = from_ms.max(self.folded_before_ms);
        for open in &self.runs {
            for entry in open.run.entries_of(ad_id, from_ms, to_ms) {
                sums.add(key::class(entry.key), entry.clicks, entry.users)?;
            }
        }
        Ok(())
    }

    /// Adds to `sums` what is open of all ads in [from, to).
    pub fn add_totals(&self, from_ms: i64, to_ms: i64, sums: &mut Sums) -> Result<(), UsersError> {
        let from_ms = from_ms.max(self.folded_before_ms);
        for open in &self.runs {
            open.run.totals(from_ms, to_ms).try_for_each(|(_, pane)| sums.add_pane(pane))?;
        }
        Ok(())
    }

    /// Bytes of all runs: what the open panes take of memory, without their index.
    pub fn bytes(&self) -> usize {
        self.runs.iter().map(|open| open.run.bytes().len()).sum()
    }
}

/// How many clicks, and whose, a fold adds to one row.
pub struct RowDelta<'a> {
    pub key: &'a [u8],
    pub clicks: u64,
    /// One sketch for each run that named users.
    pub users: Vec<&'a [u8]>,
}

/// The entries in panes of [from, to) of all these runs, merged by key and in the order of keys.
pub fn merge_rows<'a>(runs: impl Iterator<Item = &'a Run>, from_ms: i64, to_ms: i64) -> Vec<RowDelta<'a>> {
    let mut entries: Vec<Entry<'a>> = Vec::new();
    for run in runs {
        entries.extend(run.entries().filter(|entry| (from_ms..to_ms).contains(&key::pane(entry.key))));
    }
    entries.sort_by(|a, b| a.key.cmp(b.key));
    let mut rows: Vec<RowDelta<'a>> = Vec::new();
    for entry in entries {
        if rows.last().is_none_or(|row| row.key != entry.key) {
            rows.push(RowDelta { key: entry.key, clicks: 0, users: Vec::new() });
        }
        let row = rows.last_mut().expect("pushed where there was none");
        row.clicks += entry.clicks;
        if !entry.users.is_empty() {
            row.users.push(entry.users);
        }
    }
    rows
}

fn append_entry(partial: &Partial, out: &mut Vec<u8>) {
    let at = out.len();
    out.extend_from_slice(&[0, 0]);
    key::append(partial, out);
    let key_bytes = u16::try_from(out.len() - at - 2).expect("TEXT_BYTES_MAX keeps four texts and codes under 64 KiB");
    out[at..at + 2].copy_from_slice(&key_bytes.to_le_bytes());
    out.extend_from_slice(&partial.clicks.to_le_bytes());
    out.extend_from_slice(&(partial.users.len() as u32).to_le_bytes());
    out.extend_from_slice(&partial.users);
}

/// The entry that begins at a place of the index.
fn entry_at(bytes: &[u8], at: u32) -> Entry<'_> {
    let (at, end) = (at as usize, entry_end(bytes, at));
    let clicks_at = at + 2 + key_bytes(bytes, at);
    let clicks = bytes[clicks_at..clicks_at + 8].try_into().expect("eight bytes were taken");
    Entry { key: &bytes[at + 2..clicks_at], clicks: u64::from_le_bytes(clicks), users: &bytes[clicks_at + 12..end] }
}

fn entry_end(bytes: &[u8], at: u32) -> usize {
    checked_entry_end(bytes, at as usize).expect("the index holds only places of whole entries")
}

fn checked_entry_end(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..at + 2)?;
    let users_at = at + 2 + key_bytes(bytes, at) + 8;
    let users: [u8; 4] = bytes.get(users_at..users_at + 4)?.try_into().ok()?;
    let end = users_at + 4 + u32::from_le_bytes(users) as usize;
    (end <= bytes.len()).then_some(end)
}

fn key_bytes(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}
