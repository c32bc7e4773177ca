//! Pure. Whole transactions out of the records of partitions. Of each edge, partials by rising index, then the end record that
//! closes them; several edges may share a partition, and their records then alternate.

use std::collections::{BTreeMap, BTreeSet};

use tollgate_wire::{DecodeError, PartialView, PartialsSum, decode_end_record, view_partial};

use crate::batch::{Delivered, Delivery, TornTransaction};
use crate::entries::Entries;
use crate::records::Place;
use crate::transaction::Refusal;

/// A transaction that is larger than this is not believed: an edge's is bounded far below.
const TRANSACTION_BYTES_MAX: usize = 256 << 20;

/// An edge's transaction is of 64 ranges at most.
const RANGES_MAX: usize = 1_024;

/// The edge of a record without a key, which no edge writes: so it has a name to be accepted and retired by.
const NO_KEY: &str = "(no key)";
/// The edge of records with a key that is longer than an edge's id can be: they are nobody's, and one name is enough for all of them.
const LONG_KEY: &str = "(long key)";
/// An edge's id has no more.
const EDGE_ID_BYTES_MAX: usize = 64;
/// Torn transactions that wait for their end, so that they are told once. Beyond that all are told, and what still comes of them is told
/// as another: memory is bounded whatever keys somebody makes up.
const TORN_MAX: usize = 1_000;

/// What a record's header says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Partial,
    End,
}

impl Kind {
    /// None: a record of somebody else's, or of a later version.
    pub fn of(header: &[u8]) -> Option<Kind> {
        match header {
            b"partial" => Some(Kind::Partial),
            b"end" => Some(Kind::End),
            _ => None,
        }
    }
}

/// Reading cannot go on: a later tollgate wrote this, and to leave it out would be to guess. Somebody else's record may look so, too:
/// that is for an operator to say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "partition {partition}, offset {offset}: {error}. Where no tollgate wrote this record, start once with \
     --pass-over {partition}:{offset}: it is taken as torn, and all others as before",
    partition = place.partition, offset = place.offset
)]
pub struct TooNew {
    pub place: Place,
    pub error: DecodeError,
}

/// Transactions that have begun and not ended, by partition and edge.
#[derive(Default)]
pub struct Assembly {
    open: BTreeMap<(i32, Vec<u8>), Unfinished>,
    /// What they hold in memory, about.
    held: BTreeMap<i32, usize>,
    /// How many of `open` are.
    torn: usize,
    /// Partition and offset of records that no tollgate wrote, whatever version they are of: an operator's word.
    pass_over: BTreeSet<(i32, i64)>,
}

#[derive(Default)]
struct Unfinished {
    first_offset: i64,
    last_offset: i64,
    /// All of it is before this offset: that is where the partition ended, open transactions with it, when a part of it had been read.
    all_before: Option<i64>,
    txn_seq: u64,
    sum: PartialsSum,
    entries: Entries,
    bytes: usize,
    /// Why the store could not keep it, were it whole.
    refused: Option<Refusal>,
    /// Why it cannot become whole.
    torn: Option<String>,
}

impl Assembly {
    pub fn passing_over(pass_over: BTreeSet<(i32, i64)>) -> Assembly {
        Assembly { pass_over, ..Assembly::default() }
    }

    /// Nothing has begun.
    pub fn forget(&mut self) {
        *self = Assembly::passing_over(std::mem::take(&mut self.pass_over));
    }

    /// Takes a record in, and gives what it ends: a transaction that is whole, or one that is not.
    pub fn take(&mut self, place: Place, kind: Kind, edge: &[u8], payload: &[u8]) -> Result<Vec<Delivered>, TooNew> {
        let edge = if edge.len() > EDGE_ID_BYTES_MAX { LONG_KEY.as_bytes() } else { edge };
        let name = (place.partition, edge.to_vec());
        let of_it = |open: &BTreeMap<_, Unfinished>| {
            open.get(&name)
                .map_or((0, 0), |unfinished| (unfinished.held_bytes(), usize::from(unfinished.torn.is_some())))
        };
        let before = of_it(&self.open);
        let taken = match kind {
            Kind::Partial => self.partial(place, edge, payload),
            Kind::End => self.end(place, edge, payload).map(|delivered| vec![delivered]),
        };
        let after = of_it(&self.open);
        let of_partition = self.held.entry(place.partition).or_default();
        *of_partition = (*of_partition + after.0).saturating_sub(before.0);
        self.torn = self.torn + after.1 - before.1;
        let mut delivered = taken?;
        if self.torn > TORN_MAX {
            delivered.extend(self.give_up(|_, unfinished| unfinished.torn.is_some()));
        }
        Ok(delivered)
    }

