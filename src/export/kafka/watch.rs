//! Drives. Reading committed checkpoints. A plain read_committed read ends where the first open transaction begins, and would not say
//! so: a partition is read up to where it ends for everybody.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};
use tollgate_wire::{Checkpoint, decode_checkpoint};

use super::client::{ANSWER_TIMEOUT, Client, Reader, unreachable};
use crate::export::SinkError;
use crate::export::mirror::Place;

/// For reading to the end of a partition that others may have transactions open in: their time-out, and some.
const READ_TIMEOUT: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(20);
/// A checkpoint is looked for in so many of the last records first.
const LOOK_BACK: i64 = 1_000;

/// Follows one partition of checkpoints.
pub struct Watch {
    topic: String,
    partition: i32,
    edge_id: String,
    /// Knows where the partition ends, whatever is open in it.
    ends: Reader,
    tail: Reader,
    /// Offset up to which everything is read.
    at: i64,
    last: Option<Checkpoint>,
    wait: Wait,
}

/// Where a read ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// What is open is waited for, and is ended by its time-out.
    ForOpen,
    /// Before the first open transaction.
    ForNobody,
}

impl Watch {
    /// Reads far enough back to know the edge's last checkpoint, if there is one.
    pub fn open(client: &Client, topic: &str, partition: i32, edge_id: &str) -> Result<Watch, SinkError> {
        Watch::open_to(client, topic, partition, edge_id, Wait::ForOpen)
    }

    fn open_to(client: &Client, topic: &str, partition: i32, edge_id: &str, wait: Wait) -> Result<Watch, SinkError> {
        let (ends, tail) = (client.reader("read_uncommitted")?, client.reader("read_committed")?);
        let (topic, edge_id) = (topic.to_owned(), edge_id.to_owned());
        let mut watch = Watch { topic, partition, edge_id, ends, tail, at: 0, last: None, wait };
        let (low, high) = watch.ends()?;
        let mut from = (high - LOOK_BACK).max(low);
        loop {
            watch.assign(from)?;
            watch.read_to(high)?;
            if watch.last.is_some() || from == low {
                return Ok(watch);
            }
            from = (high - (high - from).saturating_mul(10)).max(low);
        }
    }

    /// The edge's last committed checkpoint, as of now.
    pub fn last_checkpoint(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        let (_, high) = self.ends()?;
        // A topic that was made anew begins again.
        if high < self.at {
            self.last = None;
            self.assign(0)?;
        }
        self.read_to(high)?;
        Ok(self.last.clone())
    }

    fn ends(&self) -> Result<(i64, i64), SinkError> {
        let ends = self.ends.fetch_watermarks(&self.topic, self.partition, ANSWER_TIMEOUT);
        ends.map_err(|error| unreachable(&format!("asking where {}/{} ends", self.topic, self.partition), &error))
    }

    fn assign(&mut self, from: i64) -> Result<(), SinkError> {
        assign(&self.tail, &self.topic, self.partition, from)?;
        self.at = from;
        Ok(())
    }

    fn read_to(&mut self, end: i64) -> Result<(), SinkError> {
        let Watch { topic, partition, edge_id, tail, at, last, wait, .. } = self;
        let mut newest = None;
        read(tail, (topic, *partition), *at..end, *wait, &mut |key, bytes| {
            if key == edge_id.as_bytes() {
                newest = Some(bytes.to_vec());
            }
        })?;
        *at = end.max(*at);
        if let Some(bytes) = newest {
            *last = Some(decode_checkpoint(&bytes).map_err(|error| SinkError::Broken(error.to_string()))?);
        }
        Ok(())
    }
}

impl Client {
    /// The last committed checkpoint of an edge, once.
    pub fn last_checkpoint(&self, place: &Place, edge_id: &str) -> Result<Option<Checkpoint>, SinkError> {
        Watch::open(self, &place.topic_checkpoints, place.partition_checkpoints, edge_id)?.last_checkpoint()
    }

    /// A committed checkpoint of an edge: the last, or an older one while a transaction is open behind it.
    pub fn some_checkpoint(&self, place: &Place, edge_id: &str) -> Result<Option<Checkpoint>, SinkError> {
        let (topic, partition) = (&place.topic_checkpoints, place.partition_checkpoints);
        Ok(Watch::open_to(self, topic, partition, edge_id, Wait::ForNobody)?.last)
    }
}

/// Edges with a checkpoint in a partition.
pub fn edges(client: &Client, topic: &str, partition: i32) -> Result<BTreeSet<Vec<u8>>, SinkError> {
    let (ends, reader) = (client.reader("read_uncommitted")?, client.reader("read_committed")?);
    let ends = ends.fetch_watermarks(topic, partition, ANSWER_TIMEOUT);
    let (low, high) = ends.map_err(|error| unreachable(&format!("asking where {topic}/{partition} ends"), &error))?;
    let mut edges = BTreeSet::new();
    assign(&reader, topic, partition, low)?;
    read(&reader, (topic, partition), low..high, Wait::ForNobody, &mut |key, _| {
        edges.insert(key.to_vec());
    })?;
    Ok(edges)
}

fn assign(reader: &Reader, topic: &str, partition: i32, from: i64) -> Result<(), SinkError> {
    let mut list = TopicPartitionList::new();
    let added = list.add_partition_offset(topic, partition, Offset::Offset(from));
    let assigned = added.and_then(|()| reader.assign(&list));
    assigned.map_err(|error| unreachable(&format!("reading {topic}/{partition}"), &error))
}

/// Gives the committed records of `offsets`, and has waited for what was open in them.
fn read(
    reader: &Reader,
    (topic, partition): (&str, i32),
    offsets: std::ops::Range<i64>,
    wait: Wait,
    each: &mut dyn FnMut(&[u8], &[u8]),
) -> Result<(), SinkError> {
    let what = format!("reading {topic}/{partition}");
    let until = Instant::now() + READ_TIMEOUT;
    let mut at = offsets.start;
    while at < offsets.end {
        match reader.poll(POLL) {
            Some(Ok(message)) => {
                at = at.max(message.offset() + 1);
                each(message.key().unwrap_or_default(), message.payload().unwrap_or_default());
            }
            Some(Err(KafkaError::PartitionEOF(_))) if wait == Wait::ForNobody => return Ok(()),
            // At an end that may still move: whatever is open behind it ends, or is ended.
            None | Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => return Err(unreachable(&what, &error)),
        }
        let position = reader.position().map_err(|error| unreachable(&what, &error))?;
        // Markers, and what was aborted, move it without a message.
        if let Some(Offset::Offset(position)) = position.find_partition(topic, partition).map(|place| place.offset()) {
            at = at.max(position);
        }
        if at < offsets.end && Instant::now() >= until {
            return Err(SinkError::Unreachable(format!(
                "Kafka: {what}: stood at {at} for {READ_TIMEOUT:?}, its end is {}: a transaction in it stays open. If no edge of this \
                 topic runs that could have begun it, `kafka-transactions.sh find-hanging` and `abort` end it",
                offsets.end
            )));
        }
    }
    Ok(())
}
