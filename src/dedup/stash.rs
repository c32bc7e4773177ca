//! Pure. The keys whose block has no room: few, since how many keys fall into a block varies by a few percent only
//! (`tollgate-bench dedup` says how many). A map beside the lines, which is looked into only for the blocks that it has keys of.

use super::Hashed;
use super::epoch::Live;
use super::line::Entry;
use super::path::BLOCK_LINES;
use std::collections::HashMap;
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

/// Slots of the table for one place here.
const SLOTS_PER_PLACE: u64 = 1024;

pub(super) struct Stash {
    /// Nobody can aim at its buckets: keys are permuted by a secret.
    keys: HashMap<Hashed, Entry, Xxh3DefaultBuilder>,
    keys_max: usize,
    /// A bit for each block that has keys here, and perhaps for some that no longer do.
    blocks: Vec<u64>,
    /// The horizon with which it was swept last: nothing has died since while it is the same.
    swept: Option<Live>,
}

/// Memory of the stash of a table of so many slots: the map's buckets, a power of two, with a byte each.
pub(super) fn stash_bytes(slots: u64) -> u64 {
    let buckets = (capacity(places(slots)) * 8).div_ceil(7).next_power_of_two();
    buckets * (size_of::<(Hashed, Entry)>() as u64 + 1)
}

/// Twice the places: a map that is at most half full clears what removals leave behind in place, instead of growing.
fn capacity(places: u64) -> u64 {
    2 * places
}

fn places(slots: u64) -> u64 {
    slots.div_ceil(SLOTS_PER_PLACE)
}

impl Stash {
    /// Takes all the memory it will ever use.
    pub(super) fn new(lines: u32, slots: u64) -> Stash {
        let keys_max = places(slots) as usize;
        let capacity = capacity(places(slots)) as usize;
        let blocks = (lines / BLOCK_LINES).div_ceil(u64::BITS) as usize;
        Stash {
            keys: HashMap::with_capacity_and_hasher(capacity, Xxh3DefaultBuilder),
            keys_max,
            blocks: vec![0; blocks],
            swept: None,
        }
    }

    /// What a live key has here.
    #[inline]
    pub(super) fn get(&self, hashed: &Hashed, live: Live) -> Option<Entry> {
        if self.keys.is_empty() || !self.may_hold(hashed.first) { None } else { self.look_up(hashed, live) }
    }

    #[inline]
    fn may_hold(&self, line: u32) -> bool {
        let block = line / BLOCK_LINES;
        self.blocks[(block / u64::BITS) as usize] >> (block % u64::BITS) & 1 != 0
    }

    #[cold]
    fn look_up(&self, hashed: &Hashed, live: Live) -> Option<Entry> {
        self.keys.get(hashed).copied().filter(|entry| live.holds(entry.epoch))
    }

    /// Takes a key that is not here, or no longer live. False: there is no room, and nothing changed.
    #[cold]
    pub(super) fn put(&mut self, hashed: &Hashed, entry: Entry, live: Live) -> bool {
        if self.keys.len() == self.keys_max && self.swept != Some(live) {
            self.sweep(live);
        }
        if self.keys.len() == self.keys_max && !self.keys.contains_key(hashed) {
            return false;
        }
        self.keys.insert(*hashed, entry);
        let block = hashed.first / BLOCK_LINES;
        self.blocks[(block / u64::BITS) as usize] |= 1 << (block % u64::BITS);
        true
    }

    /// Gives a key that is here another generation.
    pub(super) fn set_epoch(&mut self, hashed: &Hashed, epoch: u8) {
        if let Some(entry) = self.keys.get_mut(hashed) {
            entry.epoch = epoch;
        }
    }

    /// Forgets what is behind the horizon.
    pub(super) fn sweep(&mut self, live: Live) {
        self.swept = Some(live);
        self.keys.retain(|_, entry| live.holds(entry.epoch));
        self.blocks.fill(0);
        for hashed in self.keys.keys() {
            let block = hashed.first / BLOCK_LINES;
            self.blocks[(block / u64::BITS) as usize] |= 1 << (block % u64::BITS);
        }
    }

