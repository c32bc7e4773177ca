//! Pure. The open panes: what was committed and is not yet folded into rows, kept as one sorted run a commit, or as one of
//! several commits where memory is short.
//!
//! A run is never changed, so a query reads it without a lock, and its bytes are the very ones that the store keeps until
//! the run's last pane is folded. It has one entry a key (see `entries`), sorted by it.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;

use hashbrown::HashTable;
use tollgate_wire::users::{Users, UsersError};
use xxhash_rust::xxh3::xxh3_64;

use crate::entries::{self, Entry, checked_end, entry_at};
use crate::key::{self, Parts};

/// The entries of one commit, sorted.
pub struct Run {
    bytes: Vec<u8>,
    /// Where each entry begins in `bytes`.
    index: Vec<u32>,
    last_pane: Option<i64>,
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

/// Adds entries up to those of a run: one for each key, and those of all ads together.
#[derive(Default)]
pub struct RunBuilder<'a> {
    keys: Vec<u8>,
    slots: Vec<Slot<'a>>,
    by_key: HashTable<u32>,
    /// Merged sketches, as they are written.
    merged: Vec<u8>,
}

struct Slot<'a> {
    /// Of the key: a table that grows looks at no key.
    hash: u64,
    key: (u32, u32),
    clicks: u64,
    users: Sketch<'a>,
}

/// Most keys have one sketch in a commit, which is kept as it came.
enum Sketch<'a> {
    None,
    One(&'a [u8]),
    Several(Users),
    /// Several, as they lie in the builder's `merged`.
    Merged(usize, usize),
}

impl<'a> RunBuilder<'a> {
    /// On an error the builder is of no use any more.
    pub fn add(&mut self, entry: &Entry<'a>) -> Result<(), UsersError> {
        let slot = self.slot(entry.key);
        let slot = &mut self.slots[slot];
        slot.clicks += entry.clicks;
        slot.users.add(entry.users)
    }

    /// The slot of a key, made where there is none.
    fn slot(&mut self, key: &[u8]) -> usize {
        let (keys, slots) = (&self.keys, &self.slots);
        let is = |at: u32, hash: u64| {
            let slot = &slots[at as usize];
            slot.hash == hash && &keys[slot.key.0 as usize..slot.key.1 as usize] == key
        };
        let hash = xxh3_64(key);
        if let Some(&found) = self.by_key.find(hash, |&at| is(at, hash)) {
            return found as usize;
        }
        let at = slots.len() as u32;
        self.by_key.insert_unique(hash, at, |&other| slots[other as usize].hash);
        let from = self.keys.len() as u32;
        self.keys.extend_from_slice(key);
        self.slots.push(Slot { hash, key: (from, self.keys.len() as u32), clicks: 0, users: Sketch::None });
        at as usize
    }

    /// The run of what was added.
    pub fn finish(mut self) -> Result<Run, RunError> {
        self.add_totals()?;
        let key = |slot: &Slot<'_>| &self.keys[slot.key.0 as usize..slot.key.1 as usize];
        let mut order: Vec<u32> = (0..self.slots.len() as u32).collect();
        order.sort_unstable_by(|&a, &b| key(&self.slots[a as usize]).cmp(key(&self.slots[b as usize])));
        let mut bytes = Vec::with_capacity(self.keys.len() + self.slots.len() * 40 + self.merged.len());
        let mut index = Vec::with_capacity(order.len());
        let mut last_pane = None;
        for at in order {
            let slot = &self.slots[at as usize];
            index.push(bytes.len() as u32);
            last_pane = last_pane.max(Some(key::window_start(key(slot))));
            let users = slot.users.bytes(&self.merged);
            entries::append(&Entry { key: key(slot), clicks: slot.clicks, users }, &mut bytes);
            // Checked as it grows: places are of 32 bits.
            if u32::try_from(bytes.len()).is_err() {
                return Err(RunError::TooLarge(bytes.len()));
            }
        }
        Ok(Run { bytes, index, last_pane })
    }

