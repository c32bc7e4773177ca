//! Where the partials are from: the cluster and the topic that the store is bound to, and how far each partition was read.

use std::collections::BTreeMap;

use redb::{ReadableTable, WriteTransaction};
use tollgate_wire::{EndRecord, decode_end_record};

use crate::records::Edge;
use crate::store::Store;
use crate::tables::{OFFSETS, SOURCE, StoreError, TEXTS, TOPIC_ID, begin_read, begin_write, commit_file};

/// An end record that was counted: as long as it stands where it stood, what lies before it is what was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Witness {
    pub offset: i64,
    pub end: EndRecord,
}

impl Witness {
    /// Whether this is it, by what tells transactions apart: an earlier version may have kept less of the rest.
    pub fn is(&self, edge: &[u8], end_record: &[u8]) -> bool {
        let of = |end: &EndRecord| {
            let logs: Vec<_> = end.ranges.iter().map(|range| (range.log_uuid.clone(), range.to_lsn)).collect();
            (end.edge_id.clone(), end.txn_seq, end.partials, end.crc, logs)
        };
        edge == self.end.edge_id.as_bytes() && decode_end_record(end_record).is_ok_and(|end| of(&end) == of(&self.end))
    }
}

impl Store {
    /// Kafka's cluster and the topic; None: a store that nothing was consumed into.
    pub fn source(&self) -> Result<Option<String>, StoreError> {
        self.text(SOURCE)
    }

    /// Binds the store to where its partials are from, for ever.
    pub fn set_source(&self, source: &str) -> Result<(), StoreError> {
        self.set_text(SOURCE, source)
    }

    /// The id that the cluster gave the topic when it was made; None: not known yet.
    pub fn topic_id(&self) -> Result<Option<String>, StoreError> {
        self.text(TOPIC_ID)
    }

    pub fn set_topic_id(&self, id: &str) -> Result<(), StoreError> {
        self.set_text(TOPIC_ID, id)
    }

    /// The offset to read next of each partition that was read.
    pub fn offsets(&self) -> Result<BTreeMap<i32, i64>, StoreError> {
        let file = begin_read(&self.database)?;
        let table = file.open_table(OFFSETS).map_err(redb::Error::from)?;
        let mut offsets = BTreeMap::new();
        for entry in table.iter().map_err(redb::Error::from)? {
            let (partition, offset) = entry.map_err(redb::Error::from)?;
            offsets.insert(partition.value(), offset.value());
        }
        Ok(offsets)
    }

    /// How far a partition was read, or all of them, means nothing any more: its offsets are given to other records, or to none.
    pub fn forget_places(&self, partition: Option<i32>, now_ms: i64) -> Result<(), StoreError> {
        self.write(now_ms, |commit| commit.forget_places(partition))
    }

    /// The highest watermark of edges whose last transaction stands in a partition.
    pub fn watermark_of_partition(&self, partition: i32) -> Option<i64> {
        let writer = self.lock();
        let of_it = |edge: &&Edge| edge.is_in(partition);
        writer.edges.values().filter(of_it).map(|edge| edge.watermark_ms).max()
    }

    /// What was counted last of a partition before an offset, and where it stands.
    pub fn last_counted(&self, partition: i32, before: i64) -> Option<Witness> {
        let writer = self.lock();
        let edges = writer.edges.values();
        let counted = edges.filter_map(|edge| Some((edge.counted_at?, edge)));
        let counted = counted.filter(|(at, _)| at.partition == partition && at.offset < before);
        let (place, edge) = counted.max_by_key(|(place, _)| place.offset)?;
        Some(Witness { offset: place.offset, end: edge.end.clone() })
    }

    fn text(&self, name: &str) -> Result<Option<String>, StoreError> {
        let file = begin_read(&self.database)?;
        let texts = file.open_table(TEXTS).map_err(redb::Error::from)?;
        Ok(texts.get(name).map_err(redb::Error::from)?.map(|text| text.value().to_owned()))
    }

    fn set_text(&self, name: &str, text: &str) -> Result<(), StoreError> {
        let _writer = self.lock();
        let file = begin_write(&self.database)?;
        {
            let mut texts = file.open_table(TEXTS).map_err(redb::Error::from)?;
            texts.insert(name, text).map_err(redb::Error::from)?;
        }
        commit_file(file)
    }
}

pub fn put_offsets(file: &WriteTransaction, offsets: &BTreeMap<i32, i64>) -> Result<(), StoreError> {
    let mut table = file.open_table(OFFSETS).map_err(redb::Error::from)?;
    for (partition, offset) in offsets {
        table.insert(partition, offset).map_err(redb::Error::from)?;
    }
    Ok(())
}

/// Of a partition, or of all.
pub fn remove_offsets(file: &WriteTransaction, partition: Option<i32>) -> Result<(), StoreError> {
    let mut table = file.open_table(OFFSETS).map_err(redb::Error::from)?;
    Ok(table.retain(|of, _| partition.is_some_and(|partition| partition != of)).map_err(redb::Error::from)?)
}
