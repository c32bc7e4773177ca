//! Pure. The table of open partials: an index over the rows of a [`CutTable`], which at a cut is handed over as it is.
//!
//! ```text
//! slot, 8 bytes:  tag 32 bit | generation 12 bit | row 20 bit        a slot of another generation is empty
//! ```
//!
//! A key is looked for in `PROBES_MAX` slots from where its dims hash, pane and the secret put it, then from where a keyed
//! hash of its whole bytes does. The dims hash has 32 bits and no secret, so clients can make many ads of one dims hash;
//! such a flood costs `PROBES_MAX` looks more a click and no more. Whole keys are compared: the table is exact.
//!
//! The index begins small and grows with the rows (its memory is taken at start): spread over megabytes, a thousand keys would
//! cost a cache miss and an address translation each.

use crate::click::Pane;
use crate::cut::{CutRow, CutTable, UserPair};
use crate::preagg::key::KEY_BYTES_MAX;
use xxhash_rust::xxh3::xxh3_64_with_seed;

const ROW_BITS: u32 = 20;
const GENERATION_MAX: u32 = (1 << 12) - 1;

/// No row has this number.
const NOT_SIGHTED: u32 = u32::MAX;

/// Slots looked at for a dims hash before the whole key is hashed: one cache line.
const PROBES_MAX: usize = 8;

/// The smallest index: 2^11 slots, 16 KiB, for up to 512 rows.
const SLOT_BITS_MIN: u32 = 11;

/// Mean bytes of a key that memory is taken for; a table of longer ones is full sooner.
const KEY_BYTES_MEAN: usize = 48;

/// The open partials of one core, since its last cut.
pub struct Table {
    open: CutTable,
    /// As many as the largest index needs; the first `1 << slot_bits` are in use.
    slots: Vec<u64>,
    /// Slots filled before this generation began are empty.
    generation: u32,
    slot_bits: u32,
    slot_bits_max: u32,
    secret: u64,
    rows_max: usize,
    key_bytes_max: usize,
    users_max: usize,
}

/// Memory of one table's rows, keys and users.
pub fn table_bytes(rows_max: usize, users_max: usize) -> u64 {
    let rows = rows_max * size_of::<CutRow>() + key_bytes_max(rows_max);
    (rows + users_max * size_of::<UserPair>()) as u64
}

/// Memory of the index over one.
pub fn index_bytes(rows_max: usize) -> u64 {
    (size_of::<u64>() << slot_bits_max(rows_max)) as u64
}

fn key_bytes_max(rows_max: usize) -> usize {
    rows_max * KEY_BYTES_MEAN + KEY_BYTES_MAX
}

fn slot_bits_max(rows_max: usize) -> u32 {
    (rows_max * 2).next_power_of_two().trailing_zeros().max(4)
}

/// Where a look ended: the row that holds the key, or the slot that a new row's goes to.
enum Found {
    Row(usize),
    Free(usize),
}

impl Table {
    /// Takes all memory the table will ever use but that of the spare tables: see [`Table::spare`]. `secret` is random for
    /// each incarnation, so that nobody outside can aim at slots.
    pub fn new(rows_max: usize, users_max: usize, secret: u64) -> Table {
        assert!(rows_max > 0 && rows_max < 1 << ROW_BITS, "a table of {rows_max} rows; the index holds 1 to 2^20 - 1");
        let (slot_bits_max, key_bytes_max) = (slot_bits_max(rows_max), key_bytes_max(rows_max));
        Table {
            open: CutTable::with_capacity(rows_max, key_bytes_max, users_max),
            slots: vec![0; 1 << slot_bits_max],
            generation: 1,
            slot_bits: SLOT_BITS_MIN.min(slot_bits_max),
            slot_bits_max,
            secret,
            rows_max,
            key_bytes_max,
            users_max,
        }
    }

    /// An empty table of the same bounds to swap in.
    pub fn spare(&self) -> CutTable {
        CutTable::with_capacity(self.rows_max, self.key_bytes_max, self.users_max)
    }

