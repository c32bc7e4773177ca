//! Pure. Chunks of other cores' clicks whose home is here: waiting for their verdicts, then for the disk.
//!
//!     Forwarded ──▶ waiting ──judged──▶ until durable ──▶ Return
//!
//! A chunk that finds no room in the log goes on where it stopped, before clicks of this core's own requests: it holds another
//! core's credit, and waits for nothing but the disk.

use std::collections::VecDeque;

use crate::chunk::{Chunk, CoreIndex, Refused};
use crate::core::ahead::Lookahead;
use crate::core::home::{Bench, Home};
use crate::event::{Action, Actions, Now};
use crate::metrics::Ledger;

#[derive(Debug)]
struct Waiting {
    from: CoreIndex,
    chunk: Box<Chunk>,
    /// Where the next piece begins, and how far it is judged.
    piece: usize,
    record: usize,
    byte: usize,
    into_records: usize,
    into_bytes: usize,
}

#[derive(Debug)]
struct Judged {
    from: CoreIndex,
    chunk: Box<Chunk>,
    lsn: u64,
}

#[derive(Debug, Default)]
pub struct Inbound {
    waiting: VecDeque<Waiting>,
    /// Those of `waiting` that the home has looked ahead at, from the front.
    looked: usize,
    ahead: Lookahead,
    judged: VecDeque<Judged>,
}

impl Inbound {
    pub fn push(&mut self, from: CoreIndex, chunk: Box<Chunk>) {
        assert!(!chunk.pieces.is_empty(), "core {from} forwarded an empty chunk");
        self.waiting.push_back(Waiting { from, chunk, piece: 0, record: 0, byte: 0, into_records: 0, into_bytes: 0 });
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.judged.is_empty()
    }

    /// The home's pass over what has come, as far as there is room.
    #[inline]
    pub fn judge(&mut self, home: &mut Home, ledger: &mut Ledger, now: Now) {
        if !self.waiting.is_empty() {
            self.judge_waiting(home, ledger, now);
        }
    }

    fn judge_waiting(&mut self, home: &mut Home, ledger: &mut Ledger, now: Now) {
        while let Some(waiting) = self.waiting.front_mut() {
            // One chunk at a time: what is fetched ahead is then still in the cache.
            if self.looked == 0 {
                home.look_ahead(&waiting.chunk.records, &mut self.ahead);
                home.fetch(&mut self.ahead);
                self.looked = 1;
            }
            if !waiting.judge(home, &mut self.ahead, ledger, now) {
                return;
            }
            self.looked = 0;
            let lsn = home.writer.end_lsn();
            let through = self.waiting.pop_front();
            self.judged.extend(through.map(|Waiting { from, chunk, .. }| Judged { from, chunk, lsn }));
        }
    }

    /// Verdicts whose ground is on disk go back.
    pub fn release(&mut self, durable_lsn: u64, actions: &mut Actions) {
        while let Some(Judged { from, chunk, .. }) = self.judged.pop_front_if(|judged| judged.lsn <= durable_lsn) {
            actions.push(Action::Return { to: from, chunk });
        }
    }
}

impl Waiting {
    /// `false`: there is no more room.
    fn judge(&mut self, home: &mut Home, ahead: &mut Lookahead, ledger: &mut Ledger, now: Now) -> bool {
        let Chunk { pieces, records, places, errors } = &mut *self.chunk;
        while let Some(piece) = pieces.get_mut(self.piece) {
            let rest = &records[self.byte + self.into_bytes..self.byte + piece.bytes as usize];
            let places = &places[self.record..self.record + piece.clicks as usize];
            let listed = errors.len();
            let mut refused = |place: u32, refusal| errors.push(Refused { place, refusal });
            let mut bench = Bench {
                ledger,
                tally: &mut piece.tally,
                refused: &mut refused,
                places: Some(places),
                passed: self.into_records as u32,
            };
            self.into_bytes += home.judge(rest, ahead, &mut bench, now);
            self.into_records = bench.passed as usize;
            piece.errors += (errors.len() - listed) as u32;
            if self.into_records < piece.clicks as usize {
                return false;
            }
            self.byte += piece.bytes as usize;
            self.record += piece.clicks as usize;
            (self.piece, self.into_records, self.into_bytes) = (self.piece + 1, 0, 0);
        }
        true
    }
}
