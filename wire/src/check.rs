//! Pure. Reading what arrived: versions, and whether a transaction is whole.

use crate::messages::{Checkpoint, EndRecord, Partial};
use crate::view::PartialView;
use crate::{FORMAT_VERSION, Transaction};
use prost::Message;
use std::collections::BTreeMap;

/// Why a message is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("{what} is not readable protobuf: {error}; it was damaged, or is of something else")]
    Damaged { what: &'static str, error: prost::DecodeError },
    /// Of no version that ever was: an empty value is protobuf, too.
    #[error("{what} has no format version; it was damaged, or is of something else")]
    NoVersion { what: &'static str },
    /// A later one.
    #[error("{what} of format version {found}, but this reads only 1 to {FORMAT_VERSION}; update the reader first")]
    Version { what: &'static str, found: u32 },
}

/// Why a transaction is not whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    #[error("the transaction holds {found} partials, its end record says {expected}")]
    Partials { found: usize, expected: u32 },
    #[error("the partials' CRC32C is {found:08x}, the end record says {expected:08x}")]
    Crc { found: u32, expected: u32 },
    #[error("partial {index} says {field} unlike the end record")]
    Partial { index: usize, field: &'static str },
    #[error("log {log:02x?}: the partials count {found} clicks, the end record's range {expected}")]
    Clicks { log: Vec<u8>, found: u64, expected: u64 },
    #[error("the checkpoint says {field} unlike the end record")]
    Checkpoint { field: &'static str },
}

pub fn decode_partial(bytes: &[u8]) -> Result<Partial, DecodeError> {
    decode(bytes, "a partial", |partial: &Partial| partial.format_version)
}

/// As [`decode_partial`], where its bytes lie.
pub fn view_partial(bytes: &[u8]) -> Result<PartialView<'_>, DecodeError> {
    let what = "a partial";
    let view = PartialView::read(bytes).map_err(|error| DecodeError::Damaged { what, error })?;
    check_version(view.format_version, what).map(|()| view)
}

pub fn decode_end_record(bytes: &[u8]) -> Result<EndRecord, DecodeError> {
    decode(bytes, "an end record", |end: &EndRecord| end.format_version)
}

pub fn decode_checkpoint(bytes: &[u8]) -> Result<Checkpoint, DecodeError> {
    decode(bytes, "a checkpoint", |checkpoint: &Checkpoint| checkpoint.format_version)
}

fn decode<M: Message + Default>(bytes: &[u8], what: &'static str, version: fn(&M) -> u32) -> Result<M, DecodeError> {
    let message = M::decode(bytes).map_err(|error| DecodeError::Damaged { what, error })?;
    check_version(version(&message), what).map(|()| message)
}

fn check_version(found: u32, what: &'static str) -> Result<(), DecodeError> {
    match found {
        0 => Err(DecodeError::NoVersion { what }),
        1..=FORMAT_VERSION => Ok(()),
        found => Err(DecodeError::Version { what, found }),
    }
}

/// CRC32C over the encoded partials, one after the other: `EndRecord.crc`.
pub fn crc_of(partials: &[Partial]) -> u32 {
    let mut crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    let mut bytes = Vec::new();
    for partial in partials {
        bytes.clear();
        partial.encode_raw(&mut bytes);
        crc.update(&bytes);
    }
    crc.finalize() as u32
}

/// What a log takes in [`PartialsSum`] beside its id, about.
const LOG_BYTES: usize = 96;

/// What the partials of one transaction say together, taken one by one.
pub struct PartialsSum {
    crc: crc_fast::Digest,
    count: usize,
    /// Of the first.
    edge_id: String,
    txn_seq: u64,
    /// By log, the first partial that names it, and clicks of all.
    by_log: BTreeMap<Vec<u8>, (usize, u64)>,
    /// Of `by_log`.
    bytes: usize,
    /// The first that is unlike those before it, and in what.
    unlike: Option<(usize, &'static str)>,
}

impl Default for PartialsSum {
    fn default() -> PartialsSum {
        let crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        let (edge_id, by_log) = (String::new(), BTreeMap::new());
        PartialsSum { crc, count: 0, edge_id, txn_seq: 0, by_log, bytes: 0, unlike: None }
    }
}

impl PartialsSum {
    /// Takes the next; `encoded` as it came.
    pub fn add(&mut self, partial: &PartialView<'_>, encoded: &[u8]) {
        self.crc.update(encoded);
        if self.count == 0 {
            (self.edge_id, self.txn_seq) = (partial.edge_id.to_owned(), partial.txn_seq);
        }
        let differs = [
            ("edge_id", partial.edge_id != self.edge_id),
            ("txn_seq", partial.txn_seq != self.txn_seq),
            ("index", partial.index as usize != self.count),
        ];
        if let Some((field, _)) = differs.into_iter().find(|(_, differs)| *differs) {
            self.unlike.get_or_insert((self.count, field));
        }
        match self.by_log.get_mut(partial.log_uuid) {
            Some((_, clicks)) => *clicks = clicks.saturating_add(partial.clicks),
            None => {
                self.bytes += LOG_BYTES + partial.log_uuid.len();
                self.by_log.insert(partial.log_uuid.to_vec(), (self.count, partial.clicks));
            }
        }
        self.count += 1;
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Of memory, about: a transaction is of few logs, but somebody else's record may name any.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether they are all that the end record closes.
    pub fn check(&self, end: &EndRecord) -> Result<(), TransactionError> {
        if self.count != end.partials as usize {
            return Err(TransactionError::Partials { found: self.count, expected: end.partials });
        }
        let mut of_ranges: BTreeMap<&[u8], u64> = BTreeMap::new();
        for range in &end.ranges {
            let clicks = of_ranges.entry(&range.log_uuid).or_default();
            *clicks = clicks.saturating_add(range.clicks);
        }
        let has_any = self.count > 0;
        let differs =
            [("edge_id", has_any && self.edge_id != end.edge_id), ("txn_seq", has_any && self.txn_seq != end.txn_seq)];
        let first = differs.into_iter().find(|(_, differs)| *differs).map(|(field, _)| (0, field));
        let of_no_range = self.by_log.iter().filter(|(log, _)| !of_ranges.contains_key(log.as_slice()));
        let of_no_range = of_no_range.map(|(_, (first, _))| (*first, "log_uuid")).min();
        if let Some((index, field)) =
            [first, self.unlike, of_no_range].into_iter().flatten().min_by_key(|(index, _)| *index)
        {
            return Err(TransactionError::Partial { index, field });
        }
        for (log, expected) in of_ranges {
            let found = self.by_log.get(log).map_or(0, |(_, clicks)| *clicks);
            if found != expected {
                return Err(TransactionError::Clicks { log: log.to_vec(), found, expected });
            }
        }
        let found = self.crc.finalize() as u32;
        if found == end.crc { Ok(()) } else { Err(TransactionError::Crc { found, expected: end.crc }) }
    }
}

impl Transaction {
    /// Whether this is all that the end record closes, and its parts agree. The sender asserts it, the receiver checks it.
    pub fn check(&self) -> Result<(), TransactionError> {
        let (end, checkpoint) = (&self.end, &self.checkpoint);
        let (mut sum, mut encoded) = (PartialsSum::default(), Vec::new());
        for partial in &self.partials {
            encoded.clear();
            partial.encode_raw(&mut encoded);
            sum.add(&PartialView::of(partial), &encoded);
        }
        sum.check(end)?;
        if checkpoint.edge_id != end.edge_id {
            return Err(TransactionError::Checkpoint { field: "edge_id" });
        }
        if checkpoint.txn_seq != end.txn_seq {
            return Err(TransactionError::Checkpoint { field: "txn_seq" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{LogPosition, LogRange};

    fn transaction() -> Transaction {
        let partial = |index: u32, clicks: u64| Partial {
            format_version: FORMAT_VERSION,
            edge_id: "edge".to_owned(),
            log_uuid: vec![7; 16],
            txn_seq: 3,
            index,
            ad_id: format!("ad_{index}"),
            clicks,
            ..Partial::default()
        };
        let partials = vec![partial(0, 2), partial(1, 5)];
        let end = EndRecord {
            format_version: FORMAT_VERSION,
            edge_id: "edge".to_owned(),
            txn_seq: 3,
            partials: 2,
            crc: crc_of(&partials),
            ranges: vec![LogRange { log_uuid: vec![7; 16], from_lsn: 1, to_lsn: 9, clicks: 7, clicks_total: 8 }],
            ..EndRecord::default()
        };
        let checkpoint = Checkpoint {
            format_version: FORMAT_VERSION,
            edge_id: "edge".to_owned(),
            txn_seq: 3,
            logs: vec![LogPosition { log_uuid: vec![7; 16], lsn: 9, chain: 1, clicks_total: 8 }],
            ..Checkpoint::default()
        };
        Transaction { partials, end, checkpoint }
    }

    #[test]
    fn each_disagreement_is_found() {
        assert_eq!(transaction().check(), Ok(()));
        type Breaks = fn(&mut Transaction);
        let broken: [(&str, Breaks); 9] = [
            ("a partial is missing", |transaction| drop(transaction.partials.pop())),
            ("two partials changed places", |transaction| transaction.partials.swap(0, 1)),
            ("another edge", |transaction| transaction.partials[0].edge_id.push('x')),
            ("another transaction", |transaction| transaction.partials[0].txn_seq += 1),
            ("a log without range", |transaction| transaction.partials[0].log_uuid[0] ^= 1),
            ("a click too many", |transaction| transaction.partials[0].clicks += 1),
            ("a flipped bit", |transaction| transaction.partials[1].watermark_ms ^= 1),
            ("a checkpoint of another edge", |transaction| transaction.checkpoint.edge_id.push('x')),
            ("a checkpoint of another transaction", |transaction| transaction.checkpoint.txn_seq += 1),
        ];
        for (what, breaks) in broken {
            let mut transaction = transaction();
            breaks(&mut transaction);
            assert!(transaction.check().is_err(), "{what}");
        }
    }

    #[test]
    fn other_versions_and_damage_are_refused() {
        let Transaction { partials, mut end, checkpoint } = transaction();
        assert_eq!(decode_partial(&partials[0].encode_to_vec()).as_ref(), Ok(&partials[0]));
        assert_eq!(decode_checkpoint(&checkpoint.encode_to_vec()).as_ref(), Ok(&checkpoint));
        assert_eq!(decode_end_record(&end.encode_to_vec()).as_ref(), Ok(&end));
        let what = "an end record";
        for (version, refused) in [
            (0, DecodeError::NoVersion { what }),
            (FORMAT_VERSION + 1, DecodeError::Version { what, found: FORMAT_VERSION + 1 }),
        ] {
            end.format_version = version;
            assert_eq!(decode_end_record(&end.encode_to_vec()), Err(refused));
        }
        assert_eq!(decode_end_record(b""), Err(DecodeError::NoVersion { what }), "an empty value is protobuf");
        assert!(matches!(decode_partial(b"\xff\xff"), Err(DecodeError::Damaged { .. })));
    }
}
