//! Drives. The rings between workers, and how a sleeping one is woken. For each ordered pair of cores a ring of parcels, in which
//! there is always room: what is in it is on its way or on its way back, and both hold a credit.
//!
//! ```text
//!   core 0  ──Forwarded 7, Forwarded 8, Judged 3──▶  core 1
//!           ◀──Judged 7, Forwarded 4───────────────
//! ```

mod bell;

use std::os::fd::RawFd;
use std::sync::Arc;

use bell::Bell;
use sync::{AtomicI32, Ordering};

use crate::chunk::{Chunk, CoreIndex};
use crate::event::Event;
use crate::wake::Wake;

mod sync {
    pub use std::sync::atomic::{AtomicBool, AtomicI32, Ordering, fence};
}

/// No ring yet, or none any more.
const NO_RING: RawFd = -1;

#[derive(Debug)]
pub enum Parcel {
    /// Clicks for their home.
    Forwarded(Box<Chunk>),
    /// A chunk of the receiver's, with its verdicts.
    Judged(Box<Chunk>),
    /// The sender will forward nothing more.
    Done,
}

/// What a worker shows the others.
#[derive(Debug)]
struct Door {
    bell: Bell,
    /// Its io_uring, for a message straight into it.
    ring: AtomicI32,
    /// Where that does not go.
    wake: Arc<Wake>,
}

#[derive(Debug)]
struct Way {
    out: rtrb::Producer<Parcel>,
    back: rtrb::Consumer<Parcel>,
    /// Something was pushed since the last ring of the bell.
    pushed: bool,
}

/// One worker's end of all its ways.
#[derive(Debug)]
pub struct Mesh {
    own: CoreIndex,
    doors: Arc<[Door]>,
    /// By core; none to itself.
    ways: Vec<Option<Way>>,
}

/// How a sleeping worker is to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sleeper {
    pub core: CoreIndex,
    /// `None`: by its eventfd.
    pub ring: Option<RawFd>,
}

impl Mesh {
    /// The ends of all workers, in order; `wakes` are theirs. Each has so many credits on each way.
    pub fn join(wakes: Vec<Arc<Wake>>, credits: usize) -> Vec<Mesh> {
        let cores = wakes.len();
        // As many as the sender has credits, as many as the receiver has, and the word that no more will come.
        let parcels = 2 * credits + 1;
        let door = |wake| Door { bell: Bell::default(), ring: AtomicI32::new(NO_RING), wake };
        let doors: Arc<[Door]> = wakes.into_iter().map(door).collect();
        // Each core in turn gets its ways to those before it; they get theirs to it at the end of what they have.
        let mut ways: Vec<Vec<Option<Way>>> = Vec::new();
        for _ in 0..cores {
            let mut own = Vec::with_capacity(cores);
            for others in &mut ways {
                let (there, from_here) = rtrb::RingBuffer::new(parcels);
                let (back, from_there) = rtrb::RingBuffer::new(parcels);
                own.push(Some(Way { out: there, back: from_there, pushed: false }));
                others.push(Some(Way { out: back, back: from_here, pushed: false }));
            }
            own.push(None);
            ways.push(own);
        }
        let end = |(own, ways)| Mesh { own: own as CoreIndex, doors: Arc::clone(&doors), ways };
        ways.into_iter().enumerate().map(end).collect()
    }

    pub fn cores(&self) -> CoreIndex {
        self.ways.len() as CoreIndex
    }

    /// This worker's ring takes messages from now on.
    pub fn open(&self, ring: RawFd) {
        self.door(self.own).ring.store(ring, Ordering::Release);
    }

    pub fn push(&mut self, to: CoreIndex, parcel: Parcel) {
        let way = self.ways[usize::from(to)].as_mut().expect("a core sends nothing to itself");
        way.out.push(parcel).expect("a chunk holds a credit, and the ring holds them all");
        way.pushed = true;
    }

    /// To all others.
    pub fn done(&mut self) {
        for to in 0..self.ways.len() as CoreIndex {
            if to != self.own {
                self.push(to, Parcel::Done);
            }
        }
    }

    /// Those that were sent something since the last call and sleep: each must be woken.
    pub fn sleepers(&mut self) -> impl Iterator<Item = Sleeper> {
        let doors = &self.doors;
        (0..).zip(&mut self.ways).filter_map(|(core, way)| {
            let door = &doors[usize::from(core)];
            let must = std::mem::take(&mut way.as_mut()?.pushed) && door.bell.must_ring();
            let ring = Some(door.ring.load(Ordering::Acquire)).filter(|ring| *ring != NO_RING);
            must.then_some(Sleeper { core, ring })
        })
    }

    /// A message into its ring did not arrive.
    pub fn wake(&self, core: CoreIndex) {
        self.door(core).wake.ring();
    }

    /// Before this worker sleeps. `false`: something has come, and it must not.
    #[must_use]
    pub fn lie_down(&self) -> bool {
        if self.ways.len() == 1 {
            return true;
        }
        self.door(self.own).bell.lie_down();
        !self.has_mail()
    }

    pub fn get_up(&self) {
        self.door(self.own).bell.get_up();
    }

    pub fn has_mail(&self) -> bool {
        self.ways.iter().flatten().any(|way| !way.back.is_empty())
    }

    /// All that has come, as events.
    pub fn take(&mut self, events: &mut Vec<Event<'_>>) {
        for (core, way) in (0..).zip(&mut self.ways) {
            while let Some(parcel) = way.as_mut().and_then(|way| way.back.pop().ok()) {
                events.push(match parcel {
                    Parcel::Forwarded(chunk) => Event::Forwarded { from: core, chunk },
                    Parcel::Judged(chunk) => Event::Judged { by: core, chunk },
                    Parcel::Done => Event::PeerDone { core },
                });
            }
        }
    }

    fn door(&self, core: CoreIndex) -> &Door {
        &self.doors[usize::from(core)]
    }
}

impl Drop for Mesh {
    /// The number of a closed ring may be another file's by the time somebody rings.
    fn drop(&mut self) {
        self.door(self.own).ring.store(NO_RING, Ordering::Release);
    }
}
