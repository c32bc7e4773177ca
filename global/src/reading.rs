//! From records of the topic to commits of the store: which transactions are whole, where to read on, how far windows may close, who
//! could be heard. Knows no Kafka; the consumer drives it.

use std::collections::{BTreeMap, BTreeSet};

use crate::assembly::{Assembly, Kind, TooNew};
use crate::batch::{Applied, Batch, Delivered};
use crate::hearing::{Hearing, STALL_MS};
use crate::partitions::{Hold, Partitions};
use crate::records::Place;
use crate::source::Witness;
use crate::store::Store;
use crate::tables::StoreError;

#[derive(Default)]
pub struct Reading {
    pub partitions: Partitions,
    assembly: Assembly,
    ready: Vec<Delivered>,
    /// Of what is in `ready`.
    ready_bytes: usize,
    /// What a partition is to give first, before what is to be counted.
    witnesses: BTreeMap<i32, Witness>,
    /// A partition that gave something else.
    put_back: Option<i32>,
    /// Kafka does not answer, or does not give what is to be read, since then: silence of edges means nothing.
    away_since_ms: Option<i64>,
    /// As of the last commit.
    cap_ms: Option<i64>,
    committed_offsets: BTreeMap<i32, i64>,
    /// When it was last said whose silence means something.
    listened_ms: i64,
}

/// Where to begin to read a partition that has offsets from `first` to `end`. None: it no longer has, or does not have yet, what is to
/// be read next.
pub fn begin_at(stored: Option<i64>, first: i64, end: i64) -> Option<i64> {
    // A partition that was never read is read from its beginning, deliberately: all that it has is to be counted.
    let offset = stored.unwrap_or(first);
    (first..=end).contains(&offset).then_some(offset)
}

impl Reading {
    pub fn new(now_ms: i64) -> Reading {
        Reading { partitions: Partitions::new(now_ms), listened_ms: now_ms, ..Reading::default() }
    }

    /// Records at these offsets of partitions are torn where they are of a later version.
    pub fn passing_over(self, pass_over: BTreeSet<(i32, i64)>) -> Reading {
        Reading { assembly: Assembly::passing_over(pass_over), ..self }
    }

    /// A partition is read from the witness on: where that does not come, its offsets are given to other records now, and nothing more of
    /// it is taken. After its partition is begun.
    pub fn expect(&mut self, partition: i32, witness: Witness) {
        if let Some(state) = self.partitions.all.get_mut(&partition) {
            state.is_read_again(witness.offset);
        }
        self.witnesses.insert(partition, witness);
    }

    /// A partition that does not have what was counted of it.
    pub fn put_back(&self) -> Option<i32> {
        self.put_back
    }

    /// Every partition has given what was counted of it.
    pub fn is_witnessed(&self) -> bool {
        self.witnesses.is_empty() && self.put_back.is_none()
    }

    /// Nothing is read any more, and what is not whole is forgotten: it is read again.
    pub fn begin_anew(&mut self) {
        self.partitions.let_go();
        self.assembly.forget();
        self.witnesses.clear();
        self.put_back = None;
    }

    /// Takes a record in; `None`: it is neither a partial nor an end record.
    pub fn record(&mut self, place: Place, kind: Option<Kind>, edge: &[u8], payload: &[u8]) -> Result<(), TooNew> {
        let state = self.partitions.all.get_mut(&place.partition);
        if let Some(witness) = self.witnesses.get(&place.partition) {
            if place.offset == witness.offset && kind == Some(Kind::End) && witness.is(edge, payload) {
                self.witnesses.remove(&place.partition);
                state.into_iter().for_each(|state| state.gives(place.offset));
            } else {
                self.put_back = Some(place.partition);
            }
            return Ok(());
        }
        let Some(state) = state else { return Ok(()) };
        if place.offset < state.next_offset {
            // A client that was paused, or lost its broker, may give again what it gave; and it may be long from a witness to what is next.
            state.gives(place.offset);
            return Ok(());
        }
        state.takes(place.offset);
        let Some(kind) = kind else { return Ok(()) };
        let delivered = self.assembly.take(place, kind, edge, payload)?;
        for one in &delivered {
            if let Delivered::Whole(whole) = one {
                state.watermark_ms = state.watermark_ms.max(Some(whole.end.watermark_ms));
                self.ready_bytes += whole.entries.bytes();
            }
        }
        self.ready.extend(delivered);
        Ok(())
    }