    pub(super) fn clear(&mut self) {
        self.swept = None;
        self.keys.clear();
        self.blocks.fill(0);
    }

    /// Keys held, those not yet swept too.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::epoch::{self, Epochs};
    use super::super::line::Remainder;
    use super::*;

    fn hashed(number: u32) -> Hashed {
        let first = number * BLOCK_LINES;
        Hashed { remainder: Remainder { low: u64::from(number), mid: 0, high: 0 }, first, second: first ^ 1 }
    }

    #[test]
    fn it_takes_no_more_memory_than_is_said() {
        for slots in [1 << 19, 196_608_000, 1 << 32] {
            let capacity = Stash::new(BLOCK_LINES, slots).keys.capacity() as u64;
            let buckets = (capacity * 8).div_ceil(7);
            assert!(capacity >= slots / SLOTS_PER_PLACE);
            assert_eq!(stash_bytes(slots), buckets * (size_of::<(Hashed, Entry)>() as u64 + 1), "{slots} slots");
        }
    }

    #[test]
    fn churn_takes_no_more_memory() {
        let mut epochs = Epochs::new(100);
        let mut stash = Stash::new(64 * BLOCK_LINES, 64 * SLOTS_PER_PLACE);
        let capacity = stash.keys.capacity();
        let mut number = 0;
        for generation in 100..2_000 {
            assert_eq!(epochs.rise(generation), epoch::Rise::Done);
            epochs.swept_whole();
            stash.sweep(epochs.live());
            for _ in 0..if generation % 2 == 0 { 64 } else { 40 } {
                number += 1;
                let entry = Entry { remainder: hashed(0).remainder, epoch: epoch::byte(generation), check: 0 };
                let mut key = hashed(number % 64);
                key.remainder.low = u64::from(number);
                assert!(stash.put(&key, entry, epochs.live()));
            }
        }
        assert_eq!(stash.keys.capacity(), capacity);
    }

    #[test]
    fn what_was_cleared_is_swept_again() {
        let mut epochs = Epochs::new(100);
        let entry = |generation| Entry { remainder: hashed(0).remainder, epoch: epoch::byte(generation), check: 0 };
        let mut stash = Stash::new(8 * BLOCK_LINES, SLOTS_PER_PLACE);
        assert!(stash.put(&hashed(1), entry(100), epochs.live()));
        assert!(!stash.put(&hashed(2), entry(100), epochs.live()));
        stash.clear();
        // One round of the bytes later, just before the horizon is where it was when the stash was swept last.
        epochs.restart(100 + epoch::RING - 1);
        assert!(stash.put(&hashed(3), entry(100 + epoch::RING - 1), epochs.live()));
        assert_eq!(epochs.rise(100 + epoch::RING), epoch::Rise::Done);
        assert!(stash.put(&hashed(4), entry(100 + epoch::RING), epochs.live()), "the dead one makes room");
    }

    #[test]
    fn what_has_died_makes_room_and_is_not_found() {
        let mut epochs = Epochs::new(100);
        let entry = |generation| Entry { remainder: hashed(0).remainder, epoch: epoch::byte(generation), check: 0 };
        let mut stash = Stash::new(8 * BLOCK_LINES, 3 * SLOTS_PER_PLACE);
        for (number, generation) in [(1, 100), (2, 101), (3, 102)] {
            assert!(stash.put(&hashed(number), entry(generation), epochs.live()));
        }
        assert!(!stash.put(&hashed(4), entry(102), epochs.live()), "full of live keys");
        assert_eq!(epochs.rise(101), super::super::epoch::Rise::Done);
        assert_eq!(stash.get(&hashed(1), epochs.live()), None);
        assert!(stash.put(&hashed(4), entry(102), epochs.live()));
        assert!(!stash.put(&hashed(5), entry(102), epochs.live()));
        for number in 2..5 {
            assert!(stash.get(&hashed(number), epochs.live()).is_some(), "{number}");
        }
        assert_eq!(stash.get(&hashed(5), epochs.live()), None);
    }
}
