//! Pure. How much goes into one transaction: rows, bytes, clicks, ranges. One that may have been too large is followed by a smaller
//! one, so that every line gets it through in the end.

use crate::config::{TABLE_ROWS_MAX, TRANSACTION_TIMEOUT_MS};
use crate::cut::CutTable;
use crate::event::Now;

/// Partials of one transaction, as they are sent.
pub const TRANSACTION_BYTES_MAX: usize = 64 << 20;

/// Of a partial beside its key and its users: edge and log, sequence, times, codes and lengths, and the edge once more in the record's
/// key. 207 B with an edge id of 64 letters and every number at its largest.
const PARTIAL_BYTES: usize = 208;
/// A sketch: 16 B for its head, 4 for each user; from 385 users on 4,144 B, however many there are. So no user takes more than
/// 4,144 ÷ 385.
const SKETCH_HEAD_BYTES: usize = 16;
const SKETCH_USER_BYTES: usize = 11;
const SKETCH_BYTES_MAX: usize = 4_144;

/// Each halves the bounds. After ten 64 KiB are left, 128 rows, 64 raw clicks: below what a frame of the log holds, which is
/// the least that can be sent, and which 15 s and 40 kbit/s are enough for.
const HALVINGS_MAX: u32 = 10;

/// Beyond this part of a transaction's time nothing larger is tried: twice as much would be too near to its end.
const QUICK_PART: u64 = 4;

/// How much of a log fits into one transaction, or is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    pub rows: usize,
    /// Of partials on the wire: the most that they can take.
    pub bytes: usize,
    /// Of consequence where each click is a record of its own: the raw topic.
    pub clicks: u64,
}

impl Room {
    /// What so many rows take, with the bytes of their keys, and users.
    pub fn taken(rows: usize, key_bytes: usize, users: usize, clicks: u64) -> Room {
        let sketches = rows * SKETCH_HEAD_BYTES + (users * SKETCH_USER_BYTES).min(rows * SKETCH_BYTES_MAX);
        Room { rows, bytes: rows * PARTIAL_BYTES + key_bytes + sketches, clicks }
    }

    pub fn of(table: &CutTable, clicks: u64) -> Room {
        Room::taken(table.rows.len(), table.keys.len(), table.users.len(), clicks)
    }

    pub fn and(self, more: Room) -> Room {
        Room { rows: self.rows + more.rows, bytes: self.bytes + more.bytes, clicks: self.clicks + more.clicks }
    }

    pub fn holds(self, size: Room) -> bool {
        size.rows <= self.rows && size.bytes <= self.bytes && size.clicks <= self.clicks
    }
}

/// Largest transaction: what one holds in memory, and what a sink can take in one go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    pub room: Room,
    pub ranges: usize,
}

/// The rows of one whole table; so much of partials; so many cuts that a lag of a minute is caught up at once.
const MOST: Most =
    Most { room: Room { rows: TABLE_ROWS_MAX, bytes: TRANSACTION_BYTES_MAX, clicks: u64::MAX }, ranges: 64 };

/// Where each click is a record: some tenths of a second of them, far below the time-out of a transaction.
const CLICKS_MAX_RAW: u64 = 1 << 16;

/// Halved after each unknown outcome that did not commit, doubled after each commit that did not take long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub most: Most,
    halvings: u32,
    /// What the last transaction held, and when it was given to the sink.
    sent: Room,
    sent_ns: u64,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { most: MOST, halvings: 0, sent: Room::default(), sent_ns: 0 }
    }
}

impl Bounds {
    /// Each click is sent, too.
    pub fn with_clicks(&mut self) {
        self.most.room.clicks = CLICKS_MAX_RAW;
    }

    /// Of the next transaction.
    pub fn room(&self) -> Room {
        self.room_after(self.halvings)
    }

    fn room_after(&self, halvings: u32) -> Room {
        let Room { rows, bytes, clicks } = self.most.room;
        Room { rows: (rows >> halvings).max(1), bytes: (bytes >> halvings).max(1), clicks: (clicks >> halvings).max(1) }
    }

    pub fn ranges(&self) -> usize {
        (self.most.ranges >> self.halvings).max(1)
    }

    pub fn sends(&mut self, size: Room, now: Now) {
        (self.sent, self.sent_ns) = (size, now.mono_ns);
    }

    /// What was sent did not get in: the next one is smaller than it was, not only than it might have been. One that fits the
    /// least bounds did not fail for its size.
    pub fn doubted(&mut self) {
        let next = (self.halvings + 1).min(HALVINGS_MAX);
        let smaller = (next..=HALVINGS_MAX).find(|halvings| !self.room_after(*halvings).holds(self.sent));
        self.halvings = smaller.unwrap_or(next);
    }

    pub fn committed(&mut self, now: Now) {
        let took_ns = now.mono_ns.saturating_sub(self.sent_ns);
        if took_ns <= TRANSACTION_TIMEOUT_MS * 1_000_000 / QUICK_PART {
            self.halvings = self.halvings.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { wall_ms: 0, mono_ns: ms * 1_000_000 }
    }

    /// A line that takes so many bytes a second, and 20 MB to send over it: what it comes to, transaction by transaction.
    fn sent_over(bytes_per_second: usize) -> (Vec<usize>, u64) {
        let (mut bounds, mut left, mut now_ms) = (Bounds::default(), 20_000_000, 0);
        let (mut sizes, mut failed) = (Vec::new(), 0);
        while left > 0 {
            let bytes = bounds.room().bytes.min(left);
            bounds.sends(Room { rows: 1, bytes, clicks: 1 }, at(now_ms));
            let takes_ms = (bytes * 1_000 / bytes_per_second) as u64;
            now_ms += takes_ms.min(TRANSACTION_TIMEOUT_MS);
            if takes_ms > TRANSACTION_TIMEOUT_MS {
                bounds.doubted();
                failed += 1;
            } else {
                bounds.committed(at(now_ms));
                left -= bytes;
                sizes.push(bytes);
            }
            assert!(failed < 20, "{sizes:?}");
        }
        (sizes, failed)
    }

    #[test]
    fn every_line_gets_it_through_after_few_tries_and_does_not_try_again_what_is_too_much() {
        for (bytes_per_second, tries) in [(10_000_000, 0), (1_000_000, 2), (100_000, 5), (10_000, 8)] {
            let (sizes, failed) = sent_over(bytes_per_second);
            assert_eq!(failed, tries, "at {bytes_per_second} B/s: {sizes:?}");
        }
    }

    #[test]
    fn a_doubt_about_little_costs_one_halving_and_commits_double() {
        let mut bounds = Bounds::default();
        bounds.sends(Room { rows: 3, bytes: 900, clicks: 3 }, at(0));
        bounds.doubted();
        assert_eq!((bounds.room().bytes, bounds.ranges()), (TRANSACTION_BYTES_MAX / 2, 32));
        (0..30).for_each(|_| bounds.doubted());
        assert_eq!((bounds.room(), bounds.ranges()), (Room { rows: 128, bytes: 1 << 16, clicks: u64::MAX >> 10 }, 1));
        bounds.sends(Room::default(), at(1_000));
        bounds.committed(at(6_000));
        assert_eq!(bounds.room().bytes, 1 << 16, "it was slow");
        bounds.sends(Room::default(), at(6_000));
        bounds.committed(at(6_100));
        assert_eq!(bounds.room().bytes, 1 << 17);
    }
}
