//! From records of the topic to commits of the store: which transactions are whole, where to read on, how far windows may close. Knows no
//! Kafka; the consumer drives it.

use std::collections::BTreeMap;

use crate::assembly::{Assembly, Kind, TooNew};
use crate::batch::{Applied, Batch, Delivered, TornTransaction};
use crate::records::Place;
use crate::store::Store;
use crate::tables::StoreError;

/// One partition, as far as it was read.
#[derive(Clone, Copy, Debug, Default)]
struct Partition {
    next_offset: i64,
    /// Everything that is committed of it was read.
    at_end: bool,
    /// The highest that an edge in it claimed.
    watermark_ms: Option<i64>,
}

#[derive(Default)]
pub struct Reading {
    partitions: BTreeMap<i32, Partition>,
    assembly: Assembly,
    ready: Vec<Delivered>,
    ready_partials: usize,
    /// Kafka does not answer: silence of edges means nothing.
    away: bool,
    /// As of the last commit.
    cap_ms: Option<i64>,
    committed_offsets: BTreeMap<i32, i64>,
}

/// Where to begin to read a partition that has offsets from `first` to `end`. None: it no longer has, or does not have yet, what is to
/// be read next.
pub fn begin_at(stored: Option<i64>, first: i64, end: i64) -> Option<i64> {
    // A partition that was never read is read from its beginning, deliberately: all that it has is to be counted.
    let offset = stored.unwrap_or(first);
    (first..=end).contains(&offset).then_some(offset)
}

impl Reading {
    /// A partition is read from this offset on; edges whose last transaction stands in it have claimed this.
    pub fn begin(&mut self, partition: i32, next_offset: i64, watermark_ms: Option<i64>) {
        self.partitions.insert(partition, Partition { next_offset, watermark_ms, at_end: false });
    }

    /// Nothing is read any more, and what is not whole is forgotten: it is read again.
    pub fn begin_anew(&mut self) {
        self.partitions.clear();
        self.assembly = Assembly::default();
    }

    pub fn is_read(&self, partition: i32) -> bool {
        self.partitions.contains_key(&partition)
    }

    pub fn reads_nothing(&self) -> bool {
        self.partitions.is_empty()
    }

