//! Pure. What partials add to rows, packed: their keys and clicks, without what only the check of their transaction asks. Entries follow
//! each other:
//!
//! ```text
//! u16 key bytes | key (see `key`) | u64 clicks | u32 users bytes | users      numbers little-endian
//! ```

use tollgate_wire::{Partial, PartialView};

use crate::key;
use crate::transaction::{self, Refusal};

/// How many clicks, and whose, are added to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    pub key: &'a [u8],
    pub clicks: u64,
    /// Sketch of the distinct users, empty for none.
    pub users: &'a [u8],
}

/// The entries of one transaction, in the order of its partials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    bytes: Vec<u8>,
    count: usize,
}

impl Entries {
    pub fn of(partials: &[Partial]) -> Result<Entries, Refusal> {
        let mut entries = Entries::default();
        partials.iter().try_for_each(|partial| entries.add(&PartialView::of(partial)))?;
        Ok(entries)
    }

    /// Adds a partial that can be a row.
    pub fn add(&mut self, partial: &PartialView<'_>) -> Result<(), Refusal> {
        transaction::check_partial(partial)?;
        let from = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        key::append(partial, &mut self.bytes);
        let length = key_length(self.bytes.len() - from - 2);
        self.bytes[from..from + 2].copy_from_slice(&length);
        append_values(partial.clicks, partial.users, &mut self.bytes);
        self.count += 1;
        Ok(())
    }

    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let end = checked_end(&self.bytes, at)?;
            let entry = entry_between(&self.bytes, at, end);
            at = end;
            Some(entry)
        })
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Of memory.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

pub fn append(entry: &Entry<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(&key_length(entry.key.len()));
    out.extend_from_slice(entry.key);
    append_values(entry.clicks, entry.users, out);
}

fn key_length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).expect("TEXT_BYTES_MAX keeps four texts and codes under 64 KiB").to_le_bytes()
}

fn append_values(clicks: u64, users: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&clicks.to_le_bytes());
    out.extend_from_slice(&(users.len() as u32).to_le_bytes());
    out.extend_from_slice(users);
}

/// The entry that begins at a place where one does.
pub fn entry_at(bytes: &[u8], at: u32) -> Entry<'_> {
    let at = at as usize;
    entry_between(bytes, at, checked_end(bytes, at).expect("an index holds only places of whole entries"))
}

fn entry_between(bytes: &[u8], at: usize, end: usize) -> Entry<'_> {
    let clicks_at = at + 2 + key_bytes(bytes, at);
    let clicks = bytes[clicks_at..clicks_at + 8].try_into().expect("eight bytes were taken");
    Entry { key: &bytes[at + 2..clicks_at], clicks: u64::from_le_bytes(clicks), users: &bytes[clicks_at + 12..end] }
}

/// Where the entry that begins here ends. None: it is cut off.
pub fn checked_end(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..at + 2)?;
    let users_at = at + 2 + key_bytes(bytes, at) + 8;
    let users: [u8; 4] = bytes.get(users_at..users_at + 4)?.try_into().ok()?;
    let end = users_at + 4 + u32::from_le_bytes(users) as usize;
    (end <= bytes.len()).then_some(end)
}

fn key_bytes(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}
