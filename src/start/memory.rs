//! Drives. What a start takes from the machine before anything is served: memory, and randomness.

use std::io;
use std::time::Instant;

use memmap2::{Advice, MmapMut, MmapOptions};

use super::Failure;
use crate::admin::{Phase, Readiness};
use crate::config::{Config, FRAME_BUFFERS, HUGE_PAGE_BYTES, HugePages};
use crate::dedup;
use crate::event::{FrameBuffer, Now};
use crate::host::{self, Root};
use crate::units::{about_bytes, about_seconds};
use crate::wal::writer::buffer_bytes;

/// So much is touched between two looks at how far it is.
const PIECE_BYTES: usize = 64 << 20;
/// What is said to take a while.
const WORTH_SAYING_BYTES: u64 = 1 << 30;

/// Has the kernel find every page, which takes seconds where there are many of them.
struct Touching<'a> {
    readiness: &'a Readiness,
    began: Instant,
    bytes_done: u64,
    /// Of all cores.
    bytes_total: u64,
    said: bool,
}

impl Touching<'_> {
    fn touch(&mut self, memory: &MmapMut) -> io::Result<()> {
        for from in (0..memory.len()).step_by(PIECE_BYTES) {
            let (bytes_done, bytes_total) = (self.bytes_done, self.bytes_total);
            self.readiness.set(Phase::TakingMemory { bytes_done, bytes_total });
            let bytes = PIECE_BYTES.min(memory.len() - from);
            memory.advise_range(Advice::PopulateWrite, from, bytes)?;
            self.bytes_done += bytes as u64;
            self.say();
        }
        Ok(())
    }

    /// Once, after the first piece: how long the rest takes depends on the host alone.
    fn say(&mut self) {
        if self.said || self.bytes_total < WORTH_SAYING_BYTES {
            return;
        }
        self.said = true;
        let seconds = self.began.elapsed().as_secs_f64() * self.bytes_total as f64 / self.bytes_done as f64;
        tracing::info!(
            "taking {} of memory for remembered ids and touching all of it: about {}; /readyz says how far",
            about_bytes(self.bytes_total),
            about_seconds(seconds)
        );
    }
}

/// Takes the tables' memory, touched now rather than click by click. One secret: a key's home follows from it.
pub(super) fn dedup_tables(config: &Config, now: Now, readiness: &Readiness) -> Result<Vec<dedup::Table>, Failure> {
    let secret = random()?;
    let total = config.dedup_mapping_bytes_a_core() * u64::from(config.cores());
    let mut touching = Touching { readiness, began: Instant::now(), bytes_done: 0, bytes_total: total, said: false };
    let memories = mapped(config, &mut touching)?;
    Ok(memories
        .into_iter()
        .map(|memory| dedup::Table::new(memory, secret, &config.dedup, i64::MIN, now.wall_ms))
        .collect())
}

/// In the pages that `--huge-pages` asks for; where the host has none, in those it has, and says so.
fn mapped(config: &Config, touching: &mut Touching<'_>) -> Result<Vec<MmapMut>, Failure> {
    let (cores, bytes) = (usize::from(config.cores()), config.dedup_bytes_a_core() as usize);
    match config.tuning.huge_pages {
        HugePages::Explicit => {
            let bytes = config.dedup_mapping_bytes_a_core() as usize;
            let memories: io::Result<Vec<MmapMut>> = (0..cores).map(|_| explicit(bytes, touching)).collect();
            match memories {
                Ok(memories) => {
                    tracing::info!(
                        pages = cores * bytes / HUGE_PAGE_BYTES as usize,
                        "remembered ids lie in explicit huge pages"
                    );
                    Ok(memories)
                }
                Err(error) => {
                    let pages = (cores * bytes) as u64 / HUGE_PAGE_BYTES;
                    let free = host::memory::huge_page_pool(&Root::of_host()).map_or(0, |pool| pool.free);
                    tracing::warn!(
                        "--huge-pages explicit does nothing here: MAP_HUGETLB was answered {error}; it needs {pages} free pages of 2 MiB, \
                         there are {free}: sysctl vm.nr_hugepages. Transparent ones are asked for instead"
                    );
                    transparent(cores, bytes, touching)
                }
            }
        }
        HugePages::Transparent => transparent(cores, bytes, touching),
        HugePages::Off => {
            let mut memory = || {
                let memory = MmapMut::map_anon(bytes).map_err(not_to_be_had)?;
                // Refused by a kernel that knows no others.
                let _ = memory.advise(Advice::NoHugePage);
                let _ = touching.touch(&memory);
                Ok(memory)
            };
            (0..cores).map(|_| memory()).collect()
        }
    }
}

/// The pool's pages are reserved when they are mapped: to touch them later cannot fail.
fn explicit(bytes: usize, touching: &mut Touching<'_>) -> io::Result<MmapMut> {
    let memory = MmapOptions::new().len(bytes).huge(Some(HUGE_PAGE_BYTES.trailing_zeros() as u8)).map_anon()?;
    // A wish: without it they are touched click by click.
    let _ = touching.touch(&memory);
    Ok(memory)
}

fn transparent(cores: usize, bytes: usize, touching: &mut Touching<'_>) -> Result<Vec<MmapMut>, Failure> {
    let root = Root::of_host();
    let before = host::memory::in_huge_pages_bytes(&root);
    let mut answers = Vec::new();
    let mut memory = || {
        let memory = MmapMut::map_anon(bytes).map_err(not_to_be_had)?;
        // Both are wishes: without them the table is slower, not wrong.
        answers.extend(memory.advise(Advice::HugePage).err());
        answers.extend(touching.touch(&memory).err());
        Ok(memory)
    };
    let memories = (0..cores).map(|_| memory()).collect::<Result<Vec<_>, Failure>>()?;
    // The kernel takes the wish without a word where it is set never to grant it: what was given is counted.
    let given = Option::zip(before, host::memory::in_huge_pages_bytes(&root))
        .map(|(before, after)| after.saturating_sub(before));
    let wanted = (cores * bytes) as u64;
    if !answers.is_empty() || given.is_some_and(|given| given < wanted / 10 * 9) {
        let said = answers.first().map_or("nothing".to_owned(), ToString::to_string);
        let enabled = host::memory::transparent_huge_pages(&root).unwrap_or_else(|| "not there".to_owned());
        let given = given.map_or("an unknown part".to_owned(), about_bytes);
        tracing::warn!(
            "the kernel gives few huge pages: {given} of {}, and to madvise it answered {said}: looking ids up costs up to three times as \
             much. transparent_hugepage/enabled is {enabled}; it needs madvise or always, and memory that is not in pieces",
            about_bytes(wanted)
        );
    }
    Ok(memories)
}

fn not_to_be_had(error: io::Error) -> Failure {
    Failure::unavailable("the memory for remembered ids")(error)
}

pub(super) fn frame_buffers(config: &Config) -> Result<Vec<Box<FrameBuffer>>, Failure> {
    let buffer = |id| {
        let memory = MmapMut::map_anon(buffer_bytes(config.log.frame_bytes))?;
        Ok(Box::new(FrameBuffer { memory, id: id as u32 }))
    };
    (0..FRAME_BUFFERS).map(buffer).collect::<io::Result<_>>().map_err(Failure::unavailable("memory for frames"))
}

/// Bytes that nobody outside can guess.
pub(super) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Failure::unavailable("randomness")(error.into()))?;
    Ok(bytes)
}
