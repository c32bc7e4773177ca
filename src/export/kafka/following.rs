//! Pure. Which offsets of a partition are read to know the last checkpoint of an edge in it, and when reading has come far enough: a
//! plain read_committed read ends where the first open transaction begins, and would not say so.

use std::ops::Range;

use tollgate_wire::Checkpoint;

/// A checkpoint is looked for in so many of the last records first.
const LOOK_BACK: i64 = 1_000;

/// Where a read of what is committed ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// What is open is waited for; it ends, or is ended by its time-out.
    ForOpen,
    /// Before the first open transaction.
    ForNobody,
}

impl Wait {
    /// Whether a read up to `end` is over that stands at `at`. `no_more`: the broker says that there is nothing more that is committed.
    pub fn is_over(self, at: i64, end: i64, no_more: bool) -> bool {
        at >= end || (no_more && self == Wait::ForNobody)
    }
}

/// How far a partition was read, and the last checkpoint up to there.
#[derive(Debug, Default)]
pub struct Following {
    known: Option<(i64, Option<Checkpoint>)>,
    reading: Reading,
}

/// What is being read now.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    low: i64,
    high: i64,
    from: i64,
    /// Only what came since the last time.
    goes_on: bool,
}

impl Following {
    /// What to read, of a partition that has these offsets now.
    pub fn begin(&mut self, (low, high): (i64, i64)) -> Range<i64> {
        // It ends before what was read: it is not the same any more.
        let at = self.known.as_ref().map(|(at, _)| *at).filter(|at| *at <= high);
        let from = at.unwrap_or((high - LOOK_BACK).max(low));
        self.reading = Reading { low, high, from, goes_on: at.is_some() };
        from..high
    }

    /// That was read up to `at`, and this was the last in it. What to read instead, where it must go further back.
    pub fn read(&mut self, at: i64, newest: Option<Checkpoint>) -> Option<Range<i64>> {
        let Reading { low, high, from, goes_on } = self.reading;
        if goes_on {
            let before = self.known.take().and_then(|(_, last)| last);
            self.known = Some((at, newest.or(before)));
            return None;
        }
        if newest.is_some() || from == low {
            self.known = Some((at, newest));
            return None;
        }
        self.reading.from = (high - (high - from).saturating_mul(10)).max(low);
        Some(self.reading.from..high)
    }

    /// The last checkpoint of what was read.
    pub fn last(&self) -> Option<&Checkpoint> {
        self.known.as_ref()?.1.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(txn_seq: u64) -> Option<Checkpoint> {
        Some(Checkpoint { txn_seq, ..Checkpoint::default() })
    }

    #[test]
    fn a_read_waits_for_what_is_open_or_stops_before_it() {
        for (at, no_more, for_open, for_nobody) in
            [(9, false, false, false), (9, true, false, true), (10, false, true, true), (11, true, true, true)]
        {
            assert_eq!(Wait::ForOpen.is_over(at, 10, no_more), for_open, "{at}");
            assert_eq!(Wait::ForNobody.is_over(at, 10, no_more), for_nobody, "{at}");
        }
    }

    #[test]
    fn it_is_looked_for_further_back_until_it_is_found_and_then_followed() {
        let mut following = Following::default();
        assert_eq!(following.begin((7, 50_000)), 49_000..50_000);
        assert_eq!(following.read(50_000, None), Some(40_000..50_000));
        assert_eq!(following.read(50_000, None), Some(7..50_000));
        assert_eq!(following.read(50_000, checkpoint(3)), None);
        assert_eq!(following.last(), checkpoint(3).as_ref());
        assert_eq!(following.begin((7, 50_010)), 50_000..50_010);
        assert_eq!(following.read(50_010, None), None);
        assert_eq!(following.last(), checkpoint(3).as_ref(), "nothing newer");
        assert_eq!(following.begin((7, 50_020)), 50_010..50_020);
        assert_eq!(following.read(50_020, checkpoint(4)), None);
        assert_eq!(following.last(), checkpoint(4).as_ref());
        assert_eq!(following.begin((0, 12)), 0..12, "a topic that was made anew");
        assert_eq!(following.read(12, None), None);
        assert_eq!(following.last(), None);
    }
}
