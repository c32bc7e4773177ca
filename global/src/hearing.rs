//! Pure. From when to when edges could be heard. Silence counts only while somebody listens: a partition that cannot be read, or is not
//! read to its end yet, says nothing of who sends to it.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A gap in listening that is shorter, and than half of `--idle-after`, is none: partitions are behind for a moment with every record.
const BLINK_MS: i64 = 5_000;
/// Who listens says so several times a second. One that has not for so long stands still: it hears nobody.
pub const STALL_MS: i64 = 2_000;

/// Of one partition, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Since then without a gap.
    pub from_ms: i64,
    /// Until then; None: it is heard now.
    pub to_ms: Option<i64>,
    /// Who was seen last before this was silent when a gap began, and stays so until it sends.
    silent_before_ms: i64,
}

impl Heard {
    /// Nothing was heard of it yet.
    pub fn deaf_since(at_ms: i64) -> Heard {
        Heard { from_ms: at_ms, to_ms: Some(at_ms), ..Heard::default() }
    }

    /// It can be heard, from `now_ms` on if it could not be before.
    pub fn hears(&mut self, now_ms: i64, idle_after_ms: i64) {
        let Some(to_ms) = self.to_ms.take() else { return };
        if now_ms.saturating_sub(to_ms) <= BLINK_MS.min(idle_after_ms / 2) {
            return;
        }
        if to_ms.saturating_sub(self.from_ms) > idle_after_ms {
            self.silent_before_ms = self.silent_before_ms.max(to_ms - idle_after_ms);
        }
        self.from_ms = now_ms;
    }

    /// Nothing was heard of it after `at_ms`.
    pub fn is_deaf(&mut self, at_ms: i64) {
        self.to_ms.get_or_insert(at_ms.max(self.from_ms));
    }

    /// All that came until `at_ms` was heard, and there is more.
    pub fn was_heard_to(&mut self, at_ms: i64) {
        self.to_ms = self.to_ms.map(|to_ms| to_ms.max(at_ms));
    }

    /// How long somebody who was seen last at `seen_ms` has been silent, as far as it could be heard; and how long nothing came.
    pub fn silence_ms(&self, seen_ms: i64, now_ms: i64) -> (i64, i64) {
        if seen_ms < self.silent_before_ms {
            return (i64::MAX, i64::MAX);
        }
        let last_ms = seen_ms.max(self.from_ms);
        (self.to_ms.unwrap_or(now_ms).saturating_sub(last_ms), now_ms.saturating_sub(last_ms))
    }
}

/// Of every partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hearing {
    pub partitions: Arc<BTreeMap<i32, Heard>>,
    /// Of edges whose last transaction stands in none of them: those of the embedded sink, say.
    pub others: Heard,
    /// When this was said. None: it holds until something else is said.
    pub listened_ms: Option<i64>,
}

impl Hearing {
    /// From then on everybody, and still.
    pub fn since(from_ms: i64) -> Hearing {
        Hearing { others: Heard { from_ms, ..Heard::default() }, ..Hearing::default() }
    }

    pub fn of(&self, partition: Option<i32>) -> &Heard {
        partition.and_then(|partition| self.partitions.get(&partition)).unwrap_or(&self.others)
    }

    /// How long an edge has been silent that was seen last at `seen_ms`, as far as it could be heard; and how long nothing came.
    pub fn silence_ms(&self, partition: Option<i32>, seen_ms: i64, now_ms: i64) -> (i64, i64) {
        let heard = self.of(partition);
        let (silent_ms, unseen_ms) = heard.silence_ms(seen_ms, now_ms);
        let stalled_ms = self.listened_ms.map_or(0, |at_ms| now_ms.saturating_sub(at_ms + STALL_MS).max(0));
        let is_heard = heard.to_ms.is_none();
        (if is_heard { silent_ms.saturating_sub(stalled_ms) } else { silent_ms }, unseen_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: i64 = 30_000;

    fn heard(from_ms: i64) -> Heard {
        Heard { from_ms, ..Heard::default() }
    }

    #[test]
    fn silence_is_counted_while_somebody_listens() {
        let mut one = heard(100_000);
        assert_eq!(one.silence_ms(50_000, 110_000), (10_000, 10_000), "not from before");
        assert_eq!(one.silence_ms(105_000, 110_000), (5_000, 5_000));
        one.is_deaf(120_000);
        one.is_deaf(125_000);
        assert_eq!(one.silence_ms(105_000, 500_000), (15_000, 395_000), "nor after");
        one.hears(500_000, IDLE);
        assert_eq!(one.silence_ms(105_000, 510_000), (10_000, 10_000), "anew from when it is heard again");
    }

    #[test]
    fn a_blink_is_no_gap() {
        let mut one = heard(0);
        one.is_deaf(20_000);
        one.hears(20_000 + BLINK_MS, IDLE);
        assert_eq!(one, heard(0));
    }

    /// Kafka that goes away for moments, again and again, would otherwise let an edge that died hold all windows for ever.
    #[test]
    fn who_was_silent_when_a_gap_began_stays_silent_until_it_sends() {
        let mut one = heard(0);
        one.is_deaf(100_000);
        one.hears(200_000, IDLE);
        assert_eq!(one.silence_ms(69_999, 200_000).0, i64::MAX);
        assert_eq!(one.silence_ms(70_001, 200_000).0, 0, "it was live then");
        // It could be heard for too short a time to tell.
        one.is_deaf(210_000);
        one.hears(300_000, IDLE);
        assert_eq!((one.silence_ms(69_999, 300_000).0, one.silence_ms(70_001, 300_000).0), (i64::MAX, 0));
        assert_eq!(one.silence_ms(299_000, 301_000).0, 1_000, "it sent");
    }

    #[test]
    fn each_partition_is_heard_by_itself() {
        let mut hearing = Hearing::since(7);
        hearing.partitions = Arc::new(BTreeMap::from([(3, heard(9))]));
        let from = [None, Some(3), Some(4)].map(|partition| hearing.of(partition).from_ms);
        assert_eq!(from, [7, 9, 7]);
    }
}