    /// Counts one click. There must be room: see [`Table::has_room`].
    #[inline]
    pub fn merge(&mut self, pane: Pane, dims_hash: u32, partial_key: &[u8], user_token: u64) {
        let mixed = self.mix(pane, dims_hash);
        let row = match self.find(mixed, pane, partial_key) {
            Found::Row(row) => {
                self.open.rows[row].clicks += 1;
                row
            }
            Found::Free(slot) => self.insert(slot, mixed as u32, pane, dims_hash, partial_key),
        };
        self.add_user(row, user_token);
    }

    #[inline]
    fn add_user(&mut self, row: usize, user_token: u64) {
        if user_token != 0 {
            debug_assert!(self.open.users.len() < self.users_max);
            self.open.users.push(UserPair::new(row as u32, user_token));
        }
    }

    /// The row that a key of this pane and hash is most likely in, if there is one, and begins to fetch it. A guess: only
    /// [`Table::merge_sighted`] compares.
    #[inline]
    pub fn sight(&self, pane: Pane, dims_hash: u32) -> u32 {
        let mixed = self.mix(pane, dims_hash);
        let slot = self.slots[self.home(mixed)];
        if (slot as u32) >> ROW_BITS != self.generation || (slot >> 32) as u32 != mixed as u32 {
            return NOT_SIGHTED;
        }
        let row = slot as u32 & ((1 << ROW_BITS) - 1);
        if let Some(first) = self.open.keys.get(self.open.rows[row as usize].key_offset as usize) {
            // A load that nobody waits for.
            std::hint::black_box(*first);
        }
        row
    }

    /// [`Table::merge`], where [`Table::sight`] was called before, and anything may have happened to the table since.
    #[inline]
    pub fn merge_sighted(&mut self, sighted: u32, pane: Pane, dims_hash: u32, partial_key: &[u8], user_token: u64) {
        let row = sighted as usize;
        match self.open.rows.get(row) {
            Some(found) if found.pane == pane.0 && same_bytes(self.open.key(found), partial_key) => {
                self.open.rows[row].clicks += 1;
                self.add_user(row, user_token);
            }
            _ => self.merge(pane, dims_hash, partial_key, user_token),
        }
    }

    /// Whether this many clicks fit, whatever their keys and users. The core asks before it changes any state.
    #[inline]
    pub fn has_room(&self, clicks: usize) -> bool {
        self.open.rows.len() + clicks <= self.rows_max
            && self.open.users.len() + clicks <= self.users_max
            && self.open.keys.len() + clicks * KEY_BYTES_MAX <= self.key_bytes_max
    }

    /// Three quarters full in rows, key bytes or users: time for an early cut, never a reason to shed.
    #[inline]
    pub fn wants_cut(&self) -> bool {
        self.open.rows.len() * 4 >= self.rows_max * 3
            || self.open.users.len() * 4 >= self.users_max * 3
            || self.open.keys.len() * 4 >= self.key_bytes_max * 3
    }

    /// Nothing was merged since the last cut.
    pub fn is_empty(&self) -> bool {
        self.open.rows.is_empty()
    }

    /// Rows since the last cut.
    pub fn rows(&self) -> usize {
        self.open.rows.len()
    }

    /// Bytes of their keys.
    pub fn key_bytes(&self) -> usize {
        self.open.keys.len()
    }

    /// Clicks among them that name a user.
    pub fn users(&self) -> usize {
        self.open.users.len()
    }