    /// What transactions that have not ended hold in memory, by partition: about so many bytes.
    pub fn held_bytes(&self) -> &BTreeMap<i32, usize> {
        &self.held
    }

    /// Where to read a partition again after what was delivered: at the first record of what is not whole yet, else at `next`. What
    /// is torn needs no record of before: its end is as torn without them. It may be somebody else's, and never end.
    pub fn resume_at(&self, partition: i32, next: i64) -> i64 {
        let is_awaited =
            |(of, _): &(i32, Vec<u8>), unfinished: &Unfinished| *of == partition && unfinished.torn.is_none();
        let of_partition = self.open.iter().filter(|(name, unfinished)| is_awaited(name, unfinished));
        of_partition.map(|(_, unfinished)| unfinished.first_offset).min().map_or(next, |first| first.min(next))
    }

    /// Everything that is committed of a partition was read, up to before `next`, and it has records up to before `high`. What cannot be
    /// ended any more would hold its memory, and keep the partition from being read on, for ever: that is all whose records were read.
    ///
    /// An edge's transaction is one of Kafka's, in one partition. Where a record of it is seen it is committed, and all of it is there.
    /// But what is given ends where the first transaction begins that is still open, and that may be in the middle of it:
    ///
    /// ```text
    /// a0 a1 b0 a2 a-end commit-a            b is open: a0 and a1 are given, and then the partition ends, though a is whole
    ///       ^next               ^high
    /// ```
    pub fn at_end(&mut self, partition: i32, next: i64, high: Option<i64>) -> Vec<Delivered> {
        let Some(high) = high else { return Vec::new() };
        self.give_up(|of, unfinished| {
            of == partition && next >= *unfinished.all_before.get_or_insert(high.max(unfinished.last_offset + 1))
        })
    }

    /// What cannot be ended any more.
    fn give_up(&mut self, mut is_given_up: impl FnMut(i32, &mut Unfinished) -> bool) -> Vec<Delivered> {
        let left = self.open.extract_if(.., |(of, _), unfinished| is_given_up(*of, unfinished));
        let delivered = left.map(|((of, edge), unfinished)| {
            self.torn -= usize::from(unfinished.torn.is_some());
            let held = self.held.entry(of).or_default();
            *held = held.saturating_sub(unfinished.held_bytes());
            unfinished.left(of, &edge)
        });
        delivered.collect()
    }

    /// A record's content, or why it is torn.
    fn readable<T>(&self, place: Place, decoded: Result<T, DecodeError>) -> Result<Result<T, String>, TooNew> {
        match decoded {
            Err(DecodeError::Version { what, found }) if self.pass_over.contains(&(place.partition, place.offset)) => {
                Ok(Err(format!("{what} of format version {found}, passed over by --pass-over")))
            }
            Err(error @ DecodeError::Version { .. }) => Err(TooNew { place, error }),
            decoded => Ok(decoded.map_err(|error| error.to_string())),
        }
    }

    fn partial(&mut self, place: Place, edge: &[u8], payload: &[u8]) -> Result<Vec<Delivered>, TooNew> {
        let name = (place.partition, edge.to_vec());
        let decoded = self.readable(place, view_partial(payload))?;
        let first = decoded.as_ref().is_ok_and(|partial| partial.index == 0);
        let mut delivered = Vec::new();
        if first && let Some(left) = self.open.remove(&name) {
            // It cannot be ended any more: another has begun.
            delivered.push(left.left(place.partition, edge));
        }
        let unfinished =
            self.open.entry(name).or_insert_with(|| Unfinished { first_offset: place.offset, ..Unfinished::default() });
        unfinished.last_offset = place.offset;
        unfinished.add(edge, decoded, payload);
        Ok(delivered)
    }

