//! Drives. The mesh between the simulated cores: parcels in order on each way, after whatever time each way takes. It stands where
//! `mesh.rs` stands in production, and holds it to what a ring there has room for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tollgate::chunk::{Chunk, CoreIndex, RequestId};
use tollgate::event::Event;

use crate::server::In;
use crate::world::{Happening, World};

/// Requests looked for when one goes on, or goes everywhere.
const REQUESTS_KEPT: usize = 64;

pub enum Parcel {
    Forwarded(Box<Chunk>),
    Judged(Box<Chunk>),
    Done,
}

/// From one core to another.
#[derive(Default)]
struct Way {
    parcels: VecDeque<Parcel>,
    last_ns: u64,
    /// Chunks of the sender that are not back, and their clicks.
    away: usize,
    clicks_away: u64,
    /// Requests that were in chunks that came back.
    returned: Vec<(u32, u32)>,
}

pub struct Mesh {
    cores: usize,
    credits: usize,
    ways: Vec<Way>,
    /// Of each core, the homes that a request of it was forwarded to.
    homes: Vec<BTreeMap<(u32, u32), BTreeSet<usize>>>,
}

impl Mesh {
    pub fn new(cores: CoreIndex, credits: usize) -> Mesh {
        let cores = usize::from(cores);
        let ways = (0..cores * cores).map(|_| Way::default()).collect();
        Mesh { cores, credits, ways, homes: vec![BTreeMap::new(); cores] }
    }

    fn way(&mut self, from: usize, to: usize) -> &mut Way {
        &mut self.ways[from * self.cores + to]
    }

    pub fn chunks_on_their_way(&self) -> usize {
        let chunks = |way: &Way| way.parcels.iter().filter(|parcel| !matches!(parcel, Parcel::Done)).count();
        self.ways.iter().map(chunks).sum()
    }

    /// Whether a click waits for a chunk, all of a way being away.
    pub fn run_out(&self, from: usize, in_flight: u64) -> bool {
        let ways = &self.ways[from * self.cores..(from + 1) * self.cores];
        let clicks_away: u64 = ways.iter().map(|way| way.clicks_away).sum();
        ways.iter().any(|way| way.away == self.credits) && in_flight > clicks_away
    }
}

impl World {
    pub fn forward(&mut self, from: usize, to: CoreIndex, chunk: Box<Chunk>) {
        let to = usize::from(to);
        let trace = &mut self.trace;
        let server = self.server.as_mut().expect("it asked");
        if server.cores[to].done {
            trace.cover("clicks forwarded to a core that is done");
        }
        let mesh = &mut server.mesh;
        let (cores, credits) = (mesh.cores, mesh.credits);
        let way = mesh.way(from, to);
        way.away += 1;
        way.clicks_away += chunk.clicks() as u64;
        assert!(way.away <= credits, "core {from} has {} chunks at core {to}, and {credits} credits", way.away);
        let ids: Vec<_> = chunk.pieces.iter().map(|piece| name(piece.request)).collect();
        if ids.iter().any(|id| way.returned.contains(id)) {
            trace.cover("a request goes on when a chunk is back");
        }
        let homes = &mut mesh.homes[from];
        for id in ids {
            let at = homes.entry(id).or_default();
            at.insert(to);
            if cores > 2 && at.len() == cores - 1 {
                trace.cover("a request at all homes");
            }
        }
        if homes.len() > REQUESTS_KEPT {
            homes.clear();
        }
        self.send_parcel(from, to, Parcel::Forwarded(chunk));
    }

    pub fn give_back(&mut self, from: usize, to: CoreIndex, chunk: Box<Chunk>) {
        if chunk.pieces.iter().any(|piece| piece.tally.duplicates > 0) {
            self.trace.cover("duplicate at another home");
        }
        self.send_parcel(from, usize::from(to), Parcel::Judged(chunk));
    }

    pub fn tell_done(&mut self, from: usize) {
        let server = self.server.as_mut().expect("it asked");
        let cores = server.cores.len();
        server.cores[from].done = true;
        (0..cores).filter(|to| *to != from).for_each(|to| self.send_parcel(from, to, Parcel::Done));
    }

    fn send_parcel(&mut self, from: usize, to: usize, parcel: Parcel) {
        assert_ne!(from, to, "a core sends nothing to itself");
        let kind = match &parcel {
            Parcel::Forwarded(_) => 0,
            Parcel::Judged(_) => 1,
            Parcel::Done => 2,
        };
        self.note("parcel", &[from as u64, to as u64, kind]);
        let (life, now_ns) = (self.lives, self.now_ns);
        let delay_ns = self.rng.skewed(self.options.parcel_ns_max);
        let mesh = &mut self.server.as_mut().expect("it asked").mesh;
        let room = 2 * mesh.credits + 1;
        let way = mesh.way(from, to);
        way.parcels.push_back(parcel);
        assert!(way.parcels.len() <= room, "a ring of {room} parcels has no room");
        way.last_ns = way.last_ns.max(now_ns + delay_ns);
        let at_ns = way.last_ns;
        self.at(at_ns, Happening::Parcel { life, from, to });
    }

    pub fn parcel_arrives(&mut self, from: usize, to: usize) {
        let server = self.server.as_mut().expect("only a live process has a mesh");
        let stopped = server.cores[to].stopped;
        let Some(parcel) = server.mesh.way(from, to).parcels.pop_front() else { return };
        let event = match parcel {
            Parcel::Forwarded(chunk) => Event::Forwarded { from: from as CoreIndex, chunk },
            Parcel::Judged(chunk) => {
                let way = server.mesh.way(to, from);
                way.away -= 1;
                way.clicks_away -= chunk.clicks() as u64;
                way.returned.extend(chunk.pieces.iter().map(|piece| name(piece.request)));
                let over = way.returned.len().saturating_sub(REQUESTS_KEPT);
                way.returned.drain(..over);
                Event::Judged { by: from as CoreIndex, chunk }
            }
            Parcel::Done => Event::PeerDone { core: from as CoreIndex },
        };
        assert!(!stopped || matches!(event, Event::PeerDone { .. }), "core {to} has stopped, and clicks come to it");
        self.tell(to, In::Event(event));
    }
}

fn name(request: RequestId) -> (u32, u32) {
    (request.slot, request.generation)
}
