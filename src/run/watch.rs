//! Pure. Whether the workers make progress, each until it has ended.

use std::time::Duration;

use super::LOOK_EVERY;
use crate::chunk::CoreIndex;

/// A worker wakes at least every second; one that does not for this long is stuck, and its clicks wait for nothing.
pub(super) const STUCK_AFTER: Duration = Duration::from_secs(30);

/// Of the cores, in order. One that has ended beats no more; the others are watched on, for they may hang in their stop.
pub(super) struct Watches(Vec<Option<Watch>>);

impl Watches {
    pub fn new(beats: impl Iterator<Item = u64>) -> Watches {
        Watches(beats.map(|beat| Some(Watch::new(beat))).collect())
    }

    pub fn ended(&mut self, core: CoreIndex) {
        self.0[usize::from(core)] = None;
    }

    /// Whether a worker other than this one has not ended.
    pub fn others_than(&self, core: CoreIndex) -> bool {
        (0..).zip(&self.0).any(|(other, watch)| other != core && watch.is_some())
    }

    /// The first that is stuck. `since`: the last look.
    pub fn stuck(&mut self, beats: impl Iterator<Item = u64>, since: Duration) -> Option<CoreIndex> {
        let mut stuck = None;
        for (core, (watch, beat)) in (0..).zip(self.0.iter_mut().zip(beats)) {
            if watch.as_mut().is_some_and(|watch| watch.look(beat, since)) {
                stuck = stuck.or(Some(core));
            }
        }
        stuck
    }
}

/// Whether the worker turns. Looks are a second apart; a longer pause is one of the whole process (stopped by a signal, or
/// its container paused), in which nobody made progress.
struct Watch {
    beat: u64,
    still_for: Duration,
}

impl Watch {
    fn new(beat: u64) -> Watch {
        Watch { beat, still_for: Duration::ZERO }
    }

    /// `true`: it is stuck.
    fn look(&mut self, beat: u64, since: Duration) -> bool {
        if beat != self.beat {
            *self = Watch::new(beat);
        } else {
            self.still_for += since.min(2 * LOOK_EVERY);
        }
        self.still_for > STUCK_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_stuck_that_stands_still_while_it_is_looked_at() {
        let mut watch = Watch::new(7);
        assert!((0..30).all(|_| !watch.look(7, LOOK_EVERY)) && watch.look(7, LOOK_EVERY));
        let mut watch = Watch::new(7);
        assert!(!watch.look(7, Duration::from_secs(300)), "the process was paused");
        assert!((0..100).all(|beat| !watch.look(beat, LOOK_EVERY)));
    }

    #[test]
    fn those_that_have_not_ended_are_watched_on() {
        let mut watches = Watches::new([1, 1, 1].into_iter());
        watches.ended(0);
        assert!(watches.others_than(1) && watches.others_than(0));
        // The second turns, the third hangs; the first may rest.
        for beat in 2..32 {
            assert_eq!(watches.stuck([1, beat, 1].into_iter(), LOOK_EVERY), None);
        }
        assert_eq!(watches.stuck([1, 32, 1].into_iter(), LOOK_EVERY), Some(2));
        watches.ended(2);
        assert!(!watches.others_than(1), "it is the last");
        assert_eq!(watches.stuck([1, 33, 1].into_iter(), STUCK_AFTER), None);
    }
}
