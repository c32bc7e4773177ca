//! Pure. Remembers the key of every click whose event time is not before the horizon, exactly: a cuckoo table of whole keys
//! in memory that is handed in. Owned by one core.
//!
//! A key has two lines of four slots; it lies in one slot of one of them.
//!
//! ```text
//!   key ──permute──▶ 128 bits:  │ top 16 │ ......48 | .............. low 64 │
//!                               └──── top 64 ───────┘
//!                                         └────────── remainder, 112 ──────┘
//!   line 1 = ⌊top 64 × lines / 2^64⌋, its lowest bit flipped if the key is a hash of text
//!   line 2 = line 1 xor (1 + ⌊low 64 × 1023 / 2^64⌋)              of the same block of 1024 lines; its own way back
//! ```
//!
//! **Exact**: a slot's place, its remainder and its "second line" bit name exactly one key, so a match is the same click and
//! nothing else. From a slot line 1 follows (the way from line 2 back is the same). Take two keys with one remainder: either
//! they differ in the top 16 bits, so their top 64 differ by at least 2^48, and `top × lines / 2^64` by at least
//! `lines / 2^16` >= 2, because there are at least 2^17 lines; whole numbers at least 2 apart stay apart when lowest bits
//! are flipped. Or all 128 bits are equal; then one is a UUID and the other a hash, and exactly one lowest bit is flipped.
//! (Whole blocks keep the flipped line in the table.)
//!
//! **Room**: a key whose lines are full moves others to theirs, all within its block; the few keys of blocks that are full
//! themselves are stashed beside the table.
//!
//! **Time**: a key is remembered under the generation of the later of its event time and its processing time, and a
//! generation is forgotten only when the horizon is above it. So a repeat with the same event time is found or is too old;
//! with another event time it is found for a window after the first was accepted.

mod epoch;
mod line;
mod path;
mod permute;
mod simd;
mod stash;
#[cfg(test)]
mod tests;

use crate::click::ClickKey;
use crate::config::{DEDUP_MEMORY_BYTES_MAX, DEDUP_MEMORY_BYTES_MIN, DedupConfig, GENERATIONS};
use epoch::{Epochs, Generation, Rise};
use line::{Entry, Line, Remainder, SECOND, SLOTS};
use memmap2::MmapMut;
use path::{BLOCK_BYTES, BLOCK_LINES};
use permute::Permutation;
use stash::Stash;

/// Fewer lines would not be exact (see the head of this file).
const LINES_MIN: usize = 1 << 17;
/// The least memory that a table can live in: 8 MiB.
pub const MEMORY_BYTES_MIN: u64 = (LINES_MIN * size_of::<Line>()) as u64;
/// Line numbers are 32 bits: 256 GiB a core.
pub const MEMORY_BYTES_MAX: u64 = ((1 << 32) - BLOCK_LINES as u64) * size_of::<Line>() as u64;
const _: () = assert!(MEMORY_BYTES_MIN <= DEDUP_MEMORY_BYTES_MIN && DEDUP_MEMORY_BYTES_MAX <= MEMORY_BYTES_MAX);

/// A table that is fuller, in percent of its slots, forgets its oldest generation, if the least window allows: above this load
/// making room takes more and more moves, at 0.95 several times what all the rest of a click costs.
const LOAD_PERCENT_MAX: u64 = 90;

/// The clock hand goes round once in this many generations. It must be less than RING − SPAN = 127; a hand that is
/// twice as late still is.
const SWEEP_GENERATIONS: i64 = 32;
/// Lines that one call to [`Table::advance`] sweeps at most, so that a turn stays short (4 ns a line) ...
const SWEEP_LINES_MAX: usize = 512;
/// ... but never less than the table over this: a worker that turns once a second is round in a bit more than an hour.
const SWEEP_TURNS_MAX: usize = 4096;

/// Memory that a table takes beside the one that is handed in.
pub fn stash_bytes(memory_bytes: u64) -> u64 {
    stash::stash_bytes(memory_bytes / size_of::<Line>() as u64 * SLOTS as u64)
}

/// A click key as a table looks for it: the one that made it, and those of its size with the same secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hashed {
    remainder: Remainder,
    first: u32,
    second: u32,
}

impl Hashed {
    /// Which of so many tables with one secret is the key's home. The lines come from the other half of the permuted key, so that
    /// each home's table is evenly used.
    #[inline]
    pub fn home(&self, tables: u16) -> u16 {
        ((u64::from(self.remainder.low as u32) * u64::from(tables)) >> 32) as u16
    }
}

