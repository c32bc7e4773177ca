//! Pure. What a log of ours holds, and where it and its twin, another that went by its id, parted.

use crate::cut::{LogId, Position};
use tollgate_wire::{Checkpoint, LogPosition};

/// The end of a frame of ours, or where the log begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    pub lsn: u64,
    pub chain: u64,
    /// Of the log up to here.
    pub clicks: u64,
}

/// An incarnation, as its first record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Began {
    pub before: Mark,
    pub nonce: [u8; 16],
    pub incarnation: u64,
    pub started_ms: i64,
}

/// What a log holds.
#[derive(Clone, Debug)]
pub struct Held {
    pub log_id: LogId,
    /// Records up to and including this one are freed.
    pub base: Mark,
    pub end: Mark,
    /// Those whose first record it still holds.
    pub began: Vec<Began>,
    pub nonces: Vec<[u8; 16]>,
    /// Ends of frames at, and next to, the LSNs that somebody named.
    pub marks: Vec<Mark>,
    /// An operator gave records up: what lay there cannot be compared.
    pub repaired: bool,
}

impl Held {
    fn met(&self, position: &Position) -> Option<Mark> {
        let base = Some(self.base).filter(|base| base.lsn > 0);
        let marks = self.marks.iter().copied().chain(base);
        marks.into_iter().find(|mark| (mark.lsn, mark.chain) == (position.lsn, position.chain))
    }

    /// Up to where a checkpoint says that this log is exported; none where that is no place in it.
    pub fn mark_of(&self, checkpoint: &Checkpoint) -> Option<Mark> {
        let Some(listed) = self.listed(checkpoint).filter(|listed| listed.lsn > 0) else {
            return Some(Mark::default());
        };
        let (lsn, chain) = (listed.lsn, listed.chain);
        let given_up = Mark { lsn, chain, clicks: listed.clicks_total };
        let met = self.met(&Position { log_id: self.log_id, lsn, chain });
        met.or((self.repaired && lsn <= self.end.lsn).then_some(given_up))
    }

    pub fn listed<'a>(&self, checkpoint: &'a Checkpoint) -> Option<&'a LogPosition> {
        checkpoint.logs.iter().find(|listed| *listed.log_uuid == self.log_id)
    }

    /// The first of `began` after the incarnation of this nonce.
    fn began_after(&self, nonce: &[u8]) -> Option<usize> {
        let at = self.began.iter().rposition(|began| began.nonce == nonce);
        let freed = || self.nonces.iter().any(|ours| ours == nonce).then_some(0);
        at.map(|at| at + 1).or_else(freed)
    }

    /// Where this log and the one that led to `found` parted, if that can be told.
    pub(super) fn fork(&self, found: &Checkpoint, remembered: Option<&Checkpoint>) -> Option<Mark> {
        let listed = self.listed(found)?;
        let mark = match self.began_after(&found.nonce) {
            // Two processes that are one incarnation: a machine was copied while it ran.
            Some(_) if remembered.is_some_and(|ours| ours.nonce == found.nonce && ours.txn_seq >= found.txn_seq) => {
                return None;
            }
            // Whoever wrote it began no other incarnation before it, so each that follows its own here is ours alone.
            Some(ours) => self.began_at(ours),
            None => self.fork_before(found, remembered)?,
        };
        (mark.lsn < listed.lsn).then_some(mark)
    }

    /// The incarnation that wrote `found` began after the logs had parted.
    fn fork_before(&self, found: &Checkpoint, remembered: Option<&Checkpoint>) -> Option<Mark> {
        let (shared, surely) = match remembered {
            // This directory wrote it, and its log is an older copy: what began before that was written is of before.
            Some(ours) if ours.nonce == found.nonce => {
                (self.began.iter().take_while(|began| began.started_ms <= ours.written_ms).count(), None)
            }
            Some(ours) => (self.began_after(&ours.nonce)?, Some(self.mark_of(ours)?)),
            // The first incarnation made the log.
            None => ((self.base.lsn == 0).then_some(1)?, Some(Mark::default())),
        };
        // One that began later than the checkpoint is ours: the other's would be followed by that checkpoint's own.
        if self.began.iter().skip(shared).any(|began| began.started_ms <= found.written_ms) {
            return None;
        }
        let mark = self.began_at(shared);
        // The last shared incarnation may have gone on here after a copy of it was made. Only what was exported before is surely
        // in both.
        surely.is_none_or(|surely| surely.clicks == mark.clicks).then_some(mark)
    }

    /// Where that one of `began` begins; past the last: where the log ends.
    fn began_at(&self, at: usize) -> Mark {
        self.began.get(at).map_or(self.end, |began| began.before)
    }

    pub(super) fn clamped(&self, mark: Mark) -> Mark {
        if mark.lsn < self.base.lsn { self.base } else { mark }
    }
}