    /// Everything that is committed of a partition was read; what comes next will have this offset or a later one. `high`: up to where
    /// it has records, committed or not.
    pub fn at_end(&mut self, partition: i32, next_offset: Option<i64>, high: Option<i64>) {
        if let Some(witness) = self.witnesses.get(&partition) {
            // A new leader may not know yet that it is committed: where nothing was passed over, it may still come.
            if next_offset.is_some_and(|next| next > witness.offset) {
                self.put_back = Some(partition);
            }
            return;
        }
        if let Some(state) = self.partitions.all.get_mut(&partition) {
            state.ends(next_offset);
            self.ready.extend(self.assembly.at_end(partition, state.next_offset, state.high(high)));
        }
    }

    /// Which partitions are to give nothing for now, or to go on, so that what has not ended holds no more than `max_bytes`.
    pub fn hold_back(&mut self, max_bytes: usize) -> Option<Hold> {
        self.partitions.hold_back(self.assembly.held_bytes(), max_bytes)
    }

    /// Kafka does not answer any more, and did so last at `answered_ms`. What is not committed waits. False: that was so before.
    pub fn falls_silent(&mut self, store: &Store, answered_ms: i64, now_ms: i64) -> Result<bool, StoreError> {
        self.listened_ms = now_ms;
        if self.away_since_ms.is_some() {
            self.tell(store, now_ms);
            return Ok(false);
        }
        self.away_since_ms = Some(answered_ms);
        self.tell(store, now_ms);
        let (closing_cap_ms, none) = (self.closing_cap(), BTreeMap::new());
        store.apply(&Batch { deliveries: &[], offsets: &none, now_ms, closing_cap_ms })?;
        self.cap_ms = closing_cap_ms;
        Ok(true)
    }

    /// Kafka answers. False: that was so before.
    pub fn answers(&mut self, store: &Store, now_ms: i64) -> bool {
        let was_away = self.away_since_ms.take().is_some();
        self.tell(store, now_ms);
        was_away
    }

    /// To be called before anything is read, again and again. True: this stood still since it was called last. Then nobody could be heard
    /// until what came meanwhile is read: what was said of partitions' ends is of before, and they are to be looked at.
    pub fn listen(&mut self, store: &Store, now_ms: i64) -> bool {
        let stood_still = self.stood_still(now_ms);
        self.listened_ms = now_ms;
        self.tell(store, now_ms);
        stood_still
    }

    fn stood_still(&mut self, now_ms: i64) -> bool {
        let stood_still = self.away_since_ms.is_none() && now_ms.saturating_sub(self.listened_ms) > STALL_MS;
        if stood_still {
            self.partitions.were_deaf(self.listened_ms);
        }
        stood_still
    }

    /// Tells the store whose silence means something.
    pub fn tell(&mut self, store: &Store, now_ms: i64) {
        // Where it stood still while it waited for records, the next `listen` finds that, too.
        self.stood_still(now_ms);
        self.partitions.some_uncommitted = self.is_ready();
        let hearing = self.partitions.hearing(self.away_since_ms, now_ms, store.options().idle_after_ms);
        store.set_hearing(Hearing { listened_ms: Some(self.listened_ms), ..hearing });
    }

    /// Transactions wait to be committed.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// What transactions that wait to be committed take of memory.
    pub fn ready_bytes(&self) -> usize {
        self.ready_bytes
    }

    /// What was read is further than what the store was told.
    pub fn has_moved(&self) -> bool {
        self.offsets() != self.committed_offsets
    }

    /// There is something to commit, or windows may close further, or less far.
    pub fn is_due(&self) -> bool {
        self.is_ready() || self.closing_cap() != self.cap_ms
    }

    /// Commits what is whole, and where windows may close.
    pub fn commit(&mut self, store: &Store, now_ms: i64) -> Result<Applied, StoreError> {
        let (closing_cap_ms, offsets) = (self.closing_cap(), self.offsets());
        let batch = Batch { deliveries: &self.ready, offsets: &offsets, now_ms, closing_cap_ms };
        let applied = store.apply_what_can_be(&batch)?;
        (self.cap_ms, self.committed_offsets) = (closing_cap_ms, offsets);
        self.ready.clear();
        self.ready_bytes = 0;
        Ok(applied)
    }