    /// Ends the table at a cut: hands it over, goes on with `empty`, which is a spare or one that came back.
    pub fn swap(&mut self, mut empty: CutTable) -> CutTable {
        assert!(
            empty.rows.is_empty() && empty.keys.is_empty() && empty.users.is_empty(),
            "a used table came back uncleared"
        );
        // One that came back grown or shrunk must not allocate on the hot path later.
        empty.rows.reserve(self.rows_max);
        empty.keys.reserve(self.key_bytes_max);
        empty.users.reserve(self.users_max);
        let (rows, slots) = (self.open.rows.len(), 1 << self.slot_bits);
        if rows * 16 < slots && self.slot_bits > SLOT_BITS_MIN {
            self.slot_bits -= 1;
        }
        self.next_generation();
        std::mem::replace(&mut self.open, empty)
    }

    /// Forgets what was merged since the last cut: the exporter rebuilds the range from the log.
    pub fn discard(&mut self) {
        self.open.clear();
        self.next_generation();
    }

    fn next_generation(&mut self) {
        if self.generation == GENERATION_MAX {
            self.slots.fill(0);
            self.generation = 0;
        }
        self.generation += 1;
    }

    #[inline]
    fn mix(&self, pane: Pane, dims_hash: u32) -> u64 {
        folded_multiply((u64::from(dims_hash) | ((pane.0 as u64) << 32)) ^ self.secret)
    }

    #[inline]
    fn mask(&self) -> usize {
        (1 << self.slot_bits) - 1
    }

    #[inline]
    fn home(&self, mixed: u64) -> usize {
        (mixed >> (u64::BITS - self.slot_bits)) as usize
    }

    #[inline]
    fn find(&self, mixed: u64, pane: Pane, partial_key: &[u8]) -> Found {
        let mask = self.mask();
        let mut at = self.home(mixed);
        for _ in 0..PROBES_MAX {
            if let Some(found) = self.look(at, mixed as u32, pane, partial_key) {
                return found;
            }
            at = (at + 1) & mask;
        }
        self.find_keyed(mixed as u32, pane, partial_key)
    }

    /// The rest of the search. Rows are never removed and a free slot is taken by whoever comes first, so a key that has
    /// a free slot among its first ones was never put behind them. Ends because fewer rows than slots exist.
    #[cold]
    fn find_keyed(&self, tag: u32, pane: Pane, partial_key: &[u8]) -> Found {
        let mask = self.mask();
        let keyed = xxh3_64_with_seed(partial_key, self.secret) ^ folded_multiply(pane.0 as u64 ^ self.secret);
        let mut at = self.home(folded_multiply(keyed));
        loop {
            if let Some(found) = self.look(at, tag, pane, partial_key) {
                return found;
            }
            at = (at + 1) & mask;
        }
    }

    #[inline]
    fn look(&self, at: usize, tag: u32, pane: Pane, partial_key: &[u8]) -> Option<Found> {
        let slot = self.slots[at];
        if (slot as u32) >> ROW_BITS != self.generation {
            return Some(Found::Free(at));
        }
        if (slot >> 32) as u32 == tag {
            let row = slot as usize & ((1 << ROW_BITS) - 1);
            let candidate = &self.open.rows[row];
            if candidate.pane == pane.0 && same_bytes(self.open.key(candidate), partial_key) {
                return Some(Found::Row(row));
            }
        }
        None
    }

    #[cold]
    fn insert(&mut self, slot: usize, tag: u32, pane: Pane, dims_hash: u32, partial_key: &[u8]) -> usize {
        let row = self.open.rows.len();
        assert!(
            row < self.rows_max && self.open.keys.len() + partial_key.len() <= self.key_bytes_max,
            "a click was merged without asking for room"
        );
        let key_offset = self.open.keys.len() as u32;
        self.open.keys.extend_from_slice(partial_key);
        let key_bytes = partial_key.len() as u32;
        self.open.rows.push(CutRow { pane: pane.0, clicks: 1, key_offset, key_bytes, dims_hash });
        self.slots[slot] = self.slot_of(tag, row);
        if self.open.rows.len() * 4 > 1 << self.slot_bits && self.slot_bits < self.slot_bits_max {
            self.grow();
        }
        row
    }

