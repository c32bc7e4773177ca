//! Pure. When a sink that does not answer, or does not commit, is tried again: later each time up to a bound, and each edge at
//! moments of its own, so that a sink that comes back is not asked by all edges at once.

use xxhash_rust::xxh3::xxh3_64_with_seed;

const NS_MIN: u64 = 100_000_000;
const NS_MAX: u64 = 5_000_000_000;

/// Tries in a row.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Tells this incarnation from every other edge's; the same one replays the same moments.
    nonce: [u8; 16],
    attempt: u32,
}

impl Retry {
    pub fn new(nonce: [u8; 16]) -> Retry {
        Retry { nonce, attempt: 0 }
    }

    /// How long to wait before the next try: from half of a time that doubles to all of it.
    pub fn next_ns(&mut self) -> u64 {
        let most = NS_MIN.saturating_mul(1 << self.attempt.min(20)).min(NS_MAX);
        let spread = xxh3_64_with_seed(&self.nonce, u64::from(self.attempt)) % (most / 2 + 1);
        self.attempt = self.attempt.saturating_add(1);
        most - spread
    }

    /// It answered.
    pub fn succeeded(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_become_rarer_up_to_a_bound_and_begin_anew_after_success() {
        let mut retry = Retry::new([7; 16]);
        let mut most = NS_MIN;
        for attempt in 0..40 {
            let wait = retry.next_ns();
            assert!((most / 2..=most).contains(&wait), "attempt {attempt}: {wait} of {most}");
            most = (most * 2).min(NS_MAX);
        }
        retry.succeeded();
        assert!(retry.next_ns() <= NS_MIN);
    }

    #[test]
    fn edges_part_and_a_replay_does_not() {
        let waits = |nonce: u8| {
            let mut retry = Retry::new([nonce; 16]);
            (0..12).map(|_| retry.next_ns()).collect::<Vec<_>>()
        };
        assert_eq!(waits(1), waits(1));
        let all: std::collections::BTreeSet<u64> = (0..100).map(|nonce| waits(nonce)[11]).collect();
        assert!(all.len() > 90, "a hundred edges at {} moments", all.len());
        let (least, most) = (all.first().expect("some"), all.last().expect("some"));
        assert!(most - least > NS_MAX / 3, "between {least} and {most}");
    }
}
