//! Pure. What a core has received and other cores are the home of: chunks that fill up, chunks that are away, and the requests
//! that wait for them.
//!
//!     idle ──take──▶ open ──full, or the turn ends──▶ at home ──Judged──▶ idle        a credit is an idle chunk
//!
//! A click that finds no idle chunk waits in its request, at the head of the line, as one does that finds no room in the log.

use crate::chunk::{Chunk, CoreIndex, RequestId, Tally};
use crate::config::Config;
use crate::core::staging::StagedRequest;
use crate::event::{Action, Actions};
use crate::net::reply::ListedError;

/// The way to one other core.
#[derive(Debug)]
struct Way {
    idle: Vec<Box<Chunk>>,
    open: Option<Box<Chunk>>,
}

/// A request some of whose clicks are at other homes.
#[derive(Debug)]
struct Away {
    generation: u32,
    /// Pieces without their verdicts.
    pieces: u32,
    tally: Tally,
    errors: Vec<ListedError>,
    /// Itself, and what its reply waits for at home, once all its clicks are judged or away.
    through: Option<(StagedRequest, u64)>,
}

#[derive(Debug)]
pub struct Outbound {
    own: CoreIndex,
    chunk_bytes: usize,
    ways: Vec<Way>,
    /// Full ones, in order.
    full: Vec<(CoreIndex, Box<Chunk>)>,
    requests: Vec<Away>,
    free: Vec<u32>,
    /// Chunks that are not idle.
    away: usize,
    /// Clicks forwarded so far.
    forwarded: u64,
}

impl Outbound {
    pub fn new(config: &Config, own: CoreIndex) -> Outbound {
        let chunk_bytes = config.mesh.chunk_bytes;
        let chunk = |_| Box::new(Chunk::with_capacity(chunk_bytes));
        let way = |to| Way {
            idle: if to == own { Vec::new() } else { (0..config.chunk_credits()).map(chunk).collect() },
            open: None,
        };
        Outbound {
            own,
            chunk_bytes,
            ways: (0..config.cores()).map(way).collect(),
            full: Vec::new(),
            requests: Vec::new(),
            free: Vec::new(),
            away: 0,
            forwarded: 0,
        }
    }

    /// Takes a click on its way; `request` becomes one that waits. `false`: there is no chunk for it now.
    #[inline]
    pub fn take(&mut self, to: CoreIndex, request: &mut Option<RequestId>, place: u32, record: &[u8]) -> bool {
        debug_assert_ne!(to, self.own, "a click at home goes nowhere");
        let way = &mut self.ways[usize::from(to)];
        if let Some(open) = way.open.take_if(|open| open.records.len() + record.len() > self.chunk_bytes) {
            self.full.push((to, open));
        }
        if way.open.is_none() {
            let Some(idle) = way.idle.pop() else { return false };
            way.open = Some(idle);
            self.away += 1;
        }
        let id = match *request {
            Some(id) => id,
            None => *request.insert(depart(&mut self.requests, &mut self.free)),
        };
        let Some(open) = way.open.as_mut() else { unreachable!("it was just made sure of") };
        self.requests[id.slot as usize].pieces += u32::from(open.push(id, place, record));
        self.forwarded += 1;
        true
    }

    /// All clicks of the request are judged here or away; its reply waits for `lsn`, and for those that are away. Comes back
    /// at once where none is.
    pub fn wait(&mut self, id: RequestId, request: StagedRequest, lsn: u64) -> Option<(StagedRequest, u64)> {
        let away = &mut self.requests[id.slot as usize];
        assert!(away.generation == id.generation && away.through.is_none(), "a request waits once");
        away.through = Some((request, lsn));
        self.arrived(id)
    }

    /// A chunk is back, and what its home decided is on that home's disk. `each` gets the verdicts, and every request that has
    /// all of them.
    pub fn judged(
        &mut self,
        by: CoreIndex,
        mut chunk: Box<Chunk>,
        mut each: impl FnMut(&Tally, Option<(StagedRequest, u64)>),
    ) {
        let mut errors = chunk.errors.iter();
        for piece in &chunk.pieces {
            assert_eq!(piece.tally.clicks(), piece.clicks, "each click of a piece has one verdict");
            let away = &mut self.requests[piece.request.slot as usize];
            assert!(away.generation == piece.request.generation && away.pieces > 0, "a piece comes back once");
            away.pieces -= 1;
            away.tally.add(&piece.tally);
            let listed = errors.by_ref().take(piece.errors as usize);
            away.errors.extend(listed.map(|refused| ListedError { index: refused.place, refusal: refused.refusal }));
            let whole = self.arrived(piece.request);
            each(&piece.tally, whole);
        }
        chunk.clear();
        self.away -= 1;
        self.ways[usize::from(by)].idle.push(chunk);
    }

    /// The end of a turn: what is open goes, full or not.
    pub fn send(&mut self, actions: &mut Actions) {
        for (to, way) in (0..).zip(&mut self.ways) {
            self.full.extend(way.open.take().map(|open| (to, open)));
        }
        actions.extend(self.full.drain(..).map(|(to, chunk)| Action::Forward { to, chunk }));
    }

    /// Nothing is away.
    pub fn is_empty(&self) -> bool {
        self.away == 0
    }

    pub fn forwarded(&self) -> u64 {
        self.forwarded
    }

    /// The request, if nothing of it is missing any more.
    fn arrived(&mut self, id: RequestId) -> Option<(StagedRequest, u64)> {
        let away = &mut self.requests[id.slot as usize];
        if away.pieces > 0 {
            return None;
        }
        let (mut request, lsn) = away.through.take()?;
        request.tally.add(&std::mem::take(&mut away.tally));
        request.errors.append(&mut away.errors);
        self.free.push(id.slot);
        Some((request, lsn))
    }
}

/// A place for a request that begins to wait.
fn depart(requests: &mut Vec<Away>, free: &mut Vec<u32>) -> RequestId {
    let slot = free.pop().unwrap_or_else(|| {
        requests.push(Away { generation: 0, pieces: 0, tally: Tally::default(), errors: Vec::new(), through: None });
        requests.len() as u32 - 1
    });
    let away = &mut requests[slot as usize];
    away.generation = away.generation.wrapping_add(1);
    RequestId { slot, generation: away.generation }
}