    /// What will be read next of each partition.
    pub fn next_offsets(&self) -> impl Iterator<Item = (i32, i64)> + '_ {
        self.partitions.iter().map(|(partition, state)| (*partition, state.next_offset))
    }

    /// Takes a record in; `None`: it is neither a partial nor an end record.
    pub fn record(&mut self, place: Place, kind: Option<Kind>, edge: &[u8], payload: &[u8]) -> Result<(), TooNew> {
        let state = self.partitions.entry(place.partition).or_default();
        (state.next_offset, state.at_end) = (place.offset + 1, false);
        let Some(kind) = kind else { return Ok(()) };
        self.ready_partials += usize::from(kind == Kind::Partial);
        let delivered = self.assembly.take(place, kind, edge, payload)?;
        for one in &delivered {
            if let Delivered::Whole(whole) = one {
                state.watermark_ms = state.watermark_ms.max(Some(whole.end.watermark_ms));
            }
        }
        self.ready.extend(delivered);
        Ok(())
    }

    /// Everything that is committed of a partition was read; what comes next will have this offset or a later one.
    pub fn at_end(&mut self, partition: i32, next_offset: Option<i64>) {
        if let Some(state) = self.partitions.get_mut(&partition) {
            state.at_end = true;
            state.next_offset = state.next_offset.max(next_offset.unwrap_or(0));
        }
    }

    /// Kafka does not answer, or answers again. False: that was so before.
    pub fn set_away(&mut self, away: bool) -> bool {
        std::mem::replace(&mut self.away, away) != away
    }

    /// Transactions wait to be committed.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Partials that were read since the last commit.
    pub fn ready_partials(&self) -> usize {
        self.ready_partials
    }

    /// What was read is further than what the store was told.
    pub fn has_moved(&self) -> bool {
        self.offsets() != self.committed_offsets
    }

    /// Commits what is whole, and where windows may close. None: there was nothing to commit.
    pub fn commit(&mut self, store: &Store, now_ms: i64, must: bool) -> Result<Option<Applied>, StoreError> {
        let cap_ms = self.closing_cap();
        if self.ready.is_empty() && cap_ms == self.cap_ms && !must {
            return Ok(None);
        }
        let offsets = self.offsets();
        let applied = self.apply(store, &offsets, now_ms, cap_ms)?;
        (self.cap_ms, self.committed_offsets) = (cap_ms, offsets);
        self.ready.clear();
        self.ready_partials = 0;
        Ok(Some(applied))
    }

    fn apply(
        &self,
        store: &Store,
        offsets: &BTreeMap<i32, i64>,
        now_ms: i64,
        closing_cap_ms: Option<i64>,
    ) -> Result<Applied, StoreError> {
        let batch = Batch { deliveries: &self.ready, offsets, now_ms, closing_cap_ms };
        match store.apply(&batch) {
            Err(StoreError::Refused(_)) => {}
            outcome => return outcome,
        }
        // One of them cannot be kept, and nothing of the batch was. Each by itself, that one is reported, and what is behind it
        // counted; offsets move on when all are judged, and who is read again is known.
        let (none, mut all) = (BTreeMap::new(), Applied::default());
        for delivered in &self.ready {
            let alone = Batch { deliveries: std::slice::from_ref(delivered), offsets: &none, now_ms, closing_cap_ms };
            let applied = match (store.apply(&alone), delivered) {
                (Err(StoreError::Refused(refusal)), Delivered::Whole(whole)) => {
                    let torn = TornTransaction {
                        edge_id: whole.end.edge_id.clone(),
                        txn_seq: whole.end.txn_seq,
                        place: whole.place,
                        why: refusal.to_string(),
                    };
                    store.apply(&Batch { deliveries: &[Delivered::Torn(torn)], ..alone })?
                }
                (outcome, _) => outcome?,
            };
            all.add(applied);
        }
        all.add(store.apply(&Batch { deliveries: &[], ..batch })?);
        Ok(all)
    }

    /// Where to read on after what is ready.
    fn offsets(&self) -> BTreeMap<i32, i64> {
        let resume_at = |(&partition, state): (&i32, &Partition)| {
            (partition, self.assembly.resume_at(partition, state.next_offset))
        };
        self.partitions.iter().map(resume_at).collect()
    }

    /// Windows close no further than what every partition that is behind has said.
    fn closing_cap(&self) -> Option<i64> {
        if self.partitions.is_empty() {
            return Some(i64::MIN);
        }
        let holds = |state: &&Partition| self.away || !state.at_end;
        self.partitions.values().filter(holds).map(|state| state.watermark_ms.unwrap_or(i64::MIN)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an edge has not said yet may be in a partition that is behind, or that nobody answers for.
    #[test]
    fn windows_close_no_further_than_what_partitions_that_are_behind_have_said() {
        let mut reading = Reading::default();
        assert_eq!(reading.closing_cap(), Some(i64::MIN), "nothing is known of any");
        let read = |watermark_ms| Partition { at_end: true, watermark_ms, ..Partition::default() };
        reading.partitions = BTreeMap::from([(0, read(Some(5))), (1, read(Some(9)))]);
        assert_eq!(reading.closing_cap(), None);
        assert!(reading.set_away(true) && !reading.set_away(true));
        assert_eq!(reading.closing_cap(), Some(5), "nobody's silence is believed");
        assert!(reading.set_away(false));
        reading.partitions.get_mut(&1).expect("it is there").at_end = false;
        assert_eq!(reading.closing_cap(), Some(9));
        // One that was added, and of which nothing is read.
        reading.begin(2, 0, None);
        assert_eq!(reading.closing_cap(), Some(i64::MIN));
    }

    #[test]
    fn a_partition_that_lacks_what_is_to_be_read_is_not_begun() {
        let cases = [
            ((None, 3, 9), Some(3)),
            ((Some(5), 3, 9), Some(5)),
            ((Some(9), 3, 9), Some(9)),
            ((Some(2), 3, 9), None),
            ((Some(10), 3, 9), None),
        ];
        for ((stored, first, end), expected) in cases {
            assert_eq!(begin_at(stored, first, end), expected, "{stored:?} in {first} to {end}");
        }
    }
}