/// What became of a click.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Never seen since the horizon; remembered now.
    Fresh,
    Duplicate {
        /// Whether the check of its payload is that of the first.
        same_payload: bool,
    },
    /// Event time before the horizon: it may have been counted and forgotten.
    TooOld,
    /// No room, and the window is at its minimum (or the event time is further ahead than generations can be told
    /// apart, which the bound on `--clock-skew` prevents). The key is not remembered.
    Full,
}

pub struct Table {
    memory: MmapMut,
    /// Whole blocks.
    lines: u32,
    stash: Stash,
    permutation: Permutation,
    epochs: Epochs,
    generation_ms: i64,
    window_ms: i64,
    window_min_ms: i64,
    horizon_ms: i64,
    /// The latest processing time told.
    clock_ms: i64,
    /// The generation that the clock is in, and its limits: most clicks fall into it, which saves a division each.
    current: Generation,
    /// The line that the clock hand sweeps next, and when its round began.
    hand: usize,
    round_began_ms: i64,
    generations_dropped_early: u64,
}

impl Table {
    /// `memory` is all zeros; what is over a whole number of blocks stays unused. The horizon begins at `horizon_ms` or a
    /// window before `now_ms`, whichever is later.
    pub fn new(memory: MmapMut, secret: [u8; 16], config: &DedupConfig, horizon_ms: i64, now_ms: i64) -> Table {
        let lines = lines(&memory).len();
        assert!(lines >= LINES_MIN, "a dedup table of {} bytes, at least {MEMORY_BYTES_MIN} needed", memory.len());
        assert!(u32::try_from(lines).is_ok(), "a dedup table of {} bytes, at most {MEMORY_BYTES_MAX}", memory.len());
        assert!(config.window_ms > 0 && (0..=config.window_ms).contains(&config.window_min_ms), "{config:?}");
        let generation_ms = (config.window_ms / GENERATIONS).max(1);
        let mut table = Table {
            memory,
            lines: lines as u32,
            stash: Stash::new(lines as u32, (lines * SLOTS) as u64),
            permutation: Permutation::new(secret),
            epochs: Epochs::new(horizon_ms.div_euclid(generation_ms)),
            generation_ms,
            window_ms: config.window_ms,
            window_min_ms: config.window_min_ms,
            horizon_ms,
            clock_ms: now_ms,
            current: Generation::at(now_ms, generation_ms),
            hand: 0,
            round_began_ms: now_ms,
            generations_dropped_early: 0,
        };
        let horizon = table.windows_horizon(now_ms);
        if horizon > table.horizon_ms {
            table.horizon_ms = horizon;
            table.epochs.restart(horizon.div_euclid(generation_ms));
        }
        table
    }

    #[inline]
    pub fn hash(&self, key: &ClickKey) -> Hashed {
        self.locate(self.permutation.apply(key.bytes), key.hashed)
    }

    /// Asks the memory for both lines. Worth it when at least a few other clicks are handled before `remember`.
    #[inline]
    pub fn prefetch(&self, hashed: &Hashed) {
        let lines = lines(&self.memory);
        simd::prefetch(lines, hashed.first);
        simd::prefetch(lines, hashed.second);
    }

    /// To be called some eight clicks before `remember`, when the lines have come: where both are full, asks for the lines
    /// that their keys could move to. At a load of 0.9 that halves the cost of a click.
    #[inline]
    pub fn prefetch_room(&self, hashed: &Hashed) {
        let (lines, live) = (lines(&self.memory), self.epochs.live());
        if lines[hashed.first as usize].free(live) | lines[hashed.second as usize].free(live) == 0 {
            path::prefetch_others(lines, hashed.first);
            path::prefetch_others(lines, hashed.second);
        }
    }

    /// One step: compares the event time with the horizon, looks the key up, and remembers it if it is fresh. `check` is
    /// a hash of the payload, of which 7 bits are kept.
    #[inline]
    pub fn remember(&mut self, hashed: &Hashed, check: u8, event_ms: i64, received_ms: i64) -> Verdict {
        if event_ms < self.horizon_ms {
            return Verdict::TooOld;
        }
        if let Some(kept) = self.kept(hashed) {
            return Verdict::Duplicate { same_payload: (kept.check ^ check) & !SECOND == 0 };
        }
        let generation = self.generation_number(event_ms.max(received_ms));
        if generation >= self.epochs.end() {
            return Verdict::Full;
        }
        let entry = Entry { remainder: hashed.remainder, epoch: epoch::byte(generation), check: check & !SECOND };
        if self.place(hashed, entry) { Verdict::Fresh } else { self.remember_at_a_price(hashed, entry, event_ms) }
    }

