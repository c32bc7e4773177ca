//! Pure. How often a token may ask: a bucket that fills at its rate and holds what may come at once.

/// Requests at once, where the rate of a second is less: what a page asks for when it is opened.
const BURST_MIN: u64 = 10;
/// The bucket counts in thousandths of a request, which a rate of one a second adds in a millisecond.
const REQUEST: u64 = 1_000;

/// One token's; full when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    level: u64,
    at_ms: u64,
}

impl Bucket {
    pub fn full(rate_per_s: u32, now_ms: u64) -> Bucket {
        Bucket { level: Bucket::room(rate_per_s), at_ms: now_ms }
    }

    /// Lets a request through, or says in how many milliseconds the next one may come.
    pub fn take(&mut self, rate_per_s: u32, now_ms: u64) -> Result<(), u64> {
        let rate = u64::from(rate_per_s);
        let filled = now_ms.saturating_sub(self.at_ms).saturating_mul(rate);
        self.level = self.level.saturating_add(filled).min(Bucket::room(rate_per_s));
        self.at_ms = self.at_ms.max(now_ms);
        if self.level < REQUEST {
            return Err((REQUEST - self.level).div_ceil(rate));
        }
        self.level -= REQUEST;
        Ok(())
    }

    fn room(rate_per_s: u32) -> u64 {
        u64::from(rate_per_s).max(BURST_MIN) * REQUEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over any span, what is let through is the burst and the rate, and no more.
    #[test]
    fn what_is_let_through_is_the_burst_and_then_the_rate() {
        for (rate, burst) in [(1, 10), (3, 10), (100, 100), (100_000, 100_000)] {
            let mut bucket = Bucket::full(rate, 1_000);
            let mut taken = 0;
            for now_ms in 1_000..=3_000 {
                while bucket.take(rate, now_ms).is_ok() {
                    taken += 1;
                }
            }
            assert_eq!(taken, burst + 2 * u64::from(rate), "at {rate} a second");
        }
    }

    #[test]
    fn it_says_when_the_next_may_come_and_then_it_may() {
        let mut bucket = Bucket::full(3, 0);
        (0..10).for_each(|_| assert_eq!(bucket.take(3, 0), Ok(())));
        assert_eq!(bucket.take(3, 0), Err(334));
        assert_eq!(bucket.take(3, 333), Err(1));
        assert_eq!(bucket.take(3, 334), Ok(()));
        // A clock that goes back gives nothing.
        assert!(bucket.take(3, 0).is_err());
    }
}
