//! What the dedup table costs a click, beside an empty loop, a linear-probing table and the standard library's map, all in
//! one run; and how full it gets before a generation has to go early.
//!
//! Prefilled and expiring: the clock runs so that the window holds the load asked for, and every generation that dies makes
//! room for the next.

use std::collections::HashMap;
use std::hint::black_box;
use std::io::{self, Write};
use std::time::Instant;

use memmap2::{Advice, MmapMut};
use tollgate::click::ClickKey;
use tollgate::config::DedupConfig;
use tollgate::dedup::{Table, Verdict};

/// Clicks of a request, looked up together.
const BATCH: usize = 100;
/// How many clicks before its own room is looked for.
const ROOM_AHEAD: usize = 8;
const WINDOW_MS: i64 = 60_000;
const NOW: i64 = 1_760_000_000_000;

pub struct Settings {
    pub memory_bytes: u64,
    /// Clicks of one round.
    pub clicks: u64,
    /// Rounds; the best one counts.
    pub rounds: usize,
}

impl Default for Settings {
    /// The table of `tollgate up`: some seconds a row.
    fn default() -> Settings {
        Settings { memory_bytes: 256 << 20, clicks: 1_000_000, rounds: 5 }
    }
}

/// Prints a table of rows: nanoseconds a click, and that as a multiple of the empty loop's.
pub fn run(settings: &Settings, out: &mut impl Write) -> io::Result<()> {
    let empty = best(settings, |numbers| {
        for batch in numbers.batches() {
            black_box(batch);
        }
    });
    writeln!(out, "dedup: {} MiB, batches of {BATCH}, best of {}", settings.memory_bytes >> 20, settings.rounds)?;
    row(out, "empty loop (makes the keys)", empty, empty)?;
    for (load, repeats) in [(0.5, false), (0.8, false), (0.85, false), (0.9, false), (0.8, true)] {
        let mut expiring = Expiring::new(settings, load);
        let cost = best(settings, |numbers| expiring.run(numbers, repeats));
        let held = expiring.table.keys() as f64 / expiring.table.slots() as f64;
        let evicted = expiring.table.generations_dropped_early();
        let (stashed, repeats) = (expiring.table.stashed(), if repeats { ", half repeats" } else { "" });
        let name = format!("load {held:.3}, {stashed} stashed, {evicted} gone early{repeats}");
        row(out, &name, cost, empty)?;
    }
    let mut probing = LinearProbing::new(settings);
    row(out, "linear probing, load 0.8, no expiry", best(settings, |numbers| probing.run(numbers)), empty)?;
    let mut map = std_map(settings);
    let cost = best(settings, |numbers| {
        for key in numbers.batches().flatten() {
            map.entry(key).or_insert(NOW);
        }
    });
    row(out, "std HashMap, keys as at load 0.8, no expiry", cost, empty)?;
    let (keys, slots) = first_eviction(settings);
    let bytes = settings.memory_bytes as f64 / keys as f64;
    writeln!(out, "first key without room: at load {:.4}, {bytes:.2} bytes a key", keys as f64 / slots as f64)
}

fn row(out: &mut impl Write, name: &str, ns: f64, empty: f64) -> io::Result<()> {
    writeln!(out, "  {name:<52} {ns:>7.1} ns/click {:>7.1} x", ns / empty)
}

/// Nanoseconds a click of the best round.
fn best(settings: &Settings, mut round: impl FnMut(&mut Numbers)) -> f64 {
    let mut least = f64::INFINITY;
    let mut numbers = Numbers { next: 1 << 40, left: 0 };
    for _ in 0..settings.rounds {
        numbers.left = settings.clicks;
        let (began, began_cpu) = (Instant::now(), cpu_ns());
        round(&mut numbers);
        let wall = began.elapsed().as_nanos() as f64;
        let cpu = cpu_ns().zip(began_cpu).map(|(end, begin)| (end - begin) as f64).filter(|cpu| *cpu > 0.0);
        least = least.min(cpu.unwrap_or(wall).min(wall) / settings.clicks as f64);
    }
    least
}

/// What this thread has run so far, so that others on the same core do not count.
fn cpu_ns() -> Option<u64> {
    std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse().ok()
}

/// Keys that never repeat and look random, as UUIDs do: a counter through a mixing function that is one to one.
struct Numbers {
    next: u64,
    left: u64,
}

impl Numbers {
    fn batches(&mut self) -> impl Iterator<Item = [[u8; 16]; BATCH]> + '_ {
        std::iter::from_fn(move || {
            self.left = self.left.checked_sub(BATCH as u64)?;
            self.next += BATCH as u64;
            let first = self.next;
            Some(std::array::from_fn(|at| key(first + at as u64)))
        })
    }
}

fn key(number: u64) -> [u8; 16] {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (u128::from(mixed) << 64 | u128::from(number)).to_le_bytes()
}

fn memory(bytes: u64) -> MmapMut {
    let memory = MmapMut::map_anon(bytes as usize).expect("memory for the table");
    let huge = memory.advise(Advice::HugePage).and_then(|()| memory.advise(Advice::PopulateWrite));
    if let Err(error) = huge {
        eprintln!("no huge pages, figures will be worse: {error}");
    }
    memory
}

