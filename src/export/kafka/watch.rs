//! Drives. Reading committed checkpoints. A plain read_committed read ends where the first open transaction begins, and would not say
//! so: a partition is read up to where it ends for everybody.

use std::collections::BTreeSet;

use tollgate_wire::{Checkpoint, decode_checkpoint};

use super::client::Client;
use super::reader::{Reader, Wait};
use crate::export::SinkError;
use crate::export::mirror::Place;

/// A checkpoint is looked for in so many of the last records first.
const LOOK_BACK: i64 = 1_000;

/// Two connections that ask, and how far the checkpoints of an edge were followed over them.
pub struct Watch {
    /// Knows where a partition ends, whatever is open in it.
    pub all: Reader,
    committed: Reader,
    followed: Option<Followed>,
}

struct Followed {
    place: Place,
    edge_id: String,
    /// Offset up to which everything is read.
    at: i64,
    last: Option<Checkpoint>,
}

impl Watch {
    pub fn connect(client: &Client) -> Result<Watch, SinkError> {
        Ok(Watch { all: client.reads_all()?, committed: client.reads_committed()?, followed: None })
    }

    /// The edge's last committed checkpoint, as of now.
    pub fn last_checkpoint(&mut self, place: &Place, edge_id: &str) -> Result<Option<Checkpoint>, SinkError> {
        let (_, high) = self.all.ends(&place.topic_checkpoints, place.partition_checkpoints)?;
        let same = |followed: &Followed| &followed.place == place && followed.edge_id == edge_id && followed.at <= high;
        let Some(mut followed) = self.followed.take().filter(same) else {
            let (at, last) = self.look_back(place, edge_id, Wait::ForOpen)?;
            let followed = Followed { place: place.clone(), edge_id: edge_id.to_owned(), at, last };
            return Ok(self.followed.insert(followed).last.clone());
        };
        let (at, newer) = self.read(place, edge_id, followed.at..high, Wait::ForOpen)?;
        (followed.at, followed.last) = (at, newer.or(followed.last));
        Ok(self.followed.insert(followed).last.clone())
    }

    /// A committed checkpoint of an edge: the last, or, where nobody is waited for, an older one while a transaction is open behind it.
    pub fn checkpoint(&mut self, place: &Place, edge_id: &str, wait: Wait) -> Result<Option<Checkpoint>, SinkError> {
        match wait {
            Wait::ForOpen => self.last_checkpoint(place, edge_id),
            Wait::ForNobody => Ok(self.look_back(place, edge_id, wait)?.1),
        }
    }

    /// Reads far enough back to know the edge's last checkpoint, if there is one; and how far it read.
    pub fn look_back(&self, place: &Place, edge_id: &str, wait: Wait) -> Result<(i64, Option<Checkpoint>), SinkError> {
        let (low, high) = self.all.ends(&place.topic_checkpoints, place.partition_checkpoints)?;
        let mut from = (high - LOOK_BACK).max(low);
        loop {
            let (at, found) = self.read(place, edge_id, from..high, wait)?;
            if found.is_some() || from == low {
                return Ok((at, found));
            }
            from = (high - (high - from).saturating_mul(10)).max(low);
        }
    }

    fn read(
        &self,
        place: &Place,
        edge_id: &str,
        offsets: std::ops::Range<i64>,
        wait: Wait,
    ) -> Result<(i64, Option<Checkpoint>), SinkError> {
        let mut newest = None;
        let partition = (place.topic_checkpoints.as_str(), place.partition_checkpoints);
        let at = self.committed.read(partition, offsets, wait, &mut |key, bytes| {
            if key == edge_id.as_bytes() {
                newest = Some(bytes.to_vec());
            }
        })?;
        let decode = |bytes: Vec<u8>| decode_checkpoint(&bytes).map_err(|error| SinkError::Broken(error.to_string()));
        Ok((at, newest.map(decode).transpose()?))
    }

    /// Edges with a checkpoint in a partition.
    pub fn edges(&self, topic: &str, partition: i32) -> Result<BTreeSet<Vec<u8>>, SinkError> {
        let (low, high) = self.all.ends(topic, partition)?;
        let mut edges = BTreeSet::new();
        self.committed.read((topic, partition), low..high, Wait::ForNobody, &mut |key, _| {
            edges.insert(key.to_vec());
        })?;
        Ok(edges)
    }
}