    /// Replay of a logged click: it was accepted, so the horizon does not refuse it and a shortage does not either; the
    /// horizon rises as far as it must. A key that is wholly behind the horizon need not be remembered: false.
    pub fn restore(&mut self, hashed: &Hashed, check: u8, event_ms: i64, received_ms: i64) -> bool {
        let generation = self.generation_number(event_ms.max(received_ms));
        if generation >= self.epochs.end() {
            // Further ahead than generations can be told apart (the window was made shorter): all older ones go.
            self.raise_horizon((generation - epoch::SPAN + 1).saturating_mul(self.generation_ms));
        }
        if generation < self.epochs.horizon() {
            return false;
        }
        let epoch = epoch::byte(generation);
        if let Some(kept) = self.kept(hashed) {
            self.refresh(hashed, kept, generation);
            return true;
        }
        let entry = Entry { remainder: hashed.remainder, epoch, check: check & !SECOND };
        while !self.place(hashed, entry) {
            let evicted = self.evict_oldest(i64::MAX);
            assert!(evicted, "a table without a live key has room");
            if generation < self.epochs.horizon() {
                return false;
            }
        }
        true
    }

    /// Tells the time: raises the horizon behind the window and moves the clock hand. Called every turn. A clock that
    /// goes back changes nothing.
    pub fn advance(&mut self, now_ms: i64) {
        if now_ms <= self.clock_ms {
            return;
        }
        self.clock_ms = now_ms;
        if now_ms >= self.current.end_ms {
            self.current = Generation::at(now_ms, self.generation_ms);
        }
        self.raise_horizon(self.windows_horizon(now_ms));
        while self.keys() > self.slots() / 100 * LOAD_PERCENT_MAX && self.evict_oldest(now_ms - self.window_min_ms) {}
        self.sweep_what_is_due();
    }

    /// Forgets everything that happened before `to_ms`, and refuses it from now on. Never lowers the horizon.
    pub fn raise_horizon(&mut self, to_ms: i64) {
        if to_ms <= self.horizon_ms {
            return;
        }
        self.horizon_ms = to_ms;
        let to = to_ms.div_euclid(self.generation_ms);
        loop {
            match self.epochs.rise(to) {
                Rise::Done => return,
                Rise::Sweep => {
                    let live = self.epochs.live();
                    lines_mut(&mut self.memory).iter_mut().for_each(|line| line.sweep(live));
                    self.stash.sweep(live);
                    self.epochs.swept_whole();
                }
                Rise::Clear => {
                    lines_mut(&mut self.memory).iter_mut().for_each(Line::clear);
                    self.stash.clear();
                    self.epochs.restart(to);
                }
            }
            self.begin_round();
        }
    }

    /// Clicks with an event time before it are too old.
    pub fn horizon_ms(&self) -> i64 {
        self.horizon_ms
    }

    /// Keys remembered.
    pub fn keys(&self) -> u64 {
        self.epochs.keys()
    }

    /// Keys that there are slots for. Some percent of them cannot be used.
    pub fn slots(&self) -> u64 {
        u64::from(self.lines) * SLOTS as u64
    }

    /// Generations that had to be forgotten before their time, since the start.
    pub fn generations_dropped_early(&self) -> u64 {
        self.generations_dropped_early
    }

    /// Keys that are kept beside the lines.
    pub fn stashed(&self) -> usize {
        self.stash.len()
    }

    /// Where a permuted key belongs.
    #[inline]
    fn locate(&self, permuted: u128, hashed: bool) -> Hashed {
        let top = (permuted >> 64) as u64;
        let remainder = Remainder { low: permuted as u64, mid: top as u32, high: (top >> 32) as u16 };
        let first = scale(top, self.lines) ^ u32::from(hashed);
        Hashed { remainder, first, second: path::other_line(remainder.low, first) }
    }

    /// What is remembered of a key.
    #[inline]
    fn kept(&self, hashed: &Hashed) -> Option<Entry> {
        match self.find(hashed) {
            Some((line, slot)) => Some(lines(&self.memory)[line].get(slot)),
            None => self.stash.get(hashed, self.epochs.live()),
        }
    }

    /// Line and slot of a remembered key that is not stashed.
    #[inline]
    fn find(&self, hashed: &Hashed) -> Option<(usize, usize)> {
        let (lines, live) = (lines(&self.memory), self.epochs.live());
        let (first, second) = (hashed.first as usize, hashed.second as usize);
        if let Some(slot) = lines[first].find(&hashed.remainder, 0, live) {
            return Some((first, slot));
        }
        lines[second].find(&hashed.remainder, SECOND, live).map(|slot| (second, slot))
    }