    /// Adds the rows of all ads together. All sketches pass here, so one that cannot be read is found before anything is kept.
    fn add_totals(&mut self) -> Result<(), RunError> {
        let (mut key, ads) = (Vec::new(), self.slots.len());
        for at in 0..ads {
            let (from, to) = self.slots[at].key;
            let parts = Parts::read(&self.keys[from as usize..to as usize]).expect("the key was made here");
            key::of_all_ads(&parts, &mut key);
            let total_at = self.slot(&key);
            key.clear();
            let (slots, totals) = self.slots.split_at_mut(total_at);
            let (slot, total) = (&mut slots[at], &mut totals[0]);
            total.clicks += slot.clicks;
            slot.users.merge_into(&mut self.merged);
            let users = slot.users.bytes(&self.merged);
            total.users.add_read(users).map_err(|source| RunError::Users { entry: at, source })?;
        }
        self.slots[ads..].iter_mut().for_each(|total| total.users.merge_into(&mut self.merged));
        Ok(())
    }
}

impl<'a> Sketch<'a> {
    fn add(&mut self, users: &'a [u8]) -> Result<(), UsersError> {
        match self {
            _ if users.is_empty() => {}
            Sketch::None => *self = Sketch::One(users),
            Sketch::One(first) => {
                let mut several = Users::default();
                several.merge_bytes(first)?;
                several.merge_bytes(users)?;
                *self = Sketch::Several(several);
            }
            Sketch::Several(several) => several.merge_bytes(users)?,
            Sketch::Merged(..) => unreachable!("nothing is added to what was merged"),
        }
        Ok(())
    }

    /// As [`Sketch::add`], and reads what it adds.
    fn add_read(&mut self, users: &[u8]) -> Result<(), UsersError> {
        if let Sketch::None = self {
            *self = Sketch::Several(Users::default());
        }
        let Sketch::Several(several) = self else { unreachable!("a total is of several") };
        several.merge_bytes(users)
    }

    /// Several become their bytes, appended to `merged`.
    fn merge_into(&mut self, merged: &mut Vec<u8>) {
        if let Sketch::Several(several) = self {
            let from = merged.len();
            merged.extend_from_slice(&std::mem::take(several).into_bytes());
            *self = Sketch::Merged(from, merged.len());
        }
    }

    /// What is written, once several are merged.
    fn bytes<'b>(&'b self, merged: &'b [u8]) -> &'b [u8] {
        match self {
            Sketch::None => &[],
            Sketch::One(bytes) => bytes,
            Sketch::Several(_) => unreachable!("several are merged before they are written"),
            Sketch::Merged(from, to) => &merged[*from..*to],
        }
    }
}