    fn end(&mut self, place: Place, edge: &[u8], payload: &[u8]) -> Result<Delivered, TooNew> {
        let unfinished = self.open.remove(&(place.partition, edge.to_vec())).unwrap_or_default();
        let end = match self.readable(place, decode_end_record(payload))? {
            Err(why) => return Ok(torn(edge, unfinished.txn_seq, place, why)),
            Ok(end) => end,
        };
        if let Some(why) = unfinished.torn {
            return Ok(torn(edge, end.txn_seq, place, why));
        }
        if end.ranges.len() > RANGES_MAX {
            let why = format!("its end record has {} ranges, at most {RANGES_MAX} are believed", end.ranges.len());
            return Ok(torn(edge, end.txn_seq, place, why));
        }
        if end.edge_id.as_bytes() != edge {
            let why = format!("its end record is of edge {:?}", end.edge_id);
            return Ok(torn(edge, end.txn_seq, place, why));
        }
        let whole = unfinished.sum.check(&end).map_err(|error| error.to_string());
        let refused = unfinished.refused.map_or(Ok(()), |refusal| Err(refusal.to_string()));
        Ok(match whole.and(refused) {
            Ok(()) => Delivered::Whole(Delivery { entries: unfinished.entries, end, place }),
            Err(why) => torn(edge, end.txn_seq, place, why),
        })
    }
}

impl Unfinished {
    fn held_bytes(&self) -> usize {
        self.entries.bytes() + self.sum.bytes()
    }

    fn add(&mut self, edge: &[u8], decoded: Result<PartialView<'_>, String>, payload: &[u8]) {
        if self.torn.is_some() {
            return;
        }
        let partial = match decoded {
            Ok(partial) => partial,
            Err(error) => return self.tear(error),
        };
        self.bytes += payload.len();
        let expected = self.sum.count();
        if expected == 0 {
            self.txn_seq = partial.txn_seq;
        }
        if partial.edge_id.as_bytes() != edge {
            self.tear(format!("partial {} is of edge {:?}", partial.index, partial.edge_id));
        } else if partial.index as usize != expected || partial.txn_seq != self.txn_seq {
            let (seq, index) = (partial.txn_seq, partial.index);
            self.tear(format!("partial {index} of transaction {seq} where {expected} of {} was due", self.txn_seq));
        } else if self.bytes.max(self.held_bytes()) > TRANSACTION_BYTES_MAX {
            self.tear(format!("over {TRANSACTION_BYTES_MAX} bytes of partials"));
        } else {
            self.sum.add(&partial, payload);
            if self.refused.is_none() {
                self.refused = self.entries.add(&partial).err();
            }
        }
    }

    /// It cannot be ended any more.
    fn left(self, partition: i32, edge: &[u8]) -> Delivered {
        let why = self.torn.unwrap_or_else(|| format!("{} partials, and no end record", self.sum.count()));
        torn(edge, self.txn_seq, Place { partition, offset: self.last_offset }, why)
    }

    fn tear(&mut self, why: String) {
        (self.entries, self.sum) = (Entries::default(), PartialsSum::default());
        self.torn = Some(why);
    }
}

