//! Pure. One partition of the topic, as far as it was read.

use std::time::{Duration, Instant};

/// How long a partition that has more may give nothing before the client is made anew: one was seen that asked for ever with an epoch
/// that no broker knew, after its broker had been killed.
pub const STANDSTILL: Duration = Duration::from_secs(30);

/// One partition, as far as it was read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Partition {
    pub next_offset: i64,
    /// Everything that is committed of it was read.
    pub at_end: bool,
    /// The highest that an edge in it claimed.
    pub watermark_ms: Option<i64>,
    /// How far it was when it was looked at, and since when it is no further though there is more.
    pub looked_at: i64,
    pub stands_since: Option<Instant>,
}

impl Partition {
    /// Whether it has stood still for too long.
    pub fn stands_still(&mut self, end: i64, now: Instant) -> bool {
        let stands = end > self.next_offset && self.next_offset == self.looked_at;
        self.looked_at = self.next_offset;
        self.stands_since = stands.then(|| self.stands_since.unwrap_or(now));
        self.stands_since.is_some_and(|since| now.duration_since(since) >= STANDSTILL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_stands_still_when_it_has_more_and_gives_nothing() {
        let (begin, mut partition) = (Instant::now(), Partition { next_offset: 5, ..Partition::default() });
        let mut looks = |next_offset, end, seconds| {
            partition.next_offset = next_offset;
            partition.stands_still(end, begin + Duration::from_secs(seconds))
        };
        assert!(!looks(5, 9, 0), "it was never looked at");
        assert!(!looks(5, 9, 5) && !looks(5, 9, 34) && looks(5, 9, 35));
        assert!(!looks(6, 9, 40) && !looks(6, 9, 45), "it goes on");
        assert!(!looks(6, 6, 100), "there is nothing more");
        assert!(!looks(6, 9, 105) && !looks(6, 9, 134) && looks(6, 9, 135));
    }
}