    /// Where to read on after what is ready.
    fn offsets(&self) -> BTreeMap<i32, i64> {
        let all = self.partitions.all.iter();
        all.map(|(&partition, state)| (partition, self.assembly.resume_at(partition, state.next_offset))).collect()
    }

    fn closing_cap(&self) -> Option<i64> {
        self.partitions.closing_cap(self.away_since_ms.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entries::Entries;
    use crate::fixture::{partial, transaction};
    use crate::store::Options;
    use prost::Message as _;
    use std::time::Instant;

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

    /// Weeks later the topic deletes its records: a start that wanted them then would end, though all was read.
    #[test]
    fn a_transaction_that_nothing_ends_is_told_and_read_past() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open(&folder.path().join("store")).expect("a new store");
        let sent = transaction("a", 1, 0, vec![partial("ad", 0, 0, 1, &[])]);
        let mut reading = Reading::new(0);
        reading.partitions.begin(3, 7, None, 0);
        let first = sent.partials[0].encode_to_vec();
        reading.record(Place { partition: 3, offset: 7 }, Some(Kind::Partial), b"a", &first).expect("of this version");
        reading.commit(&store, 1).expect("committed");
        assert_eq!(store.offsets().expect("read"), BTreeMap::from([(3, 7)]), "its end may come");
        reading.at_end(3, Some(9), Some(9));
        assert!(reading.is_due());
        let troubles = reading.commit(&store, 2).expect("committed").troubles;
        assert!(troubles.len() == 1 && troubles[0].1.text == "1 partials, and no end record", "{troubles:?}");
        assert_eq!(store.offsets().expect("read"), BTreeMap::from([(3, 9)]));
        // As a client that goes back to where it was would.
        reading.begin_anew();
        reading.partitions.begin(3, 7, None, 0);
        reading.record(Place { partition: 3, offset: 7 }, Some(Kind::Partial), b"a", &first).expect("of this version");
        reading.at_end(3, Some(9), Some(9));
        assert_eq!(reading.commit(&store, 3).expect("committed").troubles, [], "it was told");
    }

    /// A client that gives again what it gave, as one that was paused may, doubles and tears nothing.
    #[test]
    fn what_was_read_is_not_taken_again() {
        let sent = transaction("a", 1, 0, vec![partial("ad", 0, 0, 1, &[]), partial("be", 0, 0, 1, &[])]);
        let mut reading = Reading::new(0);
        reading.partitions.begin(3, 7, None, 0);
        let mut take = |offset, kind, payload: &[u8]| {
            reading.record(Place { partition: 3, offset }, Some(kind), b"a", payload).expect("of this version");
        };
        let [first, second] = [0, 1].map(|at| sent.partials[at].encode_to_vec());
        take(6, Kind::Partial, &second);
        take(7, Kind::Partial, &first);
        take(8, Kind::Partial, &second);
        take(7, Kind::Partial, &first);
        take(8, Kind::Partial, &second);
        take(9, Kind::End, &sent.end.encode_to_vec());
        take(9, Kind::End, &sent.end.encode_to_vec());
        let [Delivered::Whole(whole)] = &reading.ready[..] else { panic!("{:?}", reading.ready) };
        let entries = Entries::of(&sent.partials).expect("rows");
        assert_eq!((&whole.entries, reading.ready_bytes()), (&entries, entries.bytes()));
    }

    /// A topic that was put back to an older state, and written to since, has the offset that is to be read next: of another record.
    #[test]
    fn a_partition_that_does_not_have_what_was_counted_last_gives_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open(&folder.path().join("store")).expect("a new store");
        let (sent, other) = (transaction("a", 1, 0, Vec::new()), transaction("b", 1, 0, Vec::new()));
        let record = |reading: &mut Reading, offset, of: &tollgate_wire::Transaction| {
            let (edge, payload) = (of.end.edge_id.clone(), of.end.encode_to_vec());
            reading
                .record(Place { partition: 3, offset }, Some(Kind::End), edge.as_bytes(), &payload)
                .expect("of this version");
        };
        let begun = |from_witness: bool| {
            let mut reading = Reading::new(0);
            reading.partitions.begin(3, 9, None, 0);
            if from_witness {
                reading.expect(3, store.last_counted(3, 10).expect("one was counted"));
            }
            reading
        };
        let mut reading = begun(false);
        record(&mut reading, 9, &sent);
        reading.commit(&store, 1).expect("committed");
        assert_eq!(store.last_counted(3, 9), None, "it is to be read again");
        assert_eq!(store.last_counted(3, 10), Some(Witness { offset: 9, end: sent.end.clone() }));
        assert_eq!(store.last_counted(4, 10), None);

        let mut same = begun(true);
        // As an earlier version might have kept it.
        same.witnesses.get_mut(&3).expect("it is awaited").end.horizon_ms = 7;
        record(&mut same, 9, &sent);
        record(&mut same, 11, &other);
        assert_eq!((same.put_back(), same.ready.len()), (None, 1), "what comes after it is taken");
        for (offset, of) in [(9, &other), (10, &sent)] {
            let mut reading = begun(true);
            record(&mut reading, offset, of);
            record(&mut reading, 11, &other);
            assert_eq!((reading.put_back(), reading.ready.len()), (Some(3), 0), "{offset}");
        }
        let mut ended = begun(true);
        ended.at_end(3, Some(12), Some(12));
        assert_eq!(ended.put_back(), Some(3), "no record of it is committed");
        store.forget_places(Some(3), 2).expect("forgotten");
        assert_eq!(store.last_counted(3, 10), None);
    }