    /// Puts an entry, whose key is not in the table, into the emptier of its lines, or makes room by moving others, or stashes
    /// it. False: there is no room, and nothing changed.
    #[inline]
    fn place(&mut self, hashed: &Hashed, mut entry: Entry) -> bool {
        let live = self.epochs.live();
        let lines = lines_mut(&mut self.memory);
        let free_first = lines[hashed.first as usize].free(live);
        let free_second = lines[hashed.second as usize].free(live);
        let (line, slot) = if free_first | free_second == 0 {
            match path::make_room(lines, live, [hashed.first, hashed.second]) {
                Some(room) => room,
                None => {
                    let stashed = self.stash.put(hashed, entry, live);
                    if stashed {
                        self.epochs.count(entry.epoch);
                    }
                    return stashed;
                }
            }
        } else if free_first.count_ones() >= free_second.count_ones() {
            (hashed.first, free_first.trailing_zeros() as usize)
        } else {
            (hashed.second, free_second.trailing_zeros() as usize)
        };
        entry.check |= if line == hashed.first { 0 } else { SECOND };
        lines[line as usize].put(slot, &entry);
        self.epochs.count(entry.epoch);
        true
    }

    /// There is no room: the oldest generations go, down to the least window.
    #[cold]
    fn remember_at_a_price(&mut self, hashed: &Hashed, entry: Entry, event_ms: i64) -> Verdict {
        let limit_ms = self.clock_ms.saturating_sub(self.window_min_ms);
        loop {
            if !self.evict_oldest(limit_ms) {
                return Verdict::Full;
            }
            if event_ms < self.horizon_ms {
                return Verdict::TooOld;
            }
            if self.place(hashed, entry) {
                return Verdict::Fresh;
            }
        }
    }

    /// Forgets the oldest generation that holds a key, unless the horizon would rise above `limit_ms`.
    fn evict_oldest(&mut self, limit_ms: i64) -> bool {
        let Some((oldest, _)) = self.epochs.oldest() else { return false };
        let horizon_ms = (oldest + 1).saturating_mul(self.generation_ms);
        if horizon_ms > limit_ms {
            return false;
        }
        self.raise_horizon(horizon_ms);
        self.generations_dropped_early += 1;
        true
    }

    /// A key that the log holds twice (the first was forgotten when the second came): the later time counts.
    fn refresh(&mut self, hashed: &Hashed, kept: Entry, generation: i64) {
        if self.epochs.number(kept.epoch) < generation {
            let to = epoch::byte(generation);
            match self.find(hashed) {
                Some((line, slot)) => lines_mut(&mut self.memory)[line].set_epoch(slot, to),
                None => self.stash.set_epoch(hashed, to),
            }
            self.epochs.recount(kept.epoch, to);
        }
    }

    fn sweep_what_is_due(&mut self) {
        let lines = lines_mut(&mut self.memory);
        let round_ms = SWEEP_GENERATIONS * self.generation_ms;
        let elapsed_ms = (self.clock_ms - self.round_began_ms).min(round_ms);
        let due = (lines.len() as u128 * elapsed_ms as u128 / round_ms as u128) as usize;
        let most = SWEEP_LINES_MAX.max(lines.len() / SWEEP_TURNS_MAX);
        let to = due.min(self.hand + most);
        if to <= self.hand {
            return;
        }
        let live = self.epochs.live();
        lines[self.hand..to].iter_mut().for_each(|line| line.sweep(live));
        self.hand = to;
        if to == lines.len() {
            self.stash.sweep(live);
            self.epochs.pass_ended();
            self.begin_round();
        }
    }

    fn begin_round(&mut self) {
        self.hand = 0;
        self.round_began_ms = self.clock_ms;
    }

    /// Where the window alone would put the horizon: at the beginning of a generation.
    fn windows_horizon(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(self.window_ms).div_euclid(self.generation_ms).saturating_mul(self.generation_ms)
    }

    #[inline]
    fn generation_number(&self, time_ms: i64) -> i64 {
        if (self.current.begin_ms..self.current.end_ms).contains(&time_ms) {
            return self.current.number;
        }
        time_ms.div_euclid(self.generation_ms)
    }
}

/// Spreads 64 random bits evenly over `0..lines`, without dividing.
#[inline]
fn scale(bits: u64, lines: u32) -> u32 {
    ((u128::from(bits) * u128::from(lines)) >> 64) as u32
}

/// The memory as lines; what is over a whole number of blocks is left out.
#[inline]
fn lines(memory: &MmapMut) -> &[Line] {
    bytemuck::cast_slice(&memory[..memory.len() & !(BLOCK_BYTES - 1)])
}

#[inline]
fn lines_mut(memory: &mut MmapMut) -> &mut [Line] {
    let whole = memory.len() & !(BLOCK_BYTES - 1);
    bytemuck::cast_slice_mut(&mut memory[..whole])
}