    fn slot_of(&self, tag: u32, row: usize) -> u64 {
        (u64::from(tag) << 32) | (u64::from(self.generation) << ROW_BITS) | row as u64
    }

    /// Four times the slots, and every row's slot again.
    #[cold]
    fn grow(&mut self) {
        self.slot_bits = (self.slot_bits + 2).min(self.slot_bits_max);
        let slots = 1 << self.slot_bits;
        self.slots[..slots].fill(0);
        for index in 0..self.open.rows.len() {
            let row = &self.open.rows[index];
            let mixed = self.mix(Pane(row.pane), row.dims_hash);
            match self.find(mixed, Pane(row.pane), self.open.key(row)) {
                Found::Free(slot) => self.slots[slot] = self.slot_of(mixed as u32, index),
                Found::Row(other) => unreachable!("rows {other} and {index} have one key"),
            }
        }
    }
}

/// Equality of two keys: 16 bytes at a time, the last ones overlapping; a call for so few bytes costs more than they do.
#[inline]
fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() || a.len() < 16 {
        return a == b;
    }
    let (a_blocks, b_blocks) = (a.as_chunks::<16>().0, b.as_chunks::<16>().0);
    let blocks = a_blocks.iter().zip(b_blocks).all(|(a, b)| u128::from_le_bytes(*a) == u128::from_le_bytes(*b));
    blocks && a.last_chunk::<16>() == b.last_chunk::<16>()
}