impl Run {
    /// The run that was stored as these bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Run, RunError> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(RunError::TooLarge(bytes.len()));
        }
        let (mut index, mut last_pane): (Vec<u32>, _) = (Vec::new(), None);
        let mut at = 0;
        while at < bytes.len() {
            let damaged = RunError::Damaged(index.len());
            let Some(end) = checked_end(&bytes, at) else { return Err(damaged) };
            let key = entry_at(&bytes, at as u32).key;
            let Some(parts) = Parts::read(key) else { return Err(damaged) };
            if index.last().is_some_and(|&last| entry_at(&bytes, last).key >= key) {
                return Err(damaged);
            }
            last_pane = last_pane.max(Some(parts.window_start_ms));
            index.push(at as u32);
            at = end;
        }
        Ok(Run { bytes, index, last_pane })
    }

    /// The run that holds what others do, together.
    pub fn of_rows<'a>(rows: impl Iterator<Item = RowDelta<'a>>) -> Result<Run, RunError> {
        let (mut bytes, mut index, mut last_pane) = (Vec::new(), Vec::new(), None);
        for (entry, row) in rows.enumerate() {
            index.push(bytes.len() as u32);
            last_pane = last_pane.max(Some(key::window_start(row.key)));
            let users = merged_users(&row.users).map_err(|source| RunError::Users { entry, source })?;
            entries::append(&Entry { key: row.key, clicks: row.clicks, users: &users }, &mut bytes);
            if u32::try_from(bytes.len()).is_err() {
                return Err(RunError::TooLarge(bytes.len()));
            }
        }
        // They grew by doubling.
        bytes.shrink_to_fit();
        index.shrink_to_fit();
        Ok(Run { bytes, index, last_pane })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The latest pane of the run, none where it is empty.
    pub fn last_pane(&self) -> Option<i64> {
        self.last_pane
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
}

/// All that is committed and not in rows: panes from `folded_before_ms` on. A new value is made for every commit.
#[derive(Clone, Default)]
pub struct Open {
    /// Panes that begin before this lie in rows alone; what a run still holds of them no longer counts.
    pub folded_before_ms: i64,
    /// By the number that the store keeps each under: that of the commit that made it.
    pub runs: Vec<(i64, Arc<Run>)>,
}

impl Open {
    /// What is open of the ad in [from, to).
    pub fn entries_of(&self, ad_id: &str, from_ms: i64, to_ms: i64) -> impl Iterator<Item = Entry<'_>> {
        let from_ms = from_ms.max(self.folded_before_ms);
        self.runs.iter().flat_map(move |(_, run)| run.entries_of(ad_id, from_ms, to_ms))
    }

    /// All that is open, run by run.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let is_open = |entry: &Entry<'_>| key::window_start(entry.key) >= self.folded_before_ms;
        self.runs.iter().flat_map(|(_, run)| run.entries()).filter(is_open)
    }

    /// Bytes of all runs: what the open panes take of memory, without their index.
    pub fn bytes(&self) -> usize {
        self.runs.iter().map(|(_, run)| run.bytes().len()).sum()
    }
}

/// How many clicks, and whose, are added to one row.
pub struct RowDelta<'a> {
    pub key: &'a [u8],
    pub clicks: u64,
    /// One sketch for each run that named users.
    pub users: Vec<&'a [u8]>,
}

/// Sketches as one; one alone as it came.
pub fn merged_users<'a>(sketches: &[&'a [u8]]) -> Result<Cow<'a, [u8]>, UsersError> {
    Ok(match sketches {
        [] => Cow::Borrowed(&[]),
        [only] => Cow::Borrowed(only),
        several => {
            let mut users = Users::default();
            several.iter().try_for_each(|bytes| users.merge_bytes(bytes))?;
            Cow::Owned(users.into_bytes())
        }
    })
}

/// The entries in panes of [from, to) of all these runs, merged by key and in the order of keys; none is kept meanwhile.
pub fn merge_rows<'a>(
    runs: impl Iterator<Item = &'a Run>,
    from_ms: i64,
    to_ms: i64,
) -> impl Iterator<Item = RowDelta<'a>> {
    /// The entry of a run that comes next.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    struct Head<'a> {
        key: &'a [u8],
        run: usize,
        at: usize,
    }
    let runs: Vec<&Run> = runs.collect();
    let head = move |runs: &[&'a Run], run: usize, from: usize| {
        let keys = runs[run].index[from..].iter().map(|&at| entry_at(&runs[run].bytes, at).key);
        let mut keys = (from..).zip(keys).filter(|(_, key)| (from_ms..to_ms).contains(&key::window_start(key)));
        keys.next().map(|(at, key)| Reverse(Head { key, run, at }))
    };
    let mut heads: BinaryHeap<_> = (0..runs.len()).filter_map(|run| head(&runs, run, 0)).collect();
    std::iter::from_fn(move || {
        let mut row: Option<RowDelta<'a>> = None;
        while let Some(mut next) = heads.peek_mut() {
            let Reverse(Head { key, run, at }) = *next;
            if row.as_ref().is_some_and(|row| row.key != key) {
                break;
            }
            let entry = entry_at(&runs[run].bytes, runs[run].index[at]);
            let row = row.get_or_insert_with(|| RowDelta { key, clicks: 0, users: Vec::new() });
            row.clicks += entry.clicks;
            row.users.extend(Some(entry.users).filter(|users| !users.is_empty()));
            match head(&runs, run, at + 1) {
                Some(after) => *next = after,
                None => drop(PeekMut::pop(next)),
            }
        }
        row
    })
}
