//! Pure. A line of the table: four slots in the 64 bytes that the memory moves at once.
//!
//! ```text
//!  byte 0        8        16       24       32   36   40   44   48 50 52 54 56      60      64
//!       ┌────────┬────────┬────────┬────────┬────┬────┬────┬────┬──┬──┬──┬──┬─┬─┬─┬─┬─┬─┬─┬─┐
//!       │ low 0  │ low 1  │ low 2  │ low 3  │mid0│mid1│mid2│mid3│h0│h1│h2│h3│epoch×4│check×4│
//!       └────────┴────────┴────────┴────────┴────┴────┴────┴────┴──┴──┴──┴──┴─┴─┴─┴─┴─┴─┴─┴─┘
//!  slot i = remainder (low i: bits 0–63, mid i: 64–95, h i: 96–111), epoch i, check i
//!  epoch: 0 = empty, else a generation's byte (`epoch.rs`)
//!  check: bits 0–6 of the payload's hash; bit 7 set where this is the key's second line
//! ```

use super::epoch::Live;
use bytemuck::{Pod, Zeroable};

pub(super) const SLOTS: usize = 4;
/// Set in `check` where the line is the key's second one.
pub(super) const SECOND: u8 = 0x80;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Line {
    low: [u64; SLOTS],
    mid: [u32; SLOTS],
    high: [u16; SLOTS],
    epoch: [u8; SLOTS],
    check: [u8; SLOTS],
}

const _: () = assert!(size_of::<Line>() == 64);

/// The 112 bits of a permuted key that its line does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Remainder {
    pub low: u64,
    pub mid: u32,
    pub high: u16,
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub remainder: Remainder,
    pub epoch: u8,
    pub check: u8,
}

impl Line {
    /// The slot that holds the remainder as a first (`second` = 0) or second ([`SECOND`]) line's, and is live.
    #[inline]
    pub(super) fn find(&self, remainder: &Remainder, second: u8, live: Live) -> Option<usize> {
        let mut candidates = 0u32;
        for slot in 0..SLOTS {
            candidates |= u32::from(self.low[slot] == remainder.low) << slot;
        }
        // Almost always there is none (a fresh click) or one (a duplicate).
        while candidates != 0 {
            let slot = candidates.trailing_zeros() as usize;
            let same = self.mid[slot] == remainder.mid
                && self.high[slot] == remainder.high
                && self.check[slot] & SECOND == second
                && live.holds(self.epoch[slot]);
            if same {
                return Some(slot);
            }
            candidates &= candidates - 1;
        }
        None
    }

    /// Bit i is set where slot i is empty or behind the horizon.
    #[inline]
    pub(super) fn free(&self, live: Live) -> u32 {
        let mut free = 0;
        for slot in 0..SLOTS {
            free |= u32::from(!live.holds(self.epoch[slot])) << slot;
        }
        free
    }

    #[inline]
    pub(super) fn get(&self, slot: usize) -> Entry {
        let remainder = Remainder { low: self.low[slot], mid: self.mid[slot], high: self.high[slot] };
        Entry { remainder, epoch: self.epoch[slot], check: self.check[slot] }
    }

    #[inline]
    pub(super) fn low(&self, slot: usize) -> u64 {
        self.low[slot]
    }

    #[inline]
    pub(super) fn put(&mut self, slot: usize, entry: &Entry) {
        self.low[slot] = entry.remainder.low;
        self.mid[slot] = entry.remainder.mid;
        self.high[slot] = entry.remainder.high;
        self.epoch[slot] = entry.epoch;
        self.check[slot] = entry.check;
    }

    pub(super) fn set_epoch(&mut self, slot: usize, epoch: u8) {
        self.epoch[slot] = epoch;
    }

    /// Empties the slots that are behind the horizon.
    #[inline]
    pub(super) fn sweep(&mut self, live: Live) {
        for epoch in &mut self.epoch {
            *epoch = if live.holds(*epoch) { *epoch } else { 0 };
        }
    }

    pub(super) fn clear(&mut self) {
        self.epoch = [0; SLOTS];
    }
}

#[cfg(test)]
mod tests {
    use super::super::epoch::Epochs;
    use super::*;

    #[test]
    fn the_bytes_are_where_the_picture_has_them() {
        let mut line = Line::default();
        let remainder = Remainder { low: 0x0807_0605_0403_0201, mid: 0x0c0b_0a09, high: 0x0e0d };
        line.put(1, &Entry { remainder, epoch: 0x0f, check: 0x10 });
        let bytes: &[u8] = bytemuck::bytes_of(&line);
        let held: Vec<(usize, u8)> = bytes.iter().copied().enumerate().filter(|(_, byte)| *byte != 0).collect();
        let low = (8..16).zip(1u8..=8);
        let rest = [(36, 9), (37, 10), (38, 11), (39, 12), (50, 13), (51, 14), (57, 15), (61, 16)];
        assert_eq!(held, low.chain(rest).collect::<Vec<_>>());
    }

    #[test]
    fn a_slot_matches_only_whole() {
        let live = Epochs::new(100).live();
        let remainder = Remainder { low: 1, mid: 2, high: 3 };
        let epoch = super::super::epoch::byte(100);
        let mut line = Line::default();
        line.put(2, &Entry { remainder, epoch, check: 5 | SECOND });
        assert_eq!(line.find(&remainder, SECOND, live), Some(2));
        assert_eq!(line.find(&remainder, 0, live), None, "the other line's flag");
        for bit in 0..112 {
            let other = Remainder {
                low: remainder.low ^ 1u64.checked_shl(bit).unwrap_or(0),
                mid: remainder.mid ^ if (64..96).contains(&bit) { 1 << (bit - 64) } else { 0 },
                high: remainder.high ^ if bit >= 96 { 1 << (bit - 96) } else { 0 },
            };
            assert_ne!(other, remainder);
            assert_eq!(line.find(&other, SECOND, live), None, "bit {bit}");
        }
        line.set_epoch(2, super::super::epoch::byte(99));
        assert_eq!(line.find(&remainder, SECOND, live), None, "behind the horizon");
        assert_eq!(line.free(live), 0b1111);
    }
}