fn torn(edge: &[u8], txn_seq: u64, place: Place, why: String) -> Delivered {
    let edge_id = if edge.is_empty() { NO_KEY.to_owned() } else { String::from_utf8_lossy(edge).into_owned() };
    Delivered::Torn(TornTransaction::new(edge_id, txn_seq, place, why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{partial, transaction};
    use prost::Message;
    use tollgate_wire::Transaction;

    fn sent(edge: &str, seq: u64, partials: usize) -> Transaction {
        transaction(edge, seq, 0, (0..partials).map(|at| partial(&format!("ad{at}"), 0, 0, 1, &[])).collect())
    }

    fn records(transaction: &Transaction) -> Vec<(Kind, String, Vec<u8>)> {
        let edge = &transaction.end.edge_id;
        let partials =
            transaction.partials.iter().map(|partial| (Kind::Partial, edge.clone(), partial.encode_to_vec()));
        partials.chain([(Kind::End, edge.clone(), transaction.end.encode_to_vec())]).collect()
    }

    /// Delivers records of one partition at offsets from 0.
    fn delivered(records: &[(Kind, String, Vec<u8>)]) -> Vec<Delivered> {
        let mut assembly = Assembly::default();
        let mut delivered = Vec::new();
        for (offset, (kind, edge, payload)) in (0..).zip(records) {
            let place = Place { partition: 3, offset };
            delivered.extend(assembly.take(place, *kind, edge.as_bytes(), payload).expect("of this version"));
        }
        delivered
    }

    fn seqs(delivered: &[Delivered]) -> Vec<(String, u64, bool)> {
        let of = |one: &Delivered| match one {
            Delivered::Whole(whole) => (whole.end.edge_id.clone(), whole.end.txn_seq, true),
            Delivered::Torn(torn) => (torn.edge_id.clone(), torn.txn_seq, false),
        };
        delivered.iter().map(of).collect()
    }

    #[test]
    fn edges_that_share_a_partition_do_not_disturb_each_other() {
        let (a, b) = (sent("a", 1, 3), sent("b", 7, 2));
        let (of_a, of_b) = (records(&a), records(&b));
        let mixed: Vec<_> = [&of_a[..2], &of_b[..1], &of_a[2..3], &of_b[1..], &of_a[3..]].concat();
        let found = delivered(&mixed);
        assert_eq!(seqs(&found), [("b".to_owned(), 7, true), ("a".to_owned(), 1, true)]);
        let Delivered::Whole(whole) = &found[1] else { panic!("whole") };
        let entries = Entries::of(&a.partials).expect("rows");
        assert_eq!((&whole.entries, whole.place), (&entries, Place { partition: 3, offset: 6 }));
    }

    #[test]
    fn reading_goes_on_at_what_is_not_whole() {
        let (a, b) = (records(&sent("a", 1, 3)), records(&sent("b", 7, 2)));
        let mut assembly = Assembly::default();
        let mut take = |offset, (kind, edge, payload): &(Kind, String, Vec<u8>)| {
            assembly.take(Place { partition: 3, offset }, *kind, edge.as_bytes(), payload).expect("of this version");
            (assembly.resume_at(3, offset + 1), assembly.resume_at(4, offset + 1))
        };
        assert_eq!(take(10, &a[0]), (10, 11));
        assert_eq!(take(11, &b[0]), (10, 12));
        assert_eq!(take(12, &a[1]), (10, 13));
        assert_eq!(take(13, &a[2]), (10, 14));
        assert_eq!(take(14, &a[3]), (11, 15), "the other's is still open");
        assert_eq!(take(15, &b[1]), (11, 16));
        assert_eq!(take(16, &b[2]), (17, 17));
    }

    #[test]
    fn what_has_not_ended_is_counted_in_bytes_by_partition() {
        let a = records(&sent("a", 1, 3));
        let mut assembly = Assembly::default();
        let mut last = 0;
        for (offset, (kind, edge, payload)) in (0..).zip(&a) {
            for partition in [3, 4] {
                assembly.take(Place { partition, offset }, *kind, edge.as_bytes(), payload).expect("of this version");
            }
            let held = assembly.held_bytes()[&3];
            assert_eq!(held, assembly.held_bytes()[&4]);
            assert!(if *kind == Kind::End { held == 0 } else { held >= last + payload.len() }, "{offset}: {held}");
            last = held;
        }
        let place = Place { partition: 3, offset: 9 };
        assembly.take(place, Kind::Partial, b"?", b"\xff").expect("no version");
        assert_eq!(assembly.held_bytes()[&3], 0, "what is torn is let go");
    }

    /// A record of somebody else's that looks like a partial would otherwise be read from for ever, and be deleted one day. A reader that
    /// begins behind what is torn finds it as torn.
    #[test]
    fn what_is_torn_does_not_keep_a_partition_from_being_read_on() {
        let a = records(&sent("a", 1, 3));
        let mut assembly = Assembly::default();
        let take = |assembly: &mut Assembly, at: usize| {
            let (kind, edge, payload) = &a[at];
            let place = Place { partition: 3, offset: 10 + at as i64 };
            assembly.take(place, *kind, edge.as_bytes(), payload).expect("of this version")
        };
        assembly.take(Place { partition: 3, offset: 9 }, Kind::Partial, b"?", b"\xff").expect("no version");
        assert_eq!(assembly.resume_at(3, 10), 10);
        for (at, resume_at) in [(0, 10), (2, 13)] {
            assert_eq!(take(&mut assembly, at), Vec::new());
            assert_eq!(assembly.resume_at(3, 11 + at as i64), resume_at, "partial 1 is missing");
        }
        let mut later = Assembly::default();
        for found in [take(&mut assembly, 3), take(&mut later, 3)] {
            assert_eq!(seqs(&found), [("a".to_owned(), 1, false)]);
        }
    }

    /// It was committed as it is, and nothing comes after it.
    #[test]
    fn what_has_not_ended_where_the_partition_ends_is_torn_and_the_partition_is_read_on() {
        let (a, b) = (records(&sent("a", 4, 3)), records(&sent("b", 7, 2)));
        let mut assembly = Assembly::default();
        let mut take = |partition, offset, (kind, edge, payload): &(Kind, String, Vec<u8>)| {
            assembly.take(Place { partition, offset }, *kind, edge.as_bytes(), payload).expect("of this version")
        };
        take(3, 10, &a[0]);
        take(3, 11, &a[1]);
        take(3, 12, &b[1]);
        take(4, 20, &b[0]);
        let left = assembly.at_end(3, 13, Some(13));
        assert_eq!(seqs(&left), [("a".to_owned(), 4, false), ("b".to_owned(), 7, false)]);
        let Delivered::Torn(torn) = &left[0] else { panic!("torn") };
        assert_eq!(
            (torn.why.as_str(), torn.place),
            ("2 partials, and no end record", Place { partition: 3, offset: 11 })
        );
        assert_eq!((assembly.resume_at(3, 13), assembly.resume_at(4, 21)), (13, 20), "another partition's goes on");
        assert_eq!(assembly.held_bytes()[&3], 0);
        assert!(assembly.held_bytes()[&4] > 0);
        assert_eq!(assembly.at_end(3, 13, Some(13)), Vec::new(), "it is said once");
    }

    /// Another edge's transaction begins among its records, and ends later.
    #[test]
    fn what_the_open_transaction_of_another_hides_is_waited_for() {
        let a = records(&sent("a", 1, 3));
        let mut assembly = Assembly::default();
        let take = |assembly: &mut Assembly, at: usize, offset| {
            let (kind, edge, payload) = &a[at];
            assembly.take(Place { partition: 3, offset }, *kind, edge.as_bytes(), payload).expect("of this version")
        };
        assert_eq!(take(&mut assembly, 0, 10), []);
        assert_eq!(assembly.at_end(3, 11, None), [], "nobody knows");
        assert_eq!(assembly.at_end(3, 11, Some(20)), []);
        assert_eq!(take(&mut assembly, 1, 12), []);
        assert_eq!(assembly.at_end(3, 15, Some(90)), [], "more came, and what hid it before does so still");
        assert_eq!(assembly.resume_at(3, 15), 10);
        let mut other = Assembly::default();
        take(&mut other, 0, 10);
        for (next, high) in [(11, 20), (15, 90), (19, 90)] {
            assert_eq!(other.at_end(3, next, Some(high)), []);
        }
        assert_eq!(
            seqs(&other.at_end(3, 20, Some(90))),
            [("a".to_owned(), 1, false)],
            "all that there was then was read"
        );
        take(&mut assembly, 2, 17);
        assert_eq!(seqs(&take(&mut assembly, 3, 18)), [("a".to_owned(), 1, true)]);
    }

    /// Whichever record is missing, doubled or changed, the transaction is not delivered as whole, and the next one is.
    #[test]
    fn what_is_not_whole_is_reported_and_what_follows_is_taken() {
        let (first, next) = (records(&sent("a", 1, 4)), records(&sent("a", 2, 2)));
        let good = ("a".to_owned(), 2, true);
        for at in 0..first.len() {
            let mut without = first.clone();
            without.remove(at);
            let found = seqs(&delivered(&[without, next.clone()].concat()));
            assert_eq!((found.len(), found.last()), (2, Some(&good)), "without {at}: {found:?}");
            assert!(!found[0].2, "without {at}");
            let mut doubled = first.clone();
            doubled.insert(at, first[at].clone());
            let found = seqs(&delivered(&[doubled, next.clone()].concat()));
            // A first partial or an end record that is doubled leaves a whole one beside what is torn.
            assert_eq!(found.last(), Some(&good), "{at} doubled");
            assert!(found.iter().any(|one| !one.2), "{at} doubled: {found:?}");
            let mut changed = first.clone();
            let last = changed[at].2.len() - 1;
            changed[at].2[last] ^= 1;
            let found = seqs(&delivered(&[changed, next.clone()].concat()));
            assert_eq!(found.last(), Some(&good), "{at} changed");
            assert!(!found[0].2 || at == 4, "{at} changed: {found:?}");
        }
    }

    /// An empty value, a value of zeros, or one of something else that happens to be protobuf: none says that an update would help.
    #[test]
    fn a_record_without_a_version_is_torn_and_what_follows_is_taken() {
        let good = records(&sent("a", 2, 2));
        for payload in [&b""[..], b"\x08\x00", b"\xf8\x06\x05"] {
            for kind in [Kind::Partial, Kind::End] {
                let found = delivered(&[&[(kind, "a".to_owned(), payload.to_vec())], &good[..]].concat());
                assert_eq!(found.len(), 2, "{kind:?} {payload:?}");
                let Delivered::Torn(torn) = &found[0] else { panic!("{found:?}") };
                assert!(torn.why.contains("no format version"), "{}", torn.why);
                assert_eq!(seqs(&found[1..]), [("a".to_owned(), 2, true)], "{kind:?} {payload:?}");
            }
        }
    }

    /// `edges accept` and `edges retire` want a name.
    #[test]
    fn what_has_no_key_has_a_name_all_the_same() {
        let found = delivered(&[(Kind::End, String::new(), Vec::new())]);
        assert_eq!(seqs(&found), [(NO_KEY.to_owned(), 0, false)]);
    }

    /// A record may be a megabyte of whatever somebody likes.
    #[test]
    fn what_strange_records_can_take_is_bounded() {
        let mut assembly = Assembly::default();
        let place = |offset| Place { partition: 3, offset };
        let long = "ä".repeat(500_000);
        let named = &records(&sent(&long, 1, 2));
        let mut told = assembly.take(place(0), Kind::Partial, b"a", &named[0].2).expect("of this version");
        for (at, (kind, edge, payload)) in (1..).zip(named) {
            told.extend(assembly.take(place(at), *kind, edge.as_bytes(), payload).expect("of this version"));
        }
        told.extend(assembly.at_end(3, 9, Some(9)));
        assert_eq!(seqs(&told), [(LONG_KEY.to_owned(), 1, false), ("a".to_owned(), 1, false)]);
        for one in &told {
            let Delivered::Torn(torn) = one else { panic!("torn") };
            assert!(torn.why.starts_with("partial 0 is of edge") && torn.why.len() < 210, "{} bytes", torn.why.len());
        }
        // Names that are none of ours, and never end.
        let mut junk = |nth: usize| {
            assembly
                .take(place(10 + nth as i64), Kind::Partial, nth.to_string().as_bytes(), b"\xff")
                .expect("no version")
        };
        assert!((0..TORN_MAX).all(|nth| junk(nth).is_empty()));
        assert_eq!(junk(7), Vec::new(), "it is open");
        assert_eq!(junk(TORN_MAX).len(), TORN_MAX + 1);
        assert_eq!(junk(7), Vec::new(), "there is room");
        assert_eq!((assembly.open.len(), assembly.torn), (1, 1));
        assert_eq!((assembly.at_end(3, 9_999, Some(9_999)).len(), assembly.torn), (1, 0));
    }

    /// Where no partial of it could be a row, too.
    #[test]
    fn logs_that_somebody_makes_up_are_counted_and_let_go_with_what_is_torn() {
        let mut strange = sent("a", 1, 3);
        for (nth, partial) in strange.partials.iter_mut().enumerate() {
            (partial.log_uuid, partial.ad_id) = (vec![nth as u8; 100_000], String::new());
        }
        let (mut assembly, mut strange) = (Assembly::default(), records(&strange));
        strange.swap_remove(2);
        for (offset, (kind, edge, payload)) in (0..).zip(&strange) {
            assert!(offset == 0 || assembly.held_bytes()[&3] >= 100_000 * offset as usize, "after {offset}");
            let payload = if offset == 2 { b"\xff" } else { &payload[..] };
            let place = Place { partition: 3, offset };
            let kind = if offset == 2 { Kind::Partial } else { *kind };
            assembly.take(place, kind, edge.as_bytes(), payload).expect("of this version");
        }
        let held: usize = assembly.open.values().map(|unfinished| unfinished.sum.bytes()).sum();
        assert_eq!((assembly.torn, assembly.held_bytes()[&3], held), (1, 0, 0));
    }

    /// What comparing it with the edge's logs would cost, nobody has to bear.
    #[test]
    fn an_end_record_that_no_edge_has_is_torn() {
        let mut strange = sent("a", 7, 2);
        strange.end.ranges = vec![strange.end.ranges[0].clone(); 1_025];
        let found = delivered(&records(&strange));
        let [Delivered::Torn(torn)] = &found[..] else { panic!("{found:?}") };
        assert!(torn.txn_seq == 7 && torn.why.contains("1025 ranges, at most 1024"), "{torn:?}");
    }

    #[test]
    fn a_record_of_a_later_version_stops_the_reader() {
        let mut end = sent("a", 1, 0).end;
        end.format_version = 99;
        let taken = Assembly::default().take(Place::default(), Kind::End, b"a", &end.encode_to_vec());
        assert!(matches!(taken, Err(TooNew { error: DecodeError::Version { found: 99, .. }, .. })));
    }

    /// Somebody else's record would otherwise end every start until a version comes that was never made.
    #[test]
    fn a_record_that_an_operator_passes_over_is_torn_and_no_other_is() {
        let mut strange = sent("a", 1, 1);
        (strange.partials[0].format_version, strange.end.format_version) = (99, 98);
        let mut assembly = Assembly::passing_over(BTreeSet::from([(3, 11), (3, 13)]));
        let at = |offset| Place { partition: 3, offset };
        let (partial, end) = (strange.partials[0].encode_to_vec(), strange.end.encode_to_vec());
        for (kind, payload) in [(Kind::Partial, &partial), (Kind::End, &end)] {
            let refused = assembly.take(at(10), kind, b"a", payload).expect_err("nobody named it").to_string();
            assert!(refused.contains("--pass-over 3:10:"), "{refused}");
        }
        assert!(assembly.take(Place { partition: 2, offset: 11 }, Kind::Partial, b"a", &partial).is_err());
        assembly.forget();
        assert_eq!(assembly.take(at(11), Kind::Partial, b"a", &partial), Ok(Vec::new()));
        let mut told = assembly.at_end(3, 12, Some(12));
        told.extend(assembly.take(at(13), Kind::End, b"a", &end).expect("it is named"));
        let why = |one: &Delivered| match one {
            Delivered::Torn(torn) => torn.why.clone(),
            Delivered::Whole(_) => panic!("torn"),
        };
        let expected = ["a partial of format version 99", "an end record of format version 98"];
        assert_eq!(
            told.iter().map(why).collect::<Vec<_>>(),
            expected.map(|what| format!("{what}, passed over by --pass-over"))
        );
        let next = records(&sent("a", 2, 1));
        let whole = [(20, &next[0]), (21, &next[1])].map(|(offset, (kind, edge, payload))| {
            seqs(&assembly.take(at(offset), *kind, edge.as_bytes(), payload).expect("of this version"))
        });
        assert_eq!(whole, [vec![], vec![("a".to_owned(), 2, true)]]);
    }
}
