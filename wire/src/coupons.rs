//! Pure. Few users, as a sketch keeps them before it counts in registers: one coupon of 32 bits for each, 26 of its hash and 6 of
//! its rank. Such sketches are merged here without the library's hash tables: most sketches that a global tier merges are of a
//! handful of users, and making the tables was two thirds of the work.
//!
//! The layout is that of Apache DataSketches (HLL, `PreambleUtil`), modes LIST and SET, compact; numbers little-endian:
//!
//! ```text
//! LIST 0 2 | 1 version 1 | 2 family 7 | 3 lg k | 4 lg of the table 3 | 5 flags 8 | 6 coupons | 7 mode 8 (HLL_8) | u32 each
//! SET  0 3 | 1 version 1 | 2 family 7 | 3 lg k | 4 lg of the table   | 5 flags 8 | 6 0       | 7 mode 9 (HLL_8) | u32 coupons | u32 each
//! ```

use crate::users::LG_K;

/// A sketch of lg k 12 with more counts in registers: its table of 2^(lg k - 3) places is three quarters full.
pub const COUPONS_MAX: usize = 384;
/// A list is full with eight, and becomes a set.
const LIST_MAX: usize = 7;
const LG_LIST: u8 = 3;
const LG_SET_MIN: u8 = 5;
const COMPACT: u8 = 8;
const LIST_MODE: u8 = 8;
const SET_MODE: u8 = 9;

/// Coupons of distinct users.
#[derive(Clone, Default)]
pub struct Coupons {
    /// Once each and sorted up to `settled`; behind it as they came.
    all: Vec<u32>,
    settled: usize,
}

impl Coupons {
    /// Adds those of a sketch's bytes. False: it is none of few users that is whole, and nothing was added.
    pub fn add(&mut self, sketch: &[u8]) -> bool {
        let Some(coupons) = coupons_of(sketch) else { return false };
        if coupons.contains(&[0; 4]) {
            return false;
        }
        self.all.extend(coupons.iter().map(|coupon| u32::from_le_bytes(*coupon)));
        if self.all.len() > COUPONS_MAX.max(2 * self.settled) {
            self.settle();
        }
        true
    }

    /// What they take of memory.
    pub fn memory_bytes(&self) -> usize {
        self.all.capacity() * size_of::<u32>()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// As far as is known: the same one may be there twice.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Each once.
    pub fn settle(&mut self) {
        if self.settled < self.all.len() {
            self.all.sort_unstable();
            self.all.dedup();
            self.settled = self.all.len();
        }
    }

    /// Takes out all of them as sketches that the library reads, none of more than it would itself keep in this way.
    pub fn drain(&mut self, mut sketch: impl FnMut(&[u8])) {
        self.settle();
        let mut bytes = Vec::new();
        for coupons in self.all.chunks(COUPONS_MAX) {
            bytes.clear();
            append(coupons, &mut bytes);
            sketch(&bytes);
        }
        *self = Coupons::default();
    }

    /// Appends the sketch of those that were settled, which are at most [`COUPONS_MAX`].
    pub fn append_to(&self, bytes: &mut Vec<u8>) {
        debug_assert!(self.settled == self.all.len() && self.all.len() <= COUPONS_MAX);
        append(&self.all, bytes);
    }
}

/// The coupons of a compact list or set of our kind.
fn coupons_of(sketch: &[u8]) -> Option<&[[u8; 4]]> {
    let (head, rest) = sketch.split_first_chunk::<8>()?;
    let [preamble, 1, 7, LG_K, lg_table, COMPACT, in_list, mode] = *head else { return None };
    let (count, coupons) = match (preamble, mode) {
        (2, LIST_MODE) if lg_table == LG_LIST => (usize::from(in_list), rest),
        (3, SET_MODE) if lg_table <= LG_K => {
            let (count, coupons) = rest.split_first_chunk::<4>()?;
            (u32::from_le_bytes(*count) as usize, coupons)
        }
        _ => return None,
    };
    if count == 0 || count > 1 << lg_table {
        return None;
    }
    coupons.as_chunks::<4>().0.get(..count)
}

fn append(coupons: &[u32], bytes: &mut Vec<u8>) {
    let count = coupons.len();
    bytes.reserve(12 + 4 * count);
    if count <= LIST_MAX {
        bytes.extend_from_slice(&[2, 1, 7, LG_K, LG_LIST, COMPACT, count as u8, LIST_MODE]);
    } else {
        let lg_table = (LG_SET_MIN..).find(|lg| 4 * count <= 3 << lg).expect("a table of some size is large enough");
        bytes.extend_from_slice(&[3, 1, 7, LG_K, lg_table, COMPACT, 0, SET_MODE]);
        bytes.extend_from_slice(&(count as u32).to_le_bytes());
    }
    bytes.extend(coupons.iter().flat_map(|coupon| coupon.to_le_bytes()));
}