#[inline]
fn folded_multiply(value: u64) -> u64 {
    let product = u128::from(value) * 0x9E37_79B9_7F4A_7C15;
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const SECRET: u64 = 0x5EED_0F7E_57AB_1E55;

    /// What a table counted, whatever the order of its rows.
    fn counted(table: &CutTable) -> BTreeMap<(i64, Vec<u8>), (u64, Vec<u64>)> {
        let mut counted = BTreeMap::new();
        for (index, row) in table.rows.iter().enumerate() {
            let users = table.users.iter().filter(|pair| pair.row == index as u32).map(|pair| pair.token()).collect();
            let twice = counted.insert((row.pane, table.key(row).to_vec()), (row.clicks, users));
            assert_eq!(twice, None, "one key in two rows");
        }
        counted
    }

    proptest! {
        #[test]
        fn counts_like_a_map_whatever_hashes_collide(
            cuts in proptest::collection::vec(
                proptest::collection::vec((0i64..3, 0u8..60, 0u64..4), 0..150),
                1..5,
            ),
        ) {
            let mut table = Table::new(256, 256, SECRET);
            let mut empty = table.spare();
            let mut guess = NOT_SIGHTED;
            for clicks in cuts {
                let mut model: BTreeMap<(i64, Vec<u8>), (u64, Vec<u64>)> = BTreeMap::new();
                for (pane, key, user) in clicks {
                    let dims_hash = u32::from(key % 3);
                    let key = vec![key; usize::from(key % 5) + 1];
                    // A guess from before the last clicks, or from before the last cut, is as good as none.
                    let sighted = std::mem::replace(&mut guess, table.sight(Pane(pane), dims_hash));
                    match user {
                        0 => table.merge_sighted(sighted, Pane(pane), dims_hash, &key, user),
                        1 => table.merge_sighted(guess, Pane(pane), dims_hash, &key, user),
                        _ => table.merge(Pane(pane), dims_hash, &key, user),
                    }
                    let counted = model.entry((pane, key)).or_default();
                    counted.0 += 1;
                    if user != 0 {
                        counted.1.push(user);
                    }
                }
                let mut cut = table.swap(empty);
                prop_assert_eq!(counted(&cut), model);
                cut.clear();
                empty = cut;
            }
        }
    }

    #[test]
    fn a_flood_of_one_dims_hash_stays_linear() {
        let rows = 1 << 13;
        let mut table = Table::new(rows, 16, SECRET);
        for round in 1..=2 {
            for key in 0..rows as u32 {
                table.merge(Pane(7), 42, &key.to_le_bytes(), 0);
            }
            assert_eq!(table.open.rows.len(), rows);
            assert!(table.open.rows.iter().all(|row| row.clicks == round));
        }
        // Clusters of the keyed part stay short: quadratic probing would have left one of thousands of slots.
        let filled: Vec<bool> = table.slots.iter().map(|slot| *slot != 0).collect();
        let longest = filled.split(|full| !full).map(<[bool]>::len).max();
        assert!(longest < Some(100), "a cluster of {longest:?} slots");
    }

    #[test]
    fn generations_that_come_round_again_find_nothing_old() {
        let mut table = Table::new(4, 4, SECRET);
        let mut empty = table.spare();
        for _ in 0..2 * GENERATION_MAX + 3 {
            table.merge(Pane(1), 1, b"key", 5);
            table.merge(Pane(1), 1, b"key", 5);
            let mut cut = table.swap(empty);
            assert_eq!((cut.rows.len(), cut.clicks(), cut.users.len()), (1, 2, 2));
            cut.clear();
            empty = cut;
        }
    }

    #[test]
    fn three_quarters_in_any_one_measure_want_a_cut() {
        let fresh = || Table::new(64, 64, SECRET);
        let mut rows = fresh();
        (0u32..48).for_each(|key| rows.merge(Pane(0), key, &key.to_le_bytes(), 0));
        let mut users = fresh();
        (0..48).for_each(|_| users.merge(Pane(0), 1, b"key", 9));
        let mut keys = fresh();
        (0u8..12).for_each(|key| keys.merge(Pane(0), 1, &[key; KEY_BYTES_MAX], 0));
        for table in [&mut rows, &mut users, &mut keys] {
            assert!(table.wants_cut() && !table.is_empty());
            table.discard();
            assert!(!table.wants_cut() && table.is_empty());
        }
    }

    #[test]
    fn the_index_grows_with_the_rows_and_finds_every_one_again() {
        let mut table = Table::new(1 << 15, 1 << 16, SECRET);
        for round in 0..3 {
            for number in 0_u32..20_000 {
                let key = format!("a key of some length, number {number}");
                // Few hashes, so that rows are also found behind others of their hash.
                table.merge(Pane(i64::from(number % 2)), number % 4_000, key.as_bytes(), 0);
            }
            assert_eq!((table.rows(), table.open.clicks()), (20_000, 20_000 * (round + 1)));
        }
        assert!(table.slot_bits > SLOT_BITS_MIN);
        let grown = table.slot_bits;
        for _ in 0..20 {
            let spare = table.spare();
            table.merge(Pane(1), 7, b"one", 0);
            assert_eq!(table.swap(spare).rows.len().min(1), 1);
        }
        assert!(table.slot_bits < grown, "an index that is hardly used shrinks again");
    }

    #[test]
    fn room_is_asked_for_before_it_is_used() {
        let mut table = Table::new(64, 64, SECRET);
        assert!(table.has_room(1) && !table.has_room(65));
        let mut merged = 0u32;
        while table.has_room(1) {
            table.merge(Pane(0), merged, &[merged as u8; KEY_BYTES_MAX], 1);
            merged += 1;
        }
        assert_eq!(merged, 15, "64 keys of 48 bytes and one longest are room for 15 longest");
    }

    #[test]
    fn two_tables_swapped_keep_their_memory() {
        let mut table = Table::new(64, 64, SECRET);
        let mut empty = table.spare();
        let memory = |table: &CutTable| (table.rows.as_ptr(), table.keys.as_ptr(), table.users.as_ptr());
        let known = [memory(&empty), memory(&table.open)];
        for _ in 0..10 {
            (0u32..40).for_each(|key| table.merge(Pane(0), key, &key.to_le_bytes(), 3));
            let mut cut = table.swap(empty);
            cut.clear();
            assert!(known.contains(&memory(&cut)) && known.contains(&memory(&table.open)));
            empty = cut;
        }
    }
}
