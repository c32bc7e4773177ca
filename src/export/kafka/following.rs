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

/// How far a partition was read, and the last checkpoint up to there, with its offset.
#[derive(Debug, Default)]
pub struct Following {
    known: Option<(i64, Option<(i64, Checkpoint)>)>,
    reading: Reading,
}

/// What is being read now.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    low: i64,
    high: i64,
    from: i64,
    /// From what was known on.
    goes_on: bool,
}

impl Following {
    /// What to read, of a partition that has these offsets now: from the last checkpoint on, so that one that was lost, and grown over
    /// since, is missed.
    pub fn begin(&mut self, (low, high): (i64, i64)) -> Range<i64> {
        let from = match &self.known {
            Some((_, Some((offset, _)))) => Some(*offset).filter(|offset| (low..high).contains(offset)),
            Some((at, None)) => Some((*at).max(low)).filter(|at| *at <= high),
            None => None,
        };
        self.reading = Reading { low, high, from: from.unwrap_or(low), goes_on: from.is_some() };
        if from.is_some() { self.reading.from..high } else { self.look_back() }
    }

    /// The last of what there is.
    fn look_back(&mut self) -> Range<i64> {
        let Reading { low, high, .. } = self.reading;
        let from = (high - LOOK_BACK).max(low);
        self.reading = Reading { low, high, from, goes_on: false };
        from..high
    }

    /// That was read up to `at`, and this was the last in it. What to read instead, where it must go further back.
    pub fn read(&mut self, at: i64, newest: Option<(i64, Checkpoint)>) -> Option<Range<i64>> {
        let Reading { low, high, from, goes_on } = self.reading;
        let before = self.known.take().and_then(|(_, last)| last);
        if goes_on && newest.is_none() && before.is_some() {
            // It is not there any more: what is left says how much was lost.
            return Some(self.look_back());
        }
        if goes_on || newest.is_some() || from == low {
            self.known = Some((at, newest));
            return None;
        }
        self.reading.from = (high - (high - from).saturating_mul(10)).max(low);
        Some(self.reading.from..high)
    }

    /// The last checkpoint of what was read.
    pub fn last(&self) -> Option<&Checkpoint> {
        self.known.as_ref()?.1.as_ref().map(|(_, checkpoint)| checkpoint)
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

    fn at(offset: i64, txn_seq: u64) -> Option<(i64, Checkpoint)> {
        checkpoint(txn_seq).map(|checkpoint| (offset, checkpoint))
    }

    #[test]
    fn it_is_looked_for_further_back_until_it_is_found_and_then_followed() {
        let mut following = Following::default();
        assert_eq!(following.begin((7, 50_000)), 49_000..50_000);
        assert_eq!(following.read(50_000, None), Some(40_000..50_000));
        assert_eq!(following.read(50_000, None), Some(7..50_000));
        assert_eq!(following.read(50_000, at(30, 3)), None);
        assert_eq!(following.last(), checkpoint(3).as_ref());
        assert_eq!(following.begin((7, 50_010)), 30..50_010);
        assert_eq!(following.read(50_010, at(30, 3)), None);
        assert_eq!(following.last(), checkpoint(3).as_ref(), "nothing newer");
        assert_eq!(following.begin((7, 50_020)), 30..50_020);
        assert_eq!(following.read(50_020, at(50_015, 4)), None);
        assert_eq!(following.last(), checkpoint(4).as_ref());
        assert_eq!(following.begin((7, 50_030)), 50_015..50_030);
        assert_eq!(following.begin((0, 12)), 0..12, "a topic that was made anew");
        assert_eq!(following.read(12, None), None);
        assert_eq!(following.last(), None);
        assert_eq!(following.begin((0, 20)), 12..20, "there was none");
        assert_eq!(following.read(20, None), None);
        assert_eq!(following.begin((25, 30)), 25..30, "of what there is");
    }

    /// Others write there, too: the end alone says nothing.
    #[test]
    fn a_checkpoint_that_is_gone_is_missed_however_far_the_partition_has_grown() {
        for (ends, then) in [((0, 2_000), 1_000..2_000), ((0, 990), 0..990), ((1_000, 1_000), 1_000..1_000)] {
            let mut following = Following::default();
            following.begin((0, 1_000));
            following.read(1_000, at(990, 3));
            if ends.1 > 1_000 {
                assert_eq!(following.begin(ends), 990..ends.1);
                assert_eq!(following.read(ends.1, None), Some(then), "it was grown over");
            } else {
                assert_eq!(following.begin(ends), then);
            }
            while following.read(ends.1, None).is_some() {}
            assert_eq!(following.last(), None, "{ends:?}");
        }
    }
}