fn config(memory_bytes: u64) -> DedupConfig {
    DedupConfig { window_ms: WINDOW_MS, window_min_ms: WINDOW_MS / 4, memory_bytes }
}

/// A table under a steady stream of clicks whose keys fill it to a load, and expire.
struct Expiring {
    table: Table,
    clicks_per_ms: f64,
    clicks: u64,
    hashed: Vec<tollgate::dedup::Hashed>,
}

impl Expiring {
    fn new(settings: &Settings, load: f64) -> Expiring {
        let table = Table::new(memory(settings.memory_bytes), [3; 16], &config(settings.memory_bytes), i64::MIN, NOW);
        // The load is the highest, just before a generation dies: then a window and one generation are held.
        let held_ms = (WINDOW_MS + WINDOW_MS / tollgate::config::GENERATIONS) as f64;
        let clicks_per_ms = table.slots() as f64 * load / held_ms;
        let fill = (table.slots() as f64 * load * 1.25) as u64;
        let mut expiring = Expiring { table, clicks_per_ms, clicks: 0, hashed: Vec::with_capacity(BATCH) };
        expiring.run(&mut Numbers { next: 1 << 60, left: fill }, false);
        expiring
    }

    fn run(&mut self, numbers: &mut Numbers, repeats: bool) {
        for mut batch in numbers.batches() {
            if repeats {
                // Every other click is one of a thousand batches ago, which is in no cache any more.
                for at in (1..BATCH).step_by(2) {
                    let number = u128::from_le_bytes(batch[at - 1]) as u64;
                    batch[at] = key(number - 1_000 * BATCH as u64);
                }
            }
            self.batch(&batch);
        }
    }

    fn batch(&mut self, batch: &[[u8; 16]; BATCH]) {
        let now_ms = NOW + (self.clicks as f64 / self.clicks_per_ms) as i64;
        self.clicks += BATCH as u64;
        self.table.advance(now_ms);
        self.hashed.clear();
        for key in batch {
            let hashed = self.table.hash(&ClickKey { bytes: *key, hashed: false });
            self.hashed.push(hashed);
        }
        // As a home does: see `core/home.rs`.
        self.hashed.iter().for_each(|hashed| self.table.prefetch(hashed));
        for (at, hashed) in self.hashed.iter().enumerate() {
            if let Some(ahead) = self.hashed.get(at + ROOM_AHEAD) {
                self.table.prefetch_room(ahead);
            }
            let verdict = self.table.remember(hashed, 1, now_ms, now_ms);
            assert!(verdict != Verdict::Full && verdict != Verdict::TooOld, "{verdict:?}");
        }
    }
}

/// The plain thing: keys in place, the next slot if taken, no way to forget.
struct LinearProbing {
    slots: Vec<u128>,
}

impl LinearProbing {
    fn new(settings: &Settings) -> LinearProbing {
        let slots = (settings.memory_bytes / 16) as usize;
        let mut table = LinearProbing { slots: vec![0; slots] };
        let measured = settings.clicks * settings.rounds as u64;
        let fill = (slots as u64 * 8 / 10).saturating_sub(measured / 2);
        table.run(&mut Numbers { next: 1 << 60, left: fill });
        table
    }

    fn run(&mut self, numbers: &mut Numbers) {
        for key in numbers.batches().flatten().map(u128::from_le_bytes) {
            let mut at = (((key >> 64) * self.slots.len() as u128) >> 64) as usize;
            while self.slots[at] != 0 && self.slots[at] != key {
                at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
            }
            self.slots[at] = key;
        }
    }
}

fn std_map(settings: &Settings) -> HashMap<[u8; 16], i64> {
    let keys = settings.memory_bytes / 16 * 8 / 10;
    let mut map = HashMap::with_capacity((keys + settings.clicks * settings.rounds as u64) as usize);
    let mut numbers = Numbers { next: 1 << 60, left: keys };
    map.extend(numbers.batches().flatten().map(|key| (key, NOW)));
    map
}

/// Keys taken, all of one instant, before one finds no room; and the slots there are.
fn first_eviction(settings: &Settings) -> (u64, u64) {
    let mut table = Table::new(memory(settings.memory_bytes), [3; 16], &config(settings.memory_bytes), i64::MIN, NOW);
    let mut numbers = Numbers { next: 0, left: u64::MAX / 2 };
    for key in numbers.batches().flatten() {
        let hashed = table.hash(&ClickKey { bytes: key, hashed: false });
        if table.remember(&hashed, 1, NOW, NOW) == Verdict::Full {
            break;
        }
    }
    (table.keys(), table.slots())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_small() {
        let mut out = Vec::new();
        let settings = Settings { memory_bytes: tollgate::dedup::MEMORY_BYTES_MIN, clicks: 20_000, rounds: 2 };
        run(&settings, &mut out).expect("writing to memory");
        let text = String::from_utf8(out).expect("text");
        assert_eq!(text.lines().count(), 10, "{text}");
        assert!(text.contains("first key without room: at load 0.9"), "{text}");
    }
}