    /// A process that stood still did not hear who sent meanwhile: nobody is silent for that, whoever looks first after it.
    #[test]
    fn who_sends_while_this_stands_still_is_not_silent() {
        let folder = tempfile::tempdir().expect("folder");
        let options = Options { idle_after_ms: 10_000, ..Options::default() };
        let store = Store::open_with(&folder.path().join("store"), options).expect("a new store");
        let mut reading = Reading::new(0);
        reading.partitions.begin(3, 0, None, 0);
        let sends = |reading: &mut Reading, edge: &str, seq, watermark_ms, now_ms| {
            let sent = transaction(edge, seq, watermark_ms, Vec::new());
            let place = Place { partition: 3, offset: reading.partitions.all[&3].next_offset };
            let (stood_still, payload) = (reading.listen(&store, now_ms), sent.end.encode_to_vec());
            reading.record(place, Some(Kind::End), edge.as_bytes(), &payload).expect("of this version");
            reading.at_end(3, None, None);
            reading.tell(&store, now_ms);
            reading.commit(&store, now_ms).expect("committed");
            stood_still
        };
        // One that nobody writes to says once that it ends.
        reading.partitions.begin(4, 0, None, 0);
        reading.at_end(4, Some(0), Some(0));
        for now_ms in (1_000..=20_000).step_by(1_000) {
            sends(&mut reading, "ahead", now_ms as u64 / 1_000, 100_000 + now_ms, now_ms);
            sends(&mut reading, "behind", now_ms as u64 / 1_000, 50_000 + now_ms, now_ms);
        }
        let watermark_ms = || store.snapshot().expect("snapshot").watermark_ms();
        assert_eq!(watermark_ms(), Some(70_000));
        // It stands still for 15 s. Who keeps the store in order looks first, then one edge is heard.
        store.keep_up(35_000).expect("kept");
        assert_eq!(watermark_ms(), Some(70_000));
        assert!(sends(&mut reading, "ahead", 21, 135_000, 35_100), "it is noticed");
        assert_eq!(watermark_ms(), Some(70_000));
        assert_eq!(reading.partitions.closing_cap(false), Some(i64::MIN), "who knows what is in the other one");
        reading.partitions.looks(4, Some(0), Instant::now());
        assert_eq!(reading.partitions.closing_cap(false), None, "a look tells");
        for now_ms in (36_000..44_000).step_by(1_000) {
            sends(&mut reading, "ahead", now_ms as u64 / 1_000 - 14, 100_000 + now_ms, now_ms);
        }
        assert_eq!(watermark_ms(), Some(70_000), "it may be read any moment");
        for now_ms in (44_000..50_000).step_by(1_000) {
            sends(&mut reading, "ahead", now_ms as u64 / 1_000 - 14, 100_000 + now_ms, now_ms);
        }
        assert_eq!(watermark_ms(), Some(149_000), "it has been silent for 10 s that somebody listened");
    }

