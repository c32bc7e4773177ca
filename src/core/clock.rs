//! Pure. Which time a core goes by: the wall clock, as long as it agrees with the monotonic one. A leap of one day that were
//! believed would forget everything and refuse a day of clicks.
//!
//!     apart by more than the skew    shed; time stands still where it was
//!     set right again                at once
//!     behind, and caught up          at once: as a start does, which waits for the newest frame's time
//!     ahead, and it stays so         after a dedup window: by the monotonic clock too, all that was remembered then has had
//!                                    its window, so that nothing is forgotten early

use crate::event::Now;

pub struct Clock {
    /// Wall less monotonic time, as it is believed.
    offset_ms: i64,
    skew_ms: i64,
    /// An offset that lasts for so long is believed. Small steps and drift are followed so too, and never add up to a leap.
    window_ns: u64,
    /// The offset that is seen, give or take the skew, and since when.
    seen_ms: i64,
    seen_since_ns: u64,
    /// The latest time gone by.
    newest_ms: i64,
    leapt: bool,
}

impl Clock {
    pub fn new(skew_ms: i64, window_ms: i64, now: Now) -> Clock {
        let offset_ms = offset_ms(now);
        Clock {
            offset_ms,
            skew_ms,
            window_ns: window_ms.unsigned_abs() * 1_000_000,
            seen_ms: offset_ms,
            seen_since_ns: now.mono_ns,
            newest_ms: now.wall_ms,
            leapt: false,
        }
    }

    /// The clocks disagree by more than the skew: horizon and watermark stand still, clicks are shed.
    pub fn leapt(&self) -> bool {
        self.leapt
    }

    /// The time to go by, now that the clocks say this.
    pub fn follow(&mut self, now: Now) -> Now {
        let offset_ms = offset_ms(now);
        if (offset_ms - self.seen_ms).abs() > self.skew_ms {
            (self.seen_ms, self.seen_since_ns) = (offset_ms, now.mono_ns);
        }
        let stayed = now.mono_ns - self.seen_since_ns >= self.window_ns;
        let behind = offset_ms < self.offset_ms - self.skew_ms;
        if now.wall_ms >= self.newest_ms && (stayed || behind) {
            self.offset_ms = offset_ms;
            (self.seen_ms, self.seen_since_ns) = (offset_ms, now.mono_ns);
        }
        self.leapt = (offset_ms - self.offset_ms).abs() > self.skew_ms;
        if self.leapt {
            // A frame dated ahead would keep the next start waiting until then.
            return Now { wall_ms: self.newest_ms, ..now };
        }
        self.newest_ms = self.newest_ms.max(now.wall_ms);
        now
    }
}

fn offset_ms(now: Now) -> i64 {
    now.wall_ms - (now.mono_ns / 1_000_000) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_MS: i64 = 1_700_000_000_000;
    const MINUTE_MS: i64 = 60_000;

    /// The clocks after so many milliseconds, with a wall clock that is off by this much.
    fn at(elapsed_ms: i64, off_ms: i64) -> Now {
        Now { wall_ms: START_MS + elapsed_ms + off_ms, mono_ns: 5_000_000 + elapsed_ms as u64 * 1_000_000 }
    }

    /// Skew of a minute, window of ten.
    fn clock() -> Clock {
        Clock::new(MINUTE_MS, 10 * MINUTE_MS, at(0, 0))
    }

    /// Turns once a second; the first moment, after `from_ms`, at which the clock is believed.
    fn believed_after(clock: &mut Clock, from_ms: i64, off_ms: i64, up_to_ms: i64) -> Option<i64> {
        (from_ms..up_to_ms).step_by(1_000).find(|elapsed_ms| {
            let now = at(*elapsed_ms, off_ms);
            let told = clock.follow(now);
            assert_eq!(told.mono_ns, now.mono_ns);
            assert!(!clock.leapt() || told.wall_ms == clock.newest_ms, "time stands still in a leap");
            !clock.leapt()
        })
    }

    #[test]
    fn a_leap_that_ends_is_forgiven_at_once() {
        for off_ms in [86_400_000, -86_400_000] {
            let mut clock = clock();
            assert_eq!(believed_after(&mut clock, 1_000, off_ms, 5 * MINUTE_MS), None);
            assert_eq!(clock.newest_ms, START_MS);
            assert_eq!(clock.follow(at(6 * MINUTE_MS, 0)), at(6 * MINUTE_MS, 0));
            assert!(!clock.leapt());
        }
    }

    #[test]
    fn a_clock_that_stays_ahead_is_believed_after_a_window() {
        let mut clock = clock();
        let believed = believed_after(&mut clock, 1_000, 86_400_000, 60 * MINUTE_MS);
        assert_eq!(believed, Some(1_000 + 10 * MINUTE_MS));
        assert_eq!(believed_after(&mut clock, 12 * MINUTE_MS, 0, 20 * MINUTE_MS), None, "the way back is a leap too");
    }

    #[test]
    fn a_clock_that_leaps_on_and_on_is_never_believed() {
        let mut clock = clock();
        for step in 1..100 {
            assert_eq!(
                believed_after(&mut clock, step * 5 * MINUTE_MS, step * 3_600_000, (step + 1) * 5 * MINUTE_MS),
                None
            );
        }
    }

    #[test]
    fn a_clock_that_was_set_back_is_believed_when_it_has_caught_up() {
        for behind_ms in [2 * MINUTE_MS, 40 * MINUTE_MS] {
            let mut clock = clock();
            clock.follow(at(1_000, 0));
            let believed = believed_after(&mut clock, 2_000, -behind_ms, 120 * MINUTE_MS);
            assert_eq!(believed, Some(1_000 + behind_ms), "no sooner than at the latest time gone by");
        }
    }

    #[test]
    fn small_steps_never_add_up_to_a_leap() {
        let mut clock = clock();
        for step in 0..200 {
            for minute in 0..15 {
                let now = at((step * 15 + minute) * MINUTE_MS, step * 50_000);
                assert_eq!((clock.follow(now), clock.leapt()), (now, false), "step {step}");
            }
        }
    }
}
