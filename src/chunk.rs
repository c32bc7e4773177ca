//! Pure. Clicks on their way from the core that received them to their home, and back with their verdicts: one box, moved there
//! and back. Whoever holds a box holds the room for its verdicts, so a verdict always fits.
//!
//! ```text
//!   pieces   [ request 7: 2 clicks, 180 B ] [ request 9: 1 click, 87 B ]      one a request
//!   records  | click | click             | | click                 |        canonical, as the log has them
//!   places     0       4                     0                               which click of its request
//!   errors   what the home refused, piece by piece
//! ```

use crate::click::Refusal;
use crate::metrics::Shed;

/// Which of the process's cores; the first is 0.
pub type CoreIndex = u16;

/// A request that waits for clicks that are at other homes: a slot of its core's list, and the generation of its tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    pub slot: u32,
    pub generation: u32,
}

/// What became of some of a request's clicks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub accepted: u32,
    pub duplicates: u32,
    /// Of the duplicates: those whose payload differed from the first one's.
    pub other_payload: u32,
    /// Too old for their home, and all that was refused before it came there.
    pub rejected: u32,
    pub too_old: u32,
    pub shed_clicks: u32,
    /// Why a click of it was shed: then the whole request is answered so.
    pub shed: Option<Shed>,
}

impl Tally {
    /// Clicks that have their verdict.
    pub fn clicks(&self) -> u32 {
        self.accepted + self.duplicates + self.rejected + self.shed_clicks
    }

    pub fn add(&mut self, more: &Tally) {
        self.accepted += more.accepted;
        self.duplicates += more.duplicates;
        self.other_payload += more.other_payload;
        self.rejected += more.rejected;
        self.too_old += more.too_old;
        self.shed_clicks += more.shed_clicks;
        self.shed = self.shed.or(more.shed);
    }
}

/// The clicks of one request in a chunk.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    pub request: RequestId,
    pub clicks: u32,
    pub bytes: u32,
    /// Filled in at home, with the number of `errors` that are this piece's.
    pub tally: Tally,
    pub errors: u32,
}

/// A click that its home refused, by its place in its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub place: u32,
    pub refusal: Refusal,
}

#[derive(Debug, Default)]
pub struct Chunk {
    pub pieces: Vec<Piece>,
    pub records: Vec<u8>,
    pub places: Vec<u32>,
    pub errors: Vec<Refused>,
}

impl Chunk {
    pub fn with_capacity(bytes: usize) -> Chunk {
        Chunk { records: Vec::with_capacity(bytes), ..Chunk::default() }
    }

    pub fn clicks(&self) -> usize {
        self.places.len()
    }

    /// Adds a click of a request; clicks of one request that follow each other share a piece. `true`: it began a piece.
    #[inline]
    pub fn push(&mut self, request: RequestId, place: u32, record: &[u8]) -> bool {
        self.records.extend_from_slice(record);
        self.places.push(place);
        let bytes = record.len() as u32;
        if let Some(last) = self.pieces.last_mut()
            && last.request == request
        {
            last.clicks += 1;
            last.bytes += bytes;
            return false;
        }
        self.pieces.push(Piece { request, clicks: 1, bytes, tally: Tally::default(), errors: 0 });
        true
    }

    pub fn clear(&mut self) {
        self.pieces.clear();
        self.records.clear();
        self.places.clear();
        self.errors.clear();
    }
}