    /// Most of its time it waits for records: that is where it is stopped, and one of them comes first when it goes on.
    #[test]
    fn who_sends_while_this_waits_for_records_is_not_silent() {
        let folder = tempfile::tempdir().expect("folder");
        let options = Options { idle_after_ms: 10_000, ..Options::default() };
        let store = Store::open_with(&folder.path().join("store"), options).expect("a new store");
        let mut reading = Reading::new(0);
        reading.partitions.begin(3, 0, None, 0);
        let comes = |reading: &mut Reading, edge: &str, seq, watermark_ms| {
            let sent = transaction(edge, seq, watermark_ms, Vec::new());
            let place = Place { partition: 3, offset: reading.partitions.all[&3].next_offset };
            reading
                .record(place, Some(Kind::End), edge.as_bytes(), &sent.end.encode_to_vec())
                .expect("of this version");
        };
        for now_ms in (1_000..=20_000).step_by(1_000) {
            reading.listen(&store, now_ms);
            comes(&mut reading, "ahead", now_ms as u64 / 1_000, 100_000 + now_ms);
            comes(&mut reading, "behind", now_ms as u64 / 1_000, 50_000 + now_ms);
            reading.at_end(3, None, None);
            reading.tell(&store, now_ms);
            reading.commit(&store, now_ms).expect("committed");
        }
        let watermark_ms = || store.snapshot().expect("snapshot").watermark_ms();
        let closed_ms = || store.snapshot().expect("snapshot").as_of().marks.closed_before_ms;
        let (claimed_ms, before_ms) = (watermark_ms(), closed_ms());
        reading.listen(&store, 20_100);
        comes(&mut reading, "ahead", 21, 135_000);
        reading.answers(&store, 35_100);
        reading.tell(&store, 35_100);
        reading.commit(&store, 35_100).expect("committed");
        assert_eq!((watermark_ms(), closed_ms()), (claimed_ms, before_ms), "what the other sent may come next");
        assert!(reading.listen(&store, 35_200), "partitions are to be looked at");
    }

    /// What lies between the record that was counted last and what is to be read next may take longer than a client that is stuck is given.
    #[test]
    fn a_partition_that_gives_what_was_read_before_does_not_stand_still() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open(&folder.path().join("store")).expect("a new store");
        let sent = transaction("a", 1, 0, Vec::new());
        let mut reading = Reading::new(0);
        reading.partitions.begin(3, 900, None, 0);
        reading.expect(3, Witness { offset: 0, end: sent.end.clone() });
        let (payload, begin) = (sent.end.encode_to_vec(), Instant::now());
        for nth in 0..10 {
            let place = Place { partition: 3, offset: nth };
            reading.record(place, Some(Kind::End), b"a", &payload).expect("of this version");
            let now = begin + std::time::Duration::from_secs(5 * nth as u64);
            assert!(!reading.partitions.looks(3, Some(999), now), "it would be read from there again, and again");
        }
        drop(store);
    }

    /// A new leader does not know at once what is committed: up to before what was counted last, say.
    #[test]
    fn a_partition_that_ends_before_what_was_counted_last_was_not_put_back() {
        let sent = transaction("a", 1, 0, Vec::new());
        for next_offset in [None, Some(9)] {
            let mut reading = Reading::new(0);
            reading.partitions.begin(3, 11, None, 0);
            reading.expect(3, Witness { offset: 9, end: sent.end.clone() });
            reading.at_end(3, next_offset, Some(9));
            assert_eq!((reading.put_back(), reading.is_witnessed()), (None, false), "nobody knows yet");
            assert!(!reading.partitions.are_read());
            let place = Place { partition: 3, offset: 9 };
            reading.record(place, Some(Kind::End), b"a", &sent.end.encode_to_vec()).expect("of this version");
            assert!(reading.is_witnessed());
        }
    }
}
